"""Keys: what is stored of them, when they are valid, and what a gateway makes of texts that are none."""

import base64
import json
import time
from dataclasses import replace
from types import SimpleNamespace

import jwt
import pytest

from handsell.access.api_key import ApiKey, create_key, hash_secret, parse_key, rotate_key
from handsell.access.caller import Caller
from handsell.access.config import AccessConfig
from handsell.access.exposure import find_exposure
from handsell.core.units import HOUR_US
from handsell.serving.http.access import known_keys
from handsell.serving.http.access.known_keys import KnownKeys
from handsell.serving.http.access.limits import KeyLimits


class Store:
    """A reader of keys."""

    def __init__(self, *keys):
        self.keys = [replace(key, offset=n + 1) for n, key in enumerate(keys)]

    def read_keys(self, after_offset=0):
        return [key for key in self.keys if key.offset > after_offset]


def now_us():
    return time.time_ns() // 1_000


def know(*keys, widget_token_s=3_600):
    known = KnownKeys(widget_token_s)
    known.read(Store(*keys))
    return known


def make(kind="server", scopes=("recommend",), **more) -> tuple[ApiKey, str]:
    return create_key("shop", kind, scopes, now_us(), **more)


def sign(key, secret, header=None, algorithm="HS256", **claims):
    return jwt.encode(
        {"sub": "u1", "exp": time.time() + 60} | claims, secret, algorithm, {"kid": key.key_id} | (header or {})
    )


def test_the_store_has_a_hash_and_no_secret():
    key, text = make()
    id_, secret = text.removeprefix("hs_").split("_", 1)
    assert id_ == key.key_id and key.secret == hash_secret(secret) and secret not in repr(key)
    assert len({make()[1] for _ in range(50)}) == 50 and len(secret) == 43  # 256 bits


def test_a_key_is_its_secret_and_nothing_near_it():
    key, text = make()
    known = know(key)
    assert known.identify(text) == Caller(key.key_id, "shop", frozenset({"recommend"}))
    for wrong in (
        text[:-1],
        text + "x",
        text.upper(),
        f"hs_{key.key_id}_",
        f"hs_{key.key_id}_{key.secret}",
        "hs_",
        "",
        "ü",
    ):
        assert known.identify(wrong) is None, wrong


def test_a_revoked_and_an_expired_key_are_refused():
    key, text = make()
    assert know(replace(key, revoked_us=1)).identify(text) is None
    assert know(replace(key, expires_us=now_us() - 1)).identify(text) is None
    assert know(replace(key, expires_us=now_us() + HOUR_US)).identify(text) is not None


def test_after_a_rotation_both_secrets_are_valid_until_the_overlap_ends():
    key, former = make()
    rotated, text = rotate_key(key, now_us(), 3_600)
    known = know(rotated)
    assert known.identify(text) is not None and known.identify(former) is not None
    ended = know(replace(rotated, former_until_us=now_us()))
    assert ended.identify(text) is not None and ended.identify(former) is None
    twice, newest = rotate_key(rotated, now_us(), 0)
    assert [know(twice).identify(one) is not None for one in (former, text, newest)] == [False, False, True]


def test_a_change_is_followed_by_its_offset():
    key, text = make()
    known, store = KnownKeys(3_600), Store(key)
    assert known.identify(text) is None and not known.is_complete
    known.read(store)
    store.keys.append(replace(key, revoked_us=1, offset=2))
    assert known.identify(text) is not None and known.is_complete
    known.read(store)
    assert known.identify(text) is None


def test_a_widgets_token_names_its_user():
    key, secret = make("widget")
    known = know(key)
    assert known.identify(sign(key, secret)) == Caller(key.key_id, "shop", frozenset({"recommend"}), "u1")
    assert known.identify(secret) is None and known.identify(f"hs_{key.key_id}_{secret}") is None  # it only signs


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": time.time() + 9_000},
        {"exp": None},
        {"sub": None},
        {"sub": 7},
        {"exp": "soon"},
        {"exp": float("inf")},
    ],
)
def test_a_token_that_has_ended_or_lasts_too_long_or_lacks_a_claim_is_refused(claims):
    key, secret = make("widget")
    given = {name: v for name, v in ({"sub": "u1", "exp": time.time() + 60} | claims).items() if v is not None}
    token = jwt.api_jws.encode(json.dumps(given).encode(), secret, "HS256", {"kid": key.key_id})
    assert know(key).identify(token) is None


