"""Servers that do not mean well, beside every client: each ends within bounds of time and memory, with a problem."""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import importlib
import io
import json
import socket
import ssl
import subprocess
import tarfile
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler import http
from reconciler.desired.spec.smtp import Provider
from reconciler.docker import Client
from reconciler.http import Bounds
from reconciler.observe import providers
from reconciler.problem import TargetUnreadable
from reconciler.resources import SecretRef
from reconciler.simulator.wire import Reply, Request, Server
from reconciler.targets.cloudflare import Cloudflare, transport
from reconciler.targets.cloudflare.listing import Access
from reconciler.targets.stalwart import Stalwart
from reconciler.targets.stalwart.connection import Connection, Login, Mode
from reconciler.targets.stalwart.container import _config_file
from reconciler.targets.stalwart.jmap.api import JmapApi, Selection
from reconciler.url import parse

LISTING = importlib.import_module("reconciler.targets.cloudflare.listing")
SECRET = "canary-of-a-secret"
LARGEST = 1 << 17
SECONDS = 0.3
PAUSE = 0.05
HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
OK, NO, BROKEN, AWAY = HEAD % b"200 OK", HEAD % b"403 No", HEAD % b"500 Broken", HEAD % b"302 Away\r\nLocation: /x"


def slowly(data: Iterable[int]) -> Iterator[bytes]:
    for byte in data:
        yield bytes([byte])
        time.sleep(PAUSE)


