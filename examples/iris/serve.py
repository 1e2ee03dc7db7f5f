"""Answers predictions over HTTP with whatever version the registry's stage says.

The agent follows the stage and calls `Served.deploy`; requests are answered meanwhile, with the
version before until the new one is loaded. A file outside the root, or one that is not what was
registered, is rejected: joblib runs what it loads. Prints its address as JSON when it listens.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import signal
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import joblib

# Loading a model imports these; done now, the first deployment does not wait for it.
import sklearn.linear_model
import sklearn.pipeline
import sklearn.tree  # noqa: F401

from stagewire.agent import Agent, Order, Rejected
from stagewire.client import Client


@dataclass(frozen=True)
class Loaded:
    """A version in memory, ready to predict."""

    version: int
    classifier: Any
    classes: list[str]


class Served:
    """The version that answers now."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.now: Loaded | None = None

    def deploy(self, order: Order) -> None:
        """Load a version and let it answer; refuses with `Rejected` what it must not load."""
        if order.action == "withdraw" or order.model_version is None:
            self.now = None
            return
        said = order.model_version
        content = self._path(order.source).read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != said.tags["sha256"]:
            raise Rejected(
                f"version {order.version}: the file's SHA-256 is {found[:12]}…,"
                f" registered was {said.tags['sha256'][:12]}…"
            )
        classes = json.loads(said.signature)["outputs"][0]["values"]
        # One assignment: a request sees the version before or this one, whole.
        self.now = Loaded(order.version, joblib.load(io.BytesIO(content)), classes)

    def _path(self, source: str) -> Path:
        parts = urlsplit(source)
        path = Path(unquote(parts.path)).resolve()
        if parts.scheme != "file" or not path.is_relative_to(self._root):
            raise Rejected(f"{source} is not a file under the models' root")
        return path


class Answers(BaseHTTPRequestHandler):
    """GET / says what answers; POST /predict takes {"rows": [[…]]}."""

    served: Served

    def do_GET(self) -> None:
        """Say which version answers."""
        now = self.served.now
        self._answer(200, {"version": now.version if now else 0})

    def do_POST(self) -> None:
        """Predict a species for each row."""
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["rows"]
        now = self.served.now
        if now is None:
            self._answer(503, {"error": "no version is deployed"})
            return
        species = [now.classes[label] for label in now.classifier.predict(rows)]
        self._answer(200, {"version": now.version, "species": species})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing of each request."""


def main() -> None:
    """Follow the stage and answer until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--models-root", required=True, type=Path)
    options = parser.parse_args()

    served = Served(options.models_root)
    answers = type("ServedAnswers", (Answers,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), answers)
    listener = threading.Thread(target=server.serve_forever)
    listener.start()
    print(json.dumps({"http": f"127.0.0.1:{server.server_port}"}), flush=True)

    with Client(options.address) as client:
        agent = Agent(
            client,
            target="demo/loopback",
            stage="Production",
            model="iris",
            execute=served.deploy,
            name="iris-demo",
            # No state file: what runs, runs in this process, and is gone with it.
        )
        signal.signal(signal.SIGTERM, lambda *_: agent.stop())
        try:
            agent.run()
        finally:
            server.shutdown()
            listener.join()
            server.server_close()


if __name__ == "__main__":
    main()
