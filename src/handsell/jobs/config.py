"""Settings of the jobs and of the hyper-parameter search: `[jobs]` and `[tuning]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from handsell.core.section import Section


class JobsConfig(Section):
    """Settings of the Ray cluster and of the jobs on it."""

    dashboard_port: int = Field(
        8265, ge=1, le=65_535, description="port of Ray's dashboard, to which jobs are submitted"
    )
    gcs_port: int = Field(6379, ge=1, le=65_535, description="port of the cluster's head, to which nodes connect")
    num_cpus: int = Field(4, ge=1, description="logical CPUs of the local cluster")
    object_store_mib: int = Field(512, ge=80, description="shared memory of the local cluster's object store, MiB")
    ray_processes: Literal["few", "all"] = Field(
        "few",
        description="few: the local cluster starts only those of Ray's processes that handsell needs. all: also what "
        "is behind the pages of Ray's dashboard, the autoscaler's monitor and the server for `ray://` addresses",
    )
    partitions: int = Field(4, ge=1, description="partitions of users, each a task of a Ray Data job")
    small_events: int = Field(
        500_000,
        ge=0,
        description="events up to which data, features and training are computed in the process of the job: the start "
        "of Ray workers takes longer. 0: always by workers on the cluster",
    )
    use_gpu: bool | Literal["auto"] = Field(
        "auto",
        description="whether neural sources, the ranker and the sentence model are trained on GPUs, one per worker; "
        "auto: where the cluster has them now and data is not small; true: wait for them, such as for a node that "
        "the autoscaler adds",
    )
    wait_for_resources_s: float = Field(
        120.0, gt=0, description="seconds without a running task after which a job fails"
    )


class TuningConfig(Section):
    """Search for hyper-parameters of sources by Ray Tune, on the validation window; off without `sources`."""

    sources: tuple[str, ...] = Field((), description="enabled sources whose hyper-parameters are searched")
    budget_s: float = Field(
        600.0, gt=0, description="seconds for each source; trials that are running then are dropped"
    )
    trials: int = Field(100, ge=1, description="maximum of combinations per source")
    max_requests: int = Field(2_000, ge=1, description="maximum of validation requests per trial, drawn by the seed")
    concurrent: int = Field(2, ge=1, description="trials that run at the same time, with a logical CPU each")
    seed: int = Field(0, description="seed of the drawn requests and combinations")
