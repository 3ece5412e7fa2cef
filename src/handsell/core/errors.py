"""The errors that handsell raises for its users.

HandsellError
 ├── ConfigError      a TOML file or a value in it
 ├── DataError        events, items or users that cannot be read or used
 ├── FeatureError     the feature store and the model disagree, or a feature is missing
 ├── BundleError      a model bundle is incomplete, corrupt or of the wrong contract
 ├── TrainingError    a training step cannot be done with this data
 ├── FilterError      a filter expression that cannot be read, or that asks for what items do not have
 └── RequestError     what a caller of the API sent (answered with 4xx)

Every message says what was expected, what was received, and what to do. The command line prints it
without a traceback; the gateway answers it as problem details (RFC 9457).
"""


class HandsellError(Exception):
    """Base of all errors that a user of handsell is meant to read."""


class ConfigError(HandsellError):
    pass


class DataError(HandsellError):
    pass


class FeatureError(HandsellError):
    pass


class BundleError(HandsellError):
    pass


class TrainingError(HandsellError):
    pass


class FilterError(HandsellError):
    """`at` is the column of the expression, from 1; None where it is about all of it."""

    def __init__(self, detail: str, at: int | None = None):
        super().__init__(detail if at is None else f"column {at}: {detail}")
        self.at = at


class RequestError(HandsellError):
    """A caller's mistake: `field` names where, `status` is the HTTP status it is answered with."""

    def __init__(self, detail: str, *, field: str = "", status: int = 422, code: str = "invalid_request"):
        super().__init__(detail)
        self.detail, self.field, self.status, self.code = detail, field, status, code