def for_ever(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece


@functools.cache
def bomb(levels: int, bits: int = 31) -> bytes:
    """Pack 64 MiB of blanks."""
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    data = b"".join([*(packer.compress(b" " * (1 << 20)) for _ in range(64)), packer.flush()])
    for _ in range(levels - 1):
        data = gzip.compress(data)
    return data


def whole(head: bytes, body: bytes) -> list[bytes]:
    return [head + b"Content-Length: %d\r\n\r\n" % len(body), body]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MISBEHAVIOURS: dict[str, Callable[[], Iterable[bytes]]] = {
    "says nothing": lambda: slowly(b""),
    "closes at once": lambda: (),
    "drips a status": lambda: slowly(OK * 99),
    "drips headers": lambda: (
        item for piece in ([b"HTTP/1.1 200 OK\r\n"], slowly(b"A: b\r\n" * 999)) for item in piece
    ),
    "drips headers whole": lambda: _paused(OK, b"A: b\r\n"),
    "headers without end": lambda: _then(OK, for_ever(b"A: b\r\n" * 1000)),
    "a header without end": lambda: _then(OK + b"A: ", for_ever(b"b" * 65536)),
    "informational without end": lambda: for_ever(CONTINUE * 1000),
    "informational drips": lambda: _paused(CONTINUE, CONTINUE),
    "a body drips": lambda: _paused(OK + b"Content-Length: 9999\r\n\r\n", b" "),
    "a body without end": lambda: _then(OK + b"\r\n", for_ever(b" " * 65536)),
    "chunks without end": lambda: _then(OK + CHUNKED, for_ever(chunk(b" " * 65536))),
    "small chunks without end": lambda: _then(OK + CHUNKED, for_ever(chunk(b" ") * 5000)),
    "chunks drip": lambda: _paused(OK + CHUNKED, chunk(b" ")),
    "trailers drip": lambda: _paused(OK + CHUNKED + chunk(b"{}") + b"0\r\n", b"A: b\r\n"),
    "an error without end": lambda: _then(BROKEN + CHUNKED, for_ever(chunk(b" " * 65536))),
    "a refusal without end": lambda: _then(NO + b"\r\n", for_ever(b" " * 65536)),
    "a refusal drips": lambda: _paused(NO + CHUNKED, chunk(b" ")),
    "a redirect without end": lambda: _then(AWAY + CHUNKED, for_ever(chunk(b" " * 65536))),
    "a bomb": lambda: whole(OK + b"Content-Encoding: gzip\r\n", bomb(1)),
    "a bomb in small chunks": lambda: _then(
        OK + b"Content-Encoding: gzip\r\n" + CHUNKED, (chunk(bomb(1)[i : i + 9]) for i in range(0, 30000, 9))
    ),
    "a bomb in a bomb": lambda: whole(OK + b"Content-Encoding: gzip, gzip\r\n", bomb(2)),
    "a bomb in two headers": lambda: whole(OK + b"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", bomb(2)),
    "a bomb as an error": lambda: whole(NO + b"Content-Encoding: gzip\r\n", bomb(1)),
    "a bomb of another kind": lambda: whole(OK + b"Content-Encoding: deflate\r\n", bomb(1, 15)),
    "an unknown coding": lambda: whole(OK + b"Content-Encoding: br\r\n", b"{}"),
    "a coding that lies": lambda: whole(OK + b"Content-Encoding: gzip\r\n", b"{}"),
    "a coding that breaks off": lambda: whole(OK + b"Content-Encoding: gzip\r\n", gzip.compress(b"{}")[:-6]),
    "a coding that goes on": lambda: whole(OK + b"Content-Encoding: gzip\r\n", gzip.compress(b"{}") + b"x" * 99),
    "gzip drips": lambda: _then(
        OK + b"Content-Encoding: gzip\r\n" + CHUNKED, (chunk(item) for item in slowly(bomb(1)))
    ),
    "a length that is too long": lambda: [OK + b"Content-Length: 99999999999999999999999\r\n\r\n"],
    "no HTTP": lambda: [b"220 mail.example ESMTP\r\n"],
    "brackets": lambda: whole(OK, b"[" * 100_000 + b"]" * 100_000),
    "objects in objects": lambda: whole(OK, b'{"a":' * 900 + b"1" + b"}" * 900),
    "half of the brackets": lambda: whole(OK, b'{"result":' + b"[" * 100_000),
    "no number": lambda: whole(OK, b'{"success":true,"result":NaN}'),
    "a number without end": lambda: whole(OK, b'{"success":true,"result":' + b"9" * 100_000 + b"}"),
    "infinity": lambda: whole(OK, b'{"success":true,"result":1e999,"resource":-1E999,"dns_records":{}}'),
    "half a character": lambda: whole(OK, b'{"success":true,"result":"\\ud800","resource":"x"}'),
    "half a character as bytes": lambda: whole(OK, b'{"success":true,"result":"\xed\xa0\x80","resource":"x"}'),
    "half a character in UTF-16": lambda: whole(
        OK, '{"success":true,"result":"\\ud800","resource":"x"}'.encode("utf-16")
    ),
    "no text": lambda: whole(OK, b"\xff\xfe\x00{"),
}


def _then(head: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def _paused(head: bytes, piece: bytes) -> Iterator[bytes]:
    yield head
    while True:
        yield piece
        time.sleep(PAUSE)


class Wrong:
    """A server that answers everybody as one of them."""

    def __init__(self, says: Callable[[], Iterable[bytes]], listener: socket.socket) -> None:
        self.says, self.listener, self.asked = says, listener, list[bytes]()
        self.closing = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            self.asked.append(connection.recv(1 << 16))
            for piece in self.says():
                if self.closing.is_set():
                    return
                connection.sendall(piece)
            if not self.asked or self.says is not MISBEHAVIOURS["closes at once"]:
                connection.settimeout(3)
                connection.recv(1)

    def close(self) -> None:
        self.closing.set()
        self.listener.close()


def _stalwart(url: str, _: Path) -> str:
    login = Login("admin", (SecretRef("env", "A"),), mode=Mode.REST)
    bounds = Bounds(LARGEST, SECONDS, silence=SECONDS / 2)
    with Connection(parse(url), login, lambda _: SECRET, lambda _: None, bounds=bounds) as connection:
        with pytest.raises(TargetUnreadable) as probed:
            connection.detect()
        try:
            answer = connection.send("POST", "/jmap", body={"a": "b" * 1000})
        except TargetUnreadable as error:
            return f"{probed.value} {error}"
    assert answer.json() is None or answer.status != 200
    return str(probed.value)


def _cloudflare(url: str, _: Path) -> str:
    target = Cloudflare(
        stack="mana", zones=["mana.how"], tokens=[Access(SecretRef("env", "T"))], base_url=url, timeout=SECONDS / 2
    )
    try:
        seen = target.observe([], lambda _: SECRET)
    finally:
        target.close()
    assert seen.unread == {"dns/mana.how"}
    return " ".join(map(str, seen.problems))


def _brevo(url: str, _: Path) -> str:
    asked = providers.Providers(lambda _: SECRET, url)
    provider = Provider.model_construct(preset="brevo", api_key=SecretRef("env", "K"))
    answer = asked("brevo", provider, "mana.how", "mana.how")
    assert not answer.complete
    return " ".join(map(str, answer.problems))


def _docker(host: str) -> str:
    with Client(host, "compose") as client:
        client._bounds = Bounds(LARGEST, SECONDS)
        calls: list[Callable[[], Any]] = [lambda: client.inspect("a")["Config"]["Env"], lambda: client.log("a", 9)]
        said = []
        for call in calls:
            with pytest.raises(TargetUnreadable) as caught, client.understanding():
                call()
            said.append(str(caught.value))
        with contextlib.suppress(TargetUnreadable):
            assert len(client.archive("a", "/", 512) or b"") <= 512
    return " ".join(said)


def _docker_tcp(url: str, _: Path) -> str:
    return _docker(url.replace("http://", "tcp://"))


def _docker_unix(_: str, place: Path) -> str:
    return _docker(f"unix://{place}")


CLIENTS = {"stalwart": _stalwart, "cloudflare": _cloudflare, "brevo": _brevo, "tcp": _docker_tcp, "unix": _docker_unix}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_LARGEST", LARGEST)
    monkeypatch.setattr(transport, "_PAUSE", 0.01)
    monkeypatch.setattr(providers, "_BOUNDS", Bounds(LARGEST, SECONDS))
    monkeypatch.setattr(providers, "_PAUSE", 0.01)


@pytest.mark.few
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("misbehaviour", MISBEHAVIOURS)
def test_t11_t12_every_client_ends_within_its_bounds(misbehaviour: str, client: str, tmp_path: Path) -> None:
    place = tmp_path / "s"
    if client == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(place))
        listener.listen()
    else:
        listener = socket.create_server(("127.0.0.1", 0))
    server = Wrong(MISBEHAVIOURS[misbehaviour], listener)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}" if client != "unix" else ""
    for item in ((1,), (2,), (1, 15)):  # what they take is not the client's
        bomb(*item)
    tracemalloc.start()
    began = time.monotonic()
    try:
        said = CLIENTS[client](url, place)
        took, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        server.close()
    assert took < 10, said
    assert peak < 20 << 20, said
    assert SECRET not in said
    assert "Traceback" not in said
    assert "RecursionError" not in said
    assert len(said) < 5000
    assert not [item for item in threading.enumerate() if not item.daemon and item is not threading.main_thread()]


