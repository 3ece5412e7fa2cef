"""One service per model contract; a bundle names the service that it was trained on."""

from feast import FeatureService

import views
from crosses import request_crosses
from handsell.features.views import SERVICES, SERVICES_WITH_CROSSES


def service(name: str, description: str) -> FeatureService:
    crosses = [request_crosses] if name in SERVICES_WITH_CROSSES else []
    members = [getattr(views, view) for view in SERVICES[name]]
    return FeatureService(name=name, description=description, features=members + crosses)


ranking_v1 = service("ranking_v1", "everything that the ranker is trained on")
user_serving_v1 = service("user_serving_v1", "the user's rows: the one online read of a request")
