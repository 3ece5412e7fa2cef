"""The bill of materials: valid CycloneDX, with everything that handsell needs and nothing that the tests alone need."""

import importlib.util
import json
from importlib.metadata import distributions, version
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

SCRIPT = Path(__file__).parents[2] / "deployments" / "make_sbom.py"


@pytest.fixture(scope="module")
def make_sbom():
    spec = importlib.util.spec_from_file_location("make_sbom", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def text(make_sbom):
    return make_sbom.render(make_sbom.build_bom(distributions()))


def test_it_is_valid_by_the_schema_of_cyclonedx(text):
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"bomFormat": "CycloneDX"', '"bomFormat": "none"')) is not None


def test_it_lists_what_handsell_needs_with_version_and_license(text):
    document = json.loads(text)
    components = {each["name"]: each for each in document["components"]}
    assert document["metadata"]["component"]["name"] == "handsell"
    assert {"ray", "feast", "torch", "xgboost", "numpy", "psycopg", "starlette"} <= set(components)
    assert not {"pytest", "ruff", "hypothesis", "handsell", "cyclonedx-python-lib"} & set(components)
    assert components["ray"]["version"] == version("ray")
    assert components["numpy"]["purl"] == f"pkg:pypi/numpy@{version('numpy')}"
    licensed = [each for each in components.values() if each.get("licenses")]
    assert len(licensed) > 0.9 * len(components)


def test_every_dependency_is_listed(text):
    document = json.loads(text)
    refs = {document["metadata"]["component"]["bom-ref"], *(each["bom-ref"] for each in document["components"])}
    needs = {each["ref"]: set(each.get("dependsOn", ())) for each in document["dependencies"]}
    assert needs.keys() == refs and all(needed <= refs for needed in needs.values())
    ray = next(ref for ref in refs if ref.startswith("pkg:pypi/ray@"))
    assert ray in needs[document["metadata"]["component"]["bom-ref"]]


def test_a_folder_without_handsell_is_an_error_in_one_line(make_sbom, tmp_path):
    with pytest.raises(SystemExit, match="handsell is not installed there"):
        make_sbom.build_bom(distributions(path=[str(tmp_path)]))
