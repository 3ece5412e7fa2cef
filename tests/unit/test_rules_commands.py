"""`handsell rules publish`, `rollback` and `history`: what they change, print and record."""

from contextlib import closing

import pytest
from typer.testing import CliRunner

from handsell.cli.app import app
from handsell.config import load_config
from handsell.core.errors import ConfigError
from handsell.events.store.opening import open_reader
from handsell.reranking.rules.reading import version_of
from handsell.testing.rule_catalog import write_rule
from serving_world import write_world

ONE = write_rule("one", "exclude", items="item.item_id == 'i1'")
TWO = write_rule("two", "exclude", items="item.item_id == 'i2'")


@pytest.fixture
def config(tmp_path):
    path = write_world(tmp_path).config.source
    path.write_text(path.read_text() + '[reranking]\nrules = "rules.toml"\n')
    (tmp_path / "rules.toml").write_text(ONE)
    return load_config(path)


def run(*arguments):
    result = CliRunner().invoke(app, ["rules", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_rules_are_published_listed_and_rolled_back_and_each_is_recorded(config, tmp_path):
    (tmp_path / "new.toml").write_text(TWO)
    said = run("publish", config.source, "--rules", tmp_path / "new.toml", "--note", "summer [sale]")
    assert f"published: rules {version_of(TWO.encode())}, 1 enabled" in said
    assert config.rules_path.read_text() == TWO
    listed = " ".join(run("history", config.source).split())
    assert (
        version_of(ONE.encode()) in listed
        and "[sale]" in listed
        and f"served: rules {version_of(TWO.encode())}" in listed
    )
    assert version_of(ONE.encode()) in run("rollback", config.source) and config.rules_path.read_text() == ONE
    with closing(open_reader(config)) as reader:
        assert [(e.action, e.status) for e in reader.read_audit()] == [
            ("rules publish", "done"),
            ("rules rollback", "done"),
        ]


def test_rules_that_do_not_fit_are_not_published(config, tmp_path):
    (tmp_path / "new.toml").write_text(write_rule("x", "exclude", items="item.yeer > 1"))
    with pytest.raises(ConfigError, match=r"item\.yeer"):
        run("publish", config.source, "--rules", tmp_path / "new.toml")
    with pytest.raises(ConfigError, match="there is none"):
        run("rollback", config.source)
    assert config.rules_path.read_text() == ONE
