"""Replicas, processors, memory and store sizes for a load, with the arithmetic.

The measured machine answered each constant rate with a certain latency, while its cores were busy to a certain share.
The plan takes the highest rate whose p99 is low enough, and adds replicas until each is as busy as those cores were. A
request costs what it cost at that rate: batches, and so the cost of a request, depend on the load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from handsell.capacity.calibration import STAGES, CapacityCalibration, MeasuredLoad, Stage
from handsell.core.errors import ConfigError
from handsell.maintenance.config import RetentionConfig

MOST_BUSY = 0.8  # of a core; above, a lost replica or a peak of seconds makes queues
LEAST_REPLICAS = 2  # of each stage, so that one may be lost
SPARE = 1.5  # most replicas over those planned
MEMORY_SPARE = 1.5
NODE_CPU = 0.5  # of a pod for Ray's own processes, at least
KEY_BYTES = 60  # of a trimmed event, docs/operations.md
DAY_S = 86_400
Say = Callable[[str], None]
KEPT_BUNDLES = 5  # the newest three, the live one, one for rollback


@dataclass(frozen=True, slots=True)
class Wanted:
    """The load to plan for."""

    qps: float
    users: int
    items: int
    p99_ms: float
    events_per_day: float | None = None  # None: as many as requests

    def __post_init__(self) -> None:
        for name, value in (
            ("qps", self.qps), ("users", self.users), ("items", self.items), ("p99-ms", self.p99_ms),
            ("events-per-day", 1 if self.events_per_day is None else self.events_per_day + 1),
        ):  # fmt: skip
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"--{name}: expected a number above 0, got {value:g}")


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Replicas of one stage; a pod holds one."""

    replicas: int
    most: int
    cpus: float  # of a pod
    memory_gib: float  # of a pod


@dataclass
class CapacityPlan:
    """The result; `lines` is the arithmetic, one step each."""

    stages: dict[Stage, StagePlan] = field(default_factory=dict)
    stores_gb: dict[str, float] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @property
    def cpus(self) -> float:
        return sum(stage.replicas * stage.cpus for stage in self.stages.values())

    @property
    def memory_gib(self) -> float:
        return sum(stage.replicas * stage.memory_gib for stage in self.stages.values())


def make_plan(wanted: Wanted, known: CapacityCalibration) -> CapacityPlan:
    """Raises ConfigError where no measured rate is fast enough."""
    plan = CapacityPlan()
    say = plan.lines.append
    say(f"measured {known.measured} on {known.machine}, {known.cores} cores: {known.catalog.items:,} items")
    load = choose_load(wanted.p99_ms, known)
    busy = min(load.qps * load.total_ms / 1e3 / known.cores, MOST_BUSY)
    say(
        f"p99 <= {wanted.p99_ms:g} ms: at {load.qps:.1f} requests/s it was {load.p99_ms:.0f} ms, cores "
        f"{load.qps:.1f} x {load.total_ms:.1f} ms / {known.cores} = {load.qps * load.total_ms / 1e3 / known.cores:.0%} "
        f"busy; planned: {busy:.0%} of each replica's core"
    )
    cpu_ms = cost_request(wanted, known, load, say)
    events = wanted.qps * DAY_S if wanted.events_per_day is None else wanted.events_per_day
    cpu_ms["gateway"] += _cost_events(wanted, known, events, say)
    for stage in STAGES:
        plan.stages[stage] = _plan_stage(stage, cpu_ms[stage], busy, wanted, known, say)
    _add_other_processes(plan, wanted, load.other_cpu_ms, say)
    say(f"pods of all stages: {plan.cpus:.1f} CPUs, {plan.memory_gib:.1f} GiB; the head besides: 1 CPU, 4 GiB")
    _plan_stores(plan, wanted, known, events)
    return plan


def choose_load(p99_ms: float, known: CapacityCalibration) -> MeasuredLoad:
    """The highest load with a low enough p99, between two measured ones by linear interpolation."""
    loads = flatten_p99(known.loads)
    lowest = loads[0]
    if p99_ms < lowest.p99_ms:
        raise ConfigError(
            f"--p99-ms {p99_ms:g}: the lowest measured p99 is {lowest.p99_ms:.0f} ms, at {lowest.qps:.1f} requests/s: "
            "ask for that, or measure faster machines: python -m benchmarks capacity --out FILE"
        )
    for before, after in pairwise(loads):
        if after.p99_ms > p99_ms:
            return interpolate(before, after, (p99_ms - before.p99_ms) / (after.p99_ms - before.p99_ms))
    return loads[-1]


def flatten_p99(loads: Sequence[MeasuredLoad]) -> list[MeasuredLoad]:
    """Give no load a higher p99 than a higher rate has: what exceeds it is noise of a short measurement."""
    lowest = list(accumulate((load.p99_ms for load in reversed(loads)), min))[::-1]
    return [load.model_copy(update={"p99_ms": p99_ms}) for load, p99_ms in zip(loads, lowest, strict=True)]


def estimate_load(qps: float, known: CapacityCalibration) -> MeasuredLoad:
    """The load of a rate on the measured machine; raises ConfigError for a rate outside of those measured."""
    for before, after in pairwise(known.loads):
        if before.qps <= qps <= after.qps:
            return interpolate(before, after, (qps - before.qps) / (after.qps - before.qps))
    raise ConfigError(
        f"qps {qps:g}: expected a rate between the measured {known.loads[0].qps:.1f} and {known.loads[-1].qps:.1f}"
    )


