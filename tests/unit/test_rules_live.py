"""Rules are reloaded from their file, kept if a new one is invalid, and paced by the impressions of all replicas."""

import gc
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from handsell.config import load_config
from handsell.core.errors import ConfigError
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.eligibility.mask import Eligibility
from handsell.events.store.sqlite_reader import SqliteReader
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.reranking.rules.counts import ImpressionCounts, ShownSlates
from handsell.reranking.rules.live_rules import WatchedRules, watch_rules
from handsell.reranking.rules.pacing import Pacing, SharedCounts
from handsell.reranking.rules.shared_counts import SharedCountReader
from handsell.reranking.stage import LocalReranking
from handsell.testing.rule_catalog import compile_rules, draw_rule_catalog, write_rule
from handsell.testing.small_catalog import NOW, draw_candidates, draw_requests

MIDNIGHT = NOW // DAY_US * DAY_US
OUT = write_rule("out", "exclude", items="item.year == 2007")
NEW = write_rule("new", "quota", items="item.year == 2019", share=0.1)
TOML = 'name = "shop"\n[reranking]\nrules = "rules/shop.toml"\n[surfaces.home]\nrepeat = "allow"\n[surfaces.email]\n'


@pytest.fixture
def shelf(rng):
    return draw_rule_catalog(rng)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "shop.toml").write_text(TOML)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "shop.toml").write_text(OUT)
    return load_config(tmp_path / "shop.toml")


@pytest.fixture
def rules(config, shelf):
    return WatchedRules(config.rules_path, shelf, eligibility(shelf, config), config)


def eligibility(shelf, config):
    return Eligibility(shelf, tuple(config.surfaces.values()))


def deduplicate_and_sort(rules):
    """A change takes effect after two checks."""
    rules.reload_if_changed()
    rules.reload_if_changed()


def names(rules):
    return [r.name for r in rules.current.ruleset.rules.rules]


# -- reloading ----------------------------------------------------------------------------------------------------


def test_a_changed_file_is_reloaded_unless_it_is_invalid(rules, config, caplog):
    caplog.set_level("INFO", logger="handsell")
    path, first = config.rules_path, rules.current
    deduplicate_and_sort(rules)
    assert rules.current is first and rules.refused == ""
    path.write_text(OUT + write_rule("typo", "exclude", items="item.yeer > 3"))
    deduplicate_and_sort(rules)
    rules.reload_if_changed()  # again, and told no more
    assert rules.current is first and rules.refused
    told = [r for r in caplog.records if "are refused" in r.getMessage()]
    assert len(told) == 1 and "rule 'typo': items: column 1" in told[0].getMessage()
    path.write_text(OUT + NEW)
    deduplicate_and_sort(rules)
    assert names(rules) == ["out", "new"] and rules.refused == ""
    path.unlink()
    deduplicate_and_sort(rules)
    assert names(rules) == ["out", "new"] and rules.refused == "unreadable"
    path.write_text(OUT + NEW)
    deduplicate_and_sort(rules)
    assert rules.refused == ""


def test_slates_that_nobody_sees_follow_the_file_and_do_not_count(rules, config, shelf, rng):
    stage = LocalReranking(shelf, eligibility(shelf, config), config, rules=rules)
    ask, found = draw_requests(rng, shelf, 2), draw_candidates(rng, shelf, 2)
    assert run_local(stage.without_counting.rerank(ask, found, 10)).rules.version == rules.current.ruleset.version
    config.rules_path.write_text(NEW)
    deduplicate_and_sort(rules)
    unseen = run_local(stage.without_counting.rerank(ask, found, 10))
    assert unseen.rules.version == rules.current.ruleset.version and names(rules) == ["new"]
    assert not rules.current.pacing._recent
    run_local(stage.rerank(ask, found, 10))
    assert len(rules.current.pacing._recent) == 1


def test_a_file_that_is_being_written_is_not_loaded(rules, config):
    path, first = config.rules_path, rules.current
    for halfway in ("", OUT[:3]):
        path.write_text(halfway)
        rules.reload_if_changed()
        assert rules.current is first and rules.refused == ""
    path.write_text(OUT + NEW)
    rules.reload_if_changed()
    assert rules.current is first
    rules.reload_if_changed()
    assert names(rules) == ["out", "new"]
    path.write_text("")
    deduplicate_and_sort(rules)
    assert names(rules) == []


