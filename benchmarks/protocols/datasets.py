"""Three public formats as one thing: what models are fitted on, and the questions that they are then asked.

adjacency   `user item item …` in a train and a test file. Answers may not be in the user's train line.
            Tuned on the last tenth of every train line (the lines of [wang2019ngcf]'s split are in order, and its test
            continues them: a random cut puts other families first), or on a given validation file, which takes no
            part in the final fit.
sequences   one line per user, oldest first. The last item is the test's target, the one before it the validation's;
            the final fit sees everything but the last.
sessions    anonymous lines of items; a test line is `prefix … target`. Tuned on the last tenth of the training
            sessions, in the order of the file, every prefix of which is a question. Nothing is masked.

No format has a clock: event j of a line is j hours after the line's start. Sessions start a minute apart in the
order of the file, so that later ones are later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from benchmarks.protocols.attributes import Attributes
from benchmarks.protocols.lines import (
    fingerprint,
    in_order,
    read_attributes,
    read_rows,
    read_users,
    read_validation,
)
from handsell.core.batches import Ragged
from handsell.core.errors import DataError
from handsell.core.units import HOUR_US, MINUTE_US
from handsell.data.interactions import Interactions

START_US = 1_577_836_800_000_000  # 2020-01-01
HELD_OUT = 0.1  # share of a line, or of the sessions, that is cut from train to tune on

Lists = Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class Questions:
    """B requests by their histories, and what each should find."""

    user: np.ndarray  # (B,) int32, -1 for an anonymous one
    history: Ragged  # (B, *) int32 items, oldest first
    target: Ragged  # (B, *) int32 distinct items
    start: int = START_US  # µs of the first event of each history

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: np.ndarray | slice) -> Questions:
        return Questions(self.user[rows], self.history.take(rows), self.target.take(rows), self.start)


@dataclass(frozen=True, slots=True)
class Part:
    """Fit on these events, then answer these questions."""

    events: Interactions
    questions: Questions


@dataclass(frozen=True, slots=True)
class Yardstick:
    format: str
    metrics: tuple[str, ...]  # names in `protocol.METRICS`
    masks_history: bool  # whether an item of the history may not be an answer
    tune: Part
    final: Part
    fingerprint: str  # of the files
    attributes: Attributes | None = None

    @property
    def n_items(self) -> int:
        return self.final.events.n_items


def adjacency(train: Path, test: Path, validation: Path | None = None) -> Yardstick:
    lines, wanted = read_users(train), read_users(test)
    held = read_validation(validation) if validation else None
    everyone = list(dict.fromkeys(chain(lines, wanted)))
    number = _numbers(chain(lines.values(), wanted.values(), (held or {}).values()))
    rows = [number(lines.get(user, [])) for user in everyone]
    if held is None:
        cut = [len(row) - max(1, int(HELD_OUT * len(row))) if len(row) > 1 else len(row) for row in rows]
        before = [row[:c] for row, c in zip(rows, cut, strict=True)]
        after = [row[c:] for row, c in zip(rows, cut, strict=True)]
    else:
        before, after = rows, [number(held.get(user, [])) for user in everyone]
        _need_overlap(held, everyone, validation)
    targets = [number(wanted.get(user, [])) for user in everyone]
    files = [train, test] + ([validation] if validation else [])
    size = number.size
    return Yardstick(
        "adjacency", ("recall", "ndcg"), True, _part(before, before, after, size), _part(rows, rows, targets, size),
        fingerprint(files),
    )  # fmt: skip


def sequences(data: Path, attributes: Path | None = None, masks_history: bool = True) -> Yardstick:
    lines = read_users(data)
    described = read_attributes(attributes) if attributes else {}
    number = _numbers(chain(lines.values(), [described.keys()]))
    rows = [number(line) for line in lines.values()]
    files = [data] + ([attributes] if attributes else [])
    about = Attributes.of(number.items, described) if attributes else None
    tune, final = (_part(cut, cut, last, number.size) for cut, last in (_without_last(rows, 2), _without_last(rows, 1)))
    return Yardstick("sequences", ("hr", "ndcg"), masks_history, tune, final, fingerprint(files), about)


def sessions(train: Path, test: Path) -> Yardstick:
    lines = read_rows(train, "item item …", at_least=1)
    asked = read_rows(test, "item … target", at_least=2)
    number = _numbers(chain(lines, asked))
    rows = [number(line) for line in lines]
    cut = len(rows) - max(1, int(HELD_OUT * len(rows)))
    splits = [row[: j + 1] for row in rows[cut:] for j in range(1, len(row))]
    tune, final = (
        _sessions(rows[:cut], splits, number.size),
        _sessions(rows, [number(line) for line in asked], number.size),
    )
    return Yardstick("sessions", ("p", "mrr"), False, tune, final, fingerprint([train, test]))


class _numbers:
    """Item ids → numbers, over all files: the catalog is known, who takes what is not."""

    def __init__(self, lists) -> None:
        self.items = in_order(set(chain.from_iterable(lists)))
        self._of = {item: n for n, item in enumerate(self.items)}

    def __call__(self, ids: Sequence[str]) -> np.ndarray:
        return np.fromiter((self._of[i] for i in ids), np.int32, len(ids))

    @property
    def size(self) -> int:
        return len(self.items)


def _without_last(rows: Lists, n: int) -> tuple[Lists, Lists]:
    """Each line without its last n items, and the first of these; nothing to find where nothing is left before it."""
    before = [row[: max(len(row) - n, 0)] for row in rows]
    return before, [row[len(row) - n :][:1] if len(row) > n else row[:0] for row in rows]


def _part(known: Lists, history: Lists, targets: Lists, n_items: int) -> Part:
    """Questions only of users with something to find."""
    asked = [u for u, target in enumerate(targets) if len(target)]
    questions = Questions(
        np.array(asked, np.int32),
        Ragged.from_rows([history[u] for u in asked]),
        Ragged.from_rows([np.unique(targets[u]) for u in asked]),
    )
    return Part(_events(known, n_items, 0), questions)


def _sessions(known: Lists, asked: Lists, n_items: int) -> Part:
    """The last item of each line of `asked` is the target."""
    events = _events(known, n_items, MINUTE_US)
    start = int(events.time.max(initial=START_US)) + HOUR_US
    history, target = Ragged.from_rows([line[:-1] for line in asked]), Ragged.from_rows([line[-1:] for line in asked])
    return Part(events, Questions(np.full(len(asked), -1, np.int32), history, target, start))


def _events(rows: Lists, n_items: int, apart_us: int) -> Interactions:
    """Line u as user u's events of weight 1, an hour between them; line u starts u · apart_us after START_US."""
    flat = Ragged.from_rows(rows)
    user = flat.row_of_value.astype(np.int32)
    place = np.arange(len(user)) - flat.offsets[user]
    ones = np.ones(len(user), np.float32)
    time = START_US + user.astype(np.int64) * apart_us + place * HOUR_US
    return Interactions(user, flat.values, np.zeros(len(user), np.int8), time, ones, len(rows), n_items)


def _need_overlap(held: dict[str, list[str]], users: Sequence[str], path: Path | None) -> None:
    if not set(held) & set(users):
        raise DataError(f"{path}: none of its {len(held)} users is in the train file; expected the same user ids")
