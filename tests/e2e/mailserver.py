"""What runs in the "stalwart" container: the simulator, and beside it the submission ports of it and of a relay.

It keeps nothing: whoever makes the container anew finds an empty server, as behind a lost volume. SIGUSR1 closes its
submission port, SIGUSR2 opens it again.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from reconciler.simulator.stalwart.listeners import Door, Listener, Sockets
from reconciler.simulator.stalwart.rest.server import StalwartRest
from reconciler.simulator.wire import Server

SUBMISSION, RELAY = 2525, 2526
RELAY_LOGIN = ("relay-user", os.environ.get("RELAY_PASSWORD", ""))


def main() -> None:
    """Serve until a signal ends it."""
    stalwart = StalwartRest(environment=dict(os.environ))
    config = Path("/opt/stalwart/etc/config.toml")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(stalwart.config_toml)
    submission = Port(SUBMISSION, stalwart._smtp_login)
    signal.signal(signal.SIGUSR1, lambda *_: submission.close())
    signal.signal(signal.SIGUSR2, lambda *_: submission.open())
    Port(RELAY, lambda _, user, secret: [user] if (user, secret) == RELAY_LOGIN else None)
    Server(stalwart, host="0.0.0.0", port=8080).start()
    threading.Event().wait()


class Port:
    """A port that mail is handed in at, which opens and closes."""

    def __init__(self, port: int, login) -> None:
        door = Door(is_blocked=lambda _: False, login=login, scan=lambda _: None, hostname=lambda: "mail.mana.how")
        self._port, self._sockets = port, Sockets("0.0.0.0", door, name="stalwart")
        self.open()

    def open(self) -> None:
        self._sockets.open([Listener(str(self._port), "smtp", (f"0.0.0.0:{self._port}",), tls=False)])
        assert self._sockets.ports == {self._port: self._port}

    def close(self) -> None:
        self._sockets.close()


if __name__ == "__main__":
    main()
