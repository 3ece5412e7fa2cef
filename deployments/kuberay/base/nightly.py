"""Create a RayJob like `handsell-train` and wait for its end. Run by the CronJob; needs the standard library only.

Exit status 0: it succeeded. 1: it failed, or another training is running (two would write the same files).
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

TEMPLATE = "handsell-train"
TRAINING = "app.kubernetes.io/component=training"
ENDED = ("Complete", "Failed", "Suspended")  # of status.jobDeploymentStatus
POLL_S = 30.0
IDENTITY = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class RayJobs:
    """RayJobs of one namespace, over the Kubernetes API."""

    def __init__(self, server: str, namespace: str, token: Path, context: ssl.SSLContext | None = None):
        self.url = f"{server}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self.token, self.context = token, context

    def call(self, path: str = "", body: dict | None = None) -> dict:
        """GET, or POST of a body; raises urllib.error.URLError."""
        data = None if body is None else json.dumps(body).encode()
        token = self.token.read_text().strip()  # read each time: Kubernetes renews it
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
            return json.load(answer)

    def list_running(self) -> list[str]:
        """List the names of training jobs that have not ended."""
        return [
            job["metadata"]["name"]
            for job in self.call(f"?labelSelector={TRAINING}")["items"]
            if get_state(job) not in ENDED
        ]


def get_state(job: dict) -> str:
    return job.get("status", {}).get("jobDeploymentStatus", "")


def build_job(template: dict, owner: dict) -> dict:
    """Build a RayJob with the template's spec; Kubernetes deletes it together with its owner, the Job of this night."""
    metadata = {
        "generateName": f"{template['metadata']['name']}-",
        "labels": template["metadata"].get("labels", {}),
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", **owner}],
    }
    spec = {key: value for key, value in template["spec"].items() if key not in ("jobId", "suspend")}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}


def train(jobs: RayJobs, owner: dict, poll_s: float = POLL_S) -> int:
    """Create a RayJob, wait for its end and print its state; return the exit status."""
    if running := jobs.list_running():
        print(f"not started: {', '.join(running)} is still running")
        return 1
    name = jobs.call(body=build_job(jobs.call(f"/{TEMPLATE}"), owner))["metadata"]["name"]
    print(f"created {name}", flush=True)
    while True:
        time.sleep(poll_s)
        try:
            job = jobs.call(f"/{name}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                print(f"{name} was deleted before it ended")
                return 1
            print(f"reading {name}: {error}", flush=True)
            continue
        except OSError as error:  # the API server is temporarily unavailable
            print(f"reading {name}: {error}", flush=True)
            continue
        if get_state(job) in ENDED:
            result = job["status"].get("jobStatus", "")
            print(f"{name}: {result or get_state(job)} {job['status'].get('message', '')}".rstrip())
            return 0 if result == "SUCCEEDED" else 1


def main() -> int:
    server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    context = ssl.create_default_context(cafile=str(IDENTITY / "ca.crt"))
    jobs = RayJobs(server, (IDENTITY / "namespace").read_text(), IDENTITY / "token", context)
    return train(jobs, {"name": os.environ["JOB_NAME"], "uid": os.environ["JOB_UID"]})


if __name__ == "__main__":
    sys.exit(main())
