"""`[experiments.<name>]`: wrong definitions are refused by name, and arms change the config."""

import pytest

from handsell.config.overlay import apply_overlay, build_overlay
from handsell.core.errors import ConfigError

TWO = "[experiments.bolder.arms.control]\nshare = 0.5\n[experiments.bolder.arms.bold]\nshare = 0.5\n"
OTHER = "[experiments.other]\n{keys}\n" + TWO.replace("bolder", "other")
REFUSED = {
    "unknown dial": (
        TWO + "reranking = { diversty = 0.2 }",
        r"bolder\.arms\.bold\.reranking: expected dials .*got 'diversty' \(did you mean diversity\?\)",
    ),
    "dial out of range": (TWO + "reranking = { diversity = 2 }", r"bolder\.arms\.bold\.reranking\.diversity: .*1.*2"),
    "nested dial": (
        TWO + "reranking = { exploration = { shar = 0.1 } }", r"bolder\.arms\.bold\.reranking\.exploration\.shar"
    ),
    "rules as a dial": (TWO + 'reranking = { rules = "x" }', r"bolder\.arms\.bold\.reranking: .*got 'rules'"),
    "unknown source": (TWO + "weights = { itemknn = 2.0 }", r"bolder\.arms\.bold\.weights: .*did you mean item_knn"),
    "source that is off": (TWO + "weights = { ease = 2.0 }", r"bolder\.arms\.bold\.weights: expected enabled sources"),
    "negative weight": (TWO + "weights = { als = -1.0 }", r"experiments\.bolder\.arms\.bold\.weights\.als"),
    "unknown setting of a surface": (TWO + "surface = { cuont = 3 }", r"bolder\.arms\.bold\.surface: .*count"),
    "wrong setting of a surface": (TWO + "surface = { count = 99 }", r"bolder\.arms\.bold\.surface\.count"),
    "unknown key of an arm": (TWO + "weight = 1", r"experiments\.bolder\.arms\.bold\.weight"),
    "unknown surface": ('[experiments.bolder]\nsurfaces = ["hom"]\n' + TWO, r"bolder\.surfaces: .*did you mean home"),
    "unknown metric": ('[experiments.bolder]\nmetric = "lik"\n' + TWO, r"bolder\.metric: .*got 'lik'"),
    "share above 1": (TWO.replace("0.5", "1.5"), r"experiments\.bolder\.arms\.control\.share: .*1"),
    "shares beyond 1": (TWO.replace("0.5", "0.6"), r"experiments\.bolder: .*add up to 1; got 1\.2"),
    "shares below 1": (TWO.replace("0.5", "0.4"), r"experiments\.bolder: .*add up to 1; got 0\.8"),
    "one arm": ("[experiments.bolder.arms.control]\nshare = 1.0", r"experiments\.bolder: .*2 to 16 arms; got 1"),
    "start after stop": (
        "[experiments.bolder]\nstart = 2026-12-15\nstop = 2026-12-01\n" + TWO,
        r"bolder: .*start: expected a time before",
    ),
    "reserved experiment": (TWO.replace("bolder", "canary"), r"experiments\.canary: 'canary' is reserved"),
    "reserved arm": (TWO.replace(".bold]", ".interleaved]"), r"'interleaved' is reserved"),
    "layer beyond 1": (
        "[experiments.bolder]\nshare = 0.7\n" + TWO + OTHER.format(keys="share = 0.5"),
        r"other\.share: expected shares of layer 'main' that add up to at most 1; got 1\.2 \(bolder 0\.7, other 0\.5\)",
    ),
    "units of a layer": (
        "[experiments.bolder]\nshare = 0.5\n" + TWO + OTHER.format(keys='share = 0.5\nunit = "session"'),
        r"other\.unit: expected 'user' as for bolder",
    ),
    "same dial in two layers": (
        TWO + "reranking = { diversity = 0.2 }\n" + OTHER.format(keys='layer = "b"') + "reranking = { diversity = 0 }",
        r"other: expected other settings than bolder.*reranking\.diversity",
    ),
    "dial on rank": (
        '[experiments.bolder]\nsurfaces = ["home", "rank"]\n' + TWO + "reranking = { diversity = 0.2 }",
        r"bolder\.arms\.bold\.reranking\.diversity: .*\(home, rank\); it has no effect on `rank`, where only `bundle`",
    ),
    "surface on rank": (
        '[experiments.bolder]\nsurfaces = ["rank"]\n' + TWO + "surface = { count = 5 }",
        r"bolder\.arms\.bold\.surface\.count: .* no effect on `rank`",
    ),
    "rules on rank": (
        '[experiments.bolder]\nsurfaces = ["rank"]\n' + TWO + 'rules = "none"',
        r"arms\.bold\.rules: .* effect on `rank`",
    ),
    "interleaving on rank": (
        '[experiments.bolder]\nsurfaces = ["rank"]\ninterleave = ["control", "bold"]\n' + TWO,
        r"bolder\.interleave: expected no interleaving on `rank`",
    ),
    "fatigue of similar items": (
        '[surfaces.home]\n[surfaces.similar]\n[experiments.bolder]\nsurfaces = ["similar"]\n' + TWO
        + "reranking = { fatigue = { weight = 0.1 } }",
        r"bolder\.arms\.bold\.reranking\.fatigue: .* no effect on `similar`, which knows of no user",
    ),
    "caps of similar items": (
        '[surfaces.home]\n[surfaces.similar]\n[experiments.bolder]\nsurfaces = ["similar"]\n' + TWO
        + 'surface = { seen_on = ["home"] }',
        r"bolder\.arms\.bold\.surface\.seen_on: .* no effect on `similar`",
    ),
    "interleaved arm": ('[experiments.bolder]\ninterleave = ["control", "bald"]\n' + TWO, r"interleave: .*'bald'"),
    "former shares of one arm": (
        TWO + "former = [{ until = 2026-12-05, share = 0.25 }]", r"former shares .* 1 until 2026-12-05.*; got 0\.75"
    ),
    "former shares in disorder": (
        TWO + "former = [{ until = 2026-12-05, share = 0.5 }, { until = 2026-12-04, share = 0.5 }]", r"times in order"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_definition_is_refused_by_name(configured, name):
    text, message = REFUSED[name]
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        configured(f'name = "shop"\n{text}\n')


def test_experiments_that_follow_each_other_share_a_layer(configured):
    """Shares are added up over those that run at the same time."""
    text = "[experiments.bolder]\nstop = 2026-12-01\n" + TWO + OTHER.format(keys="start = {}")
    configured('name = "shop"\n' + text.format("2026-12-01"))
    with pytest.raises(ConfigError, match=r"other\.share: .*got 2 \(bolder 1, other 1\)"):
        configured('name = "shop"\n' + text.format("2026-11-30"))


def test_experiments_of_other_times_or_surfaces_may_change_the_same_setting(configured):
    times = "[experiments.bolder]\nstop = 2026-12-01\n" + TWO + "reranking = { diversity = 0.2 }\n"
    later = OTHER.format(keys='layer = "b"\nstart = 2026-12-01') + "reranking = { diversity = 0.0 }"
    config = configured(f'name = "shop"\n{times}{later}\n')
    assert config.experiments["bolder"].runs_at(0) and not config.experiments["other"].runs_at(0)


def test_an_arm_changes_dials_weights_rules_and_surfaces(configured):
    text = (
        '[experiments.bolder]\nsurfaces = ["home"]\n' + TWO + 'rules = "bold.toml"\nweights = { als = 2.5 }\n'
        "reranking = { diversity = 0.2, exploration = { share = 0.1 } }\nsurface = { count = 20 }\n"
    )
    config = configured(f'name = "shop"\n{text}')
    experiment = config.experiments["bolder"]
    assert build_overlay(config, [(experiment, experiment.arms["control"])]) == ""
    changed = apply_overlay(config, build_overlay(config, [(experiment, experiment.arms["bold"])]))
    assert changed.reranking.diversity == 0.2 and changed.reranking.exploration.share == 0.1
    assert changed.reranking.exploration.positions == config.reranking.exploration.positions
    assert changed.reranking.calibration == config.reranking.calibration and changed.reranking.rules == "bold.toml"
    assert changed.retrieval["als"].weight == 2.5
    assert changed.retrieval["item_knn"] == config.retrieval["item_knn"]
    assert changed.surfaces["home"].count == 20 and changed.surfaces["similar"] == config.surfaces["similar"]
    assert changed.source == config.source and apply_overlay(config, "") is config


def test_an_arm_may_go_without_rules(configured):
    text = '[reranking]\nrules = "rules.toml"\n' + TWO + 'rules = "none"\n'
    config = configured(f'name = "shop"\n{text}')
    experiment = config.experiments["bolder"]
    changed = apply_overlay(config, build_overlay(config, [(experiment, experiment.arms["bold"])]))
    assert config.rules_path is not None and changed.rules_path is None
