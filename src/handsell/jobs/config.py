"""Settings of the jobs and of the search for hyper-parameters: `[jobs]` and `[tuning]`."""

from __future__ import annotations

from pydantic import Field

from handsell.core.section import Section


class JobsConfig(Section):
    """What runs on the Ray cluster."""

    dashboard_port: int = Field(8265, ge=1, le=65_535, description="of Ray's dashboard, which takes submitted jobs")
    gcs_port: int = Field(6379, ge=1, le=65_535, description="on which nodes of the cluster find its head")
    num_cpus: int = Field(4, ge=1, description="logical CPUs that the local cluster declares")
    object_store_mib: int = Field(512, ge=80, description="shared memory of the local cluster's object store")
    partitions: int = Field(4, ge=1, description="partitions of users in Ray Data jobs")
    wait_for_resources_s: float = Field(120.0, gt=0, description="after this a job that cannot be placed says so")


class TuningConfig(Section):
    """Search for the sources' hyper-parameters on the validation window, by Ray Tune; off until `sources` names one."""

    sources: tuple[str, ...] = Field((), description="enabled sources whose hyper-parameters are searched; none: off")
    budget_s: float = Field(600.0, gt=0, description="seconds for each source; trials under way then are dropped")
    trials: int = Field(100, ge=1, description="most combinations tried for each source")
    max_requests: int = Field(2_000, ge=1, description="validation requests that a trial answers, drawn by the seed")
    concurrent: int = Field(2, ge=1, description="trials of one source at a time, a logical CPU each")
    seed: int = Field(0, description="of the requests and of the combinations")
