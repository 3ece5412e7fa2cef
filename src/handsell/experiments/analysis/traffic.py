"""A plan from the traffic of a deployment: what is logged on the surfaces of an experiment."""

from __future__ import annotations

from handsell.config import Config
from handsell.core.errors import ConfigError, DataError
from handsell.core.units import DAY_US
from handsell.experiments.analysis.analysis import find_experiment, list_arms
from handsell.experiments.analysis.log.log_database import open_log
from handsell.experiments.analysis.log.outcome_tables import ExposureFilter, OutcomeWindows, build_tables
from handsell.experiments.analysis.metrics import list_metrics
from handsell.experiments.analysis.planning import ExperimentPlan, plan_experiment
from handsell.experiments.analysis.verdict import choose_settings


def plan_from_log(config: Config, name: str, effect: float | None = None, days: int = 14) -> dict[str, ExperimentPlan]:
    """Plan each arm of an experiment but control from the last whole days of the log."""
    experiment = find_experiment(config, name)
    arms, surfaces = list_arms(experiment), experiment.surfaces
    size = effect or experiment.smallest_effect
    with open_log(config) as database:
        last = (database.execute("SELECT max(time) FROM impressions").fetchone() or (None,))[0]
        if last is None:
            raise DataError("no slate is logged yet: serve recommendations for some days, then plan")
        until = (last // DAY_US) * DAY_US or last
        chosen = ExposureFilter(arms[:1], None, surfaces=surfaces, since=until - days * DAY_US, until=until)
        tables = build_tables(database, config, chosen, OutcomeWindows())
        settings = choose_settings(tables.types, experiment.metric, size)
        looks = [tables.read(end) for end in range(until - (days - 1) * DAY_US, until + 1, DAY_US)]
    measure = list_metrics(tables.types)[settings.metric]
    share = experiment.share * (1 - config.holdout.share)
    of_arms = {arm: experiment.arms[arm].share * share for arm in arms}
    if not of_arms[arms[0]] or not all(of_arms.values()):
        raise ConfigError(f"a plan of {name} needs arms with shares above 0, got {of_arms}")
    return {
        arm: plan_experiment(looks, settings.metric, measure, (of_arms[arms[0]], of_arms[arm]), size)
        for arm in arms[1:]
    }
