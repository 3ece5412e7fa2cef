"""Crosses of one user and one item at the request's time, for anybody who uses Feast without handsell's funnel.

The funnel builds the same values for a thousand candidates at once; a parity test holds the two together.
"""

import pandas as pd
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Int64

import views
from handsell.features.views import CROSS_INPUTS, CROSS_REQUEST, list_cross_columns

request = RequestSource(name="request", schema=[Field(name=name, dtype=Int64) for name, _ in CROSS_REQUEST])


@on_demand_feature_view(
    sources=[*(getattr(views, name) for name in CROSS_INPUTS), request],
    schema=[Field(name=name, dtype=views.feast_type(arrow)) for name, arrow in list_cross_columns()],
    description="what the user's past says about the item, at request_time_us",
)
def request_crosses(inputs: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd  # Feast pickles this function by value: what it needs is imported in its body

    from handsell.features.on_demand import compute_pair_crosses

    return pd.DataFrame(compute_pair_crosses(inputs))
