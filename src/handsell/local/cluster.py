"""The local Ray cluster of a deployment: start its head node on loopback, find it by its process, stop only it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from handsell.access.exposure import INGRESS_HOST
from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout, find_ray_folder, find_socket_folder
from handsell.core.proxies import bypass_proxies
from handsell.core.ray_token import create_token, read_token, token_environment
from handsell.core.tools import start_command
from handsell.doctor.setting_checks import WORKER_PORTS
from handsell.features.repository import build_feast_settings
from handsell.local.ingress import process as ingress
from handsell.local.ports import require_free_port
from handsell.serving import ray_head
from handsell.serving.ray_processes import CONTROLLER_HOOK

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 90.0
CREDENTIALS = ("AWS_", "AZURE_", "GOOGLE_")  # prefixes of variables with which jobs read remote tables
ADDRESSES = ("RAY_ADDRESS", "RAY_DASHBOARD_ADDRESS", "RAY_API_SERVER_ADDRESS")  # read by drivers, `serve`, `ray job`


@dataclass(frozen=True, slots=True)
class RayHead:
    """A running head node: its process and the addresses that it listens on."""

    pid: int
    created: float  # start time of the process: with the pid it identifies one process
    gcs: str  # host:port
    dashboard: str  # http://host:port
    token: str = ""  # path of the token file; empty if an earlier version, without tokens, started it
    settings: str = ""  # `settings_digest` at its start
    agent: int = 0  # port of the agent that starts jobs; 0 if an earlier version, which did not tell, started it

    @property
    def access(self) -> dict[str, str]:
        """Environment variables with which ray and serve commands reach this cluster and no other."""
        addresses = dict(zip(ADDRESSES, (self.gcs, self.dashboard, self.dashboard), strict=True))
        return {**ON_LOOPBACK, **bypass_proxies(), **addresses, **token_environment(Path(self.token))}

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of processes of this deployment: `access`, and one thread per native call."""
        return {**BASE_ENVIRONMENT, **self.access}

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that the dashboard and the job API require."""
        return {"Authorization": f"Bearer {read_token(Path(self.token))}"}

    def is_alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


# Without this, Ray replaces a node address of 127.0.0.1 by the machine's own address and may listen on every interface.
# The setting works on Linux too, despite its name.
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

BASE_ENVIRONMENT = {
    **ON_LOOPBACK,
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONUTF8": "1",  # jobs and replicas read and write files as UTF-8 in any locale
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

# Ray's own limits are six files of 512 MB for every process.
LOG_SIZES = {"RAY_ROTATION_MAX_BYTES": str(16 * 2**20), "RAY_ROTATION_BACKUP_COUNT": "2"}

# Settings of Serve for the head and all that it starts. Serve replaces a proxy after three failed health checks: with
# the default period of ten seconds, its port would be closed for thirty. Ray 2.60 reads the two autoscaling intervals
# from metrics_interval_s in deployments/serve; later versions read these variables.
SERVE = {
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
}
INGRESS = {
    "plain": SERVE,
    # gateways and the console listen on ports of loopback from 30000 on; handsell's own HAProxy is in front of them.
    # Serve's HAProxy would listen on every interface, and make them listen there, too (decision 046)
    "haproxy": {
        **SERVE,
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DEFAULT_HTTP_HOST": LOOPBACK,
        # a replica that stops answers for three more seconds; within two, HAProxy knows that it stops
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
        "RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH": CONTROLLER_HOOK,
    },
}


def find_running(config: Config) -> RayHead | None:
    """Return the head that an earlier `start` left running, or None; raises HandsellError if its token is unusable."""
    head = _read_head(config)
    if head is None:
        return None
    if not head.token:
        raise HandsellError(
            f"the cluster of {config.name} (pid {head.pid}) was started by an earlier version, without a token: "
            f"stop it with `handsell down {config.source}`, then start it again"
        )
    read_token(Path(head.token))
    return head


def _read_head(config: Config) -> RayHead | None:
    try:
        head = RayHead(**json.loads(_pid_file(config).read_text()))
        return head if head.is_alive() else None
    except (FileNotFoundError, ValueError, TypeError, OverflowError):  # missing, empty or damaged
        return None


def start(config: Config) -> RayHead:
    """Start the head node and wait until jobs can be submitted; raises HandsellError with the end of its log."""
    head = launch(config)
    wait_until_started(config, head)
    return head


def launch(config: Config) -> RayHead:
    """Start the head node without waiting; raises HandsellError if a port of it is taken."""
    jobs, layout = config.jobs, Layout(config.state)
    require_free_ports(config)
    layout.logs.mkdir(parents=True, exist_ok=True)
    agent = _free_port()
    command = [
        *start_command("ray"), "start", "--head", "--block", "--disable-usage-stats",
        f"--node-ip-address={LOOPBACK}", f"--port={jobs.gcs_port}", f"--num-cpus={jobs.num_cpus}",
        "--include-dashboard=true", f"--dashboard-host={LOOPBACK}", f"--dashboard-port={jobs.dashboard_port}",
        # ports of the agent, which takes jobs, and of the client server: another cluster may use the fixed defaults
        f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={_free_port()}",
        f"--min-worker-port={WORKER_PORTS[0]}", f"--max-worker-port={WORKER_PORTS[1]}",
        f"--temp-dir={ray_folder(config)}", f"--object-store-memory={jobs.object_store_mib * 2**20}",
    ]  # fmt: skip
    token = create_token(_token_file(config))
    with _log_file(config).open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            env=build_head_environment(config) | token_environment(token),
        )  # fmt: skip
    head = RayHead(
        pid=process.pid,
        created=psutil.Process(process.pid).create_time(),
        gcs=f"{LOOPBACK}:{jobs.gcs_port}",
        dashboard=f"http://{LOOPBACK}:{jobs.dashboard_port}",
        token=str(token),
        settings=settings_digest(config),
        agent=agent,
    )
    _pid_file(config).write_text(json.dumps(asdict(head)))
    return head


def wait_until_started(config: Config, head: RayHead) -> None:
    """Wait until a head takes jobs, and start its ingress; raises HandsellError with the end of its log."""
    _wait_for_jobs(head, _log_file(config))
    start_ingress(config, head)


def start_ingress(config: Config, head: RayHead) -> None:
    """Start HAProxy and its supervisor in front of a running cluster, if it has them and they do not run."""
    ingress.start(config, head.pid, head.dashboard, Path(head.token))


def build_head_environment(config: Config) -> dict[str, str]:
    """Return the environment of the head and of all that it starts, without the token."""
    inherited = {name: value for name, value in os.environ.items() if name not in ADDRESSES}
    commands = (str(Path(sys.executable).parent), os.environ.get("PATH"))  # where jobs find `handsell`
    return {
        **inherited, **BASE_ENVIRONMENT, **LOG_SIZES, **bypass_proxies(), **_build_ingress_environment(config),
        **(ray_head.ENVIRONMENT if config.jobs.ray_processes == "few" else {}),
        "PATH": os.pathsep.join(filter(None, commands)),
        # Ray Train asks for the state of its actors here; without it, it may ask another cluster of this machine
        "RAY_API_SERVER_ADDRESS": f"http://{LOOPBACK}:{config.jobs.dashboard_port}",
        "TMPDIR": str(find_socket_folder()),  # for sockets of Python's multiprocessing
    }  # fmt: skip


def _build_ingress_environment(config: Config) -> dict[str, str]:
    chosen = ingress.choose_ingress(config)
    return INGRESS[chosen] | ({INGRESS_HOST: config.serving.host} if chosen == ingress.HAPROXY else {})


def require_free_ports(config: Config) -> None:
    """Raise HandsellError if another program listens on a port of the head."""
    for name in ("gcs_port", "dashboard_port"):
        require_free_port(f"jobs.{name}", LOOPBACK, getattr(config.jobs, name))


def settings_digest(config: Config) -> str:
    """Return a digest of the settings that a head keeps from its start and hands to jobs and replicas."""
    store = build_feast_settings(config)["online_store"]  # replicas inherit $HANDSELL_ONLINE_STORE
    listens = config.serving.model_dump(mode="json", include={"ingress", "host", "port"})
    inherited = {name: value for name, value in sorted(os.environ.items()) if name.startswith(CREDENTIALS)}
    listens["ingress"] = ingress.choose_ingress(config)
    settings = [config.jobs.model_dump(mode="json"), listens, store, inherited, config.storage_uri]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def stop(config: Config, timeout_s: float = 15.0) -> list[int]:
    """Terminate the head node and its child processes, and no others; kill after the timeout. Return the pids."""
    head = _read_head(config)
    _pid_file(config).unlink(missing_ok=True)
    stopped = ingress.stop(config)
    if head is None:
        return stopped
    root = psutil.Process(head.pid)
    processes = [root, *root.children(recursive=True)]
    for process in processes:
        _ignore_ended(process.terminate)
    _, left = psutil.wait_procs(processes, timeout=timeout_s)
    for process in left:
        _ignore_ended(process.kill)
    psutil.wait_procs(left, timeout=5)
    _token_file(config).unlink(missing_ok=True)
    return [*stopped, *(process.pid for process in processes)]


def ray_folder(config: Config) -> Path:
    return find_ray_folder(config.state)


def _pid_file(config: Config) -> Path:
    return config.state / "run" / "ray.json"


def _token_file(config: Config) -> Path:
    return config.state / "run" / "ray.token"


def _log_file(config: Config) -> Path:
    return Layout(config.state).logs / "ray.log"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def _wait_for_jobs(head: RayHead, log: Path) -> None:
    import httpx

    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and head.is_alive():
        try:
            jobs = httpx.get(f"{head.dashboard}/api/jobs/", headers=head.headers, timeout=5.0, trust_env=False)
            if jobs.status_code == 200 and _listens(head.agent):
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise HandsellError(f"Ray did not start within {START_TIMEOUT_S:.0f} s; the end of {log}:\n{tail}")


def _listens(port: int) -> bool:
    """Return whether somebody listens on a port of loopback; also for port 0."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=5.0).close()
    except OSError:
        return not port
    return True


def _ignore_ended(act: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        act()
