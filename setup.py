"""Put the files of `feature_repo` and `deployments` that handsell uses into the wheel, as `handsell/shipped`.

pyproject.toml has everything else. An editable installation reads them where they are. The kernels are optional:
without a C compiler the installation succeeds, and handsell computes with NumPy alone.
"""

from pathlib import Path
from zlib import crc32

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

SHIPPED = (
    "feature_repo/*.py",
    "feature_repo/*.yaml",
    "deployments/configs/**/*.*",
    "deployments/serve/*.yaml",
    "deployments/kuberay/**/*.*",
    "deployments/monitoring/**/*.yaml",
    "deployments/monitoring/**/*.json",
)


class BuildWithShippedFiles(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for path in sorted({path for pattern in SHIPPED for path in Path().glob(pattern) if path.is_file()}):
            if path.suffix != ".pyc":
                target = Path(self.build_lib, "handsell", "shipped", path)
                self.mkpath(str(target.parent))
                self.copy_file(str(path), str(target))


KERNELS = Path("src/handsell/core/kernels")
CHECKSUM = crc32(b"".join(path.read_bytes() for path in sorted(KERNELS.glob("*.[ch]")))) >> 1
"""That of `hash_sources` in the package, which cannot be imported before it is installed."""
setup(
    cmdclass={"build_py": BuildWithShippedFiles},
    ext_modules=[
        Extension(
            "handsell.core.kernels._compiled",
            sorted(str(path) for path in KERNELS.glob("*.c")),
            depends=sorted(str(path) for path in KERNELS.glob("*.h")),
            define_macros=[("Py_LIMITED_API", "0x030B0000"), ("CHECKSUM", str(CHECKSUM))],
            py_limited_api=True,
            extra_compile_args=["-O3", "-ffp-contract=off"],  # the same results on every processor
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
