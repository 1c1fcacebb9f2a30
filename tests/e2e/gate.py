"""A filtering proxy before the Docker Engine: method and path decide, as with the ones that people use."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from pathlib import Path
from typing import Any

_HEAD = 64 << 10  # bytes


class Gate:
    """Lets requests through that match, one a connection, and answers 403 to the others; both are remembered."""

    def __init__(self, path: Path, engine: str, allowed: list[tuple[str, str]]) -> None:
        self.passed: set[str] = set()
        self.refused: set[str] = set()
        self._engine, self._allowed = engine, [(method, re.compile(pattern)) for method, pattern in allowed]
        gate = self

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                gate._serve(self.request)

        class Listening(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True
            request_queue_size = 64
            block_on_close = False  # a stream of events has no end

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Somebody hung up."""

        self._server = Listening(str(path), Connection)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, client: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data and len(data) < _HEAD:
            more = client.recv(4096)
            if not more:
                return
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        method, target = lines[0].split(" ")[:2]
        path = target.partition("?")[0]
        if not any(method == one and pattern.fullmatch(path) for one, pattern in self._allowed):
            self.refused.add(f"{method} {path}")
            client.sendall(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
            return
        self.passed.add(f"{method} {path}")
        if not any(line.lower().startswith("upgrade:") for line in lines):
            lines = [line for line in lines if not line.lower().startswith("connection:")]
            lines.append("Connection: close")
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self._engine)
            engine.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + rest)
            sending = threading.Thread(target=_pass, args=(client, engine), daemon=True)
            sending.start()
            _pass(engine, client)


def _pass(source: socket.socket, sink: socket.socket) -> None:
    """Pass bytes on until one side ends."""
    try:
        while data := source.recv(64 << 10):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
