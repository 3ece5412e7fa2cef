"""A service on loopback that answers with JSON and records what it receives."""

import http.server
import json
import threading
from contextlib import contextmanager


@contextmanager
def played_service(respond):
    """Serve `respond(path, body) → (status, answer)`; yields the port and the list of received paths and bodies."""
    received = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            received.append((self.path, body))
            status, answer = respond(self.path, body)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, received
    finally:
        server.shutdown()
        server.server_close()