def test_a_token_of_another_signature_or_algorithm_is_refused():
    key, secret = make("widget")
    other, other_secret = make("widget")
    server, _ = make()
    known = know(key, other, server)
    assert known.identify(sign(key, other_secret)) is None
    assert known.identify(sign(key, secret, algorithm="HS384")) is None
    assert known.identify(sign(server, server.secret)) is None  # the hash of a server's key signs nothing
    unsigned = sign(key, "", algorithm="none")
    assert known.identify(unsigned) is None
    head, _, signature = sign(key, secret).split(".")
    changed = base64.urlsafe_b64encode(json.dumps({"sub": "u2", "exp": time.time() + 60}).encode()).decode().strip("=")
    assert known.identify(f"{head}.{changed}.{signature}") is None
    rotated, newest = rotate_key(key, now_us(), 60)
    assert know(rotated).identify(sign(key, secret)) and know(rotated).identify(sign(key, newest))


def test_a_token_that_was_checked_before_ends_with_its_time_and_its_secret(monkeypatch):
    key, secret = make("widget")
    token = sign(key, secret)
    known, store = KnownKeys(3_600), Store(key)
    known.read(store)
    assert known.identify(token) is known.identify(token) is not None  # remembered
    rotated, _ = rotate_key(key, now_us(), 3_600)
    for changed, valid in (
        (rotated, True), (replace(rotated, former_until_us=now_us()), False), (key, True),
        (replace(key, scopes=("events",)), True), (replace(key, expires_us=now_us()), False), (key, True),
        (replace(key, revoked_us=1), False),
    ):  # fmt: skip
        store.keys = [replace(changed, offset=store.keys[-1].offset + 1)]
        known.read(store)
        assert (known.identify(token) is not None) == valid, changed
    store.keys = [replace(key, offset=99)]
    known.read(store)
    assert known.identify(token).scopes == {"recommend"}
    later = SimpleNamespace(time_ns=lambda: time.time_ns() + 61 * 10**9)
    monkeypatch.setattr(known_keys, "time", later)
    monkeypatch.setattr(known_keys, "read_user", lambda *_: None)
    assert known.identify(token) is None


@pytest.mark.parametrize("text", ["a.b.c", "..", ".", "e30.e30.", "hs_a_b_c", "x" * 9_000, "\xff.\xfe.\x00"])
def test_no_text_breaks_the_check(text):
    assert know(make()[0], make("widget")[0]).identify(text) is None


def test_a_deeply_nested_header_of_a_token_is_refused():
    nested = base64.urlsafe_b64encode(b"[" * 2_500).decode().strip("=")
    assert know(make("widget")[0]).identify(f"{nested}.e30.e30") is None


def test_the_id_of_a_key_is_read_only_from_a_whole_key():
    assert parse_key("hs_short_secret") is None and parse_key("xx_aaaaaaaaaa_s") is None
    assert parse_key("hs_aaaaaaaaaa_s_t") == ("aaaaaaaaaa", hash_secret("s_t"))


# -- limits ---------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it."""
    from handsell.serving.http.access import limits

    class Clock:
        seconds = 86_400.0 * 20_000 + 86_000

        def monotonic(self):
            return self.seconds

        def time_ns(self):
            return round(self.seconds * 1e9)

    clock = Clock()
    monkeypatch.setattr(limits, "time", clock)
    return clock


def count_allowed(limits, key, n, user_id=None):
    return sum(limits.find_excess(key, user_id) is None for _ in range(n))


