"""What runs in the "stalwart" container: the simulator, and beside it the submission ports of it and of a relay.

It keeps nothing: whoever makes the container anew finds an empty server, as behind a lost volume.
"""

from __future__ import annotations

import os
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
    _open(SUBMISSION, stalwart._smtp_login)
    _open(RELAY, lambda _, user, secret: [user] if (user, secret) == RELAY_LOGIN else None)
    Server(stalwart, host="0.0.0.0", port=8080).start()
    threading.Event().wait()


def _open(port: int, login) -> None:
    door = Door(is_blocked=lambda _: False, login=login, scan=lambda _: None)
    sockets = Sockets("0.0.0.0", door, name="stalwart")
    sockets.open([Listener(str(port), "smtp", (f"0.0.0.0:{port}",), tls=False)])
    assert sockets.ports == {port: port}


if __name__ == "__main__":
    main()
