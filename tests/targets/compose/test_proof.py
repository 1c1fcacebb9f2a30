from __future__ import annotations

import base64
import contextlib
import itertools
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self

import pytest
from targets.compose.conftest import self_signed

from reconciler.resources import Login, SecretRef
from reconciler.targets.compose.proof import Credentials, Proof, _judged, prove

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


def test_t2_what_a_server_says_of_a_login_is_shown_whole_or_not_at_all() -> None:
    """Half of an encoded password is known for none by the fence round all output."""
    login = Login("smtp.example", 587, "noreply", SecretRef("env", "NEW"), verify_tls=True)
    message = base64.b64encode(f"\0noreply\0{PASSWORD}".encode())
    for before in range(0, 240, 7):
        proof = _judged(Credentials(login, "noreply", PASSWORD), "there", 535, b"5.7.8 " + b"x" * before + message)
        assert proof.refused is not None
        said = proof.refused.summary
        assert message.decode() in said or message[:12].decode() not in said


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
    monkeypatch.setattr("reconciler.smtp._VERDICT", 0.2)
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


# ---------------------------------------------------------------------------------------- servers that do not mean well
def _drip(data: bytes) -> Iterator[bytes]:
    for byte in data:
        yield bytes([byte])
        time.sleep(0.05)


def _for_ever(piece: bytes, pause: float = 0.0) -> Iterator[bytes]:
    while True:
        yield piece
        time.sleep(pause)


GREETINGS: dict[str, Callable[[], Iterable[bytes]]] = {
    "silence": lambda: _drip(b""),
    "a greeting that drips": lambda: _drip(b"220 mail.example ESMTP" * 99),
    "lines that drip": lambda: _for_ever(b"220-mail.example\r\n", 0.05),
    "lines without end": lambda: _for_ever(b"220-mail.example\r\n" * 1000),
    "a line without end": lambda: itertools.chain([b"220 "], _for_ever(b"x" * 65536)),
    "an answer without end": lambda: itertools.chain([b"220 x\r\n"], _for_ever(b"250-AUTH PLAIN\r\n" * 1000)),
    "an answer that drips": lambda: itertools.chain([b"220 x\r\n"], _for_ever(b"250-AUTH PLAIN\r\n", 0.05)),
    "TLS that drips": lambda: itertools.chain([b"220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n"], _drip(bytes(9999))),
    "no text": lambda: _for_ever(b"\xff\x00\r\n" * 1000),
}


@pytest.mark.parametrize("greeting", GREETINGS)
@pytest.mark.parametrize("port", [587, 465])
def test_t11_a_session_ends_whatever_the_server_says(greeting: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_TIMEOUT", 0.3), ("_VERDICT", 0.3), ("_SESSION", 1.0)):
        monkeypatch.setattr(f"reconciler.smtp.{name}", seconds)
    listening, got, done = socket.create_server(("127.0.0.1", 0)), list[bytes](), threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError), listening.accept()[0] as connection:
            connection.settimeout(5)
            for piece in GREETINGS[greeting]():
                connection.sendall(piece)
                if done.is_set():
                    return
            got.append(connection.recv(4096))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    tracemalloc.start()
    began = time.monotonic()
    login = Login("localhost", port, "noreply", SecretRef("env", "NEW"), verify_tls=False)
    proof = tried(login, listening.getsockname()[1])
    took, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    done.set()
    listening.close()
    thread.join(6)
    assert not proof.sent
    assert proof.refused is not None or "could not be tried" in proof.note
    assert "canary" not in repr(proof)
    assert took < 4
    assert peak < 8 << 20
