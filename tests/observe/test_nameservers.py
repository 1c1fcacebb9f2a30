"""Name servers of every kind on loopback, and a small Internet of them: a resolver, a parent zone and its children."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest

from reconciler.dns.publication import Answer, Question, publication
from reconciler.dns.records import dkim_record
from reconciler.observe import nameservers
from reconciler.observe.nameservers import look
from reconciler.problem import ReconcilerError

HOST = "s1._domainkey.mana.how"
KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="  # RFC 8463, appendix A
TEXT = f"v=DKIM1; k=ed25519; h=sha256; p={KEY}"
ASKED = Question(HOST, "TXT")
SOA = "ns1.mana.how. hostmaster.mana.how. 1 7200 3600 1209600 300"


@dataclass
class Zone:
    """A zone as one server shows it: ``records`` maps name and type to values as a zone file has them."""

    name: str
    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def fill(self, reply: dns.message.Message) -> None:
        """Answer as RFC 1034 section 4.3.2 says; what is delegated is referred to."""
        owner, kind = reply.question[0].name.to_text(omit_final_dot=True), reply.question[0].rdtype.name
        reply.flags |= dns.flags.AA
        while (owner, kind) not in self.records and (owner, "CNAME") in self.records:
            reply.answer.append(self.rrset(owner, "CNAME"))
            owner = self.records[owner, "CNAME"][0].removesuffix(".")
            if not f".{owner}".endswith(f".{self.name}".rstrip(".")):
                return
        cuts = [at for at, type_ in self.records if type_ == "NS" and f".{owner}".endswith(f".{at}")]
        cut = cuts[0] if cuts and self.name else self.name  # the root stands for a resolver: it refers to nobody
        if cut != self.name:
            reply.flags &= ~dns.flags.AA
            reply.authority.append(self.rrset(cut, "NS"))
        elif (owner, kind) in self.records:
            reply.answer.append(self.rrset(owner, kind))
        else:
            if not any(f".{name}".endswith(f".{owner}") for name, _ in self.records):
                reply.set_rcode(dns.rcode.NXDOMAIN)
            reply.authority.append(dns.rrset.from_text(f"{self.name}.", 300, "IN", "SOA", SOA))

    def rrset(self, owner, kind):
        return dns.rrset.from_text(f"{owner}.", 300, "IN", kind, *self.records[owner, kind])


SILENCE = object()


class Server:
    """A name server on UDP and TCP at one port; ``answer`` fills in a reply, or says SILENCE."""

    def __init__(self, answer, host="127.0.0.1", port=0):
        self.answer, self.asked = answer, []
        self.tcp = socket.create_server((host, port))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(self.tcp.getsockname())
        self.name = f"{host}:{self.tcp.getsockname()[1]}"
        self.threads = [threading.Thread(target=work) for work in (self._datagrams, self._streams)]
        for thread in self.threads:
            thread.start()

    def _reply(self, wire, transport):
        query = dns.message.from_wire(wire)
        self.asked.append((query.question[0].name.to_text(omit_final_dot=True), query.question[0].rdtype.name))
        reply = dns.message.make_response(query, recursion_available=bool(query.flags & dns.flags.RD))
        return None if self.answer(reply, transport) is SILENCE else reply.to_wire(max_size=65535)

    def _datagrams(self):
        while True:
            wire, sender = self.udp.recvfrom(4096)
            if not wire:
                return
            reply = self._reply(wire, "udp")
            if reply is not None:
                self.udp.sendto(reply, sender)

    def _streams(self):
        while True:
            stream, _ = self.tcp.accept()
            with stream, contextlib.suppress(OSError):
                head = stream.recv(2)
                if not head:
                    return
                reply = self._reply(stream.recv(struct.unpack("!H", head)[0]), "tcp")
                if reply is not None:
                    stream.sendall(struct.pack("!H", len(reply)) + reply)

    def close(self):
        """End both threads: an empty datagram and an empty stream tell them to."""
        address = self.tcp.getsockname()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", address)
        socket.create_connection(address).close()
        for thread in self.threads:
            thread.join()
        self.udp.close()
        self.tcp.close()


@pytest.fixture
def serve():
    """Start name servers; each is given a zone, or a function that fills in replies."""
    started = []

    def start(answer, **where):
        started.append(Server(answer if callable(answer) else filled(answer), **where))
        return started[-1]

    yield start
    for server in started:
        server.close()


def filled(zone):
    return lambda reply, _: zone.fill(reply)


def zone(**more):
    """Make mana.how with one key, and more at the same name."""
    return Zone(
        "mana.how", {(HOST, kind): values for kind, values in ({"TXT": [f'"{TEXT}"']} | more).items() if values}
    )


def asked(*servers, question=ASKED, **more):
    return look([question], nameservers=[item if isinstance(item, str) else item.name for item in servers], **more)[
        question
    ]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


# ----------------------------------------------------------------------------------------------- what servers say
def test_each_server_answers_for_itself_while_one_lags(serve):
    new, old = serve(zone()), serve(Zone("mana.how", {("mana.how", "A"): ["192.0.2.1"]}))
    said = asked(new, old)
    assert said == (Answer(new.name, (TEXT,)), Answer(old.name))
    seen = publication(dkim_record("mana.how", "mana.how", "s1", "ed25519", KEY), {ASKED: said})
    assert (seen.shown, seen.missing, seen.everywhere) == ((new.name,), (old.name,), False)


def test_no_recursion_is_asked_for_and_answers_are_small_enough_for_any_path(serve):
    flags = []

    def note(reply, _):
        flags.append((reply.flags & dns.flags.RD, reply.edns, reply.request_payload))
        zone().fill(reply)

    asked(serve(note))
    assert flags == [(0, 0, 1232)]


@pytest.mark.parametrize(
    ("question", "values"),
    [
        (Question("a.mana.how", "A"), ("192.0.2.1", "192.0.2.2")),
        (Question("a.mana.how", "AAAA"), ("2001:db8::1",)),
        (Question("mana.how", "MX"), ("10 mail.mana.how",)),
        (Question("null.mana.how", "MX"), ("0 .",)),
        (Question("b.mana.how", "CNAME"), ("elsewhere.example",)),
        (Question("nothing.mana.how", "TXT"), ()),
        (Question("a.mana.how", "TXT"), ()),
        (Question("two.mana.how", "TXT"), ("one", "two")),
        (Question("parts.mana.how", "TXT"), ("v=spf1include:x -all",)),
        (Question("raw.mana.how", "TXT"), ("caf\\xe9",)),
        (Question("_x._tcp.mana.how", "SRV"), ("1 2 25 mail.mana.how.",)),
        (Question("xn--mller-kva.mana.how", "TXT"), ("idn",)),
    ],
)
def test_values_read_as_a_person_writes_them(serve, question, values):
    server = serve(
        Zone(
            "mana.how",
            {
                ("a.mana.how", "A"): ["192.0.2.2", "192.0.2.1"],
                ("a.mana.how", "AAAA"): ["2001:db8:0::1"],
                ("mana.how", "MX"): ["10 Mail.mana.how."],
                ("null.mana.how", "MX"): ["0 ."],
                ("b.mana.how", "CNAME"): ["Elsewhere.example."],
                ("two.mana.how", "TXT"): ["two", "one"],
                ("parts.mana.how", "TXT"): ['"v=spf1" "include:x -all"'],
                ("raw.mana.how", "TXT"): ['"caf\\233"'],
                ("_x._tcp.mana.how", "SRV"): ["1 2 25 mail.mana.how."],
                ("xn--mller-kva.mana.how", "TXT"): ["idn"],
            },
        )
    )
    assert asked(server, question=question) == (Answer(server.name, values),)


def test_two_keys_at_one_name_are_both_told(serve):
    server = serve(zone(TXT=[f'"{TEXT}"', '"v=DKIM1; p=other"']))
    assert len(asked(server)[0].values) == 2


def test_a_long_key_comes_by_tcp_and_in_one_piece(serve):
    key = "A" * 1400
    strings = " ".join(
        f'"{part}"' for part in ("v=DKIM1; k=rsa; p=", *(key[at : at + 255] for at in range(0, 1400, 255)))
    )
    used = []

    def large(reply, transport):
        used.append(transport)
        zone(TXT=[strings]).fill(reply)
        if transport == "udp":
            reply.answer.clear()
            reply.flags |= dns.flags.TC

    (answer,) = asked(serve(large))
    assert answer.values == (f"v=DKIM1; k=rsa; p={key}",)
    assert used == ["udp", "tcp"]


def coded(code):
    return lambda reply, _: reply.set_rcode(code)


def lame(reply, _):
    zone().fill(reply)
    reply.flags &= ~dns.flags.AA


def only_udp(reply, transport):
    if transport == "tcp":
        return SILENCE
    reply.flags |= dns.flags.TC | dns.flags.AA
    return None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (coded(dns.rcode.SERVFAIL), "it fails"),
        (coded(dns.rcode.REFUSED), "refuses"),
        (coded(dns.rcode.NOTIMP), "NOTIMP"),
        (lame, "not authoritative"),
        (lambda *_: SILENCE, "does not answer"),
        (only_udp, "connection was closed"),
    ],
)
def test_a_server_that_says_nothing_of_use_is_unread_and_spoils_no_other(serve, answer, why):
    bad, good = serve(answer), serve(zone())
    first, second = asked(bad, good)
    assert (first.server, first.values) == (bad.name, ())
    assert why in first.unread
    assert second == Answer(good.name, (TEXT,))


def test_nothing_listens_and_no_such_name(serve):
    good, port = serve(zone()), free_port()
    dead, nameless, said = asked(f"127.0.0.1:{port}", "ns.invalid", good)
    assert "refused" in dead.unread
    assert nameless.unread == "its name does not resolve"
    assert said.values == (TEXT,)


def test_a_lost_datagram_is_sent_again(serve):
    seen = []

    def second(reply, _):
        seen.append(1)
        return SILENCE if len(seen) == 1 else zone().fill(reply)

    assert asked(serve(second))[0].values == (TEXT,)


def test_a_silent_server_costs_its_time_once(serve, monkeypatch):
    monkeypatch.setattr(nameservers, "_THREADS", 2)
    silent, good = serve(lambda *_: SILENCE), serve(zone())
    questions = [Question(f"s{number}._domainkey.mana.how", "TXT") for number in range(40)]
    said = look(questions, nameservers=[silent.name, good.name])
    assert all(answers[0].unread and not answers[1].unread for answers in said.values())
    assert len(silent.asked) <= 4  # two at once, each sent twice


def test_what_is_not_answered_in_time_is_unread(serve, monkeypatch):
    monkeypatch.setattr(nameservers, "_LIMIT", 0.3)
    release = threading.Event()
    good = serve(zone())
    slow = serve(lambda *_: release.wait(10) and None)
    try:
        first, second = asked(good, slow)
        assert first.values == (TEXT,)
        assert second.unread
    finally:
        release.set()


# --------------------------------------------------------------------------------------------------------- aliases
def test_an_alias_in_its_own_zone_is_followed_in_the_answer(serve):
    records = {(HOST, "CNAME"): ["key.mana.how."], ("key.mana.how", "TXT"): [f'"{TEXT}"']}
    server = serve(Zone("mana.how", records))
    assert asked(server) == (Answer(server.name, (TEXT,), alias="key.mana.how"),)
    assert asked(server, question=Question(HOST, "CNAME")) == (Answer(server.name, ("key.mana.how",)),)


def test_an_alias_that_leads_to_nothing_in_its_zone_shows_nothing(serve):
    server = serve(Zone("mana.how", {(HOST, "CNAME"): ["gone.mana.how."]}))
    assert asked(server) == (Answer(server.name, alias="gone.mana.how"),)


def test_given_servers_are_asked_for_what_an_alias_leads_to(serve):
    def both(reply, _):
        name = reply.question[0].name.to_text(omit_final_dot=True)
        away = Zone("provider.example", {("b1.provider.example", "TXT"): [f'"{TEXT}"']})
        here = Zone("mana.how", {(HOST, "CNAME"): ["b1.provider.example."]})
        (away if name.endswith("provider.example") else here).fill(reply)

    server = serve(both)
    assert asked(server) == (Answer(server.name, (TEXT,), alias="b1.provider.example"),)


def test_aliases_that_go_in_circles_end(serve):
    def circle(reply, _):
        name = reply.question[0].name.to_text(omit_final_dot=True)
        there = "a.example" if name != "a.example" else HOST
        Zone(name, {(name, "CNAME"): [f"{there}."]}).fill(reply)

    assert "lead nowhere" in asked(serve(circle))[0].unread


# ------------------------------------------------------------------------------------- who is authoritative at all
class Internet:
    """Servers at addresses of loopback, all at one port, and a resolver that knows what is put into ``names``."""

    def __init__(self, serve):
        self.serve, self.names = serve, {}
        self.first = serve(self.resolve, host="127.0.1.1")
        self.port = int(self.first.name.rpartition(":")[2])
        self.resolver = dns.resolver.Resolver(configure=False)
        self.resolver.nameservers, self.resolver.port = ["127.0.1.1"], self.port

    def resolve(self, reply, _):
        Zone("", self.names).fill(reply)
        reply.flags &= ~dns.flags.AA
        reply.authority.clear()

    def delegate(self, name, **servers):
        """Make a zone whose servers show what they are given: a zone, or a function."""
        self.names[name, "NS"] = [f"{short}.{name}." for short in servers]
        for short, answer in servers.items():
            last = 2 + sum(kind == "A" for _, kind in self.names)
            self.names[f"{short}.{name}", "A"] = [f"127.0.1.{last}"]
            if answer is not None:
                self.serve(answer, host=f"127.0.1.{last}", port=self.port)

    def look(self, *questions):
        return look(questions, resolver=self.resolver, port=self.port)


@pytest.fixture
def internet(serve):
    return Internet(serve)


def test_every_server_of_the_zone_is_found_and_asked(internet):
    internet.delegate("mana.how", ns1=zone(), ns2=Zone("mana.how", {("mana.how", "A"): ["192.0.2.1"]}))
    assert internet.look(ASKED)[ASKED] == (Answer("ns1.mana.how", (TEXT,)), Answer("ns2.mana.how"))


def test_a_name_far_down_in_a_zone_and_one_in_a_delegated_zone(internet):
    deep = Question("sel._domainkey.news.mana.how", "TXT")
    away = Question("sel._domainkey.lists.mana.how", "TXT")
    parent = Zone("mana.how", {(deep.host, "TXT"): ["deep"], ("lists.mana.how", "NS"): ["ns.lists.mana.how."]})
    internet.delegate("mana.how", ns1=parent)
    internet.delegate("lists.mana.how", ns=Zone("lists.mana.how", {(away.host, "TXT"): ["away"]}))
    assert internet.look(deep, away) == {
        deep: (Answer("ns1.mana.how", ("deep",)),),
        away: (Answer("ns.lists.mana.how", ("away",)),),
    }


def test_a_zone_that_begins_at_the_selector_itself(internet):
    internet.delegate("mana.how", ns1=Zone("mana.how", {(HOST, "NS"): [f"ns.{HOST}."]}))
    internet.delegate(HOST, ns=Zone(HOST, {(HOST, "TXT"): ["own"]}))
    assert internet.look(ASKED)[ASKED] == (Answer(f"ns.{HOST}", ("own",)),)


def test_a_parent_whose_delegation_could_not_be_looked_up_is_not_taken_for_the_zone(internet):
    away = Question("sel._domainkey.lists.mana.how", "TXT")
    internet.delegate("mana.how", ns1=Zone("mana.how", {("lists.mana.how", "NS"): ["ns.lists.mana.how."]}))
    assert "not authoritative" in internet.look(away)[away][0].unread


def test_many_questions_look_each_name_up_once(internet):
    internet.delegate("mana.how", ns1=zone())
    internet.look(*(Question(f"s{number}._domainkey.mana.how", "TXT") for number in range(9)), ASKED)
    lookups = [item for item in internet.first.asked if item[1] == "NS"]
    assert lookups.count(("mana.how", "NS")) == 1
    assert len(lookups) == len(set(lookups))
    assert ("how", "NS") not in lookups


def test_a_server_whose_name_does_not_resolve_is_unread(internet):
    internet.delegate("mana.how", ns1=zone(), ns2=None)
    del internet.names["ns2.mana.how", "A"]
    first, second = internet.look(ASKED)[ASKED]
    assert first.values == (TEXT,)
    assert second == Answer("ns2.mana.how", unread="its name does not resolve")


def test_the_next_address_of_a_server_is_tried(internet):
    internet.delegate("mana.how", ns1=zone())
    internet.names["ns1.mana.how", "AAAA"] = ["2001:db8::1"]
    internet.names["ns1.mana.how", "A"] = ["127.0.1.99", *internet.names["ns1.mana.how", "A"]]
    assert internet.look(ASKED)[ASKED] == (Answer("ns1.mana.how", (TEXT,)),)


def test_an_alias_into_another_zone_is_looked_up(internet):
    alias = {(HOST, "CNAME"): ["b1.provider.example."]}
    internet.delegate("mana.how", ns1=Zone("mana.how", alias))
    internet.names |= alias | {("b1.provider.example", "TXT"): [f'"{TEXT}"']}
    assert internet.look(ASKED)[ASKED] == (Answer("ns1.mana.how", (TEXT,), alias="b1.provider.example"),)
    del internet.names["b1.provider.example", "TXT"]
    assert internet.look(ASKED)[ASKED] == (Answer("ns1.mana.how", alias="b1.provider.example"),)


def test_an_alias_whose_target_no_server_shows_yet_is_not_taken_from_elsewhere(internet):
    """The resolver has it from another server: the one that lags does not show it."""
    alias = {(HOST, "CNAME"): ["key.mana.how."]}
    internet.delegate("mana.how", ns1=Zone("mana.how", alias))
    internet.names |= alias | {("key.mana.how", "TXT"): [f'"{TEXT}"']}
    assert internet.look(ASKED)[ASKED] == (Answer("ns1.mana.how", alias="key.mana.how"),)


@pytest.mark.parametrize("answer", [lambda *_: SILENCE, coded(dns.rcode.SERVFAIL), coded(dns.rcode.REFUSED)])
def test_offline_nothing_is_said_about_what_is_published(internet, answer, monkeypatch):
    monkeypatch.setattr(nameservers, "_PATIENCE", 0.5)
    internet.first.answer = answer
    found = internet.look(ASKED)
    seen = publication(dkim_record("mana.how", "mana.how", "s1", "ed25519", KEY), found)
    assert (seen.shown, seen.missing) == ((), ())
    assert seen.unread[0][0] == f"the name servers of {HOST}"
    assert f"the name servers of {HOST} could not be asked (the system's resolver" in seen.words


def test_a_domain_that_nobody_registered_has_no_servers(internet):
    assert internet.look(ASKED) == {ASKED: ()}
    seen = publication(dkim_record("mana.how", "mana.how", "s1", "ed25519", KEY), internet.look(ASKED))
    assert (seen.everywhere, seen.words) == (False, "no authoritative name server was found")


def test_a_system_without_a_resolver(monkeypatch):
    def none():
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver, "Resolver", none)
    assert look([ASKED])[ASKED] == (Answer(f"the name servers of {HOST}", unread="the system has no DNS resolver"),)


# ------------------------------------------------------------------------------------------------------ the caller
@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:x",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.999",
        "[::1",
        "[::1]x",
        "[ns.example]",
        ":53",
        "a b",
        "-x",
    ],
)
def test_a_mistake_in_the_variable_names_it(text):
    with pytest.raises(ReconcilerError, match=r"RECONCILER_NAMESERVERS: .*is no name server.*HOST:PORT"):
        look([], nameservers=[text])


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.0.0.1:5301", "::1", "[::1]", "[::1]:53", "ns1.example", "ns1.example.:53"]
)
def test_what_the_variable_may_hold(text):
    assert look([], nameservers=[text]) == {}


def test_progress_is_told_when_something_is_asked(serve):
    told = []
    look([], progress=told.append)
    assert told == []
    asked(serve(zone()), progress=told.append)
    assert told == ["Asking the name servers"]


def test_dnspython_is_imported_only_to_ask():
    code = "import sys, reconciler.stack, reconciler.cli; sys.exit('dns.message' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------------------------------- a real name server
KNOT = """
server:
  listen: [127.0.0.1@{port}]
  rundir: {folder}
