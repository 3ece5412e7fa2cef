"""`handsell bundles promote --canary`: start, change and end a canary, and what the commands say."""

import pytest
from typer.testing import CliRunner

from handsell.bundles.store import BundleStore, Pointer
from handsell.cli.app import app
from handsell.core.errors import BundleError
from handsell.core.paths import Layout
from handsell.experiments.canary import CanaryTerms, parse_duration, parse_share, start_canary
from handsell.experiments.state import STATE, StateFile
from handsell.maintenance.files import remove_old_bundles
from handsell.serving.guard_rails.config import CanaryConfig
from serving_world import publish_other_bundle, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"), port=18_913)


@pytest.fixture(scope="module")
def other(world):
    return publish_other_bundle(world, seed=41)


@pytest.fixture
def store(world):
    found = BundleStore(Layout(world.config.state).bundles)
    yield found
    found.write_pointer(Pointer(world.bundle))
    (Layout(world.config.state).bundles / STATE).unlink(missing_ok=True)


@pytest.fixture
def states(world, store):
    return StateFile(Layout(world.config.state).bundles)


def run(world, *args):
    return CliRunner().invoke(app, ["bundles", args[0], str(world.config.source), *args[1:]])


def test_a_canary_starts_with_the_configured_terms_and_the_live_bundle_stays(world, other, store, states):
    done = run(world, "promote", other, "--canary", "5%")
    assert done.exit_code == 0 and f"canary {other}: 5 % of users" in done.output
    canary = states.read().running_canary
    assert (canary.bundle, canary.live, canary.share) == (other, world.bundle, 0.05)
    assert (canary.duration_s, canary.min_slates, canary.margin) == (7_200, 1_000, 0.2)
    assert store.live() == world.bundle
    listed = run(world, "list").output
    assert "canary" in listed and "live" in listed and "5 % of users" in listed


def test_terms_are_given_on_the_command_line(world, other, states):
    args = ("--canary", "0.1", "--for", "30min", "--min-slates", "7", "--max-click-loss", "0.5")
    assert run(world, "promote", other, *args).exit_code == 0
    canary = states.read().running_canary
    assert (canary.share, canary.duration_s, canary.min_slates, canary.margin) == (0.1, 1_800, 7, 0.5)


def test_a_larger_share_keeps_the_canary_and_its_progress(world, other, store, states):
    settings = CanaryConfig()
    first = start_canary(store, states, other, 0.05, settings, CanaryTerms())
    second = start_canary(store, states, other, 0.2, settings, CanaryTerms(duration_s=1))
    assert second == first.model_copy(update={"share": 0.2})


@pytest.mark.parametrize("how", ["0%", "rollback", "promote", "promote another"])
def test_a_canary_ends_by_hand(world, other, store, states, how):
    run(world, "promote", other, "--canary", "5%")
    if how == "0%":
        done = run(world, "promote", other, "--canary", "0%")
    elif how == "rollback":
        done = run(world, "rollback")
    else:
        third = publish_other_bundle(world, seed=42)
        done = run(world, "promote", other if how == "promote" else third)
    assert done.exit_code == 0, done.output
    canary = states.read().canary
    expected = {"promote": ("promoted", "by hand"), "promote another": ("rolled_back", f"{store.live()} was promoted")}
    assert (canary.state, canary.reason) == expected.get(how, ("rolled_back", "by hand"))
    assert (store.live() == world.bundle) == (how in ("0%", "rollback"))


@pytest.mark.parametrize(
    ("share", "duration", "message"),
    [
        ("60%", "2h", "--canary: expected a share of users up to 50%, such as 5%; got '60%'"),
        ("five", "2h", "--canary: expected a share"),
        ("-1%", "2h", "--canary: expected a share"),
        ("5%", "soon", "--for: expected a duration such as 2h, 30min or 90s; got 'soon'"),
        ("5%", "2 weeks", "--for: expected a duration"),
    ],
)
def test_wrong_values_are_named(world, other, states, share, duration, message):
    done = run(world, "promote", other, "--canary", share, "--for", duration)
    assert done.exit_code == 1 and message in str(done.exception)
    assert states.read().canary is None


def test_a_canary_that_makes_no_sense_is_refused(world, other, store, states):
    def start(bundle, share=0.05):
        return start_canary(store, states, bundle, share, CanaryConfig(), CanaryTerms())

    with pytest.raises(BundleError, match="is the live bundle"):
        start(world.bundle)
    with pytest.raises(BundleError, match="is not in"):
        start("no-such-bundle")
    third = publish_other_bundle(world, seed=43)
    path = store.local_path(third) / "ranker" / "ranker.ubj"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BundleError, match=r"ranker\.ubj"):
        start(third)
    assert states.read().canary is None
    start(other)
    with pytest.raises(BundleError, match=f"{other} is running: end it first"):
        start(publish_other_bundle(world, seed=44))
    done = run(world, "promote", third, "--canary", "0%")
    assert done.exit_code == 1 and "is not running as a canary" in str(done.exception)


def test_shares_and_durations_are_read():
    assert [parse_share(text) for text in ("5%", " 0.05 ", "50 %", "0%", "0")] == [0.05, 0.05, 0.5, 0, 0]
    assert [parse_duration(text) for text in ("2h", "30 min", "90s", "1.5h", "1d")] == [7_200, 1_800, 90, 5_400, 86_400]


def test_retention_keeps_the_bundle_of_a_running_canary(world, other, store, states):
    start_canary(store, states, other, 0.05, CanaryConfig(), CanaryTerms())
    for seed in range(51, 55):
        publish_other_bundle(world, seed=seed)
    assert other not in remove_old_bundles(world.config) and other in store.list()
    states.end_canary("rolled_back", "errors")
    assert other in remove_old_bundles(world.config)
