"""`handsell plan`: arithmetic by hand, limits, bad values in words, and an overlay that kustomize builds."""

import pytest
import tomli_w
import yaml
from typer.testing import CliRunner

from handsell.capacity.calibration import STAGES, CapacityCalibration, read_calibration
from handsell.capacity.overlay import write_overlay
from handsell.capacity.plan import LEAST_REPLICAS, Wanted, choose_load, estimate_load, make_plan
from handsell.cli.app import app
from handsell.core.errors import ConfigError
from kuberay_manifests import FOLDER as BASE
from kuberay_manifests import build_text


def build_load(qps: float, p99_ms: float, gateway: float = 2.0) -> dict:
    cpu_ms = {"gateway": gateway, "candidates": 4.0, "ranking": 5.0, "reranking": 1.0}
    return {"qps": qps, "p50_ms": p99_ms / 2, "p99_ms": p99_ms, "cpu_ms": cpu_ms, "other_cpu_ms": 3.0}


def build_calibration() -> dict:
    return {
        "measured": "2026-01-01", "machine": "by hand", "cores": 2,
        "catalog": {"items": 10_000, "users": 1_000, "bundle_mib": 10.0, "candidates_ms_per_decade": 1.5},
        "loads": [build_load(20, 40), build_load(60, 80), build_load(100, 200)],
        "memory": {
            "private_mib": dict.fromkeys(STAGES, 400.0), "mapped_mib": dict.fromkeys(STAGES, 10.0), "node_mib": 600.0
        },
        "stores": {
            "event_bytes": 100, "slate_bytes": 600, "compacted_event_bytes": 40, "compacted_slate_bytes": 50,
            "online_user_bytes": 10_000, "event_cpu_ms": 0.5,
        },
    }  # fmt: skip


@pytest.fixture
def known() -> CapacityCalibration:
    return CapacityCalibration.model_validate(build_calibration())


def test_replicas_are_load_times_cost_over_the_planned_use_of_a_core(known):
    plan = make_plan(Wanted(1_000, 1_000, 10_000, p99_ms=80, events_per_day=0), known)
    # at 60 requests/s: 15 ms x 60 / 2 cores = 45 % busy; ranking 1000 x 5 ms / 0.45 = 11.1
    assert {stage: plan.stages[stage].replicas for stage in STAGES} == {
        "gateway": 5, "candidates": 9, "ranking": 12, "reranking": 3,
    }  # fmt: skip
    assert plan.stages["ranking"].most == 18
    assert plan.stages["ranking"].memory_gib == 1.5  # (600 + 400 + 10) x 1.5 MiB
    # gateway pods also hold 1000 x 3 ms of proxies and Ray: 3 cores in 5 pods, at 80 %
    assert plan.stages["gateway"].cpus == 2.0 and plan.stages["ranking"].cpus == 1.5


def test_a_faster_answer_needs_more_replicas(known):
    slow, fast = (make_plan(Wanted(1_000, 1_000, 10_000, p99_ms), known) for p99_ms in (150, 60))
    assert all(fast.stages[stage].replicas >= slow.stages[stage].replicas for stage in STAGES)
    assert fast.cpus > slow.cpus


def test_between_two_loads_the_plan_interpolates(known):
    assert choose_load(60, known).qps == pytest.approx(40)
    assert choose_load(1_000, known).qps == 100
    assert estimate_load(40, known).p99_ms == pytest.approx(60)
    with pytest.raises(ConfigError, match=r"qps 500: expected a rate between the measured 20\.0 and 100\.0"):
        estimate_load(500, known)


def test_a_larger_catalog_costs_candidates_alone_and_memory(known):
    small, large = (make_plan(Wanted(1_000, 1_000, items, 80), known) for items in (10_000, 1_000_000))
    # 4 + 1.5 x 2 decades
    assert large.stages["candidates"].replicas == 16
    assert large.stages["ranking"].replicas == small.stages["ranking"].replicas
    assert large.stages["ranking"].memory_gib > small.stages["ranking"].memory_gib
    assert any("extrapolated" in line for line in large.lines)
    assert not any("extrapolated" in line for line in small.lines)


def test_stores_are_rows_times_days_times_bytes(known):
    plan = make_plan(Wanted(10, 2_000_000, 20_000, 80, events_per_day=1e6), known)
    assert plan.stores_gb["event store"] == pytest.approx(
        (1e6 * (2 * 100 + 30 * 60) + 10 * 86_400 * 7 * 600) / 1e9
    )  # fmt: skip
    assert plan.stores_gb["compacted files, a year"] == pytest.approx(365 * (1e6 * 40 + 864_000 * 50) / 1e9)
    assert plan.stores_gb["online store"] == pytest.approx(20)
    assert plan.stores_gb["bundles"] == pytest.approx(5 * 20 * 2**20 / 1e9)


def test_every_stage_may_lose_a_replica(known):
    plan = make_plan(Wanted(1, 10, 10_000, 80), known)
    assert {stage.replicas for stage in plan.stages.values()} == {LEAST_REPLICAS}