def test_slates_name_the_version_and_the_refused_one(rules, config, shelf, rng):
    stage = LocalReranking(shelf, eligibility(shelf, config), config, rules=rules)
    ask, found = draw_requests(rng, shelf, 2), draw_candidates(rng, shelf, 2)
    before = run_local(stage.rerank(ask, found, 10))
    config.rules_path.write_text("rule = 7")
    deduplicate_and_sort(rules)
    refused = run_local(stage.rerank(ask, found, 10))
    assert refused.rules.version == before.rules.version and refused.rules.refused == rules.refused != ""
    assert refused.item.tolist() == before.item.tolist()
    config.rules_path.write_text(NEW)
    deduplicate_and_sort(rules)
    after = run_local(stage.rerank(ask, found, 10))
    assert after.rules.version not in (before.rules.version, refused.rules.refused) and after.rules.refused == ""
    assert dict(after.rules.shares).keys() == {"new"}


def test_invalid_rules_at_the_start_are_an_error(config, shelf):
    config.rules_path.write_text("rule = 7")
    with pytest.raises(ConfigError, match="rule: "):
        watch_rules(shelf, eligibility(shelf, config), config)
    none = config.model_copy(update={"reranking": config.reranking.model_copy(update={"rules": None})})
    none._source = config.source
    assert watch_rules(shelf, eligibility(shelf, config), none) is None


def test_the_thread_reloads_and_ends_with_its_object(config, shelf):
    quick = config.model_copy(update={"serving": config.serving.model_copy(update={"bundle_check_s": 0.01})})
    quick._source = config.source
    before = threading.active_count()
    rules = watch_rules(shelf, eligibility(shelf, config), quick)
    config.rules_path.write_text(NEW)
    until = time.monotonic() + 10
    while names(rules) != ["new"] and time.monotonic() < until:
        time.sleep(0.01)
    assert names(rules) == ["new"]
    del rules
    gc.collect()
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before


# -- impressions of all replicas ---------------------------------------------------------------------------------------


def slate(n, items, at, surface="home"):
    ids = [f"i{i}" for i in items]
    shown = {"item_id": ids, "score": [0.5] * len(ids), "propensity": [1] * len(ids), "sources": [[]] * len(ids)}
    return {
        "recommendation_id": f"r{n}", "gateway": "g", "sequence": n, "time": at, "user_id": f"u{n}",
        "surface": surface, "bundle": "b", "items": json.dumps(shown),
    }  # fmt: skip


