"""The fake name servers, over real UDP and TCP, and beside a real Knot DNS that serves the same records."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest

from reconciler.simulator.cloudflare import NAME_SERVERS, Cloudflare
from reconciler.simulator.dns import NameServers

ZONE = "oak.example"
LONG = "v=DKIM1; k=rsa; p=" + "A" * 400
RECORDS = (
    {"type": "A", "name": "mail", "content": "192.0.2.1", "ttl": 120},
    {"type": "AAAA", "name": "mail", "content": "2001:db8::1"},
    {"type": "A", "name": "@", "content": "192.0.2.7"},
    {"type": "MX", "name": "@", "content": "mail.oak.example", "priority": 10},
    {"type": "MX", "name": "@", "content": "backup.elsewhere.example", "priority": 20},
    {"type": "MX", "name": "silent", "content": ".", "priority": 0},
    {"type": "TXT", "name": "@", "content": "v=spf1 mx -all"},
    {"type": "TXT", "name": "@", "content": "site=1"},
    {"type": "TXT", "name": "long._domainkey", "content": LONG},
    {"type": "TXT", "name": "quoted", "content": '"one; \\"two\\"" "three"'},
    {"type": "CNAME", "name": "alias", "content": "mail.oak.example"},
    {"type": "CNAME", "name": "twice", "content": "alias.oak.example"},
    {"type": "CNAME", "name": "brevo1._domainkey", "content": "b1.oak-example.dkim.brevo.com"},
    {"type": "CNAME", "name": "broken", "content": "nothing.oak.example"},
    {"type": "CNAME", "name": "round", "content": "about.oak.example"},
    {"type": "CNAME", "name": "about", "content": "round.oak.example"},
    {"type": "A", "name": "deep.er.tree", "content": "192.0.2.3"},
    {"type": "TXT", "name": "*.wild", "content": "any"},
    {"type": "CNAME", "name": "*.wildalias", "content": "mail.oak.example"},
    {"type": "NS", "name": "child", "content": "ns.child.oak.example"},
    {"type": "NS", "name": "far", "content": "ns.elsewhere.example"},
    {
        "type": "SRV",
        "name": "_submissions._tcp",
        "data": {"priority": 0, "weight": 1, "port": 465, "target": "mail.oak.example"},
    },
    {"type": "CAA", "name": "@", "data": {"flags": 0, "tag": "issue", "value": "letsencrypt.org"}},
    {
        "type": "TLSA",
        "name": "_25._tcp.mail",
        "data": {"usage": 3, "selector": 1, "matching_type": 1, "certificate": "ab" * 32},
    },
)
QUESTIONS = [
    (ZONE, "SOA"),
    (ZONE, "NS"),
    (ZONE, "A"),
    (ZONE, "MX"),
    (ZONE, "TXT"),
    (ZONE, "CAA"),
    (ZONE, "AAAA"),
    (ZONE, "CNAME"),
    ("MAIL.Oak.example", "A"),
    ("mail.oak.example", "AAAA"),
    ("mail.oak.example", "TXT"),
    ("mail.oak.example", "SOA"),
    ("silent.oak.example", "MX"),
    ("long._domainkey.oak.example", "TXT"),
    ("quoted.oak.example", "TXT"),
    ("alias.oak.example", "A"),
    ("alias.oak.example", "TXT"),
    ("alias.oak.example", "CNAME"),
    ("twice.oak.example", "AAAA"),
    ("brevo1._domainkey.oak.example", "CNAME"),
    ("brevo1._domainkey.oak.example", "TXT"),
    ("broken.oak.example", "A"),
    ("tree.oak.example", "A"),
    ("er.tree.oak.example", "TXT"),
    ("nothing.oak.example", "A"),
    ("un.der.mail.oak.example", "A"),
    ("a.wild.oak.example", "TXT"),
    ("a.b.wild.oak.example", "TXT"),
    ("a.wild.oak.example", "A"),
    ("a.wildalias.oak.example", "A"),
    ("wild.oak.example", "TXT"),
    ("child.oak.example", "NS"),
    ("mx.child.oak.example", "A"),
    ("child.oak.example", "DS"),
    ("x.far.oak.example", "TXT"),
    ("_submissions._tcp.oak.example", "SRV"),
    ("_25._tcp.mail.oak.example", "TLSA"),
    ("elsewhere.example", "A"),
    ("example", "NS"),
]


@pytest.fixture
def cloudflare() -> Cloudflare:
    fake = Cloudflare([ZONE, "sub.oak.example"])
    for record in RECORDS:
        fake.add(ZONE, **record)
    return fake


@pytest.fixture
def servers(cloudflare: Cloudflare) -> Iterator[NameServers]:
    with NameServers(cloudflare.shown) as running:
        yield running


def ask(
    servers: NameServers, name: str, kind: str, *, number: int = 0, tcp: bool = False, payload: int | None = 1232
) -> dns.message.Message:
    host, _, port = servers.servers[number].partition(":")
    edns = {} if payload is None else {"use_edns": 0, "payload": payload}
    query = dns.message.make_query(name, kind, **edns)
    query.flags &= ~dns.flags.RD
    send = dns.query.tcp if tcp else dns.query.udp
    return send(query, host, port=int(port), timeout=5)


def texts(message: dns.message.Message) -> set[str]:
    return {item.to_text() for rrset in message.answer for item in rrset}


def test_every_server_shows_what_cloudflare_has_by_now(cloudflare: Cloudflare, servers: NameServers) -> None:
    cloudflare.add(ZONE, type="TXT", name="new", content="here")
    for number in (0, 1):
        reply = ask(servers, "new.oak.example", "TXT", number=number)
        assert texts(reply) == {'"here"'}
        assert reply.flags & dns.flags.AA
        assert not reply.flags & dns.flags.RA
    assert servers.queries == [[("udp", "new.oak.example", "TXT")]] * 2


def test_a_long_text_comes_in_strings_of_255_bytes(servers: NameServers) -> None:
    [rrset] = ask(servers, "long._domainkey.oak.example", "TXT").answer
    assert [len(item) for item in rrset[0].strings] == [255, len(LONG) - 255]
    assert servers.values("long._domainkey.oak.example", "TXT") == (frozenset({LONG}),) * 2


def test_what_is_too_long_for_udp_is_asked_for_over_tcp(cloudflare: Cloudflare, servers: NameServers) -> None:
    for number in range(6):
        cloudflare.add(ZONE, type="TXT", name="big", content=f"{number}" + "x" * 240)
    cut = ask(servers, "big.oak.example", "TXT", payload=4096)
    assert cut.flags & dns.flags.TC
    assert (cut.answer, cut.rcode()) == ([], dns.rcode.NOERROR)
    whole = ask(servers, "big.oak.example", "TXT", tcp=True)
    assert len(texts(whole)) == 6
    assert not whole.flags & dns.flags.TC
    assert not ask(servers, "long._domainkey.oak.example", "TXT", payload=1232).flags & dns.flags.TC
    assert not ask(servers, "long._domainkey.oak.example", "TXT", payload=None).flags & dns.flags.TC
    cloudflare.add(ZONE, type="TXT", name="long._domainkey", content="y" * 200)
    assert ask(servers, "long._domainkey.oak.example", "TXT", payload=None).flags & dns.flags.TC
    assert not ask(servers, "long._domainkey.oak.example", "TXT", payload=1232).flags & dns.flags.TC


def test_several_queries_on_one_connection(servers: NameServers) -> None:
    host, _, port = servers.servers[1].partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        for kind in ("A", "AAAA"):
            query = dns.message.make_query("mail.oak.example", kind)
            reply = dns.query.tcp(query, host, timeout=5, sock=connection)
            assert len(texts(reply)) == 1


def test_outside_its_zones_it_refuses(servers: NameServers) -> None:
    for name in ("elsewhere.example", "example", ".", "notoak.example"):
        reply = ask(servers, name, "A")
        assert (reply.rcode(), reply.answer, reply.authority) == (dns.rcode.REFUSED, [], [])
        assert not reply.flags & dns.flags.AA
    assert ask(servers, ZONE, "AXFR", tcp=True).rcode() == dns.rcode.REFUSED


def test_the_closest_zone_answers(cloudflare: Cloudflare, servers: NameServers) -> None:
    cloudflare.add("sub.oak.example", type="TXT", name="@", content="its own")
    assert texts(ask(servers, "sub.oak.example", "TXT")) == {'"its own"'}
    assert ask(servers, "x.sub.oak.example", "TXT").authority[0].name.to_text() == "sub.oak.example."


def test_the_serial_changes_with_what_is_shown(cloudflare: Cloudflare, servers: NameServers) -> None:
    def serial(number: int) -> int:
        return int(ask(servers, ZONE, "SOA", number=number).answer[0][0].serial)

    servers.hold(1)
    before = serial(0)
    cloudflare.add(ZONE, type="TXT", name="new", content="here")
    assert (serial(0) != before, serial(1) == before) == (True, True)


def test_a_proxied_name_has_cloudflares_addresses(cloudflare: Cloudflare, servers: NameServers) -> None:
    cloudflare.add(ZONE, type="A", name="www", content="192.0.2.80", proxied=True)
    cloudflare.add(ZONE, type="CNAME", name="shop", content="shops.example", proxied=True)
    for name in ("www.oak.example", "shop.oak.example"):
        assert {item.rpartition(".")[0].rpartition(".")[0] for item in texts(ask(servers, name, "A"))} == {
            "104.21",
            "172.67",
        }
        assert all(item.startswith("2606:4700:") for item in texts(ask(servers, name, "AAAA")))
        reply = ask(servers, name, "CNAME")
        assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])


def test_a_cname_of_the_zone_itself_is_flattened() -> None:
    cloudflare = Cloudflare([ZONE])
    cloudflare.add(ZONE, type="CNAME", name="@", content="mail.oak.example")
    cloudflare.add(ZONE, type="A", name="mail", content="192.0.2.1")
    cloudflare.add(ZONE, type="TXT", name="@", content="beside")
    with NameServers(cloudflare.shown) as servers:
        assert texts(ask(servers, ZONE, "A")) == {"192.0.2.1"}
        assert texts(ask(servers, ZONE, "TXT")) == {'"beside"'}
        assert texts(ask(servers, ZONE, "CNAME")) == set()


def test_any_is_told_as_little_as_may_be(servers: NameServers) -> None:
    assert texts(ask(servers, ZONE, "ANY")) == {'"RFC8482" ""'}


def test_a_chain_of_names_that_ends_nowhere_ends(servers: NameServers) -> None:
    assert ask(servers, "round.oak.example", "A").rcode() == dns.rcode.NOERROR


def test_what_is_no_query_is_told_so_or_ignored(servers: NameServers) -> None:
    host, _, port = servers.servers[0].partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((host, int(port)))
        client.settimeout(5)
        client.send(b"\x12")  # no answer
        client.send(dns.message.make_response(dns.message.make_query(ZONE, "A")).to_wire())  # no answer
        client.send(b"\x12\x34\x00\x00\x00\x01" + b"\x00" * 6)
        reply = dns.message.from_wire(client.recv(512))
        assert (reply.id, reply.rcode()) == (0x1234, dns.rcode.FORMERR)
        update = dns.message.make_query(ZONE, "SOA")
        update.set_opcode(dns.opcode.NOTIFY)
        client.send(update.to_wire())
        assert dns.message.from_wire(client.recv(512)).rcode() == dns.rcode.NOTIMP
        newer = dns.message.make_query(ZONE, "SOA", use_edns=1)
        client.send(newer.to_wire())
        assert dns.message.from_wire(client.recv(512)).rcode() == dns.rcode.BADVERS


# ------------------------------------------------------------------------------------------------ lagging and away
def test_a_held_server_shows_what_it_showed(cloudflare: Cloudflare, servers: NameServers) -> None:
    servers.hold(1)
    record = cloudflare.add(ZONE, type="TXT", name="new", content="here")
    [mail] = [item["id"] for item in cloudflare.records(ZONE) if item["type"] == "AAAA"]
    cloudflare.remove(ZONE, mail)
    assert servers.values("new.oak.example", "TXT") == (frozenset({"here"}), frozenset())
    assert ask(servers, "new.oak.example", "TXT", number=1).rcode() == dns.rcode.NXDOMAIN
    assert texts(ask(servers, "mail.oak.example", "AAAA", number=1)) == {"2001:db8::1"}
    servers.hold(1)  # again: it shows no more than before
    servers.release(1)
    cloudflare.edit(ZONE, record, content="changed")
    assert servers.values("new.oak.example", "TXT") == (frozenset({"changed"}),) * 2
    assert ask(servers, "mail.oak.example", "AAAA", number=1).rcode() == dns.rcode.NOERROR


def test_a_stopped_server_is_unreachable_and_comes_back_at_its_port(servers: NameServers) -> None:
    before = servers.servers
    servers.stop(0)
    with pytest.raises(OSError, match="refused"):
        ask(servers, ZONE, "MX", tcp=True)
    with pytest.raises((OSError, dns.exception.Timeout)):
        dns.query.udp(dns.message.make_query(ZONE, "MX"), "127.0.0.1", port=int(before[0].split(":")[1]), timeout=0.2)
    assert len(texts(ask(servers, ZONE, "MX", number=1))) == 2
    assert len(servers.values(ZONE, "MX")) == 1
    servers.start(0)
    assert servers.servers == before
    assert len(texts(ask(servers, ZONE, "MX"))) == len(texts(ask(servers, ZONE, "MX", tcp=True))) == 2


def test_reset_brings_all_back(cloudflare: Cloudflare, servers: NameServers) -> None:
    servers.stop()
    servers.hold(0)
    cloudflare.add(ZONE, type="TXT", name="new", content="here")
    servers.reset()
    assert servers.values("new.oak.example", "TXT") == (frozenset({"here"}),) * 2


def test_the_other_server_takes_no_port_twice(servers: NameServers) -> None:
    port = int(servers.servers[0].split(":")[1])
    with pytest.raises(OSError, match="in use"):
        NameServers(dict, (port,))


# -------------------------------------------------------------------------------------------------- beside the real
@pytest.fixture
def knot(tmp_path: Path, cloudflare: Cloudflare, servers: NameServers) -> Iterator[int]:
    """The port of a real name server with the same records."""
    knotd = shutil.which("knotd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if knotd is None:
        pytest.skip("no knotd to compare with (Debian's package knot has it)")
    soa = ask(servers, ZONE, "SOA").answer[0].to_text()
    lines = [soa, *(f"{ZONE}. 86400 IN NS {name}." for name in NAME_SERVERS)]
    lines += [line for item in cloudflare.records(ZONE) for line in _in_a_zone_file(item)]
    (tmp_path / "oak.zone").write_text("\n".join(lines) + "\n")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "knot.conf").write_text(
        f"server:\n  rundir: {tmp_path}\n  listen: 127.0.0.1@{port}\n  udp-workers: 1\n  tcp-workers: 1\n"
        f"  background-workers: 1\ndatabase:\n  storage: {tmp_path}\n"
        f"zone:\n  - domain: {ZONE}\n    file: {tmp_path}/oak.zone\n    semantic-checks: off\n"
        "log:\n  - target: stderr\n    any: warning\n"
    )
    process = subprocess.Popen([knotd, "-c", str(tmp_path / "knot.conf")], stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 20
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                pytest.fail(f"knotd does not serve: {process.communicate()[1]}")
        yield port
    finally:
        process.terminate()
        process.communicate()


def _answers(port: int) -> bool:
    try:
        reply = dns.query.udp(dns.message.make_query(ZONE, "SOA"), "127.0.0.1", port=port, timeout=0.2)
    except (OSError, dns.exception.Timeout):
        return False
    return bool(reply.answer)


def _in_a_zone_file(item: dict) -> Iterator[str]:
    ttl = 300 if item["ttl"] == 1 else item["ttl"]
    content = item["content"]
    if item["type"] == "TXT" and not content.startswith('"'):
        content = " ".join(f'"{content[at : at + 255]}"' for at in range(0, len(content), 255))
    if item["type"] in ("CNAME", "NS", "MX", "SRV") and not content.endswith("."):
        content += "."
    if item["type"] == "MX":
        content = f"{item['priority']} {content}"
    yield f"{item['name']}. {ttl} IN {item['type']} {content}"


def test_it_answers_as_a_real_name_server_does(knot: int, servers: NameServers) -> None:
    fake = int(servers.servers[0].split(":")[1])
    differing = {}
    for name, kind in QUESTIONS:
        for edns in (0, -1):
            found, wanted = (_meaning(port, name, kind, edns) for port in (fake, knot))
            if found != wanted:
                differing[name, kind] = found, wanted
    assert differing == {}


def _meaning(port: int, name: str, kind: str, edns: int) -> dict[str, object]:
    query = dns.message.make_query(name, kind, use_edns=edns)
    query.flags &= ~dns.flags.RD
    reply = dns.query.udp(query, "127.0.0.1", port=port, timeout=5)
    return {
        "code": dns.rcode.to_text(reply.rcode()),
        "flags": dns.flags.to_text(reply.flags),
        "question": [str(item).lower() for item in reply.question],
        "answer": sorted(_lines(reply.answer)),
        "authority": sorted(_lines(reply.authority)),
        "edns": reply.edns,
    }


def _lines(section: list) -> Iterator[str]:
    for rrset in section:
        owner = str(rrset.name).lower()
        yield from (f"{owner} {rrset.ttl} {dns.rdatatype.to_text(rrset.rdtype)} {item}" for item in rrset)