# ------------------------------------------------------------------------------------------------- on the way there
def test_t11_a_handshake_that_drips_is_over_in_time(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Wrong(lambda: slowly(b"\x16\x03\x03\x40\x00" + bytes(9999)), listener)
    address = parse(f"https://127.0.0.1:{listener.getsockname()[1]}")
    began = time.monotonic()
    with http.client(address, Bounds(LARGEST, SECONDS)) as client, pytest.raises(http.Unsent):
        http.exchange(client, "GET", "/")
    server.close()
    assert time.monotonic() - began < 4


def test_t11_who_takes_a_request_in_drips_is_given_up() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    held: list[socket.socket] = []

    def take() -> None:
        with contextlib.suppress(OSError):
            held.append(listener.accept()[0])
            while held[0].recv(512):
                time.sleep(PAUSE)

    threading.Thread(target=take, daemon=True).start()
    address = parse(f"http://127.0.0.1:{listener.getsockname()[1]}")
    began = time.monotonic()
    with http.client(address, Bounds(LARGEST, SECONDS)) as client, pytest.raises(http.Lost):
        http.exchange(client, "POST", "/", content=bytes(64 << 20))
    assert time.monotonic() - began < 4
    for item in (*held, listener):
        item.close()


@pytest.mark.parametrize("client", [_stalwart, _cloudflare, _brevo, _docker_tcp])
@pytest.mark.usefixtures("small")
def test_t11_no_redirect_is_followed(client: Callable[[str, Path], str], tmp_path: Path) -> None:
    elsewhere = Wrong(lambda: (), socket.create_server(("127.0.0.1", 0)))
    there = f"http://127.0.0.1:{elsewhere.listener.getsockname()[1]}/x"
    head = HEAD % (b"307 Away\r\nLocation: %s" % there.encode())
    server = Wrong(lambda: whole(head, b"{}"), socket.create_server(("127.0.0.1", 0)))
    said = client(f"http://127.0.0.1:{server.listener.getsockname()[1]}", tmp_path) if client is not _docker_tcp else ""
    server.close()
    elsewhere.close()
    assert elsewhere.asked == []
    assert SECRET not in said


def test_t11_a_proxy_that_quotes_our_login_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    said = b"HTTP/1.1 407 Basic " + base64.b64encode(f"me:{SECRET}".encode()) + b"\r\nContent-Length: 0\r\n\r\n"
    proxy = Wrong(lambda: [said], socket.create_server(("127.0.0.1", 0)))
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@127.0.0.1:{proxy.listener.getsockname()[1]}")
    client = http.client(parse("https://api.example"), Bounds(LARGEST, SECONDS), proxied=True)
    with client, pytest.raises(http.Unsent, match=r"^the proxy answers 407$"):
        http.exchange(client, "GET", "/")
    proxy.close()


class Echo(Wrong):
    """A server that says what it was asked, in a place where it can't be."""

    def __init__(self, frame: bytes, listener: socket.socket) -> None:
        self.frame = frame
        super().__init__(lambda: (), listener)

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            connection.sendall(self.frame % connection.recv(1 << 16).replace(b"\r\n", b" "))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("client", [_stalwart, _cloudflare, _brevo, _docker_tcp])
@pytest.mark.parametrize(
    "frame",
    [
        *(
            b"%s\r\n\r\n",
            b"HTTP/1.1 %s\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n%s\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA%s: b\r\n\r\n",
        ),
        *(b"HTTP/1.1 302 Away\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 100 %s\r\n\r\n"),
    ],
)
def test_t11_what_is_no_answer_is_not_repeated(
    frame: bytes, client: Callable[[str, Path], str], tmp_path: Path
) -> None:
    server = Echo(frame, socket.create_server(("127.0.0.1", 0)))
    said = client(f"http://127.0.0.1:{server.listener.getsockname()[1]}", tmp_path)
    server.close()
    encoded = base64.b64encode(f"admin:{SECRET}".encode()).decode()
    for part in (SECRET, encoded, encoded[:12], SECRET[:12]):
        assert part not in said, said


# ------------------------------------------------------------------------------------------- answers without a last one
def _asked_again(answer: Callable[[int], bytes]) -> tuple[Server, list[int]]:
    """Make a server whose answers depend on how often it was asked."""
    asked: list[int] = []

    def reply(_: Request) -> Reply:
        asked.append(1)
        body = answer(len(asked))
        return Reply(429 if b"Too Many" in body else 200, body, headers={"Retry-After": "0"})

    return Server(reply), asked


def _records(count: int) -> bytes:
    one = {"id": f"r{count}", "type": "A", "name": "www.mana.how", "content": "192.0.2.1"}
    zone = {"id": "z1", "name": "mana.how", "status": "active"}
    total = 1 if count == 1 else 999_999
    result = [zone if count == 1 else one]
    return json.dumps({"success": True, "result": result, "result_info": {"total_count": total}}).encode()


def test_t11_a_listing_without_a_last_page_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LISTING, "_LISTING", SECONDS)
    server, asked = _asked_again(_records)
    with server:
        said = _cloudflare(server.url, Path())
    assert "does not end" in said
    assert len(asked) > 2


