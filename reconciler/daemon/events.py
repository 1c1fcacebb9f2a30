"""Listens to the Docker Engine, so that a container that comes or goes is looked at right away.

Events are hints: losing all of them delays a cycle and changes nothing else. So an engine that is not there, restarts,
hangs or talks nonsense is no error here; it is asked again later.
"""

from __future__ import annotations

import contextlib
import errno
import json
import random
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import h11

from reconciler.daemon.board import Bell
from reconciler.daemon.state import Cause
from reconciler.docker import Client
from reconciler.http import parsed
from reconciler.problem import TargetUnreadable

_PROJECT = "com.docker.compose.project"
_CONTAINER = ("start", "die", "destroy", "rename", "health_status", "update")
_VOLUME = ("create", "destroy")
_ASKED = json.dumps({"type": ["container", "volume"], "event": [*_CONTAINER, *_VOLUME]})
_CONNECT = 0.8  # seconds, so that `close` is over within one
_HEAD = 10.0  # seconds until the engine has begun to answer
_IDLE = 600.0  # seconds without a word, after which the line may be dead: it is made anew
_LONGEST = 1 << 20  # bytes of one event; a container with many labels has some thousand
_CHUNK = 1 << 16
_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds before the engine is asked again
_LASTING = 5.0  # seconds after which a line counts as one that worked
_TOGETHER = 1.0  # seconds in which what happens is one ring: a container that is recreated tells five things


@dataclass(frozen=True, slots=True)
class Watched:
    """What matters: containers by name, and a compose project's containers and volumes; volumes by name as well."""

    containers: frozenset[str] = frozenset()
    project: str = ""
    volumes: frozenset[str] = frozenset()

    def has(self, event: Mapping[str, Any]) -> bool:
        """Whether an event of the engine is about it. Raises what damage makes it raise."""
        actor, action = event["Actor"], str(event["Action"]).partition(":")[0]
        said = actor.get("Attributes") or {}
        if event["Type"] == "volume":
            name = str(actor["ID"])
            ours = bool(self.project) and name.startswith(f"{self.project}_")
            return action in _VOLUME and (ours or name in self.volumes)
        names = {str(said.get("name", "")), str(said.get("oldName", "")).removeprefix("/")}
        ours = bool(self.project) and said.get(_PROJECT) == self.project
        return event["Type"] == "container" and action in _CONTAINER and (ours or bool(names & self.containers))


class Watcher:
    """A thread that rings when something happens to what is watched.

    ``host`` is as in ``DOCKER_HOST``, None for Docker's current context. What a cycle does to containers itself is told
    too: it makes one more cycle where each that begins says `settled`. Reading and running health checks ring nothing.
    """

    def __init__(self, host: str | None, bell: Bell) -> None:
        """Connect to nothing yet."""
        self._host, self._bell = host, bell
        self._watched = Watched()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._since = ""  # in the engine's own time: what happened while nobody listened is told again
        self._rung = float("-inf")
        self._owed = False
        self.listening = False

    def watch(self, containers: Collection[str], project: str = "", volumes: Collection[str] = ()) -> None:
        """Say what matters from now on. The engine is not asked anew."""
        self._watched = Watched(frozenset(containers), project, frozenset(volumes))

    def start(self) -> None:
        """Begin to listen."""
        self._thread = threading.Thread(target=self._run, name="engine-events", daemon=True)
        self._thread.start()

    def settled(self) -> None:
        """A cycle begins, which will see all that has happened so far: no ring is owed for it any more."""
        self._owed = False

    def close(self) -> None:
        """End it, whatever the engine does meanwhile."""
        self._ended.set()
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)  # which ends a wait in another thread
        if self._thread is not None:
            self._thread.join(_CONNECT + 0.1)

    # ------------------------------------------------------------------------------------------------- in its thread
    def _run(self) -> None:
        pause = _PAUSE
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                with Client(self._host, "") as client, self._line(client) as line:
                    self._listen(line)
            except (OSError, h11.ProtocolError, TargetUnreadable):
                pass
            except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):  # what is no event
                pass
            self.listening = False
            pause = _PAUSE if time.monotonic() - began > _LASTING else min(_LONGEST_PAUSE, 2 * pause)
            self._ended.wait(self._rest(pause * random.uniform(0.5, 1.0)))  # noqa: S311 (no secret)
            self._ring_owed()

    @contextlib.contextmanager
    def _line(self, client: Client) -> Iterator[socket.socket]:
        """Connect, so that `close` can end it."""
        with client.connect(_CONNECT) as connection:
            with self._lock:
                self._socket = connection
            try:
                if self._ended.is_set():
                    raise OSError(errno.ECANCELED, "closed meanwhile")
                yield connection
            finally:
                with self._lock:
                    self._socket = None

    def _listen(self, line: socket.socket) -> None:
        """Hear events until the line ends. Raises OSError, ValueError and what h11 raises."""
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_CHUNK)
        query = urlencode({"filters": _ASKED} | ({"since": self._since} if self._since else {}))
        request = h11.Request(method="GET", target=f"/events?{query}", headers=[("Host", "localhost")])
        line.settimeout(_HEAD)
        line.sendall((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        heard, buffer = time.monotonic(), b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                patience = _IDLE if self.listening else _HEAD
                data = self._received(line, heard + patience)
                if data is None:
                    continue
                http.receive_data(data)
                heard = time.monotonic()
            elif isinstance(event, h11.Response):
                if event.status_code != 200:  # noqa: PLR2004 (HTTP)
                    return
                self._begun(event)
            elif isinstance(event, h11.Data):
                *lines, buffer = (buffer + bytes(event.data)).split(b"\n")
                if len(buffer) > _LONGEST:
                    return
                for text in filter(None, lines):
                    self._heard(parsed(text))
            elif not isinstance(event, h11.InformationalResponse):
                return

    def _received(self, line: socket.socket, until: float) -> bytes | None:
        """Wait for more; None where a ring was due meanwhile. Raises TimeoutError when it is too late."""
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        line.settimeout(self._rest(left))
        try:
            return line.recv(_CHUNK)
        except TimeoutError:
            self._ring_owed()
            return None

    def _begun(self, response: h11.Response) -> None:
        """Take the engine's own time for when we began to listen."""
        self.listening = True
        if not self._since:
            from email.utils import parsedate_to_datetime

            date = next((value for name, value in response.headers if name == b"date"), b"")
            self._since = str(int(parsedate_to_datetime(date.decode()).timestamp())) if date else ""

    def _heard(self, event: dict[str, Any]) -> None:
        moment = int(event["timeNano"]) + 1
        self._since = f"{moment // 10**9}.{moment % 10**9:09d}"
        if self._watched.has(event):
            self._owed = True
            self._ring_owed()

    # ---------------------------------------------------------------------------------------------------- the ring
    def _ring_owed(self) -> None:
        """Ring at once for the first of several, and once more when it has been quiet, or long enough."""
        if self._owed and time.monotonic() - self._rung >= _TOGETHER:
            self._owed, self._rung = False, time.monotonic()
            self._bell.ring(Cause.ENGINE)

    def _rest(self, seconds: float) -> float:
        """Return how long to wait: less where a ring is owed."""
        return min(seconds, max(0.01, self._rung + _TOGETHER - time.monotonic())) if self._owed else seconds
