"""Each alert fires when it should and is silent when it should be, as `promtool test rules` evaluates it."""

import json
import shutil
import subprocess
from dataclasses import dataclass

import pytest
import yaml
from deployments.monitoring.__main__ import FOLDER

from server_programs import report_missing

API, LIST = 'route="/v1/rank"', 'route="/v1/users/{user_id}/recommendations"'
GROUPS = ["handsell-objectives", "handsell-budgets", "handsell-alerts"]
HEALTHY = {"handsell_bundle_info": "1x{n}"}


@dataclass(frozen=True)
class Case:
    """Samples by series, as promtool writes them, `{n}` times; and the minutes after which the alert is looked at."""

    fires: dict[str, str]
    silent: dict[str, str]
    minutes: int = 60


def requests(good: int, bad: int) -> dict[str, str]:
    return {
        f'handsell_requests_total{{{API},status="200"}}': f"0+{good}x{{n}}",
        f'handsell_requests_total{{{API},status="503"}}': f"0+{bad}x{{n}}",
        'handsell_requests_total{route="/readyz",status="503"}': "0+500x{n}",  # not an answer of the API
    }


def lists(late: int) -> dict[str, str]:
    return {
        f'handsell_request_seconds_bucket{{{LIST},le="0.32"}}': f"0+{1000 - late}x{{n}}",
        f"handsell_request_seconds_count{{{LIST}}}": "0+1000x{n}",
        'handsell_request_seconds_count{route="/v1/events"}': "0+9000x{n}",  # no list
    }


def slates(degraded: int = 0, short: int = 0) -> dict[str, str]:
    return {
        "handsell_slates_total": "0+1000x{n}",
        "handsell_degraded_slates_total": f"0+{degraded}x{{n}}",
        "handsell_short_slates_total": f"0+{short}x{{n}}",
    }


def gauge(name: str, value: object) -> dict[str, str]:
    return {name: f"{value}x{{n}}"}


def lag(seconds: int, reader: str = "processor") -> dict[str, str]:
    return gauge(f'handsell_lag_seconds{{reader="{reader}"}}', seconds)


def status(of_ranking: int) -> dict[str, str]:
    name = "ray_serve_deployment_status{deployment="
    return {f'{name}"Ranking"}}': f"{of_ranking}x{{n}}", f'{name}"Gateway"}}': "6x{n}"}


def appends(within_a_second: int) -> dict[str, str]:
    name = 'handsell_append_seconds_bucket{table="events",le='
    return {
        f'{name}"0.64"}}': f"0+{within_a_second}x{{n}}",
        f'{name}"1.3"}}': "0+1000x{n}",
        f'{name}"+Inf"}}': "0+1000x{n}",
    }


def events(rejected: int) -> dict[str, str]:
    name = "handsell_events_total{outcome="
    return {f'{name}"accepted"}}': f"0+{100 - rejected}x{{n}}", f'{name}"rejected"}}': f"0+{rejected}x{{n}}"}