def test_t11_a_listing_of_more_than_there_can_be_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LISTING, "_MOST", 1000)
    server, asked = _asked_again(_records)
    with server:
        assert "does not end" in _cloudflare(server.url, Path())
    assert len(asked) < 5


def test_t11_jmap_objects_without_a_last_one_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.targets.stalwart.jmap.api._READING", SECONDS)

    def reply(request: Request) -> Reply:
        answers = []
        for method, arguments, tag in json.loads(request.body)["methodCalls"]:
            at = arguments.get("position", 0)
            said = {"list": [{"id": item} for item in arguments.get("ids") or ()]}
            if method.endswith("/query"):
                said = {"ids": [f"i{at}"], "total": at + 2}
            answers.append([method, said, tag])
        return Reply.of({"methodResponses": answers})

    login = Login("admin", (SecretRef("env", "A"),), mode=Mode.JMAP)
    with (
        Server(reply) as server,
        Connection(parse(server.url), login, lambda _: SECRET, lambda _: None) as connection,
        pytest.raises(TargetUnreadable, match="without end"),
    ):
        JmapApi(connection).read([Selection("Account"), Selection("Domain")])


@pytest.mark.parametrize("client", ["stalwart", "cloudflare"])
def test_t11_who_asks_to_come_back_at_once_for_ever_is_left(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.targets.stalwart.connection._PATIENCE", SECONDS)
    body = json.dumps({"title": "Too Many Requests", "status": 429}).encode()
    server, asked = _asked_again(lambda _: body)
    began = time.monotonic()
    with server:
        if client == "stalwart":
            login = Login("admin", (SecretRef("env", "A"),), mode=Mode.REST)
            with Connection(parse(server.url), login, lambda _: SECRET, lambda _: None) as connection:
                for call in (connection.detect, lambda: connection.send("GET", "/")):
                    with pytest.raises(TargetUnreadable, match="rate of requests"):
                        call()
        else:
            target = Cloudflare(
                stack="mana",
                zones=["mana.how"],
                tokens=[Access(SecretRef("env", "T"))],
                base_url=server.url,
                patience=1,
            )
            assert target.observe([], lambda _: SECRET).unread
            target.close()
    assert time.monotonic() - began < 4
    assert len(asked) < 99


@pytest.mark.parametrize("text", ["a = " + "[" * 50_000, "a = " + "{b=" * 5000, "[" + "a." * 9000 + "b]"])
def test_t12_a_configuration_nested_without_end_is_not_understood(text: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("config.toml")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text.encode()))
    found = _config_file("/x", packed.getvalue())
    assert found is None or len(found.keys) < 2


