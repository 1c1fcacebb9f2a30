"""The engine, as far as the stand-in for `docker compose` asks it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from reconciler.simulator.compose.failure import Failure

LABEL = "com.docker.compose"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Engine:
    """The Docker Engine that DOCKER_HOST names, spoken to in plain HTTP."""

    def __init__(self, host: str) -> None:
        """Take ``unix:///path`` or ``tcp://host:port``; raises `Failure` for anything else."""
        split = urlsplit(host)
        if split.scheme not in ("unix", "tcp", "http"):
            raise Failure(f"unable to parse docker host `{host}`")
        self.host = host
        self._connect: Callable[[], http.client.HTTPConnection] = (
            (lambda: _UnixConnection(split.path))
            if split.scheme == "unix"
            else (lambda: http.client.HTTPConnection(split.netloc))
        )

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """Make one request and parse its answer; raises `Failure` with the engine's message."""
        connection = self._connect()
        sent = None if body is None else json.dumps(body)
        target = f"/v1.41{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            connection.request(method, target, sent, {"Content-Type": "application/json"} if sent else {})
            response = connection.getresponse()
            data = response.read()
        except OSError as error:
            raise Failure(f"Cannot connect to the Docker daemon at {self.host}. Is it running?") from error
        finally:
            connection.close()
        parsed = json.loads(data) if data.startswith((b"{", b"[")) else None
        if response.status >= 400:
            raise Failure(f"Error response from daemon: {(parsed or {}).get('message', response.reason)}")
        return parsed

    def containers(self, project: str, service: str = "", *, everything: bool = True) -> list[dict[str, Any]]:
        """List a project's containers in full, oldest first."""
        labels = [f"{LABEL}.project={project}", *([f"{LABEL}.service={service}"] if service else [])]
        filters = json.dumps({"label": labels})
        found = self.call("GET", "/containers/json", filters=filters, all=str(int(everything)))
        return [self.inspect(item["Id"]) for item in sorted(found, key=lambda item: item["Created"])]

    def inspect(self, name: str) -> dict[str, Any]:
        """Return all of one container."""
        found: dict[str, Any] = self.call("GET", f"/containers/{name}/json")
        return found
