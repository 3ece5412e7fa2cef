"""On-demand view: cross features of one user and one item at the request's time, for users of Feast alone.

handsell's funnel computes the same values for many candidates at once; a test compares the two.
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
    description="features of the user's past and the item, at request_time_us",
)
def request_crosses(inputs: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd  # Feast pickles this function by value: what it needs is imported in its body

    from handsell.features.on_demand import compute_pair_crosses

    return pd.DataFrame(compute_pair_crosses(inputs))
