from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
from targets.compose.conftest import self_signed

from reconciler.resources import Login, SecretRef
from reconciler.targets.compose.proof import Credentials, Proof, prove

PASSWORD = "canary pass'wörd\\$"


def tried(login: Login, port: int, password: str = PASSWORD) -> Proof:
    return prove(Credentials(login, "noreply", password), [("127.0.0.1", port)])


def test_the_right_login_is_proved_over_starttls(serve: Callable) -> None:
    server = serve(PASSWORD)
    assert tried(server.login(), server.port) == Proof()
    assert server.attempts == [("noreply", PASSWORD)]


def test_login_is_used_where_plain_is_not_offered(serve: Callable) -> None:
    server = serve(PASSWORD, auth_exclude_mechanism=["PLAIN"])
    assert tried(server.login(), server.port) == Proof()
    assert server.attempts == [("noreply", PASSWORD)]


@pytest.mark.parametrize("excluded", [[], ["PLAIN"]])
def test_a_refused_login_is_tried_once(serve: Callable, excluded: list[str]) -> None:
    server = serve("another", auth_exclude_mechanism=excluded)
    proof = tried(server.login(), server.port)
    assert proof.refused is not None
    assert "535" in proof.refused.summary
    assert proof.refused.where == f"localhost:{server.port}"
    assert len(server.attempts) == 1
    assert "canary" not in repr(proof)


def test_an_untrusted_certificate_stops_before_the_password(serve: Callable) -> None:
    server = serve(PASSWORD)
    proof = tried(server.login(verify_tls=True), server.port)
    assert proof.refused is not None
    assert "certificate is not trusted: self-signed certificate" in proof.refused.summary
    assert "verify_tls: false" in proof.refused.hint
    assert server.attempts == []


def test_a_key_of_an_api_is_no_password_and_is_not_sent(serve: Callable) -> None:
    server = serve(PASSWORD)
    proof = tried(server.login(), server.port, "xkeysib-canary")
    assert proof.refused is not None
    assert "a key for Brevo's API" in proof.refused.summary
    assert "canary" not in repr(proof)
    assert server.attempts == []


def test_no_password_goes_over_a_plain_connection(serve: Callable) -> None:
    server = serve(PASSWORD, tls=False)
    proof = tried(server.login(), server.port)
    assert proof.refused is not None
    assert "no STARTTLS" in proof.refused.summary
    assert server.attempts == []


def test_a_server_without_auth_is_named(serve: Callable) -> None:
    proof = tried((server := serve(PASSWORD, auth=False)).login(), server.port)
    assert proof.refused is not None
    assert "offers no AUTH" in proof.refused.summary


def test_an_unreachable_server_proves_nothing_and_stops_nothing() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        proof = tried(Login("smtp.example", port, "noreply", SecretRef("env", "NEW"), verify_tls=True), port)
    assert proof.refused is None
    assert f"smtp.example:{port} could not be tried from here: 127.0.0.1:{port} Connection refused" in proof.note


def test_the_next_door_is_tried_where_one_is_closed(serve: Callable) -> None:
    server = serve(PASSWORD)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        doors = [closed.getsockname(), ("127.0.0.1", server.port)]
        assert prove(Credentials(server.login(), "noreply", PASSWORD), doors) == Proof()
    assert len(server.attempts) == 1


def test_tls_on_a_port_that_speaks_something_else_is_named(serve: Callable) -> None:
    server = serve(PASSWORD)
    login = Login("localhost", 465, "noreply", SecretRef("env", "NEW"), verify_tls=False)
    proof = tried(login, server.port)
    assert proof.refused is not None
    assert "TLS fails" in proof.refused.summary


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("ending", ["hangs up", "is silent"])
def test_a_server_that_gives_no_answer_to_the_login_is_not_tried_again_elsewhere(
    mechanism: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a ban: the second door leads to the same server, and every attempt counts."""
    monkeypatch.setattr("reconciler.targets.compose.proof._VERDICT", 0.2)
    with Rude(mechanism, ending, self_signed(tmp_path, "localhost")) as server:
        login = Login("localhost", server.port, "noreply", SecretRef("env", "NEW"), verify_tls=False)
        proof = prove(Credentials(login, "noreply", PASSWORD), [("127.0.0.1", server.port)] * 3)
    assert server.attempts == 1
    assert proof.refused is not None
    assert "when the login is tried" in proof.refused.summary
    assert "blocked" in proof.refused.hint
    assert "canary" not in repr(proof)


class Rude:
    """A server with STARTTLS that never answers to AUTH."""

    def __init__(self, mechanism: str, ending: str, certificate: tuple[Path, Path]) -> None:
        self.attempts = 0
        self._mechanism = mechanism
        self._ending = ending
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                with contextlib.suppress(OSError), connection:
                    self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        connection.sendall(b"220 rude\r\n")
        connection.recv(1000)  # EHLO
        connection.sendall(b"250-rude\r\n250 STARTTLS\r\n")
        connection.recv(1000)
        connection.sendall(b"220 go\r\n")
        with self._context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1000)
            secure.sendall(f"250-rude\r\n250 AUTH {self._mechanism}\r\n".encode())
            assert secure.recv(1000).startswith(b"AUTH")
            self.attempts += 1
            if self._ending == "is silent":
                secure.recv(1000)
