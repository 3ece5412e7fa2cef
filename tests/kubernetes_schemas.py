"""JSON Schemas of Kubernetes objects that forbid undeclared keys.

Built from the OpenAPI document of the API server and the CustomResourceDefinitions of KubeRay, which both allow unknown
keys, so that a misspelled key would be ignored silently.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import yaml
from jsonschema import Draft4Validator

QUANTITY = r"^[+-]?(\d+(\.\d*)?|\.\d+)(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?(\d+(\.\d*)?|\.\d+)))?$"
META = {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}


def forbid_unknown_keys(schema):
    """Copy a schema so that objects with declared properties may have no others."""
    if isinstance(schema, list):
        return [forbid_unknown_keys(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string":  # the OpenAPI document says string alone
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    kept = {key: value for key, value in schema.items() if key != "properties"}
    made = {
        key: forbid_unknown_keys(value) for key, value in kept.items() if not key.startswith("x-") and key != "default"
    }
    if "properties" in schema:
        made["properties"] = {name: forbid_unknown_keys(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    return made


class Schemas:
    """Schemas of every kind in a folder that holds kubernetes-openapi-*.json and CRDs as *.yaml."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def definitions(self) -> dict[str, dict]:
        (path,) = self.folder.glob("kubernetes-openapi-*.json")
        made = {name: forbid_unknown_keys(schema) for name, schema in self._document(path)["definitions"].items()}
        made["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {
            "anyOf": [{"type": "number"}, {"type": "string", "pattern": QUANTITY}]
        }
        return made

    @cached_property
    def core(self) -> dict[tuple[str, str], str]:
        """(apiVersion, kind) → name of its definition."""
        (path,) = self.folder.glob("kubernetes-openapi-*.json")
        found = {}
        for name, schema in self._document(path)["definitions"].items():
            for kind in schema.get("x-kubernetes-group-version-kind", ()):
                found[(f"{kind['group']}/{kind['version']}".lstrip("/"), kind["kind"])] = name
        return found

    @cached_property
    def custom(self) -> dict[tuple[str, str], dict]:
        """(apiVersion, kind) → its schema without unknown keys."""
        found = {}
        for path in self.folder.glob("*.yaml"):
            spec = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]
            for version in spec["versions"]:
                schema = forbid_unknown_keys(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = META  # a CRD does not declare it
                found[(f"{spec['group']}/{version['name']}", spec["names"]["kind"])] = schema
        return found

    def errors(self, manifest: dict) -> list[str]:
        """Return the errors of a manifest as "path: message"."""
        key = (manifest.get("apiVersion", ""), manifest.get("kind", ""))
        if key in self.custom:
            schema = self.custom[key]
        elif key in self.core:
            schema = {"$ref": f"#/definitions/{self.core[key]}"}
        else:
            return [f"apiVersion, kind: {key} is unknown"]
        validator = Draft4Validator({"definitions": self.definitions, "allOf": [schema]})
        return [
            f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(manifest)
        ]

    def _document(self, path: Path) -> dict:
        if not hasattr(self, "_read"):
            self._read = json.loads(path.read_text())
        return self._read
