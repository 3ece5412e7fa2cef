"""Write the files of a new project: config, Feast repository, Serve files, manifests for Kubernetes, README."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from handsell.config import shipped_root
from handsell.config.schema import NAME_PATTERN
from handsell.core.errors import ConfigError

# The first line of a config, and what its [data] has on Kubernetes besides, by template: a file of deployments/configs.
HEADERS = {
    "world": "A synthetic music service, which needs no data. `handsell init NAME --template own_data`: your tables.",
    "own_data": "Required is one table of events with a user, an item and a time. All else improves the result.",
    "movielens": "MovieLens: `handsell up` downloads ml-latest-small; with `--data FOLDER` it reads a copy of yours.",
}
IN_CLUSTER = {
    "world": "world = { users = 1_000, items = 2_000, artists = 300 }\n",
    "own_data": 'path = "/handsell/source" # your tables, on the state volume\n',
    "movielens": "",
}
MANIFESTS = ("deployments/kuberay/**/*.*", "deployments/monitoring/**/*.yaml", "deployments/monitoring/**/*.json")
CLUSTER_SECTIONS = """
[access]
keys = "required" # handsell keys create

[jobs]
wait_for_resources_s = 900 # the autoscaler may have to add nodes first
"""
VIEWS = '''"""handsell's entities, feature views and services. Files beside this one may define others and use these."""

from handsell.features.repository import import_definitions

globals().update(import_definitions())
'''
OVERLAY = """# NAME on Kubernetes, on one machine:  kubectl apply -k deployments/kuberay/overlays/NAME
# For several machines write ../prod in place of ../local, and change what is marked there. `images`: your registry.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: handsell
resources: [../local]
# images: [{name: handsell, newName: registry.example.com/handsell}]
configMapGenerator:
  - name: handsell-config
    behavior: merge
    files: [handsell.toml]
patches:
  - target: {kind: RayService} # where the first bundle appears; with ../prod, leave this patch out
    patch: |
      - op: replace
        path: /spec/rayClusterConfig/headGroupSpec/template/spec/initContainers/0/command
        value: [bash, -c, 'until [ -s /handsell/NAME/bundles/live.json ]; do echo "no bundle yet"; sleep 10; done']
"""
README = """# NAME

    handsell doctor NAME.toml              # check the settings and the data
    handsell up NAME.toml                  # train, serve on http://127.0.0.1:8000, and show an example
    handsell recommend NAME.toml USER      # ask the running service
    handsell down NAME.toml                # stop everything
    feast -c feature_repo apply            # register features; add views of your own beside handsell_views.py
    kubectl apply -k deployments/kuberay/overlays/NAME    # first an image, the namespace and the Secrets
`up` uses the Serve files of `deployments/serve`. Kubernetes reads the config that is beside its overlay, not NAME.toml.
All state is in `.handsell`, which does not belong into version control.
"""


def create_project(name: str, folder: Path, template: str = "world") -> list[Path]:
    """Write a project to a folder; return its files, relative to the folder.

    Raises ConfigError if the name cannot be one, or if one of the files is there already: then nothing is written.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"NAME is {name!r}: expected up to 31 lower-case letters, digits and underscores, a letter first, such as "
            "my_shop"
        )
    files = dict(_list_files(name, template))
    if taken := [str(path) for path in files if (folder / path).exists()]:
        more = f" and {len(taken) - 3} other files" if len(taken) > 3 else ""
        raise ConfigError(
            f"expected none of the project's files in {folder.absolute()}, found {', '.join(taken[:3])}{more}: "
            "write it to another folder with --folder DIR"
        )
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return list(files)


def _list_files(name: str, template: str) -> Iterator[tuple[Path, str]]:
    """Yield paths and contents; the manifests, which are the same for every project, come last."""
    root, overlay = shipped_root(), Path("deployments/kuberay/overlays") / name
    if (root / overlay).exists():
        raise ConfigError(f"NAME is {name!r}: expected another one, because there is an overlay of this name")
    config = _write_config(root, name, template)
    yield Path(f"{name}.toml"), config
    yield Path("README.md"), README.replace("NAME", name)
    settings = (root / "feature_repo" / "feature_store.yaml").read_text(encoding="utf-8")
    settings = settings.replace("The world's Feast settings", f"Feast settings of {name}.toml")
    yield Path("feature_repo/feature_store.yaml"), re.sub(r"(?<=project: |handsell/)world\b", name, settings)
    yield Path("feature_repo/handsell_views.py"), VIEWS
    for path in sorted(root.glob("deployments/serve/*.yaml")):
        text = path.read_text(encoding="utf-8").replace("deployments/configs/world.toml", f"{name}.toml")
        yield path.relative_to(root), text.replace("the root of the checkout", "the folder of the config")
    yield overlay / "kustomization.yaml", OVERLAY.replace("NAME", name)
    yield overlay / "handsell.toml", _write_cluster_config(config, template)
    for path in sorted({path for pattern in MANIFESTS for path in root.glob(pattern)}):
        if path.is_file() and path.suffix != ".pyc":
            yield path.relative_to(root), path.read_text(encoding="utf-8")


def _write_config(root: Path, name: str, template: str) -> str:
    """Return a template with another name; what it says before the name is for readers of the checkout."""
    text = (root / "deployments" / "configs" / f"{template}.toml").read_text(encoding="utf-8")
    line = f'name = "{template}"'
    return f'# {HEADERS[template]}\nname = "{name}"{text[text.index(line) + len(line) :]}'


def _write_cluster_config(config: str, template: str) -> str:
    """Return a config for Kubernetes: keys are required, and the source data is small or on the state volume."""
    settings = re.sub(r"(?m)^(format = .*\n)", lambda found: found[1] + IN_CLUSTER[template], config, count=1)
    return settings.rstrip("\n") + "\n" + CLUSTER_SECTIONS
