"""Make the CUDA build of torch, the only one on PyPI, run on the CPU without NVIDIA's libraries.

For networks that do not reach the index of CPU builds. Run it after torch has been installed without its dependencies,
but with `nvidia-cuda-runtime`. torch is linked to further libraries, which it calls only for a GPU. Each is replaced by
an empty one of the same name, in which every function returns the error 1. Needs gcc and binutils.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

OPENED_FOR_A_GPU = ("libtorch_cuda_linalg.so", "libcaffe2_nvrtc.so")
FOR_A_GPU = re.compile(r"Requires-Dist: (nvidia|cuda|triton)[^\n]*\n")
BUILDING = ("include", "share")  # headers for building extensions
# functions without a version, by prefix; all others name their library
PREFIXES = {"cuFile": "libcufile.so.0", "cusparseLt": "libcusparseLt.so.0", "nccl": "libnccl.so.2"}
PREFIXES |= {"nvshmem": "libnvshmem_host.so.3"}


def print_of(*command: str) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def missing_functions(lib: Path, present: set[str]) -> dict[str, dict[str, str]]:
    """The functions of each missing library that the others call, with the version of their names, mostly none."""
    missing: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted(lib.glob("*.so*")):
        needed = {line.split("[")[1].rstrip("]") for line in print_of("readelf", "-d", str(path)) if "(NEEDED)" in line}
        absent = {name for name in needed if name.startswith(("libcu", "libnv", "libnccl"))} - present
        for name in absent:
            missing[name]  # also without functions
        for line in print_of("nm", "-D", "--undefined-only", str(path)):
            function, _, version = line.split()[-1].partition("@")
            prefixed = [library for prefix, library in PREFIXES.items() if function.startswith(prefix)]
            for name in absent & {version, *prefixed}:
                missing[name][function] = version
    return missing


def build_library(path: Path, functions: dict[str, str]) -> None:
    """Compile a library in which every function returns the error 1."""
    versions = defaultdict(list)
    some = max(functions.values(), default="")  # for names without one: they are found under any version
    for name, version in sorted(functions.items()):
        versions[version or some].append(name)
    with TemporaryDirectory() as folder:
        source, script = Path(folder, "empty.c"), Path(folder, "versions")
        source.write_text("".join(f"int {name}(void) {{ return 1; }}\n" for name in functions))
        script.write_text("".join(f"{version} {{ {'; '.join(names)}; }};\n" for version, names in versions.items()))
        options = [f"-Wl,--version-script={script}"] if any(versions) else []
        command = ["gcc", "-shared", "-fPIC", "-s", f"-Wl,-soname,{path.name}", *options, "-o", str(path), str(source)]
        subprocess.run(command, check=True)


def trim(packages: Path) -> list[str]:
    """Replace the missing libraries of an installed torch, and require them no more; returns their names."""
    torch = packages / "torch"
    for name in OPENED_FOR_A_GPU:
        (torch / "lib" / name).unlink(missing_ok=True)
    present = {path.name for path in packages.glob("nvidia/**/lib/*.so*")}
    missing = missing_functions(torch / "lib", present)
    for name, functions in missing.items():
        build_library(torch / "lib" / name, functions)
    for name in BUILDING:
        shutil.rmtree(torch / name, ignore_errors=True)
    for metadata in packages.glob("torch-*.dist-info/METADATA"):
        metadata.write_text(FOR_A_GPU.sub("", metadata.read_text()))
    return sorted(missing)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("purelib"))
    print("replaced by empty libraries:", *trim(folder))