def test_todays_impressions_of_all_replicas_are_read_from_the_log(tmp_path, shelf):
    path = tmp_path / "log.db"
    text = write_rule("new", "quota", items="item.year == 2019", share=0.1, within=2, surfaces=["home"])
    pacing = compile_rules(shelf, text).pacing
    view = SharedCountReader(pacing, SqliteReader(path), ("home", "email"))
    view.read(NOW)
    assert pacing.shared.counts.shown.tolist() == [0]  # no log yet
    with SqliteWriter(path) as log:
        yesterday = [slate(n, [19, 39], MIDNIGHT - 1 - n) for n in range(9, 0, -1)]
        today = [slate(20, [19, 0, 39], MIDNIGHT + 5), slate(21, [1, 59], MIDNIGHT + 9), slate(22, [], NOW),
                 slate(23, [19, 19], NOW, "email"), slate(24, [19], NOW, "gone")]  # fmt: skip
        log.append_slates(yesterday + today).result()
        view.read(NOW, clock=lambda: 100.0)
        common = pacing.shared
        assert (common.counts.shown.tolist(), common.counts.own.tolist()) == ([4], [2])
        assert common.day.tolist() == [NOW // DAY_US] and common.cut < 100
        log.append_slates([slate(30, [19, 1], NOW)]).result()
        view.read(NOW)
        assert (pacing.shared.counts.shown.tolist(), pacing.shared.counts.own.tolist()) == ([6], [3])
        view.read(NOW + DAY_US)
        assert pacing.shared.counts.shown.tolist() == [0]  # another day


def test_slates_are_read_from_a_time_on(tmp_path):
    reader = SqliteReader(tmp_path / "log.db")
    assert reader.find_slate_offset(5) == 0
    with SqliteWriter(tmp_path / "log.db") as log:
        log.append_slates([slate(n, [n], 10 * n) for n in range(1, 40)]).result()
    for time_us in range(0, 420, 5):
        later = reader.read_slates(reader.find_slate_offset(time_us))
        assert [row[1] for row in later] == [10 * n for n in range(1, 40) if 10 * n >= time_us]


def noted(pacing, items, at=NOW):
    rows = len(items)
    pacing.add(ShownSlates(np.array(items, np.int32), np.full(rows, at), np.zeros(rows, np.int8), None))


def test_a_replica_owes_its_share_of_the_common_debt_and_all_of_its_own_since(shelf):
    second = [0.0]
    pacing = Pacing(compile_rules(shelf, NEW).ruleset, clock=lambda: second[0])
    noted(pacing, [list(range(10))] * 5)  # 50 shown, none of them new: 5 are owed
    assert pacing.debt(NOW).owed[0] == pytest.approx(5)
    day = pacing.day
    pacing.shared = SharedCounts(ImpressionCounts(np.array([50.0]), np.array([0.0])), day, 0.5)
    assert pacing.debt(NOW).owed[0] == pytest.approx(5)  # the same slates, now in the log
    second[0] = 1.0
    noted(pacing, [list(range(10))] * 5)
    pacing.shared = SharedCounts(
        ImpressionCounts(np.array([250.0]), np.array([0.0])), day, 1.5
    )  # 200 more, of which 50 were ours
    part = 0.7 + 0.3 * 50 / 200
    assert pacing.debt(NOW).owed[0] == pytest.approx(part * 25)
    second[0] = 2.0
    noted(pacing, [[19, 39, *range(8)]])
    assert pacing.debt(NOW).owed[0] == pytest.approx(part * 25 + 1 - 2)
    assert pacing.debt(NOW + DAY_US).owed[0] == 0  # a new day


def test_debt_boosts_then_forces_and_surplus_buries_then_removes(shelf):
    pacing = Pacing(compile_rules(shelf, NEW).ruleset, clock=lambda: 0.0)
    one, ten = np.ones((1, 1), bool), np.full((1, 1), 10)

    def slots():
        return [int(x[0, 0]) for x in pacing.slots(pacing.debt(NOW), one, np.zeros((1, 1), int), ten)]

    assert pacing.debt(NOW).lift[0] == 0 and slots()[0] == 0
    noted(pacing, [list(range(10))])
    assert 0 < pacing.debt(NOW).lift[0] < 0.25 and slots()[0] == 0
    noted(pacing, [list(range(10))] * 9)
    assert pacing.debt(NOW).lift[0] == 0.25 and slots()[0] == 3  # a third of a slate at most
    noted(pacing, [[19] * 10] * 3)
    assert pacing.debt(NOW).lift[0] == -0.25 and slots() == [0, 0]


def test_unchanged_quotas_keep_their_counts_when_rules_change(rules, config, shelf, rng):
    config.rules_path.write_text(NEW)
    deduplicate_and_sort(rules)
    noted(rules.current.pacing, [list(range(10))] * 4, NOW + 5)
    rules.now = NOW + 10
    config.rules_path.write_text(NEW + write_rule("other", "quota", items="item.year == 2018", share=0.5) + OUT)
    deduplicate_and_sort(rules)
    assert names(rules) == ["new", "other", "out"]
    assert rules.current.pacing.debt(NOW).owed.tolist() == pytest.approx([4, 0])
    with SqliteWriter(Layout(config.state).event_log) as log:  # the log knows of slates before the new quota
        log.append_slates([slate(n, range(10), NOW + 5) for n in range(4)]).result()
        rules.read_shared_counts()
    later = replace(rules.current.pacing.shared, cut=time.monotonic() + 1)
    rules.current.pacing.shared = later
    assert rules.current.pacing.debt(NOW).owed.tolist() == pytest.approx([4, 0])
