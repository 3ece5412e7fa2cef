"""The registry of a deployment's Feast project, and the contract of its services."""

from __future__ import annotations

from collections.abc import Sequence

# before the other imports of Feast
from handsell.features.feast_import import feast  # isort: skip

from feast.errors import FeastObjectNotFoundException
from feast.repo_config import RepoConfig
from google.protobuf.message import DecodeError

from handsell.config import Config
from handsell.core.errors import FeatureError
from handsell.core.paths import Layout
from handsell.features.repository import build_feast_settings, prepare_feast_environment
from handsell.features.storage.online_only import ONLINE_ONLY
from handsell.features.views import View, build_views

UNREGISTERED = (FeastObjectNotFoundException, FileNotFoundError, DecodeError)  # none, no such file, a damaged one


class FeatureRegistry:
    """Feast's store of one config, and what is registered in it."""

    def __init__(self, config: Config, is_online_only: bool = False):
        self.config = config
        self.views: dict[str, View] = build_views(config)
        self.layout = Layout(config.state)
        offline = {"offline_store": {"type": ONLINE_ONLY}} if is_online_only else {}
        settings = RepoConfig(**{**build_feast_settings(config), **offline})
        settings.repo_path = self.layout.feast
        self.feast = feast.FeatureStore(config=settings)

    def service_features(self, service: str) -> tuple[str, ...]:
        """Every feature that a registered service offers, on-demand ones included, in its order."""
        found = self._service(service).feature_view_projections
        return tuple(feature.name for projection in found for feature in projection.features)

    def check_contract(self, service: str, expected: Sequence[str]) -> None:
        """Raise FeatureError if the service lacks an expected feature; additional features are allowed."""
        offered = self.service_features(service)
        missing = [name for name in expected if name not in offered]
        if missing:
            extra = [name for name in offered if name not in expected]
            raise FeatureError(
                f"{len(expected)} features expected, service {service} of {self._registered} gives {len(offered)} "
                f"(missing: {', '.join(missing)}{'; new: ' + ', '.join(extra) if extra else ''}): "
                f"restore them and run {self._apply_command}, or train a new bundle on this service"
            )

    def _service(self, name: str) -> feast.FeatureService:
        try:
            return self.feast.get_feature_service(name, allow_cache=True)
        except UNREGISTERED:
            raise FeatureError(f"{self._registered} has no service {name}: run {self._apply_command}") from None

    def _feast_view(self, name: str) -> feast.FeatureView:
        try:
            return self.feast.registry.get_feature_view(name, self.feast.project, allow_cache=True)
        except UNREGISTERED:
            raise FeatureError(f"{self._registered} has no view {name}: run {self._apply_command}") from None

    @property
    def _registered(self) -> str:
        return f"project {self.config.name} in registry {self.layout.feast / 'registry.db'}"

    @property
    def _apply_command(self) -> str:
        exports = " ".join(f"{name}={value}" for name, value in prepare_feast_environment(self.config).items())
        return f"{exports} feast -c feature_repo apply"
