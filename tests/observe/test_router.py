"""A router tells its forwards over TR-064: a right one, wrong ones, slow and hostile ones; `fritzconnection` judges."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler import http
from reconciler.checks.evidence import Forward
from reconciler.observe import igd
from reconciler.observe import router as asked
from reconciler.observe.router import Login, RouterRefuses, RouterSilent, ask
from reconciler.simulator.router import Mapping, Router
from reconciler.simulator.wire import Fault, Reply, Server

WANTED = (25, 465, 587)
MAPPINGS = [
    Mapping(25, 25, "192.168.178.131"),
    Mapping(465, 1465, "192.168.178.131", enabled=False, remote="203.0.113.7"),
    Mapping(4500, 4500, "192.168.178.20", protocol="UDP", description="<VPN & more>"),
    Mapping(8443, 443, "192.168.178.22", by_upnp=True),
]


@pytest.fixture
def box() -> Router:
    return Router(mappings=list(MAPPINGS))


@pytest.fixture
def server(box: Router) -> Iterator[Server]:
    with Server(box) as server:
        yield server
        assert not server.crashes


def at(server: Server) -> tuple[str, int]:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return host, int(port)


def told(server: Server, box: Router, **options: Any) -> Any:
    return ask(*at(server), Login(box.user, box.password), WANTED, **options)


def test_every_forward_is_read_with_one_login(server: Server, box: Router) -> None:
    found = told(server, box)
    assert found.wan == box.wan
    assert (found.model, found.whole) == ("FRITZ!Box 7590", True)
    assert found.forwards == (
        Forward("TCP", 25, 25, "192.168.178.131"),
        Forward("TCP", 465, 1465, "192.168.178.131", enabled=False, remote="203.0.113.7"),
        Forward("UDP", 4500, 4500, "192.168.178.20"),
        Forward("TCP", 8443, 443, "192.168.178.22"),
    )
    assert (box.refused, box.accepted > 0) == (0, True)
    assert not any(box.password in str(item.headers) for item in server.requests)


def test_fritzconnection_reads_the_same(server: Server, box: Router) -> None:
    """The judge: what others take for a FRITZ!Box, and for its forwards, is so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fritzconnection import FritzConnection

        host, port = at(server)
        judge = FritzConnection(address=host, port=port, user=box.user, password=box.password, timeout=10)
        judge.session.close()
    service = "WANIPConnection1"
    count = judge.call_action(service, "GetPortMappingNumberOfEntries")["NewPortMappingNumberOfEntries"]
    entries = [judge.call_action(service, "GetGenericPortMappingEntry", NewPortMappingIndex=at) for at in range(count)]
    judge.session.close()
    theirs = tuple(
        Forward(
            item["NewProtocol"],
            item["NewExternalPort"],
            item["NewInternalPort"],
            item["NewInternalClient"],
            item["NewEnabled"],
            item["NewRemoteHost"],
        )
        for item in entries
    )
    assert theirs == told(server, box).forwards
    assert judge.call_action(service, "GetExternalIPAddress")["NewExternalIPAddress"] == told(server, box).wan


def test_the_connection_in_use_counts(server: Server, box: Router) -> None:
    box.uses = "WANPPPConnection:1"
    assert (told(server, box).wan, len(told(server, box).forwards)) == (box.wan, 4)


def test_a_wrong_password_is_sent_once(server: Server, box: Router) -> None:
    with pytest.raises(RouterRefuses):
        ask(*at(server), Login(box.user, "wrong"), WANTED)
    assert (box.refused, box.accepted) == (1, 0)


def test_without_a_login_it_says_that_it_wants_one(server: Server, box: Router) -> None:
    with pytest.raises(RouterRefuses):
        ask(*at(server), None, WANTED)
    assert box.refused == 0


def test_by_upnp_alone_not_every_forward_is_known(server: Server, box: Router) -> None:
    box.tr064 = False
    found = told(server, box)
    assert (found.whole, found.wan) == (False, box.wan)
    assert [item.external for item in found.forwards] == [8443]
    assert not any("authorization" in item.headers for item in server.requests)


def test_a_router_that_tells_nothing_is_silent(server: Server, box: Router) -> None:
    box.tr064 = box.upnp = False
    with pytest.raises(RouterSilent, match="404"):
        told(server, box)


def test_a_port_that_a_cut_list_leaves_out_is_looked_up(server: Server, box: Router, monkeypatch: Any) -> None:
    monkeypatch.setattr(asked, "_MOST", 1)
    assert [item.external for item in told(server, box).forwards] == [25, 465]


def test_a_slow_router_is_left_after_some_seconds(server: Server, box: Router) -> None:
    server.faults.append(Fault(times=99, delay=1.5))
    with pytest.raises(RouterSilent, match="no answer"):
        told(server, box, bounds=http.Bounds(1 << 17, seconds=0.3, silence=0.2, connect=0.2))