database:
  storage: {folder}
zone:
  - domain: mana.how
    file: {folder}/mana.how.zone
"""

ZONE_FILE = """
$ORIGIN mana.how.
$TTL 300
@ SOA ns1 hostmaster 1 7200 3600 1209600 300
@ NS ns1
@ MX 10 mail
ns1 A 127.0.0.1
mail A 192.0.2.1
s1._domainkey TXT "{text}"
alias._domainkey CNAME s1._domainkey
away._domainkey CNAME b1.provider.example.
rsa._domainkey TXT {strings}
lists NS ns.lists
ns.lists A 192.0.2.53
"""


@pytest.fixture
def knot(tmp_path):
    """Run Knot DNS, an authoritative server that others wrote, with a zone of our own."""
    program = shutil.which("knotd") or shutil.which("knotd", path="/usr/sbin")
    if program is None:
        pytest.skip("knotd is missing (Debian's package knot)")
    port = free_port()
    strings = " ".join(f'"{part}"' for part in ("v=DKIM1; k=rsa; p=", *["A" * 250] * 7))
    (tmp_path / "mana.how.zone").write_text(ZONE_FILE.format(text=TEXT.replace(";", "\\;"), strings=strings))
    (tmp_path / "knot.conf").write_text(KNOT.format(port=port, folder=tmp_path))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", tmp_path / "knot.conf"], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 30
        while any(answer.unread for answer in asked(f"127.0.0.1:{port}")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_knot_dns_is_understood(knot):
    def said(host, kind="TXT"):
        (answer,) = asked(knot, question=Question(host, kind))
        return answer

    assert said(HOST) == Answer(knot, (TEXT,))
    assert said("alias._domainkey.mana.how") == Answer(knot, (TEXT,), alias=HOST)
    assert said("away._domainkey.mana.how", "CNAME") == Answer(knot, ("b1.provider.example",))
    assert said("rsa._domainkey.mana.how") == Answer(knot, (f"v=DKIM1; k=rsa; p={'A' * 1750}",))  # by TCP
    assert said("mana.how", "MX") == Answer(knot, ("10 mail.mana.how",))
    assert said("none._domainkey.mana.how") == Answer(knot)
    assert said("mail.mana.how") == Answer(knot)
    assert "not authoritative" in said("s1._domainkey.lists.mana.how").unread  # it only delegates
    assert "refuses" in said("s1._domainkey.other.example").unread
    assert "refuses" in said("away._domainkey.mana.how").unread  # and has nothing to say of the target


# ---------------------------------------------------------------------------------------- servers that do not mean well
def _reply(wire: bytes, *, truncated: bool = False) -> dns.message.Message:
    reply = dns.message.make_response(dns.message.from_wire(wire))
    reply.flags |= dns.flags.AA | (dns.flags.TC if truncated else 0)
    return reply


def _endless(connection: socket.socket) -> None:
    connection.sendall(struct.pack("!H", 65535))
    while True:
        connection.sendall(bytes(1000))


def _dripping(connection: socket.socket) -> None:
    for byte in struct.pack("!H", 4000) + bytes(4000):
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


@pytest.fixture
def hostile():
    """A server whose datagrams and whose streams are what a test says."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):  # until one number is free for both
            tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                break
        done = threading.Event()
        stack.callback(done.set)

        def listen(datagrams, stream):
            def answer():
                with contextlib.suppress(OSError):
                    while not done.is_set():
                        wire, whom = udp.recvfrom(4096)
                        for item in datagrams(wire):
                            if done.is_set():
                                return
                            udp.sendto(item, whom)

            def accept():
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = tcp.accept()
                        threading.Thread(target=serve, args=(connection,), daemon=True).start()

            def serve(connection):
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(5)
                    stream(connection)

            for work in (answer, accept):
                threading.Thread(target=work, daemon=True).start()
            return f"127.0.0.1:{udp.getsockname()[1]}"

        yield listen