# ------------------------------------------------------------------------------------------------------------- proxies
@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


def test_t11_a_proxy_is_told_where_to_and_nothing_else(clean: pytest.MonkeyPatch) -> None:
    proxy = Wrong(lambda: [b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"], socket.create_server(("127.0.0.1", 0)))
    clean.setenv("ALL_PROXY", f"http://user:pw@127.0.0.1:{proxy.listener.getsockname()[1]}")
    said = _cloudflare("https://api.example/client/v4", Path())
    assert proxy.asked
    assert all(item.startswith(b"CONNECT api.example:443 ") and SECRET.encode() not in item for item in proxy.asked)
    assert "can't connect" in said
    proxy.asked.clear()
    plain = Wrong(lambda: whole(OK, b"{}"), socket.create_server(("127.0.0.1", 0)))
    for client in (_cloudflare, _stalwart):
        client(f"http://127.0.0.1:{plain.listener.getsockname()[1]}", Path())
    assert proxy.asked == [], "in clear it would see the token"
    proxy.close()
    plain.close()


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "https://127.0.0.1:1", "http://127.1:1", "nonsense://"])
@pytest.mark.parametrize("client", [_cloudflare, _brevo])
def test_u9_a_proxy_of_another_kind_is_told(
    clean: pytest.MonkeyPatch, proxy: str, client: Callable[[str, Path], str]
) -> None:
    clean.setenv("HTTPS_PROXY", proxy)
    assert "HTTPS_PROXY or ALL_PROXY" in client("https://api.example", Path())


