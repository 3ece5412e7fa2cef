"""Three public formats as events to fit on and labeled requests.

adjacency   `user item …` in a train and a test file. Items of the user's train line are masked. The validation part is
            a tenth of every train line: the last one if lines are in the order of time (lines of [wang2019ngcf]'s split
            are, and a random split ranks models differently), else a random one; or a validation file, which the final
            fit does not use.
sequences   One line per user, oldest first. The last item is the test target, the one before it the validation target;
            the final fit uses all items but the last.
sessions    Anonymous lines of items; a test line is `prefix … target`. The validation part is every prefix of the last
            tenth of the training sessions, in the order of the file. Nothing is masked.

The formats have no timestamps: event j of a line is j hours after the start of the line. Sessions start one minute
apart, in the order of the file. Where lines have no order, all events of a line have the same time: nothing decays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from benchmarks.protocols.attributes import Attributes
from benchmarks.protocols.line_order import LineOrder, find_line_order
from benchmarks.protocols.lines import (
    compute_fingerprint,
    read_attributes,
    read_rows,
    read_users,
    read_validation,
    sort_ids,
)
from handsell.core.batches import Ragged
from handsell.core.errors import DataError
from handsell.core.units import HOUR_US, MINUTE_US
from handsell.data.interactions import Interactions

START_US = 1_577_836_800_000_000  # 2020-01-01
HELD_OUT = 0.1  # share of a line, or of the sessions, for validation

Lists = Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class LabeledRequests:
    """B requests with their histories and relevant items."""

    user: np.ndarray  # (B,) int32, -1 for anonymous requests
    history: Ragged  # (B, *) int32 items, oldest first
    target: Ragged  # (B, *) int32 distinct items
    start: int = START_US  # µs of the first event of each history
    step_us: int = HOUR_US  # between events of a history; 0: they have no order

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: np.ndarray | slice) -> LabeledRequests:
        return LabeledRequests(
            self.user[rows], self.history.take(rows), self.target.take(rows), self.start, self.step_us
        )


@dataclass(frozen=True, slots=True)
class Part:
    """Events to fit on, and the requests to evaluate on."""

    events: Interactions
    requests: LabeledRequests


@dataclass(frozen=True, slots=True)
class ProtocolData:
    """A data set in one of the formats, with its validation and test parts."""

    format: str
    metrics: tuple[str, ...]  # names in `protocol.METRICS`
    masks_history: bool  # items of the history are not recommended
    tune: Part
    final: Part
    fingerprint: str  # of the files
    attributes: Attributes | None = None
    ordered: bool = True  # the items of a line are in the order of time
    found_order: LineOrder | None = None  # what the lines say, where the order is found

    @property
    def n_items(self) -> int:
        return self.final.events.n_items


def read_adjacency(
    train: Path, test: Path, validation: Path | None = None, ordered: bool | None = None, seed: int = 0
) -> ProtocolData:
    """Read `user item …` files; `ordered` None: whether lines are in the order of time is found from train."""
    lines, wanted = read_users(train), read_users(test)
    held = read_validation(validation) if validation else None
    everyone = list(dict.fromkeys(chain(lines, wanted)))
    number = ItemNumbers(chain(lines.values(), wanted.values(), (held or {}).values()))
    rows = [number(lines.get(user, [])) for user in everyone]
    found = find_line_order(rows, number.size, seed) if ordered is None else None
    ordered = found.is_time if found else bool(ordered)
    if held is None:
        before, after = _hold_out(rows, None if ordered else np.random.default_rng(seed))
    else:
        before, after = rows, [number(held.get(user, [])) for user in everyone]
        _need_overlap(held, everyone, validation)
    targets = [number(wanted.get(user, [])) for user in everyone]
    files = [train, test] + ([validation] if validation else [])
    tune, final = (
        _part(known, known, targets, number.size, HOUR_US if ordered else 0)
        for known, targets in ((before, after), (rows, targets))
    )
    return ProtocolData(
        "adjacency", ("recall", "ndcg"), True, tune, final, compute_fingerprint(files), ordered=ordered,
        found_order=found,
    )  # fmt: skip


def read_sequences(data: Path, attributes: Path | None = None, masks_history: bool = True) -> ProtocolData:
    lines = read_users(data)
    described = read_attributes(attributes) if attributes else {}
    number = ItemNumbers(chain(lines.values(), [described.keys()]))
    rows = [number(line) for line in lines.values()]
    files = [data] + ([attributes] if attributes else [])
    about = Attributes.of(number.items, described) if attributes else None
    tune, final = (_part(cut, cut, last, number.size) for cut, last in (_without_last(rows, 2), _without_last(rows, 1)))
    return ProtocolData("sequences", ("hr", "ndcg"), masks_history, tune, final, compute_fingerprint(files), about)


def read_sessions(train: Path, test: Path) -> ProtocolData:
    lines = read_rows(train, "item item …", at_least=1)
    test_lines = read_rows(test, "item … target", at_least=2)
    number = ItemNumbers(chain(lines, test_lines))
    rows = [number(line) for line in lines]
    cut = len(rows) - max(1, int(HELD_OUT * len(rows)))
    splits = [row[: j + 1] for row in rows[cut:] for j in range(1, len(row))]
    tune, final = (
        _session_part(rows[:cut], splits, number.size),
        _session_part(rows, [number(line) for line in test_lines], number.size),
    )
    return ProtocolData("sessions", ("p", "mrr"), False, tune, final, compute_fingerprint([train, test]))


class ItemNumbers:
    """Numbers of the items of all files."""

    def __init__(self, lists: Iterable[Iterable[str]]) -> None:
        self.items = sort_ids(set(chain.from_iterable(lists)))
        self._of = {item: n for n, item in enumerate(self.items)}

    def __call__(self, ids: Sequence[str]) -> np.ndarray:
        return np.fromiter((self._of[i] for i in ids), np.int32, len(ids))

    @property
    def size(self) -> int:
        return len(self.items)


def _without_last(rows: Lists, n: int) -> tuple[Lists, Lists]:
    """Return each line without its last n items, and the first of those; no target if no history is left."""
    before = [row[: max(len(row) - n, 0)] for row in rows]
    return before, [row[len(row) - n :][:1] if len(row) > n else row[:0] for row in rows]


def _hold_out(rows: Lists, rng: np.random.Generator | None) -> tuple[Lists, Lists]:
    """Return a tenth of each line of two items or more, at least one, apart: the last ones, or random ones by `rng`."""
    before, after = [], []
    for row in rows:
        count = max(1, int(HELD_OUT * len(row))) if len(row) > 1 else 0
        held = np.arange(len(row)) >= len(row) - count
        if rng is not None:
            rng.shuffle(held)
        before.append(row[~held])
        after.append(row[held])
    return before, after


def _part(known: Lists, history: Lists, targets: Lists, n_items: int, step_us: int = HOUR_US) -> Part:
    """Build the events, and a request for each user with targets."""
    tested = [u for u, target in enumerate(targets) if len(target)]
    requests = LabeledRequests(
        np.array(tested, np.int32),
        Ragged.from_rows([history[u] for u in tested]),
        Ragged.from_rows([np.unique(targets[u]) for u in tested]),
        step_us=step_us,
    )
    return Part(_build_events(known, n_items, 0, step_us), requests)


def _session_part(known: Lists, lines: Lists, n_items: int) -> Part:
    """Build the events, and a request for each line, whose last item is the target."""
    events = _build_events(known, n_items, MINUTE_US)
    start = int(events.time.max(initial=START_US)) + HOUR_US
    history, target = Ragged.from_rows([line[:-1] for line in lines]), Ragged.from_rows([line[-1:] for line in lines])
    return Part(events, LabeledRequests(np.full(len(lines), -1, np.int32), history, target, start))


def _build_events(rows: Lists, n_items: int, apart_us: int, step_us: int = HOUR_US) -> Interactions:
    """Build events of weight 1, `step_us` apart; line u is user u and starts u · apart_us after START_US."""
    flat = Ragged.from_rows(rows)
    user = flat.row_of_value.astype(np.int32)
    place = np.arange(len(user)) - flat.offsets[user]
    ones = np.ones(len(user), np.float32)
    time = START_US + user.astype(np.int64) * apart_us + place * step_us
    return Interactions(user, flat.values, np.zeros(len(user), np.int8), time, ones, len(rows), n_items)


def _need_overlap(held: dict[str, list[str]], users: Sequence[str], path: Path | None) -> None:
    if not set(held) & set(users):
        raise DataError(f"{path}: none of its {len(held)} users is in the train file; expected the same user ids")