def _flood(wire: bytes):
    reply = _reply(wire)
    reply.id ^= 1
    piece = reply.to_wire()
    while True:
        yield piece


DATAGRAMS = {
    "a flood for somebody else": (_flood, _endless),
    "a flood of rubbish": (lambda _: iter(lambda: bytes(500), b""), _endless),
    "truncated, then a stream without end": (lambda wire: [_reply(wire, truncated=True).to_wire()], _endless),
    "truncated, then a stream that drips": (lambda wire: [_reply(wire, truncated=True).to_wire()], _dripping),
    "truncated, then silence": (lambda wire: [_reply(wire, truncated=True).to_wire()], lambda _: time.sleep(3)),
    "truncated, then nobody": (lambda wire: [_reply(wire, truncated=True).to_wire()], lambda _: None),
    "an empty datagram": (lambda _: [b""], _endless),
}


@pytest.mark.parametrize("kind", DATAGRAMS)
def test_t11_a_name_server_that_does_not_mean_well_is_unread_in_time(hostile, kind, monkeypatch):
    monkeypatch.setattr(nameservers, "_ATTEMPT", 0.2)
    monkeypatch.setattr(nameservers, "_PATIENCE", 0.5)
    server = hostile(*DATAGRAMS[kind])
    began = time.monotonic()
    answers = look([ASKED], nameservers=[server])
    assert time.monotonic() - began < 3
    [answer] = answers[ASKED]
    assert answer.unread
    ended = time.monotonic() + 2
    while (left := [item for item in threading.enumerate() if "(run)" in item.name]) and time.monotonic() < ended:
        time.sleep(0.05)
    assert left == []