@pytest.mark.parametrize(
    "name, value", [("qps", 0), ("qps", float("nan")), ("users", -1), ("items", 0), ("p99_ms", float("inf"))]
)
def test_bad_values_are_refused_in_words(name, value):
    given = {"qps": 10, "users": 10, "items": 10, "p99_ms": 100} | {name: value}
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}: expected a number above 0, got"):
        Wanted(**given)


def test_a_slow_moment_at_a_low_rate_does_not_hide_the_higher_ones(known):
    """In one calibration, p99 was 152 ms at the lowest rate and 72 at the next."""
    first, *others = known.loads
    noisy = known.model_copy(update={"loads": (first.model_copy(update={"p99_ms": 150.0}), *others)})
    for p99_ms in (80, 100, 250):
        assert choose_load(p99_ms, noisy).qps == choose_load(p99_ms, known).qps
    assert choose_load(80, noisy).qps == 60


def test_a_latency_that_was_never_measured_is_refused(known):
    with pytest.raises(ConfigError, match=r"--p99-ms 10: the lowest measured p99 is 40 ms, at 20\.0 requests/s"):
        make_plan(Wanted(10, 10, 10_000, 10), known)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda raw: raw["loads"][0].update(qps=-1), r"loads\.0\.qps: Input should be greater than 0"),
        (lambda raw: raw["loads"][0]["cpu_ms"].pop("ranking"), r"missing: ranking"),
        (lambda raw: raw["loads"].reverse(), r"ascending order of qps, got \[100"),
        (lambda raw: raw.update(core=2), r"core: Extra inputs are not permitted"),
        (lambda raw: raw.pop("stores"), r"stores: Field required"),
    ],
)
def test_a_damaged_calibration_is_refused_with_its_key(tmp_path, change, said):
    raw, path = build_calibration(), tmp_path / "calibration.toml"
    change(raw)
    path.write_text(tomli_w.dumps(raw))
    with pytest.raises(ConfigError, match=f"calibration.toml: .*{said}.*python -m benchmarks capacity"):
        read_calibration(path)


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no calibration file"):
        read_calibration(tmp_path / "none.toml")
    (tmp_path / "no.toml").write_text("= 1")
    with pytest.raises(ConfigError, match="is not TOML"):
        read_calibration(tmp_path / "no.toml")


def test_the_overlay_has_the_planned_sizes(known, tmp_path):
    plan = make_plan(Wanted(1_000, 1_000, 1_000_000, 80), known)
    path = write_overlay(plan, BASE, tmp_path / "planned")
    assert write_overlay(plan, BASE, tmp_path / "planned") == path  # again
    built = build_text(path.parent)
    (service,) = (found for found in yaml.safe_load_all(built) if found["kind"] == "RayService")
    groups = {group["groupName"]: group for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    serve = yaml.safe_load(service["spec"]["serveConfigV2"])
    deployments = {one["name"]: one for one in serve["applications"][0]["deployments"]}
    for stage, planned in plan.stages.items():
        bounds = deployments[stage.capitalize()]["autoscaling_config"]
        assert (bounds["min_replicas"], bounds["max_replicas"]) == (planned.replicas, planned.most)
        assert (groups[stage]["minReplicas"], groups[stage]["maxReplicas"]) == (planned.replicas, planned.most)
        requests = groups[stage]["template"]["spec"]["containers"][0]["resources"]["requests"]
        assert requests == {"cpu": f"{planned.cpus * 1000:.0f}m", "memory": f"{planned.memory_gib * 1024:.0f}Mi"}


def test_the_overlay_replaces_no_file_of_others(known, tmp_path):
    plan = make_plan(Wanted(10, 10, 10_000, 80), known)
    (tmp_path / "kustomization.yaml").write_text("resources: []\n")
    with pytest.raises(ConfigError, match=r"kustomization\.yaml is there and was not written by `handsell plan`"):
        write_overlay(plan, BASE, tmp_path)
    with pytest.raises(ConfigError, match="expected the folder deployments/kuberay/base"):
        write_overlay(plan, tmp_path / "nowhere", tmp_path / "new")


def test_the_command_shows_its_arithmetic(tmp_path):
    path = tmp_path / "calibration.toml"
    path.write_text(tomli_w.dumps(build_calibration()))
    asked = ["plan", "--qps", "300", "--users", "1000000", "--items", "100000", "--p99-ms", "80"]
    done = CliRunner().invoke(
        app, [*asked, "--calibration", str(path), "--out", str(tmp_path / "o"), "--base", str(BASE)]
    )
    assert done.exit_code == 0, done.output
    assert "candidates: 300/s x 5.50 ms = 1.65 cores / 45% -> 4 replicas (at least 2), up to 6" in done.output
    assert "online store: 1,000,000 users x 10000 B = 10.00 GB" in done.output
    assert f"overlay: {tmp_path / 'o' / 'kustomization.yaml'}" in done.output
