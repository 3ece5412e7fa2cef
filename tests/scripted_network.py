"""The network of a client in tests, with faults and answers in place of the first ones."""

from __future__ import annotations

import httpx

CLICK = {"type": "play", "user_id": "u1", "item_id": "i3"}


class ScriptedNetwork(httpx.BaseTransport):
    """Takes the next fault for each request: an answer is given without the service, an error hides its answer."""

    def __init__(self, *faults):
        self.faults, self.requests, self.network = list(faults), [], httpx.HTTPTransport()

    def handle_request(self, request):
        self.requests.append(request)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, httpx.Response):
            return fault
        answer = self.network.handle_request(request)
        if fault is not None:
            answer.read()
            answer.close()
            raise fault  # the service has done what was asked
        return answer

    def close(self):
        self.network.close()


def make_refusal(status, code="log_unavailable", **headers):
    body = {"title": "x", "status": status, "detail": "nothing was stored", "code": code}
    return httpx.Response(status, json=body, headers=headers)
