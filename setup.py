"""Put the files of `feature_repo` and `deployments` that handsell uses into the wheel, as `handsell/shipped`.

pyproject.toml has everything else. An editable installation reads them where they are.
"""

from pathlib import Path

from setuptools import setup
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


setup(cmdclass={"build_py": BuildWithShippedFiles})
