"""What the search for a source's hyper-parameters tries and finds; the search itself (search.py) needs Ray Tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from handsell.config import Config
from handsell.core.errors import ConfigError, TrainingError
from handsell.jobs.tuning.trials import Params, Trial, with_params
from handsell.jobs.tuning.validation_window import WINDOW
from handsell.retrieval.config import retrievers

Space = Mapping[str, Sequence[Any]]
OBJECTIVE = "ndcg@10"


@dataclass(frozen=True, slots=True)
class TunedSource:
    """Result of the search for one source; the first of `trials` has the config's own parameters."""

    source: str
    trials: tuple[Trial, ...]
    combinations: int  # in the search space
    requests: int  # of each trial
    seconds: float

    @property
    def best(self) -> Trial:
        """The first of the best trials; raises TrainingError if every trial failed."""
        good = [trial for trial in self.trials if trial.value is not None]
        if not good:
            raise TrainingError(
                f"tuning of {self.source}: expected a trial to succeed, all {len(self.trials)} failed, the first with: "
                f"{self.trials[0].error}. Correct retrieval.{self.source}, or take it out of tuning.sources"
            )
        return max(good, key=lambda trial: trial.value or 0.0)

    def as_dict(self) -> dict[str, Any]:
        """For the report; `configured` is the value of the config's own parameters, null if they failed."""
        return {
            "objective": f"{OBJECTIVE} on the {WINDOW} window",
            "requests": self.requests,
            "combinations": self.combinations,
            "seconds": self.seconds,
            "configured": self.trials[0].value,
            "configured_params": self.trials[0].params,
            "best": self.best.value,
            "params": self.best.params,
            "trials": [asdict(trial) for trial in self.trials],
        }

    def __str__(self) -> str:
        best, first = self.best, self.trials[0]
        failed = sum(trial.value is None for trial in self.trials)
        tried = f"{len(self.trials)} of {self.combinations} tried" + (f", {failed} failed" if failed else "")
        if best is first:
            return f"{self.source} as configured, at {best.value:.4f} ({tried})"
        before = "failure" if first.value is None else f"{first.value:.4f}"
        return f"{self.source} {before} → {best.value:.4f} with {format_params(best.params)} ({tried})"


def load_search_spaces(config: Config) -> dict[str, Space]:
    """Return the values to try by source and field; raise ConfigError for a source that registers none."""
    found: dict[str, Space] = {name: retrievers()[name].search_space() for name in config.tuning.sources}
    if none := [name for name, space in found.items() if not space]:
        able = [name for name in config.retrieval.enabled if retrievers()[name].search_space()]
        raise ConfigError(
            f"tuning.sources: expected sources that register values to search ({', '.join(able) or 'none is enabled'})"
            f", got {', '.join(none)}: take it out of the list"
        )
    return found


def with_best_params(config: Config, found: Sequence[TunedSource]) -> Config:
    """Return the config with the best parameters in the sections of the sources."""
    for one in found:
        config = with_params(config, one.source, one.best.params)
    return config


def format_params(params: Params) -> str:
    return ", ".join(f"{n} {v:g}" if isinstance(v, int | float) else f"{n} {v}" for n, v in params.items())
