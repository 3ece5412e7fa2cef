"""The image: what the Dockerfile copies, installs and leaves out, and the scripts that its build runs."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deployments" / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IGNORED = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()


def read_stages() -> list[list[tuple[str, str]]]:
    """The stages of the Dockerfile as (instruction, arguments), and before them what precedes the first FROM."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    stages: list[list[tuple[str, str]]] = [[]]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            stages.append([])
        stages[-1].append((instruction, arguments))
    return stages


STAGES = read_stages()
LAST = STAGES[-1]


def find(instruction: str, stages: list[list[tuple[str, str]]] = STAGES) -> list[str]:
    return [arguments for stage in stages for name, arguments in stage if name == instruction]


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCKER / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_instruction_is_one_that_docker_podman_and_buildah_know():
    known = {"ARG", "FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "CMD", "LABEL"}
    assert {name for stage in STAGES for name, _ in stage} == known
    assert find("ARG", STAGES[:1]) == ["BASE_IMAGE=python:3.11-slim"]
    named = {"${BASE_IMAGE}"}
    for stage in STAGES[1:]:
        parent, *name = stage[0][1].split(" AS ")
        assert parent in named
        named.update(name)
    assert {source.split()[0] for source in find("COPY") if source.startswith("--from=")} <= {
        f"--from={name}" for name in named
    }


def test_the_last_stage_installs_nothing_and_does_not_run_as_root():
    assert not find("RUN", [LAST])
    assert find("USER", [LAST]) == ["1000:1000"]
    python = next(stage for stage in STAGES if stage and stage[0][1].endswith(" AS python"))
    packages = re.search(r"apt-get install (.*?) &&", " ".join(find("RUN", [python])))
    assert packages and not re.search(r"\b(gcc|g\+\+|build-essential|\S+-dev|git|curl)\b", packages[1])


def test_libraries_are_those_of_the_project_with_pinned_versions():
    installs = [line for run in find("RUN") for line in run.split("&&") if "pip install" in line]
    assert any("--constraint constraints.txt '.[cluster]'" in line for line in installs)
    assert "^torch==" in " ".join(find("RUN"))
    assert installs[-1].split()[-1] == "." and "--no-deps" in installs[-1] and "--editable" not in installs[-1]
    torch = next(line for line in PROJECT["dependencies"] if line.startswith("torch=="))
    assert torch in (ROOT / "constraints.txt").read_text().splitlines()


def list_sources() -> Iterator[str]:
    for arguments in find("COPY"):
        if not arguments.startswith("--from="):
            yield from arguments.split()[:-1]


def test_the_image_holds_no_data_and_the_context_nothing_else():
    sources, allowed = set(list_sources()), [line[1:] for line in IGNORED if line.startswith("!")]
    assert IGNORED[0] == "*"
    assert all((ROOT / source).exists() for source in sources)
    assert {source for source in sources if not any(fnmatch(source, pattern) for pattern in allowed)} == set()
    assert all(any(fnmatch(source, pattern) for source in sources) for pattern in allowed)
    assert "**/*.so" in IGNORED  # kernels of the checkout, perhaps of another machine
    assert not {".handsell", ".", "tests", "benchmarks", ".git"} & {*sources, *allowed}


def test_no_layer_takes_a_secret_and_labels_name_the_version():
    settings = " ".join((*find("ARG"), *find("ENV")))
    assert not re.search(r"password|secret|token|_key|credential", settings, re.IGNORECASE)
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", " ".join(find("LABEL", [LAST]))))
    assert labels == {"title", "description", "licenses", "version", "revision"}


NAMES = ["libcublas.so.13", "libnccl.so.2", "libnvshmem_host.so.3"]


def compile_library(path: Path, source: str, *options: str) -> None:
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-", f"-Wl,-soname,{path.name}", "-o", str(path), *options],
        input=source, text=True, check=True,
    )  # fmt: skip


@pytest.mark.skipif(not shutil.which("gcc"), reason="no C compiler")
def test_trimmed_torch_loads_without_the_libraries_of_a_gpu(tmp_path):
    lib = tmp_path / "torch" / "lib"
    lib.mkdir(parents=True)
    (tmp_path / "torch" / "include").mkdir()
    metadata = tmp_path / "torch-2.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Requires-Dist: sympy\nRequires-Dist: nvidia-nccl-cu13==2.29.7; x\nRequires-Dist: triton\n")
    versions = tmp_path / "versions"
    versions.write_text("libcublas.so.13 { *; };")
    compile_library(lib / NAMES[0], "int cublasCreate(void) { return 0; }", f"-Wl,--version-script={versions}")
    versions.write_text("NVSHMEM { *; };")  # a version that is not the library's name
    compile_library(lib / NAMES[2], "int nvshmemInit(void) { return 0; }", f"-Wl,--version-script={versions}")
    compile_library(lib / NAMES[1], "int ncclInit(void) { return 0; }")
    calls = (
        "int cublasCreate(void); int ncclInit(void); int nvshmemInit(void);"
        "int all(void) { return cublasCreate() + 2 * ncclInit() + 4 * nvshmemInit(); }"
    )
    linked = [f"-l:{name}" for name in NAMES]
    compile_library(lib / "libtorch_cuda.so", calls, f"-L{lib}", *linked, "-Wl,-rpath,$ORIGIN", "-Wl,-z,now")
    for name in NAMES:
        (lib / name).unlink()
    assert load_script("trim_torch").trim(tmp_path) == NAMES
    # in a process of its own: one that has imported torch may hold libraries of the same names
    load = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).all())"
    command = [sys.executable, "-c", load, str(lib / "libtorch_cuda.so")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "7\n"
    assert not (tmp_path / "torch" / "include").exists()
    assert metadata.read_text() == "Requires-Dist: sympy\n"


@pytest.mark.parametrize(("command", "imported"), [("health-check", False), ("start", False), ("serve", True)])
def test_rays_command_imports_serve_only_for_its_own_subcommands(command, imported):
    asks = (
        "import runpy, sys\n"
        f"sys.argv = ['ray', {command!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(DOCKER / 'ray_command.py')!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(end.code, 'ray.serve' in sys.modules, None in sys.modules.values())\n"
    )
    printed = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == f"0 {imported} False" and f"ray_command.py {command}" in printed


def test_the_build_runs_with_the_builder_that_is_there(tmp_path):
    (tmp_path / "buildah").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")  # a client without an engine
    for name in ("buildah", "docker"):
        (tmp_path / name).chmod(0o755)
    for name in ("bash", "sed", "dirname", "git"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    command = ["bash", str(DOCKER / "build.sh"), "--build-arg", "TORCH=cuda"]
    environment = os.environ | {"PATH": str(tmp_path)}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert f"--tag handsell:{PROJECT['version']} " in printed and printed.endswith("--build-arg TORCH=cuda .\n")
    (tmp_path / "buildah").unlink()
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and "expected docker (with a running engine), podman or buildah" in refused.stderr


@pytest.mark.parametrize("name", ["postgresql", "redis"])
def test_stores_for_a_cluster_without_a_registry_do_not_run_as_root(name):
    folder = ROOT / "tests" / "kube" / "images"
    text = (folder / f"{name}.Dockerfile").read_text()
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["999:999"]
    assert all((folder / source).exists() for source in re.findall(r"^COPY (\S+)", text, re.MULTILINE))
    for script in folder.glob("*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
