"""Requests of the documents (`curl …`), sent to a small shop in this process, and the answers that they show."""

from __future__ import annotations

import argparse
import json
import re

import httpx

from handsell.serving.http.answers import ExplainAnswer

PARSER = argparse.ArgumentParser(prog="curl")
PARSER.add_argument("url")
PARSER.add_argument("-i", action="store_true")
PARSER.add_argument("-G", action="store_true")
PARSER.add_argument("-X", dest="method")
PARSER.add_argument("-H", dest="headers", action="append", default=[])
PARSER.add_argument("-d", dest="data", action="append", default=[])
PARSER.add_argument("--data-urlencode", dest="encoded", action="append", default=[])


class Translation:
    """Ids and event types of the documents in the small shop; the same id is always translated alike."""

    def __init__(self, words: dict[str, str]):
        self.words, self.items = words, {}

    def translate(self, text: str) -> str:
        text = re.sub(r"\bt\d{7}\b", lambda found: self.items.setdefault(found[0], f"i{20 + len(self.items)}"), text)
        text = re.sub(r"\b[uC]\d{4,7}\b", "u5", text)
        for before, after in self.words.items():
            text = text.replace(before, after)
        return text


async def send(client: httpx.AsyncClient, arguments: list[str], cursor: str | None) -> httpx.Response:
    """Send what `curl` with these arguments would; a cursor is replaced by that of the last answer."""
    given = PARSER.parse_args(arguments)
    url = given.url.partition("127.0.0.1:8000")[2]
    if cursor:
        url = re.sub(r"cursor=[^&]+", f"cursor={cursor}", url)
    headers = dict(header.split(": ", 1) for header in given.headers)
    if given.G:
        fields = [one.split("=", 1) for one in (*given.encoded, *given.data)]
        return await client.get(url, params=dict(fields), headers=headers)
    body = given.data[0].encode() if given.data else None
    return await client.request(given.method or ("POST" if body else "GET"), url, content=body, headers=headers)


def check_answer(answer: httpx.Response, shown: str) -> None:
    """Compare status and fields with what a document shows; values differ from shop to shop."""
    head, _, text = shown.partition("\n") if shown.startswith("HTTP/") else ("", "", shown)
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None  # shortened, or nothing
    status = int(head.split()[1]) if head else expected["status"] if _is_problem(expected) else None
    if status is None:
        assert answer.is_success, answer.text
    else:
        assert answer.status_code == status, answer.text
    if isinstance(expected, dict):
        found = answer.json()
        if "outcome" in expected:  # of an explanation: what it contains depends on where the item ended
            assert not set(expected) - set(ExplainAnswer.model_fields)
            return
        assert list(found) == list(expected), answer.text
        for name in ("items", "rejected"):
            for one in found.get(name, ())[:1]:
                assert set(one) ^ set(expected[name][0]) <= {"metadata", "explored"}, (one, expected[name][0])


def _is_problem(expected) -> bool:
    return isinstance(expected, dict) and isinstance(expected.get("status"), int)