def test_one_that_takes_long_for_each_of_many_answers_is_left_too(
    server: Server, box: Router, monkeypatch: Any
) -> None:
    monkeypatch.setattr(asked, "_ALL", 0.0)
    with pytest.raises(RouterSilent, match="in time"):
        told(server, box)


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'


def changed(body: bytes, status: int = 200) -> Callable[[Reply], Reply]:
    return lambda _: Reply(status, body, "text/xml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed(BOMB), "document type"),
        (changed(b"no XML"), "no XML"),
        (changed(b"<a>" * 40000), "no XML"),
        (changed(b"<x>" + b"y" * (1 << 18) + b"</x>"), "too large"),
        (changed(b"", 302), "302"),
        (changed(b"<x><errorCode>501</errorCode></x>", 500), "501"),
        (changed(b"<x><errorCode>999999999</errorCode></x>", 500), "500"),
        (changed(b"busy", 503), "503"),
    ],
)
def test_whatever_it_answers_is_told_and_believed_of_nothing(
    server: Server, box: Router, change: Callable[[Reply], Reply], words: str
) -> None:
    server.faults.append(Fault(method="POST", times=99, after=1, change=change))
    with pytest.raises(RouterSilent, match=words):
        told(server, box)


def test_entries_without_sense_are_left_out_and_texts_are_made_safe(server: Server, box: Router) -> None:
    box.mappings = [Mapping(25, 25, "\u202e" + "b" * 200), Mapping(-1, 25, "x"), Mapping(1000000, 1, "x")]
    box.model = "\u202emodel" * 40
    found = told(server, box)
    (only,) = found.forwards
    assert len(only.client) < 80
    assert "\u202e" not in only.client + found.model
    assert len(found.model) < 80


def test_a_count_without_end_is_read_no_further_than_the_entries_go(server: Server, box: Router) -> None:
    answer = (
        b'<s:Envelope xmlns:s="x"><s:Body><NewPortMappingNumberOfEntries>65535</NewPortMappingNumberOfEntries>'
        b"</s:Body></s:Envelope>"
    )
    real = server.fake

    def lying(request: Any) -> Reply:
        reply = real(request)
        counted = "NumberOfEntries" in request.headers.get("soapaction", "") and reply.status == 200
        return Reply(200, answer, "text/xml") if counted else reply

    server.fake = lying
    assert len(told(server, box).forwards) == 4


@pytest.mark.parametrize(
    "challenge",
    [
        'Digest realm="x", nonce="y", algorithm=MD6',
        'Digest realm="x", nonce="y", qop="auth-int"',
        'Digest realm="x"',
        "Digest",
        'Basic realm="x"',
        "Negotiate",
        "Digest \xff=\xfe",
    ],
)
def test_no_password_is_given_to_a_challenge_that_is_none(server: Server, box: Router, challenge: str) -> None:
    """Basic would be the password itself."""
    asks = Reply(401, b"", "text/html", {"WWW-Authenticate": challenge})
    server.faults.append(Fault(method="POST", times=99, reply=asks))
    with pytest.raises((RouterRefuses, RouterSilent)):
        told(server, box)
    given = [item.headers.get("authorization", "") for item in server.requests]
    assert not any(word in text for text in given for word in ("Basic", box.password))


@given(st.binary(max_size=300) | st.text(alphabet='<>/&;!x?"= []DOCTYPE', max_size=200).map(str.encode))
@settings(max_examples=tries(150), deadline=None)
def test_whatever_bytes_come_they_are_read_or_refused(body: bytes) -> None:
    try:
        found = igd._elements(http.Answer(200, body, "text/xml", {}))
    except igd.Unusable:
        return
    assert all(isinstance(name, str) and isinstance(text, str) for name, text in found)


FIELDS = ("NewExternalPort", "NewInternalPort", "NewProtocol", "NewInternalClient", "NewEnabled", "NewRemoteHost")


@given(st.fixed_dictionaries({}, optional={name: st.text(max_size=90) | st.just("25") for name in FIELDS}))
@settings(max_examples=tries(150), deadline=None)
def test_whatever_an_entry_says_it_is_read_with_sense_or_left_out(said: dict[str, str]) -> None:
    found = asked._forward(said)
    if found is not None:
        assert 0 <= found.external <= 99999
        assert all(text.isprintable() and len(text) < 80 for text in (found.client, found.protocol, found.remote))


def test_nobody_on_the_internet_is_asked() -> None:
    with pytest.raises(RouterSilent, match="leads to"):
        ask("192.0.2.1", 80, Login("x", "y"), ())
