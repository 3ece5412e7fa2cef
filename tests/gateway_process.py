"""One gateway in this process without Ray: python gateway_process.py TOML PORT. The watchers of a deployed one run."""

from __future__ import annotations

import sys

import uvicorn

from handsell.serving.graph.gateway import Gateway


def main(toml: str, port: int) -> None:
    kind = next(one for one in reversed(Gateway.func_or_class.__mro__) if one.__name__ == "Gateway")
    gateway = object.__new__(kind)  # Serve's wrapper around the class needs a replica
    kind.__init__(gateway, toml, "live", None)
    uvicorn.run(kind.__serve_build_asgi_app__(gateway), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
