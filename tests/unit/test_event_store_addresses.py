"""A wrong address of the event store is explained without its password, wherever the password ends up."""

import pytest

from handsell.core.errors import HandsellError
from handsell.events.store.opening import STORE_VARIABLE, open_reader, open_writer
from handsell.maintenance.backup import open_snapshot


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg://shop:hunter2@127.0.0.1/events",
        "PostgreSQL://shop:hunter2@127.0.0.1/events",
        " postgresql://shop:hunter2@127.0.0.1/events",
        "postgresql:shop:hunter2@127.0.0.1/events",
        "shop:hunter2@127.0.0.1",
        "host=127.0.0.1 password=hunter2",
        "postgresql://shop:hunter2@[::1/events",
        "postgresql://shop:hunter2@127.0.0.1/events?sslmoed=require",
        "postgresql://shop:p@hunter2@127.0.0.1:1/events",
        "postgresql://shop:p%hunter2@127.0.0.1:1/events",
        "postgresql://shop:p/hunter2@127.0.0.1:1/events",
        "postgresql://shop:p?hunter2@127.0.0.1:1/events",
        "postgresql://shop:p#hunter2/@127.0.0.1:1/events",
        "postgresql://shop:p hunter2@127.0.0.1:1/events",
        "postgresql://127.0.0.1:1/events?password=hunter2",
        "postgresql://shop:hunter2@127.0.0.1:1/events?sslmode=wrong",
    ],
)
def test_no_message_shows_the_password(address, configured, monkeypatch):
    monkeypatch.setenv(STORE_VARIABLE, address)
    config = configured('name = "shop"\n[data]\nformat = "world"\n')

    def append():
        writer = open_writer(config)
        try:
            writer.append([{"user_id": "u", "item_id": "i", "type": "click", "time": 1}]).result()
        finally:
            writer.close()

    def back_up():
        with open_snapshot(config) as snapshot:
            snapshot.check()

    for use in (append, lambda: open_reader(config).last_offset(), back_up):
        with pytest.raises(HandsellError) as refused:
            use()
        shown, error = "", refused.value
        assert "expected" in str(error) or "does not answer" in str(error)
        while error is not None:
            shown, error = shown + str(error), None if error.__suppress_context__ else error.__cause__
        assert "hunter2" not in shown
