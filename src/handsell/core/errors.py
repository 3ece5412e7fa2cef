"""Errors that handsell raises for its users.

HandsellError
 ├── ConfigError      a TOML file or a value in it
 ├── DataError        events, items or users that cannot be read or used
 ├── FeatureError     the feature store and the model disagree, or a feature is missing
 ├── BundleError      a model bundle is incomplete, corrupt or of the wrong contract
 ├── TrainingError    a training step is not possible with this data
 ├── StorageError     object storage refuses a call or does not answer
 ├── FilterError      a filter expression that cannot be parsed or names an unknown attribute
 └── RequestError     an invalid API request (answered with 4xx)

Every message says what was expected, what was received, and what to do. The command line prints it without a
traceback; the gateway returns it as problem details (RFC 9457).
"""


class HandsellError(Exception):
    """Base of all errors whose message is meant for users."""


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


class StorageError(HandsellError):
    pass


class FilterError(HandsellError):
    """`at` is the column in the expression, from 1; None for an error of the whole expression."""

    def __init__(self, detail: str, at: int | None = None):
        super().__init__(detail if at is None else f"column {at}: {detail}")
        self.at = at


class RequestError(HandsellError):
    """An invalid request: `field` names the field, `status` is the HTTP status of the answer.

    `errors` are further wrong fields, each with its detail.
    """

    def __init__(
        self,
        detail: str,
        *,
        field: str = "",
        status: int = 422,
        code: str = "invalid_request",
        errors: tuple[tuple[str, str], ...] = (),
    ):
        super().__init__(detail)
        self.detail, self.field, self.status, self.code, self.errors = detail, field, status, code, errors