def test_a_rate_allows_a_burst_and_then_its_pace(clock):
    limits, key = KeyLimits(AccessConfig(rate_per_s=5)), make()[0]
    assert count_allowed(limits, key, 30) == 10  # two seconds
    refused = limits.find_excess(key)
    assert (refused.code, refused.retry_after_s) == ("rate_limited", 1)
    clock.seconds += 1.0
    assert count_allowed(limits, key, 30) == 5
    clock.seconds += 3_600
    assert count_allowed(limits, key, 30) == 10
    assert count_allowed(limits, replace(make()[0], rate_per_s=100.0), 300) == 200  # a key may have its own
    slow = replace(make()[0], rate_per_s=0.1)
    assert count_allowed(limits, slow, 5) == 1 and limits.find_excess(slow).retry_after_s == 10


def test_each_user_of_a_widget_has_a_rate_of_their_own(clock):
    limits, key = KeyLimits(AccessConfig(rate_per_s=1)), make("widget")[0]
    assert count_allowed(limits, key, 9, "u1") == 2 and count_allowed(limits, key, 9, "u2") == 2
    for n in range(25_000):
        clock.seconds += 0.001
        limits.find_excess(key, f"v{n}")
    assert len(limits._buckets) <= 10_000
    slow = replace(key, rate_per_s=0.001)
    assert count_allowed(limits, slow, 9, "slow") == 1
    for n in range(25_000):
        clock.seconds += 0.001
        limits.find_excess(key, f"w{n}")
    assert count_allowed(limits, slow, 9, "slow") == 0  # its bucket is not full yet, so it was not dropped


def test_a_quota_counts_the_requests_of_all_gateways(clock):
    here, there, key = KeyLimits(AccessConfig(quota_per_day=10)), KeyLimits(AccessConfig(quota_per_day=10)), make()[0]
    assert count_allowed(here, key, 4) == 4 and count_allowed(there, key, 3) == 3
    stored = {}
    for gateway in (here, there):
        day, new = gateway.take_new()
        stored[key.key_id] = stored.get(key.key_id, 0) + new[key.key_id]
        assert count_allowed(gateway, replace(key, quota_per_day=new[key.key_id]), 1) == 0  # while they are sent
        gateway.confirm(day)
    for gateway in (here, there):
        gateway.set_stored(day, dict(stored))
    assert count_allowed(here, key, 9) == 3
    refused = here.find_excess(key)
    assert (refused.code, refused.retry_after_s) == ("quota_exceeded", 400)  # until midnight
    clock.seconds += 400
    assert count_allowed(here, key, 20) == 10


def test_counts_that_could_not_be_stored_are_kept(clock):
    limits, key = KeyLimits(AccessConfig(quota_per_day=10)), make()[0]
    count_allowed(limits, key, 4)
    day, new = limits.take_new()
    assert new == {key.key_id: 4} and count_allowed(limits, key, 1) == 1
    limits.keep(day)
    assert limits.take_new() == (day, {key.key_id: 5})
    limits.confirm(day)
    assert count_allowed(limits, key, 20) == 5


# -- a service that others can reach --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "settings", "may"),
    [
        ("127.0.0.1", {}, True), ("127.8.0.1", {}, True), ("::1", {}, True), ("localhost", {}, True),
        ("0.0.0.0", {}, False), ("::", {}, False), ("10.0.0.4", {}, False), ("shop.example", {}, False),
        ("0.0.0.0", {"keys": "required"}, True), ("0.0.0.0", {"open": "anyone may call"}, True),
    ],
)  # fmt: skip
def test_a_service_beyond_loopback_needs_keys_or_words(host, settings, may):
    found = find_exposure(AccessConfig(**settings), host)
    assert (found is None) == may
    assert may or ("access.keys" in found and "anyone may call" in found and host in found)


@pytest.mark.parametrize("origin", ["*", "shop.example", "https://shop.example/", "https://*.shop.example", "null"])
def test_an_origin_is_a_scheme_and_a_host(origin):
    with pytest.raises(ValueError, match="expected origins such as https"):
        AccessConfig(cors_origins=(origin,))