def interpolate(before: MeasuredLoad, after: MeasuredLoad, at: float) -> MeasuredLoad:
    """Linear between two loads; `at` from 0 to 1."""

    def mix(a: float, b: float) -> float:
        return a + (b - a) * at

    return MeasuredLoad(
        qps=mix(before.qps, after.qps),
        p50_ms=mix(before.p50_ms, after.p50_ms), p99_ms=mix(before.p99_ms, after.p99_ms),
        cpu_ms={stage: mix(before.cpu_ms[stage], after.cpu_ms[stage]) for stage in STAGES},
        other_cpu_ms=mix(before.other_cpu_ms, after.other_cpu_ms),
    )  # fmt: skip


def cost_request(wanted: Wanted, known: CapacityCalibration, load: MeasuredLoad, say: Say) -> dict[Stage, float]:
    """CPU ms of a request by stage."""
    cpu_ms = dict(load.cpu_ms)
    decades = math.log10(wanted.items / known.catalog.items)
    more = known.catalog.candidates_ms_per_decade * decades
    cpu_ms["candidates"] = max(cpu_ms["candidates"] + more, 0.1)
    say(
        f"candidates: {load.cpu_ms['candidates']:.2f} ms at {known.catalog.items:,} items "
        f"{'+' if more >= 0 else '-'} {known.catalog.candidates_ms_per_decade:.2f} ms x {abs(decades):.2f} decades = "
        f"{cpu_ms['candidates']:.2f} ms at {wanted.items:,} items"
        + (" (extrapolated: measure a catalog of this size)" if abs(decades) > 1 else "")
    )
    return cpu_ms


def _cost_events(wanted: Wanted, known: CapacityCalibration, events: float, say: Say) -> float:
    """CPU ms of the events that come with one request."""
    each = events / DAY_S / wanted.qps
    said = "as many events as requests" if wanted.events_per_day is None else f"{events:,.0f} events a day"
    cost = each * known.stores.event_cpu_ms
    say(f"{said}: {each:.2f} for each request x {known.stores.event_cpu_ms:.2f} ms = {cost:.2f} ms of the gateway")
    return cost


def _plan_stage(
    stage: Stage, cpu_ms: float, busy: float, wanted: Wanted, known: CapacityCalibration, say: Say
) -> StagePlan:
    cores = wanted.qps * cpu_ms / 1e3
    replicas = max(math.ceil(cores / busy - 1e-9), LEAST_REPLICAS)
    most = math.ceil(replicas * SPARE)
    mapped = known.memory.mapped_mib[stage] * wanted.items / known.catalog.items
    used = known.memory.node_mib + known.memory.private_mib[stage] + mapped
    memory_gib = math.ceil(used * MEMORY_SPARE / 512) / 2
    say(
        f"{stage}: {wanted.qps:g}/s x {cpu_ms:.2f} ms = {cores:.2f} cores / {busy:.0%} -> {replicas} replicas "
        f"(at least {LEAST_REPLICAS}), up to {most}; a pod: 1 + {NODE_CPU} CPUs, (Ray {known.memory.node_mib:.0f} + "
        f"own {known.memory.private_mib[stage]:.0f} + mapped {mapped:.0f} MiB) x {MEMORY_SPARE} -> {memory_gib:g} GiB"
    )
    return StagePlan(replicas, most, 1 + NODE_CPU, memory_gib)


def _add_other_processes(plan: CapacityPlan, wanted: Wanted, other_ms: float, say: Say) -> None:
    """Give the gateway's pods the processors of proxies, event log, stream processor and Ray."""
    cores, gateway = wanted.qps * other_ms / 1e3, plan.stages["gateway"]
    cpus = 1 + max(NODE_CPU, math.ceil(2 * cores / gateway.replicas / MOST_BUSY) / 2)
    plan.stages["gateway"] = replace(gateway, cpus=cpus)
    say(
        f"proxies, stream processor and Ray: {wanted.qps:g}/s x {other_ms:.2f} ms = {cores:.2f} cores in "
        f"{gateway.replicas} gateway pods -> {cpus:g} CPUs each"
    )


def _plan_stores(plan: CapacityPlan, wanted: Wanted, known: CapacityCalibration, events: float) -> None:
    slates, stores, kept = wanted.qps * DAY_S, known.stores, RetentionConfig()
    days = kept.events_days + 1  # a night passes until they are compacted
    sizes = {
        "event store": (
            f"{events:,.0f} events a day x ({days:g} days x {stores.event_bytes:.0f} B + {kept.keys_days:g} days x "
            f"{KEY_BYTES} B) + {slates:,.0f} slates x {kept.impressions_days:g} days x {stores.slate_bytes:.0f} B",
            events * (days * stores.event_bytes + kept.keys_days * KEY_BYTES)
            + slates * kept.impressions_days * stores.slate_bytes,
        ),
        "compacted files, a year": (
            f"365 x ({events:,.0f} x {stores.compacted_event_bytes:.0f} B + {slates:,.0f} x "
            f"{stores.compacted_slate_bytes:.0f} B)",
            365 * (events * stores.compacted_event_bytes + slates * stores.compacted_slate_bytes),
        ),
        "online store": (
            f"{wanted.users:,} users x {stores.online_user_bytes:.0f} B", wanted.users * stores.online_user_bytes,
        ),
        "bundles": (
            f"{KEPT_BUNDLES} x {known.catalog.bundle_mib:.1f} MiB x {wanted.items:,} / {known.catalog.items:,} items",
            KEPT_BUNDLES * known.catalog.bundle_mib * 2**20 * wanted.items / known.catalog.items,
        ),
    }  # fmt: skip
    for name, (arithmetic, size) in sizes.items():
        plan.stores_gb[name] = size / 1e9
        plan.lines.append(f"{name}: {arithmetic} = {size / 1e9:,.2f} GB")
