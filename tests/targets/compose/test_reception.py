"""Whether a server takes mail, asked again and again: a real one sees a login only where that can tell something."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.problem import Problem, SecretUnreadable
from reconciler.refusals import Refusals
from reconciler.resources import UNKNOWN, Login, SecretRef
from reconciler.targets.compose import reception
from reconciler.targets.compose.proof import greet
from reconciler.targets.compose.reception import Reception, Tried, ask

PASSWORD = "canary pass'wörd\\$"


@dataclass
class Ways:
    """The way to one server, which runs in ``container``."""

    port: int
    container: str = "c1"

    def of(self, _login: Login) -> list[tuple[str, int]]:
        return [("127.0.0.1", self.port)]

    def server(self, login: Login) -> Iterator[str]:
        yield from (f"{login.host}:{login.port}", self.container)

    def is_unsafe(self, _login: Login) -> bool:
        return False


@pytest.fixture
def asked(serve: Callable, tmp_path: Path) -> Callable:
    """Ask one server, with what was learnt before."""
    refusals, tried = Refusals(tmp_path / "refusals.json"), Tried()

    def call(server, container: str = "c1", password: str = PASSWORD, tried: Tried | None = tried, **login):
        return ask(server.login(**login), Ways(server.port, container), refusals, lambda _ref: password, tried)

    return call


def test_an_accepted_login_is_not_tried_again(asked, serve):
    server = serve(PASSWORD)
    assert [asked(server) for _ in range(5)] == [Reception(True)] * 5
    assert len(server.attempts) == 1


def test_a_refused_login_is_tried_once_until_the_password_or_the_server_is_another(asked, serve):
    server = serve(PASSWORD)
    found = [asked(server, password="wrong") for _ in range(5)]
    assert {(item.taken, item.refused) for item in found} == {(False, True)}
    assert "535" in found[0].why.summary
    assert len(server.attempts) == 1
    assert asked(server) == Reception(True)
    assert len(server.attempts) == 2
    asked(server, password="wrong", container="c2")
    assert len(server.attempts) == 3
    assert "canary" not in repr(found)


def test_a_recreated_server_is_asked_anew(asked, serve):
    server = serve(PASSWORD)
    asked(server)
    asked(server, container="c2")
    assert len(server.attempts) == 2


def test_a_standby_is_greeted_and_sees_no_login(asked, serve):
    server = serve(PASSWORD)
    assert asked(server, tried=None) == Reception(True)
    assert server.attempts == []


def test_what_is_not_known_of_a_login_proves_nothing(asked, serve, tmp_path):
    server = serve(PASSWORD)
    login = Login("localhost", server.port, UNKNOWN, SecretRef("env", "NEW"), verify_tls=False)
    refusals = Refusals(None)
    assert ask(login, Ways(server.port), refusals, lambda _: PASSWORD, Tried()) == Reception(True)

    def unreadable(_ref):
        raise SecretUnreadable(Problem("env NEW", "is not set"))

    assert ask(server.login(), Ways(server.port), refusals, unreadable, Tried()).taken is None
    assert server.attempts == []


def test_an_undecided_login_is_tried_again_with_growing_pauses(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(reception.time, "monotonic", lambda: now)
    tried, facts = Tried(), ("smtp:587", "noreply", "x")
    pauses = []
    for _ in range(8):
        tried.put_off(facts, Problem("smtp:587", "454"))
        assert tried.waits(facts)
        assert not tried.waits(("smtp:587", "noreply", "another"))
        pauses.append(tried.retry - now)
        now = tried.retry
        assert not tried.waits(facts)
    assert pauses == [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]


# ----------------------------------------------------------------------------------------------------- what is told
@contextmanager
def saying(*lines: bytes):
    """A server that says these lines, one after each that it hears, and ends the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run():
            connection, _ = server.accept()
            with connection:
                for number, line in enumerate(lines):
                    if number:
                        connection.recv(1000)
                    connection.sendall(line)

        threading.Thread(target=run, daemon=True).start()
        yield server.getsockname()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), "ends the connection"),
        ((b"421 4.3.2 closing\r\n",), "answers 421"),
        ((b"554 5.7.1 go away\r\n",), "answers 554"),
        ((b"220 hello\r\n", b"421 4.7.0 too many\r\n"), "answers 421"),
        ((b"220 hello\r\n", b"250 hello\r\n", b"250 hello\r\n"), "no STARTTLS"),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "no mail server|answers -1"),
    ],
)
def test_each_way_of_taking_no_mail_is_told(lines, words):
    import re

    login = Login("smtp.example", 587, "noreply", SecretRef("env", "NEW"), verify_tls=False)
    with saying(*lines) as door:
        problem = greet(login, [door])
    assert problem is not None
    assert re.search(words, problem.summary), problem.summary


def test_a_closed_port_and_a_name_that_nothing_has_are_told():
    login = Login("smtp.example", 587, "noreply", SecretRef("env", "NEW"), verify_tls=False)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert "refused" in greet(login, [closed.getsockname()]).summary
    assert "nothing that answers by this name" in greet(login, []).summary


def test_a_certificate_that_is_not_trusted_takes_no_mail(serve):
    server = serve(PASSWORD)
    problem = greet(server.login(verify_tls=True), [("127.0.0.1", server.port)])
    assert "certificate is not trusted" in problem.summary
