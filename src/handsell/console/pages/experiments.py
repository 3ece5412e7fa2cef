"""The page Experiments: which run, what each arm changes, what was found, and how to stop one."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handsell.console.figures import trials
from handsell.console.page import ConsolePage
from handsell.console.pages.quality import find_fresh_run
from handsell.console.rendering import redirect, render
from handsell.console.visit import Visit, get_visit
from handsell.core.errors import ConfigError
from handsell.experiments.canary import describe_canary
from handsell.experiments.config import Experiment
from handsell.experiments.state import ExperimentStates, open_states

LONGEST_REASON, LONGEST_NAME = 200, 100  # characters


async def show_list(request: Request) -> Response:
    """Show all experiments, those that run first."""
    visit = get_visit(request)
    states = await _read_states(visit)
    rows = trials.list_experiments(visit.config, states, time.time_ns() // 1_000)
    canary = "" if states.canary is None else describe_canary(states.canary)
    return render(
        request, "experiments/list.html.j2", title="Experiments", rows=rows, canary=canary,
        unknown=states.unknown(visit.config.experiments), holdout=visit.config.holdout.share,
    )  # fmt: skip


async def show_experiment(request: Request) -> Response:
    """Show one experiment; htmx asks for what was found."""
    visit, name = get_visit(request), request.query_params.get("name", "")
    experiment = _find(visit, name)
    state = (await _read_states(visit)).of(name)
    arms = trials.describe_arms(experiment, state)
    return render(
        request, "experiments/experiment.html.j2", title=name, name=name, experiment=experiment, arms=arms,
        state=trials.describe_state(experiment, state), metric=trials.name_metric(experiment.metric),
        units=trials.UNITS[experiment.unit], stoppable=[] if state.stopped else _list_stoppable(arms),
    )  # fmt: skip


async def show_result(request: Request) -> Response:
    """Answer with what an analysis has found, or with a part that asks again while it runs."""
    visit, name = get_visit(request), request.query_params.get("name", "")
    experiment = _find(visit, name)
    arguments = ("experiments", "analyze", str(visit.config.source), name, "--json")
    is_asked = request.query_params.get("again") == "1"
    run = visit.context.commands.start(*arguments) if is_asked else find_fresh_run(visit, *arguments)
    result = None
    if run.value is not None:
        describe = trials.describe_preference if experiment.interleave else trials.describe_result
        result = describe(run.value, experiment.control)
    return render(request, "experiments/result.html.j2", name=name, run=run, result=result)


async def stop(request: Request) -> Response:
    """Give control to the people of an experiment, or of one arm, and record who did it."""
    visit = get_visit(request)
    visit.require_edit("experiments")
    name, arm = visit.field("name"), visit.field("arm")[:LONGEST_NAME]
    experiment = _find(visit, name)
    reason = visit.field("reason")[:LONGEST_REASON] or "stopped in the console"
    if arm and (arm == experiment.control or arm not in experiment.arms):
        others = ", ".join(one for one in experiment.arms if one != experiment.control)
        raise ConfigError(f"arm: expected an arm of {name} besides control ({others}), got {arm!r}: choose one of them")
    states = open_states(visit.config)
    what = f"{arm} of {name}" if arm else name
    async with visit.audited("experiments stop", f"experiment {what}", reason):
        changed = await asyncio.to_thread(
            lambda: states.stop_arm(name, arm, reason) if arm else states.stop_experiment(name, reason)
        )
    said = "is stopped: its people get control within about a second" if changed else "was stopped before"
    return redirect(request, trials.link_experiment(name), f"{what} {said}.")


def _find(visit: Visit, name: str) -> Experiment:
    name = name[:LONGEST_NAME]
    found = visit.config.experiments.get(name)
    if found is None:
        known = ", ".join(visit.config.experiments) or "none"
        raise ConfigError(f"name: expected an experiment of the configuration ({known}), got {name!r}: choose another")
    return found


async def _read_states(visit: Visit) -> ExperimentStates:
    return await asyncio.to_thread(lambda: open_states(visit.config).read())


def _list_stoppable(arms: list[trials.ArmWords]) -> list[tuple[str, str]]:
    """Return what can be stopped, as (value, text): the experiment, and each arm if there are several."""
    running = [arm.name for arm in arms if not arm.is_control and not arm.stopped]
    return [("", "the whole experiment"), *((name, f"only {name}") for name in running if len(arms) > 2)]


PAGE = ConsolePage(
    "experiments", "Experiments",
    (
        Route("/", show_list), Route("/show", show_experiment), Route("/result", show_result),
        Route("/stop", stop, methods=["POST"]),
    ),
    scope="experiments",
)  # fmt: skip