# ------------------------------------------------------------------------------------------------ names and addresses
def test_t4_a_name_that_leads_elsewhere_gets_nothing_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name counts as a container's: what it resolves to has the last word."""
    listener = socket.create_server(("0.0.0.0", 0))
    server = Wrong(lambda: whole(OK, b"{}"), listener)
    real = socket.getaddrinfo
    public = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", listener.getsockname()[1]))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: public if host == "fake" else real(host, *a, **k))
    said = _cloudflare(f"http://fake:{listener.getsockname()[1]}", Path())
    server.close()
    assert "leads to 192.0.2.1" in said
    assert server.asked == []


@pytest.mark.parametrize("container", [None, "fake", "evil.example"])
@pytest.mark.parametrize("url", ["http://fake:{}", "http://evil.example:{}", "http://FAKE:{}"])
def test_t4_naming_a_container_opens_no_way_out(
    url: str, container: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever writes the directory names the container, too: what the name leads to has the last word."""
    listener = socket.create_server(("0.0.0.0", 0))
    server = Wrong(lambda: whole(OK, b"{}"), listener)
    port = listener.getsockname()[1]
    public = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: public)
    target = Stalwart(
        url=url.format(port),
        username="admin",
        passwords=[SecretRef("env", "A")],
        container=container,
        docker_host=f"unix://{tmp_path}/none.sock",
    )
    [problem] = target.observe([], lambda _: SECRET).problems
    server.close()
    assert "leads to 192.0.2.1" in problem.summary or "unencrypted" in problem.summary
    assert server.asked == []


def test_t4_localhost_is_this_machine_whatever_a_resolver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Wrong(lambda: whole(OK, b"{}"), listener)
    real = socket.getaddrinfo

    def poisoned(host: str, *arguments: Any, **more: Any) -> Any:
        if "localhost" in host:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]
        return real(host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", poisoned)
    address = parse(f"http://Api.LocalHost:{listener.getsockname()[1]}")
    with http.client(address, Bounds(LARGEST, SECONDS)) as client:
        assert http.exchange(client, "GET", "/").status == 200
    server.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of its own making."""
    made = tmp_path / "own.pem"
    asked = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    subprocess.run([*asked, "-keyout", made, "-out", tmp_path / "c.pem"], check=True, capture_output=True)
    made.write_bytes(made.read_bytes() + (tmp_path / "c.pem").read_bytes())
    return made


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "hTTps"])
@pytest.mark.parametrize("client", [_stalwart, _cloudflare, _brevo])
@pytest.mark.usefixtures("small")
def test_t3_a_certificate_is_verified_however_the_scheme_is_written(
    scheme: str, client: Callable[[str, Path], str], certificate: Path, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    got: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as tls:
                    got.append(tls.recv(9999))

    threading.Thread(target=serve, daemon=True).start()
    said = client(f"{scheme}://localhost:{listener.getsockname()[1]}", tmp_path)
    listener.close()
    assert not any(got)
    assert "certificate" in said.lower()


def test_t6_a_base_url_is_its_own_token_s_alone() -> None:
    servers = [Wrong(lambda: whole(OK, b"{}"), socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
    urls = [f"http://127.0.0.1:{item.listener.getsockname()[1]}" for item in servers]
    refs = [SecretRef("env", name) for name in ("ONE", "TWO")]
    zones = (["one.example"], ["two.example"])
    tokens = [Access(ref, zone, base_url=url) for ref, zone, url in zip(refs, zones, urls, strict=True)]
    target = Cloudflare(stack="mana", zones=["one.example", "two.example"], tokens=tokens, timeout=SECONDS)
    target.observe([], lambda ref: f"token-{ref.name}")
    target.close()
    for server, own, foreign in zip(servers, (b"token-ONE", b"token-TWO"), (b"token-TWO", b"token-ONE"), strict=True):
        assert server.asked
        assert all(own in item and foreign not in item for item in server.asked)
        server.close()