DAYS = 3 * 24 * 60 + 60
CASES = {
    # 2 % of errors use up the budget of 0.1 % twenty times too fast; 0.2 % twice too fast, which pages nobody
    "HandsellAvailabilityFast": Case(requests(980, 20), requests(998, 2), 90),
    "HandsellAvailabilitySlow": Case(requests(998, 2), requests(9995, 5), DAYS),
    "HandsellLatencyFast": Case(lists(200), lists(20), 90),
    "HandsellLatencySlow": Case(lists(20), lists(5), DAYS),
    "HandsellDegradedFast": Case(slates(degraded=200), slates(degraded=20), 90),
    "HandsellDegradedSlow": Case(slates(degraded=20), slates(degraded=5), DAYS),
    "HandsellFreshnessFast": Case(lag(90), lag(30), 90),
    "HandsellFreshnessSlow": Case(lag(90), lag(30), DAYS),
    "HandsellDown": Case({"handsell_bundle_info": "_x{n}"}, {}, 10),
    "HandsellReplicasMissing": Case(status(4), status(6), 20),
    "HandsellProcessorBehind": Case(lag(400), lag(200), 10),
    "HandsellCompactionBehind": Case(lag(200_000, "compaction"), lag(100_000, "compaction"), 90),
    "HandsellAppendsSlow": Case(appends(900), appends(999), 30),
    "HandsellEventsRejected": Case(events(20), events(5), 60),
    "HandsellImpressionsLost": Case(
        {"handsell_impressions_lost_total": "0x5 1x{n}"}, gauge("handsell_impressions_lost_total", 7), 15
    ),
    "HandsellDiskFull": Case(gauge("handsell_disk_free_bytes", 1.9e9), gauge("handsell_disk_free_bytes", 2.1e9), 10),
    "HandsellNotMeasured": Case(
        gauge("handsell_state_age_seconds", 1900), gauge("handsell_state_age_seconds", 1700), 5
    ),
    "HandsellCatalogStale": Case(
        gauge("handsell_catalog_changes_age_seconds", 90), gauge("handsell_catalog_changes_age_seconds", 3), 10
    ),
    "HandsellBundleRefused": Case(
        gauge('handsell_bundle_refused{bundle="b2"}', 1), gauge('handsell_bundle_info{bundle="b2"}', 1), 20
    ),
    "HandsellBundleOld": Case(
        gauge("handsell_bundle_age_seconds", 260_000), gauge("handsell_bundle_age_seconds", 250_000), 90
    ),
    "HandsellRulesRefused": Case(
        gauge('handsell_rules_refused{version="v2"}', 1), gauge('handsell_rules_info{version="v2"}', 1), 10
    ),
    "HandsellSlatesShort": Case(slates(short=80), slates(short=30), 90),
    "HandsellArmStopped": Case(
        gauge('handsell_experiment_stopped{experiment="e",arm="a"}', 1), gauge('handsell_canary{bundle="b"}', 1), 5
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def rules() -> dict[str, dict]:
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def run_promtool(*arguments: object) -> subprocess.CompletedProcess:
    if (promtool := shutil.which("promtool")) is None:
        report_missing("no promtool: apt-get install prometheus")
    return subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True)


def build_test(chosen: dict[str, Case], minutes: int, step: int, fires: bool) -> dict:
    """A test that counts firing alerts of each case, whose series have its name as their job, at the case's time."""
    written = {name: HEALTHY | (case.fires if fires else case.silent) for name, case in chosen.items()}
    return {
        "interval": f"{step}m",
        "input_series": [
            {"series": add_job(one, name), "values": values.format(n=minutes // step)}
            for name, series in written.items()
            for one, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing",job=~"{name}|"}}) or vector(0)',
                "eval_time": f"{case.minutes}m",
                "exp_samples": [{"labels": "{}", "value": int(fires)}],
            }
            for name, case in chosen.items()
        ],
    }


def add_job(series: str, job: str) -> str:
    name, _, labels = series.partition("{")
    return f'{name}{{job="{job}",{labels.removesuffix("}")}}}'


def test_the_rules_are_valid():
    done = run_promtool("check", "rules", FOLDER / "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case(rules):
    assert set(CASES) == set(rules)


@pytest.mark.parametrize("fires", [True, False], ids=["fires", "silent"])
def test_alerts_fire_and_are_silent(tmp_path, fires):
    down = {"HandsellDown": CASES["HandsellDown"]}  # one gateway that answers would silence it
    soon = {name: case for name, case in CASES.items() if case.minutes < DAYS and name not in down}
    late = {name: case for name, case in CASES.items() if case.minutes == DAYS}
    plans = ((down, 10, 2), (soon, 90, 2), (late, DAYS, 30))
    for chosen, minutes, step in plans:
        path = tmp_path / f"{step}-{minutes}.json"
        document = {
            "rule_files": [str(FOLDER / "rules.yaml")],
            "group_eval_order": GROUPS,
            "evaluation_interval": f"{step}m",
            "tests": [build_test(chosen, minutes, step, fires)],
        }
        path.write_text(json.dumps(document))
        done = run_promtool("test", "rules", path)
        assert done.returncode == 0, done.stdout + done.stderr
