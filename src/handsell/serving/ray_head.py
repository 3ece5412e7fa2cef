"""What the Ray head of one machine does without, to need less memory and to start sooner (decision 057).

`ray start` calls `trim_head` by its path (RAY_START_HOOK) before it starts anything. All of this is internal to the Ray
that is pinned: what another version lacks stays as Ray has it, and ray.log says so. tests/graph/test_local_cluster.py
notices it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from handsell.serving import ray_parent
from handsell.serving.ray_processes import REPLICA_HOOK_VARIABLE, SERVE_HOOK

HOOK_VARIABLE = "RAY_START_HOOK"  # Ray's; it takes the path of a function
HOOK = f"{__name__}.trim_head"
ENVIRONMENT = {
    HOOK_VARIABLE: HOOK,
    "RAY_enable_autoscaler_v2": "1",  # `ray status` asks the GCS for the nodes: the first version asks the monitor
    # a worker without work ends after a while: Ray keeps one for each CPU
    "RAY_num_workers_soft_limit": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "10000",
}
# Jobs, which need the nodes, Serve's API, the state API, and the file of addresses for Prometheus. Not loaded: the rest
# of what is behind the pages of the dashboard (events, Data, Train, links to Grafana).
MODULES = ("JobHead", "NodeHead", "ReportHead", "ServeHead", "StateHead")
# the dashboard starts Serve's controller, in an environment as that of replicas
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
CONTROLLER = {"runtime_env": {"env_vars": {REPLICA_HOOK_VARIABLE: SERVE_HOOK}}}
# attributes of Ray's parameters: the autoscaler's monitor, the server of `ray://` clients
PARAMETERS = {"no_monitor": True, "ray_client_server_port": None}


def trim_head(parameters: Any, is_head: bool) -> None:
    """Leave out what one machine does not need; `parameters` are Ray's own, before a process has started."""
    os.environ.pop(HOOK_VARIABLE, None)
    for name, value in PARAMETERS.items():
        if hasattr(parameters, name):
            setattr(parameters, name, value)
        else:
            _report(f"Ray has no parameter {name} any more")
    for change in (load_few_modules, become_small):
        try:
            change()
        except (ImportError, AttributeError) as error:
            _report(f"{change.__name__}: {error!r}")


def load_few_modules() -> None:
    """Start the dashboard with MODULES; with all of them, if it does not start with these."""
    from ray._private import services

    start_server, start_process = services.start_api_server, services.start_ray_process

    def start_few(command: list[str], process_type: str, **options: Any) -> Any:
        if process_type == "dashboard":
            place = next(i for i, word in enumerate(command) if word.endswith("dashboard.py"))
            before = [*command[:place], "-P", "-m", "handsell.serving.ray_dashboard"]
            command = [*before, *command[place:], f"--modules-to-load={','.join(MODULES)}"]
            options["env_updates"] = {**(options.get("env_updates") or {}), JOB_VARIABLE: json.dumps(CONTROLLER)}
        return start_process(command, process_type, **options)

    def start(*values: Any, **options: Any) -> Any:
        services.start_ray_process = start_few  # type: ignore[assignment]
        try:
            return start_server(*values, **options)
        except Exception as error:
            _report(f"the dashboard does not start with {', '.join(MODULES)}: {error}")
        finally:
            services.start_ray_process = start_process
        return start_server(*values, **options)

    services.start_api_server = start  # type: ignore[assignment]


def become_small() -> None:
    """Replace `ray start --block` with ray_parent.py when it begins to watch the processes that it has started."""
    from ray._private.node import Node

    find_dead: Callable = Node.dead_processes

    def replace_itself(node: Any) -> list:
        dead = find_dead(node)
        if dead or not node.kernel_fate_share:  # without that, children would survive the end of this process
            return dead
        running = [f"{name}={one.process.pid}" for name, each in node.all_processes.items() for one in each]
        command = [sys.executable, "-I", "-S", ray_parent.__file__, node.get_logs_dir_path(), *running]
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            os.execv(sys.executable, command)
        except OSError as error:
            _report(f"cannot start {ray_parent.__file__}: {error}")
        return dead

    Node.dead_processes = replace_itself  # type: ignore[method-assign]


def _report(text: str) -> None:
    print(f"handsell: {text}; Ray's own way is used", file=sys.stderr, flush=True)
