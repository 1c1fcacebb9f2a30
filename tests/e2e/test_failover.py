"""The daemon over the simulator: a mail port closes, consumers run through the standby, it opens, and they go back."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.simulator.docker import Refusal
from reconciler.simulator.stalwart.listeners import Door, Listener, Sockets

from .stagefixtures import wait_for
from .test_providers import NOTIFY, standing  # noqa: F401 (a fixture)

BREVO, OURS = "smtp-relay.brevo.com", "stalwart"
FAILOVER = "  failover: {to: brevo, after: 1s, back_after: 1s}\n"
INTERVAL = ("--interval", "1s")


class Submission:
    """The mail server's submission port, which opens and closes; ``logins`` are the passwords that it saw."""

    def __init__(self) -> None:
        self.logins: list[str] = []
        self.refuses = False
        door = Door(lambda _: False, self._login, lambda _: None, hostname=lambda: "mail.mana.how")
        self._sockets = Sockets("127.0.0.1", door, name=OURS)
        self.open()

    def _login(self, _client: str, user: str, secret: str) -> list[str] | None:
        self.logins.append(secret)
        return None if self.refuses else [user]

    @property
    def route(self) -> str:
        return f"{OURS}:587=127.0.0.1:{self._sockets.choose(587)}"

    def open(self) -> None:
        self._sockets.open([Listener("submission", "smtp", ("0.0.0.0:587",), tls=False)])

    def close(self) -> None:
        self._sockets.close()


@pytest.fixture
def submission(standing: Any) -> Iterator[Submission]:  # noqa: F811
    """The stack with Brevo standing by, and its mail server's port at hand."""
    made = Submission()
    standing.env["RECONCILER_ROUTES"] = f"{standing.stage.environment['RECONCILER_ROUTES']} {made.route}"
    standing.edit("smtp.yaml", "  provider: stalwart\n", f"  provider: stalwart\n{FAILOVER}")
    standing.expect(0, "apply", "--yes")
    yield made
    made.close()


@contextlib.contextmanager
def daemon(stack: Any) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    running = stack.start("daemon", *INTERVAL, "--listen", listen, "--log", "json")
    try:
        yield
    finally:
        print(running.errors())
        running.kill(signal.SIGTERM)
        running.wait()


def uses(stack: Any) -> str:
    """Name the server that the consumer uses; nothing while its container is made anew."""
    with contextlib.suppress(Refusal):
        return str(stack.container(NOTIFY).environment["SMTP_HOST"])
    return ""


def told(stack: Any) -> dict[str, Any]:
    path = stack.data / "daemon-mana.json"
    return (json.loads(path.read_text())["provider"] or {}) if path.exists() else {}


def cycles(stack: Any, more: int) -> None:
    """Wait until so many more cycles have ended."""

    def ended() -> int:
        path = stack.data / "daemon-mana.json"
        return int(json.loads(path.read_text())["cycle"]["number"]) if path.exists() else 0

    until = ended() + more
    wait_for(lambda: ended() >= until)


def test_it_goes_over_says_so_and_goes_back(standing: Any, submission: Submission) -> None:  # noqa: F811
    with daemon(standing):
        wait_for(lambda: told(standing).get("taken") is True)
        submission.close()
        wait_for(lambda: uses(standing) == BREVO)
        wait_for(lambda: told(standing).get("failover"))
        assert "no mail server answers" in told(standing)["failover"]["why"]
        environment = standing.container(NOTIFY).environment
        assert environment["SMTP_PASSWORD"] == standing.secrets["BREVO_SMTP_KEY"]

        seen = standing.expect(0, "plan", "--output", "json").json
        assert (seen["changes"], seen["failover"]["to"]) == ([], "brevo")
        assert any(line.startswith("the daemon has failed over from stalwart to brevo since ") for line in seen["head"])
        assert "The daemon has failed over from stalwart to brevo" in standing.run("status").out
        standing.run("apply", "--yes", "--wait", "30s")
        assert uses(standing) == BREVO, "a person's apply does not switch back"

        submission.open()
        wait_for(lambda: uses(standing) == OURS)
    assert standing.expect(0, "plan", "--output", "json").json["failover"] is None
    history = standing.run("history", "--output", "json").out
    assert "stalwart to brevo since" in history
    assert len(submission.logins) <= 4, "one for each start, switch, and proof of a switch"


def test_a_restart_goes_on_where_it_was(standing: Any, submission: Submission) -> None:  # noqa: F811
    submission.close()
    with daemon(standing):
        wait_for(lambda: uses(standing) == BREVO)
    standing.expect(0, "daemon", "--once", *INTERVAL)
    assert uses(standing) == BREVO
    submission.open()
    with daemon(standing):
        wait_for(lambda: uses(standing) == OURS)


def test_a_refused_login_is_tried_once_and_counts(standing: Any, submission: Submission) -> None:  # noqa: F811
    submission.refuses = True
    submission.logins.clear()
    with daemon(standing):
        wait_for(lambda: uses(standing) == BREVO)
        cycles(standing, 2)
    assert len(submission.logins) == 1
    assert told(standing)["refused"] is True


def test_without_visible_records_nothing_is_switched_and_the_reason_is_told(
    standing: Any,  # noqa: F811
    submission: Submission,
) -> None:
    standing.stage.dns.stop(1)
    submission.close()
    with daemon(standing):
        wait_for(lambda: told(standing).get("obstacles"))
        cycles(standing, 2)
        assert uses(standing) == OURS
        assert "could not be asked" in told(standing)["obstacles"][0]
        assert told(standing)["failover"] is None


def test_while_suspended_nothing_is_switched(standing: Any, submission: Submission) -> None:  # noqa: F811
    standing.expect(0, "suspend", "--reason", "moving")
    submission.close()
    with daemon(standing):
        cycles(standing, 3)  # the first begins what would be due with the third
        assert uses(standing) == OURS
        standing.expect(0, "resume")
        wait_for(lambda: uses(standing) == BREVO)


def test_what_a_person_says_ends_it_at_once(standing: Any, submission: Submission) -> None:  # noqa: F811
    submission.close()
    with daemon(standing):
        wait_for(lambda: told(standing).get("failover") and uses(standing) == BREVO)
        standing.edit("smtp.yaml", FAILOVER, "")
        assert "This directory says otherwise" in standing.run("plan").text
        wait_for(lambda: uses(standing) == OURS)
        cycles(standing, 2)
        assert uses(standing) == OURS
    assert json.loads((standing.data / "failover-mana.json").read_text())["failover"] is None
