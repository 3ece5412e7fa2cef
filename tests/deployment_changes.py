"""Changes that random deployments draw from: ugly values, columns and settings. Importing this registers them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from random_deployments import BROKEN, DAY, EITHER, SOUND, Draft, change


def iso(seconds: float, form: str = "%Y-%m-%dT%H:%M:%SZ") -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


# -- files and tables -----------------------------------------------------------------------------------------------


@change(SOUND)
def parquet_files(draft: Draft) -> None:
    draft.files = dict.fromkeys(draft.files, "parquet")


@change(BROKEN)
def no_events(draft: Draft) -> None:
    draft.events[:] = []


@change(BROKEN)
def one_event(draft: Draft) -> None:
    draft.events[:] = draft.events[:1]


@change(SOUND)
def no_items_table(draft: Draft) -> None:
    draft.toml["data"]["tables"].pop("items", None)
    draft.section("features")["item_columns"] = []


@change(SOUND)
def no_users_table(draft: Draft) -> None:
    draft.toml["data"]["tables"].pop("users", None)
    draft.section("features").update(user_columns=[], user_attributes={})


@change(EITHER)
def empty_items_table(draft: Draft) -> None:
    draft.items[:] = []


@change(SOUND)
def some_items_missing(draft: Draft) -> None:
    del draft.items[len(draft.items) * 4 // 5 :]


@change(BROKEN)
def other_item_ids(draft: Draft) -> None:
    draft.put(draft.items, "item_id", lambda k: f"sku-{k}")


@change(BROKEN)
def float_item_ids(draft: Draft) -> None:
    for row in draft.events:
        row["item_id"] = row["item_id"] and row["item_id"][1:] + ".0"
    for row in draft.items:
        row["item_id"] = row["item_id"] and row["item_id"][1:]


@change(BROKEN)
def other_user_ids(draft: Draft) -> None:
    draft.put(draft.users, "user_id", lambda k: f"U{k}")


@change(SOUND)
def duplicate_rows(draft: Draft) -> None:
    draft.items += draft.some(draft.items)
    draft.events += draft.some(draft.events)
    draft.users += draft.some(draft.users)


@change(SOUND)
def shuffled_events(draft: Draft) -> None:
    draft.rng.shuffle(draft.events)


@change(SOUND)
def empty_cells(draft: Draft) -> None:
    for name in ("user_id", "item_id", "type", "time", "value"):
        draft.put(draft.some(draft.events, 0.02), name, None)
    draft.put(draft.some(draft.items, 0.1), "tags", None)


@change(SOUND)
def items_without_id(draft: Draft) -> None:
    draft.put(draft.some(draft.items, 0.05), "item_id", None)


@change(BROKEN)
def all_items_without_id(draft: Draft) -> None:
    draft.put(draft.events, "item_id", None)


@change(SOUND)
def late_text_in_extra_columns(draft: Draft) -> None:
    for k, row in enumerate(draft.items):
        row["note"] = str(k) if k < len(draft.items) - 3 else "sale"


@change(SOUND)
def strange_names(draft: Draft) -> None:
    draft.put(draft.items, "title", "<b>[/b] ünï\n\"x\" 'y'; DROP")
    draft.put(draft.items, "price (€)", 1.5)


# -- ids ------------------------------------------------------------------------------------------------------------


@change(BROKEN)
def long_user_id(draft: Draft) -> None:
    draft.put(draft.some(draft.events, 0.01), "user_id", "t" * 20_000)


@change(BROKEN)
def long_item_id(draft: Draft) -> None:
    draft.put(draft.some(draft.items, 0.01), "item_id", "i" * 257)


@change(SOUND)
def ids_with_slashes(draft: Draft) -> None:
    for row in [*draft.events, *draft.items]:
        row["item_id"] = row.get("item_id") and f"a/b?c#{row['item_id']} ü"


@change(BROKEN)
def one_user(draft: Draft) -> None:
    draft.put(draft.events, "user_id", "u1")


@change(BROKEN)
def one_item(draft: Draft) -> None:
    draft.put(draft.events, "item_id", "i1")


# -- times ----------------------------------------------------------------------------------------------------------


@change(SOUND)
def iso_times(draft: Draft) -> None:
    form = str(draft.rng.choice(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S+00:00", "%Y-%m-%dT%H:%M:%S.000Z"]))
    for row in draft.events:
        row["time"] = row["time"] and iso(row["time"], form) if isinstance(row["time"], int) else row["time"]


@change(SOUND)
def milliseconds(draft: Draft) -> None:
    for row in draft.events:
        row["time"] = row["time"] * 1_000 if isinstance(row["time"], int) else row["time"]


@change(BROKEN)
def mixed_units(draft: Draft) -> None:
    for row in draft.events[::2]:
        row["time"] = row["time"] * 1_000 if isinstance(row["time"], int) else row["time"]


@change(BROKEN)
def text_as_time(draft: Draft) -> None:
    draft.put(draft.some(draft.events, 0.01), "time", "yesterday")


@change(BROKEN)
def time_zero(draft: Draft) -> None:
    draft.put(draft.some(draft.events, 0.02), "time", 0)


@change(BROKEN)
def one_instant(draft: Draft) -> None:
    draft.put(draft.events, "time", draft.events[0]["time"] if draft.events else 0)


@change(BROKEN)
def only_the_future(draft: Draft) -> None:
    draft.put(draft.events, "time", lambda k: int(time.time()) + 10 * DAY + k * 1_000)


@change(BROKEN)
def old_log_on_the_wall_clock(draft: Draft) -> None:
    draft.section("serving")["clock"] = "wall"
    draft.put(draft.events, "time", lambda k: 1_600_000_000 + k * 2_000)


@change(BROKEN)
def short_log(draft: Draft) -> None:
    end = int(time.time()) - DAY
    draft.put(draft.events, "time", lambda k: end - k * 100)


@change(BROKEN)
def gap_in_the_log(draft: Draft) -> None:
    times = [row["time"] for row in draft.events if isinstance(row["time"], int)]
    end = max(times, default=0)
    draft.events[:] = [
        row
        for row in draft.events
        if not (isinstance(row["time"], int) and end - 4 * DAY < row["time"] < end - 1.9 * DAY)
    ]


# -- types, weights, values -----------------------------------------------------------------------------------------


@change(BROKEN)
def negative_weights(draft: Draft) -> None:
    for kind in draft.section("events")["types"].values():
        kind["weight"] = -1.0


@change(BROKEN)
def zero_weights(draft: Draft) -> None:
    for kind in draft.section("events")["types"].values():
        kind["weight"] = 0.0


@change(BROKEN)
def only_impressions(draft: Draft) -> None:
    draft.put(draft.events, "type", "impression")


@change(BROKEN)
def positive_type_without_events(draft: Draft) -> None:
    types = draft.section("events")["types"]
    types["view"]["weight"], types["cart"]["weight"] = -1.0, -2.0
    types["buy"] = {"weight": 5.0}


@change(BROKEN)
def unknown_types(draft: Draft) -> None:
    draft.put(draft.some(draft.events, float(draft.rng.choice([0.02, 1.0]))), "type", "wish")


@change(BROKEN)
def unordered_thresholds(draft: Draft) -> None:
    draft.section("events")["types"]["view"]["weight_by_value"] = [[4, 1.0], [1, -1.0], [3, 0.5]]


@change(BROKEN)
def equal_thresholds(draft: Draft) -> None:
    draft.section("events")["types"]["view"]["weight_by_value"] = [[1, -1.0], [1, 1.0]]


@change(SOUND)
def weights_by_value(draft: Draft) -> None:
    draft.section("events")["types"]["view"]["weight_by_value"] = [[1, -1.0], [3, 0.5], [5, 2.0]]


@change(EITHER)
def values_below_all_thresholds(draft: Draft) -> None:
    types = draft.section("events")["types"]
    types["view"].update(weight=-1.0, weight_by_value=[[1_000, 3.0]])
    types["cart"]["weight"] = -1.0


@change(BROKEN)
def text_as_value(draft: Draft) -> None:
    draft.put(draft.some(draft.events, 0.01), "value", "many")


@change(BROKEN)
def types_of_one_column(draft: Draft) -> None:
    draft.section("events")["types"].update({"add-to-cart": {}, "add_to_cart": {}})


# -- feature columns ------------------------------------------------------------------------------------------------


@change(BROKEN)
def missing_item_column(draft: Draft) -> None:
    draft.section("features")["item_columns"] = ["cost"]


@change(BROKEN)
def text_item_column(draft: Draft) -> None:
    draft.section("features")["item_columns"] = [str(draft.rng.choice(["material", "title", "tags"]))]


@change(BROKEN)
def late_text_in_item_column(draft: Draft) -> None:
    draft.put(draft.items, "price", lambda k: str(k) if k != len(draft.items) - 2 else "on request")


@change(SOUND)
def empty_prices(draft: Draft) -> None:
    draft.put(draft.some(draft.items, 0.3), "price", None)


@change(BROKEN)
def missing_user_column(draft: Draft) -> None:
    draft.section("features")["user_columns"] = ["height"]


@change(BROKEN)
def text_user_column(draft: Draft) -> None:
    draft.section("features").update(user_columns=["country"], user_attributes={})


@change(BROKEN)
def attribute_of_another_kind(draft: Draft) -> None:
    draft.section("features")["user_attributes"] = {"country": "number"}


@change(BROKEN)
def column_name_of_a_feature(draft: Draft) -> None:
    draft.put(draft.items, "item_number", 1)
    draft.section("features")["item_columns"] = ["item_number"]


# -- what may be shown ----------------------------------------------------------------------------------------------


@change(BROKEN)
def all_expired(draft: Draft) -> None:
    draft.put(draft.items, "expires_at", "2020-01-01T00:00:00Z")


@change(SOUND)
def never_expires(draft: Draft) -> None:
    draft.put(draft.items, "expires_at", lambda k: ["9999-12-31", "", "2099-01-01"][k % 3] or None)


@change(BROKEN)
def not_published_yet(draft: Draft) -> None:
    draft.put(draft.items, "published_at", "2099-01-01T00:00:00Z")


@change(BROKEN)
def not_available(draft: Draft) -> None:
    draft.put(draft.items, "available", False)


@change(SOUND)
def some_not_available(draft: Draft) -> None:
    draft.put(draft.items, "available", lambda k: k % 4 > 0)


@change(BROKEN)
def only_new_items_without_content(draft: Draft) -> None:
    for row in draft.items:
        row.update(tags=None, creators=None, title=None)
    only_new_items(draft)


@change(BROKEN)
def everything_seen(draft: Draft) -> None:
    draft.section("surfaces")["home"]["repeat"] = "exclude"
    draft.put(draft.events, "item_id", lambda k: f"i{k % 5}")
    del draft.items[5:]


@change(EITHER)
def only_new_items(draft: Draft) -> None:
    draft.put(draft.items, "available", False)
    draft.items += [{**row, "item_id": f"new{k}", "available": True} for k, row in enumerate(draft.items[:9])]


@change(BROKEN)
def filter_of_unknown_attribute(draft: Draft) -> None:
    draft.section("surfaces")["home"]["filter"] = "item.colour == 'red'"


@change(BROKEN)
def filter_that_is_not_readable(draft: Draft) -> None:
    draft.section("surfaces")["email"] = {"filter": "item.price >"}


@change(BROKEN)
def filter_that_nothing_passes(draft: Draft) -> None:
    draft.section("surfaces")["email"] = {"filter": "'none such' in item.tags"}


@change(SOUND)
def filter_that_some_pass(draft: Draft) -> None:
    draft.section("surfaces")["home"]["filter"] = "'t1' in item.tags"


@change(SOUND)
def filter_by_user(draft: Draft) -> None:
    draft.section("surfaces")["email"] = {"filter": "user.country == 'C1' and 't1' in item.tags"}


@change(BROKEN)
def filter_by_unknown_user_attribute(draft: Draft) -> None:
    draft.section("surfaces")["email"] = {"filter": "user.shoe_size > 40"}


@change(SOUND)
def long_slates(draft: Draft) -> None:
    draft.section("surfaces")["home"]["count"] = 30


@change(BROKEN)
def rule_that_excludes_all(draft: Draft) -> None:
    draft.section("reranking")["rules"] = "rules.toml"
    draft.rules += '[[rule]]\nname = "all"\nkind = "exclude"\nitems = "not (item.item_id == \'\')"\n'


@change(BROKEN)
def rule_of_unknown_attribute(draft: Draft) -> None:
    draft.section("reranking")["rules"] = "rules.toml"
    draft.rules += '[[rule]]\nname = "odd"\nkind = "exclude"\nitems = "item.colour == \'red\'"\n'


@change(SOUND)
def rule_that_excludes_few(draft: Draft) -> None:
    draft.section("reranking")["rules"] = "rules.toml"
    draft.rules += '[[rule]]\nname = "few"\nkind = "exclude"\nitems = "item.item_id == \'i1\'"\n'


@change(BROKEN)
def missing_rules_file(draft: Draft) -> None:
    draft.section("reranking")["rules"] = "nowhere.toml"


@change(BROKEN)
def other_items_every_day(draft: Draft) -> None:
    end = max((row["time"] for row in draft.events if isinstance(row["time"], int)), default=0)
    for row in draft.events:
        row["item_id"] = f"{row['item_id']}-{(end - row['time']) // DAY if isinstance(row['time'], int) else 0}"
    no_items_table(draft)


# -- split and ports ------------------------------------------------------------------------------------------------


@change(SOUND)
def last_k(draft: Draft) -> None:
    draft.toml["split"] = {"kind": "leave_last_k", "ranker_k": 3, "validation_k": 2, "test_k": 2}


@change(BROKEN)
def long_windows(draft: Draft) -> None:
    draft.toml["split"] = {"ranker_days": 20, "validation_days": 20, "test_days": 20}


@change(BROKEN)
def many_for_the_windows(draft: Draft) -> None:
    draft.toml["split"] = {"kind": "leave_last_k", "ranker_k": 300, "validation_k": 2, "test_k": 2}


@change(BROKEN)
def equal_ports(draft: Draft) -> None:
    draft.section("serving")["port"] = 8_265


@change(BROKEN)
def port_of_a_worker(draft: Draft) -> None:
    draft.section("jobs")["gcs_port"] = 12_000


@change(EITHER)
def numbers_as_text(draft: Draft) -> None:
    draft.put(draft.items, "price", lambda k: f"{k},5")


@change(EITHER)
def tiny_shop(draft: Draft) -> None:
    users, items = (int(draft.rng.integers(1, 5)) for _ in range(2))
    del draft.events[int(draft.rng.integers(1, 60)) :]
    for k, row in enumerate(draft.events):
        row.update(user_id=f"u{k % users}", item_id=f"i{k % items}")
    del draft.items[items:]
    draft.toml["split"] = {"ranker_days": 0.1, "validation_days": 0.1, "test_days": 0.1}


@change(EITHER)
def mostly_negative(draft: Draft) -> None:
    draft.section("events")["types"]["view"]["weight"] = -1.0
    draft.put(draft.events, "type", "view")
    draft.put(draft.some(draft.events, float(draft.rng.choice([0.002, 0.01, 0.05]))), "type", "cart")


@change(EITHER)
def short_windows(draft: Draft) -> None:
    draft.toml["split"] = {f"{name}_days": float(draft.rng.random()) / 5 for name in ("ranker", "validation", "test")}


@change(EITHER)
def some_expired(draft: Draft) -> None:
    days = draft.rng.integers(0, 30, len(draft.items))
    end = max((row["time"] for row in draft.events if isinstance(row["time"], int)), default=0)
    draft.put(draft.items, "expires_at", lambda k: iso(min(end, 2_000_000_000) + (15 - int(days[k])) * DAY))


@change(EITHER)
def some_published_later(draft: Draft) -> None:
    days = draft.rng.integers(0, 30, len(draft.items))
    end = max((row["time"] for row in draft.events if isinstance(row["time"], int)), default=0)
    draft.put(draft.items, "published_at", lambda k: iso(min(end, 2_000_000_000) + (3 - int(days[k])) * DAY))
