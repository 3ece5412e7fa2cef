"""Published rules: the file is replaced, earlier versions come back, nobody's change is overwritten unseen."""

import os

import pytest

from handsell.core.errors import ConfigError
from handsell.core.paths import Layout
from handsell.reranking.rules.publication import RulesFile
from handsell.reranking.rules.reading import version_of
from handsell.testing.rule_catalog import write_rule

ONE = write_rule("one", "exclude", items="item.item_id == 'i1'").encode()
TWO = write_rule("two", "exclude", items="item.item_id == 'i2'").encode()


@pytest.fixture
def config(configured, tmp_path):
    made = configured('name = "shop"\n[reranking]\nrules = "rules.toml"\n')
    made.rules_path.write_bytes(ONE)
    return made


def test_publishing_replaces_the_file_and_remembers_who_and_what(config):
    file = RulesFile(config)
    done = file.publish(TWO, "ann", "summer", expected=version_of(ONE))
    assert config.rules_path.read_bytes() == TWO and done.version == version_of(TWO)
    newest, before = file.list_versions()
    assert (newest.caller, newest.action, newest.note, newest.rules) == ("ann", "publish", "summer", 1)
    assert (before.version, before.action, before.caller) == (version_of(ONE), "found", "edited elsewhere")
    assert file.read_version(before.version) == ONE


def test_rolling_back_brings_the_version_before(config):
    file = RulesFile(config)
    file.publish(TWO, "ann")
    done = file.roll_back("bo")
    assert config.rules_path.read_bytes() == ONE and (done.action, done.caller) == ("rollback", "bo")
    assert file.roll_back("bo").version == version_of(TWO)  # there and back
    assert file.roll_back("bo", version_of(ONE)).version == version_of(ONE)
    with pytest.raises(ConfigError, match=r"expected a published version .*got another"):
        file.roll_back("bo", "../../etc/passwd")


def test_the_first_version_cannot_be_rolled_back(config):
    with pytest.raises(ConfigError, match="published before it, there is none"):
        RulesFile(config).roll_back("bo")


def test_a_change_from_an_outdated_version_is_refused(config):
    file, begun = RulesFile(config), version_of(ONE)
    config.rules_path.write_bytes(b"# by hand\n" + ONE)
    with pytest.raises(ConfigError, match=f"expected version {begun}.* meanwhile"):
        file.publish(TWO, "ann", expected=begun)
    assert config.rules_path.read_bytes() == b"# by hand\n" + ONE and not file.list_versions()


@pytest.mark.parametrize("content", [b"[[rule]", write_rule("x", "pinn", items="True").encode(), b"\xff"])
def test_invalid_rules_are_never_written(config, content):
    with pytest.raises(ConfigError):
        RulesFile(config).publish(content, "ann")
    assert config.rules_path.read_bytes() == ONE


def test_a_cut_off_line_of_the_history_is_skipped(config):
    file = RulesFile(config)
    file.publish(TWO, "ann")
    path = Layout(config.state).rules / "published.jsonl"
    path.write_text(path.read_text() + '{"version": "ab')
    assert len(file.list_versions()) == 2


def test_an_invalid_file_can_be_replaced(config):
    config.rules_path.write_bytes(b"[[rule]")
    RulesFile(config).publish(TWO, "ann")
    assert config.rules_path.read_bytes() == TWO


def test_a_deployment_without_rules_file_or_right_to_write_it_says_what_to_do(
    config, configured, tmp_path, monkeypatch
):
    with pytest.raises(ConfigError, match="set it in the config"):
        RulesFile(configured('name = "bare"\n'))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written by the service" in (RulesFile(config).find_obstacle() or "")
    with pytest.raises(ConfigError, match="cannot be written"):
        RulesFile(config).publish(TWO, "ann")
    monkeypatch.setenv("HANDSELL_STORAGE", "s3://bucket/x")
    assert "each node" in (RulesFile(config).find_obstacle() or "")
