"""overlays/local from `kubectl apply` to a request, and one load step up and down: at most a quarter of an hour."""

from __future__ import annotations

import json
import time

import pytest

from kube_cluster import (
    LOAD_NAMESPACE,
    Load,
    count_stage_calls,
    list_ready,
    read_object,
    run_in_pod,
    run_kubectl,
    summarize,
    wait_until,
)

STEP_S, CONNECTIONS = 100.0, 16
GROUPS = ("gateway", "candidates", "ranking", "reranking")


def test_the_first_training_promotes_a_bundle(trained):
    assert read_object("rayjob", "handsell-train")["status"]["jobStatus"] == "SUCCEEDED"


def test_the_service_answers_a_request_with_a_key(key):
    script = (
        "import os\nfrom urllib.request import Request, urlopen\n"
        "url = 'http://handsell.handsell/v1/users/u0000124/recommendations?count=2'\n"
        "headers = {'Authorization': 'Bearer ' + os.environ['API_KEY']}\n"
        "print(urlopen(Request(url, headers=headers)).read().decode())"
    )
    answer = json.loads(run_kubectl("-n", LOAD_NAMESPACE, "exec", "load", "--", "python3", "-c", script))
    assert len(answer["items"]) == 2 and answer["degraded"] == []


def test_the_service_refuses_a_request_without_a_key(key):
    script = (
        "import urllib.request, urllib.error\n"
        "try: urllib.request.urlopen('http://handsell.handsell/v1/popular')\n"
        "except urllib.error.HTTPError as error: print(error.code)"
    )
    assert run_kubectl("-n", LOAD_NAMESPACE, "exec", "load", "--", "python3", "-c", script).strip() == "401"


def test_the_console_shows_what_somebody_gets_after_a_sign_in(key):
    script = (
        "import os\nfrom http.cookiejar import CookieJar\nfrom urllib.parse import urlencode\n"
        "from urllib.request import HTTPCookieProcessor, build_opener\n"
        "browser = build_opener(HTTPCookieProcessor(CookieJar()))\n"
        "first = browser.open('http://handsell.handsell/')\nprint(first.url)\n"
        "form = urlencode({'key': os.environ['API_KEY'], 'next': '/explore?user=u0000124'}).encode()\n"
        "print(browser.open('http://handsell.handsell/console/signin', form).read().decode())"
    )
    printed = run_kubectl("-n", LOAD_NAMESPACE, "exec", "load", "--", "python3", "-c", script)
    assert "/console/signin" in printed.splitlines()[0]
    assert "What this person gets" in printed and "Why?" in printed


@pytest.mark.parametrize("group", GROUPS)
def test_pods_compute_with_the_kernels_of_the_image(key, group):
    script = "from handsell.core.kernels import compiled; print(compiled.__name__)"
    printed = run_in_pod(list_ready(group)[0], "python", "-W", "error", "-c", script, container="ray-worker")
    assert printed.strip() == "handsell.core.kernels._compiled"


def test_stages_are_called_over_sockets_between_pods(key, figures):
    Load(3.0, 2).result()  # first calls, which wait for connections, may take Serve's way
    before = count_stage_calls()
    result = Load(10.0, 4).result()
    taken = {way: count - before.get(way, 0) for way, count in count_stage_calls().items()}
    figures.record("calls of stages", taken)
    assert taken["socket"] >= result["ok"] and taken.get("serve", 0) <= 0.01 * taken["socket"]


def test_pods_follow_the_load_and_no_request_fails(key, figures):
    """Pods of the groups with the most work are added, become ready, and go when the load has gone."""
    before = {group: len(list_ready(group)) for group in GROUPS}
    load, asked, grown = Load(STEP_S, CONNECTIONS, events=0.1), {}, {}
    while load.is_alive():
        for group in GROUPS:
            pods = run_kubectl(
                "-n", "handsell", "get", "pods", "-l",
                f"ray.io/group={group},app.kubernetes.io/component=serving", "-o", "name",
            ).splitlines()  # fmt: skip
            if len(pods) > before[group]:
                asked.setdefault(group, load.elapsed())
            if len(list_ready(group)) > before[group]:
                grown.setdefault(group, load.elapsed())
        time.sleep(1)
    result = load.result()
    figures.record(f"step of {CONNECTIONS} connections", summarize(result))
    for group in GROUPS:
        if group in asked:
            figures.record(f"  {group}: another pod asked for", asked[group])
        if group in grown:
            figures.record(f"  {group}: it is ready", grown[group])
    assert grown, asked
    assert result["errors_count"] == 0 and not [status for _, status, _ in result["refused"] if status >= 500]
    ended = time.monotonic()
    wait_until("pods go", lambda: all(len(list_ready(group)) <= before[group] for group in GROUPS), 180.0, 2)
    figures.record("end of the step → as many pods as before", time.monotonic() - ended)


@pytest.mark.parametrize("kind, name", [("rayservice", "handsell"), ("rayjob", "handsell-train")])
def test_what_was_applied_is_what_runs(ready, kind, name):
    """The operator and the API server have not dropped a field of the manifests."""
    made = run_kubectl("-n", "handsell", "get", kind, name, "-o", "jsonpath={.spec.*.authOptions.mode}")
    assert made == "token"
