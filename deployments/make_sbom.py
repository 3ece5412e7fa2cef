"""Print the software bill of materials of an installed handsell: CycloneDX 1.6, as JSON.

    make sbom                                                       of this checkout, to sbom.json
    python deployments/make_sbom.py DIR/lib/python3.11/site-packages     of an image's packages

It lists handsell and every package that it needs, directly or through others, with what the extra `cluster` stands
for, and without what the tests alone need. The licenses are those that the packages declare.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT, EXTRAS = "handsell", ("postgres", "redis", "storage", "tracing")
VERSION = SchemaVersion.V1_6
LONGEST_LICENSE = 100  # longer ones are the license's whole text


def find_needed(installed: dict[str, Distribution]) -> dict[str, set[str]]:
    """Return the names of the packages that each package needs, beginning with handsell's."""
    needs: dict[str, set[str]] = {}
    waiting, done = [(ROOT, EXTRAS)], set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in done or name not in installed:
            continue
        done.add((name, extras))
        found = list(_list_requirements(installed[name], extras))
        needs.setdefault(name, set()).update(other for other, _ in found if other in installed)
        waiting += found
    return needs


def _list_requirements(package: Distribution, extras: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for text in package.requires or ():
        requirement = Requirement(text)
        applies = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
        )
        if applies:
            yield canonicalize_name(requirement.name), tuple(sorted(requirement.extras))


def build_component(package: Distribution) -> Component:
    name, version = canonicalize_name(package.metadata["Name"]), package.version
    purl = PackageURL("pypi", name=name, version=version)
    kind = ComponentType.APPLICATION if name == ROOT else ComponentType.LIBRARY
    return Component(
        name=name, version=version, type=kind, bom_ref=purl.to_string(), purl=purl,
        description=package.metadata.get("Summary"), licenses=list(_list_licenses(package)),
    )  # fmt: skip


def _list_licenses(package: Distribution) -> Iterator[License]:
    """Yield the declared licenses: one expression, or else classifiers, or else the free text."""
    factory, declared = LicenseFactory(), LicenseAcknowledgement.DECLARED
    if expression := package.metadata.get("License-Expression"):
        yield factory.make_from_string(expression, license_acknowledgement=declared)
        return
    classified = [text for text in package.metadata.get_all("Classifier") or () if text.startswith("License :: ")]
    names = [text.rpartition(" :: ")[2] for text in classified if text != "License :: OSI Approved"]
    free = (package.metadata.get("License") or "").strip()
    for name in dict.fromkeys(names or ([free] if free and len(free) <= LONGEST_LICENSE else [])):
        yield factory.make_with_name(name, acknowledgement=declared)


def build_bom(installed: Iterable[Distribution]) -> Bom:
    """Return the bill of materials of handsell among installed packages; raises SystemExit without handsell."""
    by_name: dict[str, Distribution] = {}
    for package in installed:
        by_name.setdefault(canonicalize_name(package.metadata["Name"]), package)  # the first is the one imported
    if ROOT not in by_name:
        raise SystemExit(f"{ROOT} is not installed there: expected the path of a site-packages folder")
    needs = find_needed(by_name)
    components = {name: build_component(by_name[name]) for name in sorted(needs)}
    bom = Bom(components=[component for name, component in components.items() if name != ROOT])
    bom.metadata.component = components[ROOT]
    bom.metadata.properties.add(Property(name="handsell:extras", value=" ".join(EXTRAS)))
    for name, component in components.items():
        bom.register_dependency(component, [components[other] for other in sorted(needs[name])])
    return bom


def render(bom: Bom) -> str:
    return make_outputter(bom, OutputFormat.JSON, VERSION).output_as_string(indent=1)


if __name__ == "__main__":
    print(render(build_bom(distributions(path=sys.argv[1:]) if len(sys.argv) > 1 else distributions())))
