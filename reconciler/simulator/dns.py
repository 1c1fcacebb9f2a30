"""Authoritative name servers for the zones of the fake Cloudflare, each of which may lag behind or be away.

What they answer follows RFC 1034 section 4.3.2, with what is Cloudflare's own: a proxied name has Cloudflare's
addresses, a CNAME at the zone itself is flattened, and ANY is told as little as may be (RFC 8482).
"""

from __future__ import annotations

import contextlib
import hashlib
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdtypes.ANY.TXT import TXT

from reconciler.simulator.cloudflare import NAME_SERVERS, character_strings
from reconciler.simulator.wire import Prompt

_TTL = 300  # what Cloudflare's automatic TTL is
_NEGATIVE_TTL = 1800
_PAYLOAD = 1232  # bytes over UDP that no path fragments (DNS Flag Day 2020), Cloudflare's EDNS size too
_LEAST = 512  # without EDNS (RFC 1035 section 4.2.1)
_CHAIN = 8
_IDLE = 10.0  # seconds a TCP connection may stay open without a query (RFC 7766 section 6.2.3)
_IN = dns.rdataclass.IN

Record = Mapping[str, Any]
Zones = Mapping[str, Sequence[Record]]


# ------------------------------------------------------------------------------------------------------- answering
@dataclass(slots=True)
class _Answer:
    """The sections of an answer while it is put together."""

    code: dns.rcode.Rcode = dns.rcode.NOERROR
    authoritative: bool = True
    answer: list[dns.rrset.RRset] = field(default_factory=list)
    authority: list[dns.rrset.RRset] = field(default_factory=list)
    additional: list[dns.rrset.RRset] = field(default_factory=list)


class _Zone:
    """One zone as one server shows it at one moment."""

    def __init__(self, name: str, records: Iterable[Record]) -> None:
        self.name = name
        self.origin = dns.name.from_text(name)
        self.records: dict[str, list[Record]] = {name: []}
        newest = ""
        for record in records:
            self.records.setdefault(record["name"], []).append(record)
            newest = max(newest, record["modified_on"])
        digest = hashlib.blake2b(f"{len(self.records)} {newest}".encode(), digest_size=4).digest()
        self.serial = int.from_bytes(digest)

    def answer(self, owner: dns.name.Name, kind: dns.rdatatype.RdataType) -> _Answer:
        """Answer a question about a name in this zone."""
        found = _Answer()
        for _ in range(_CHAIN):
            name = _plain(owner)
            cut = self._cut(name, kind)
            if cut is not None:
                return self._referral(found, cut)
            beside = self._at(name)
            if beside is None:
                found.code = dns.rcode.NXDOMAIN  # of the last name of a chain (RFC 6604)
                break
            wanted = self._of_type(owner, name, kind, beside)
            if wanted:
                found.answer.append(wanted)
                return found
            alias = next((item for item in beside if item["type"] == "CNAME" and not self._flat(item)), None)
            if alias is None:
                break
            found.answer.append(_rrset(owner, dns.rdatatype.CNAME, [alias]))
            owner = dns.name.from_text(alias["content"])
            if not owner.is_subdomain(self.origin):
                return found
        found.authority.append(self._soa())
        return found

    def _of_type(
        self, owner: dns.name.Name, name: str, kind: dns.rdatatype.RdataType, beside: list[Record]
    ) -> dns.rrset.RRset | None:
        """Return what there is of a type at a name, or in place of what there is."""
        if kind == dns.rdatatype.ANY:
            return dns.rrset.from_text(owner, 3600, _IN, "HINFO", '"RFC8482" ""')
        if name == self.name and kind == dns.rdatatype.SOA:
            return self._soa()
        own = [item for item in beside if item["type"] == dns.rdatatype.to_text(kind) and not self._flat(item)]
        if name == self.name and kind == dns.rdatatype.NS and not own:
            return dns.rrset.from_text(owner, 86400, _IN, kind, *(f"{server}." for server in NAME_SERVERS))
        if kind in (dns.rdatatype.A, dns.rdatatype.AAAA) and any(item["proxied"] for item in beside):
            return dns.rrset.from_text(owner, _TTL, _IN, kind, *_edge(name, kind))
        flat = next((item for item in beside if item["type"] == "CNAME" and self._flat(item)), None)
        if flat is not None and kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
            return self._flattened(owner, flat["content"], kind)
        return _rrset(owner, kind, own) if own else None

    def _flat(self, record: Record) -> bool:
        """Whether a record never shows as itself: a proxied one, and a CNAME that is flattened."""
        flattened = record["name"] == self.name or (record.get("settings") or {}).get("flatten_cname")
        return bool(record["proxied"] or (record["type"] == "CNAME" and flattened))

    def _flattened(self, owner: dns.name.Name, content: str, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
        """Return the addresses of a CNAME's target; those of a target in another zone nobody here knows."""
        target = dns.name.from_text(content)
        if target == owner or not target.is_subdomain(self.origin):
            return None
        found = [item for item in self.answer(target, kind).answer if item.rdtype == kind]
        return dns.rrset.from_rdata_list(owner, _TTL, list(found[0])) if found else None

    def _at(self, name: str) -> list[Record] | None:
        """Return the records at a name, or of the wildcard that covers it (RFC 4592); None where it does not exist."""
        if name in self.records:
            return self.records[name]
        if self._exists(name):
            return []  # something is below it (RFC 8020)
        encloser = name
        while not self._exists(encloser):
            encloser = encloser.partition(".")[2]
        return self.records.get(f"*.{encloser}")

    def _exists(self, name: str) -> bool:
        return any(other == name or other.endswith(f".{name}") for other in self.records)

    def _cut(self, name: str, kind: dns.rdatatype.RdataType) -> str | None:
        """Return where a name is delegated away from this zone; the cut itself still has its DS here."""
        above = name.removesuffix(self.name).split(".")[:-1]
        for start in range(len(above) - 1, -1, -1):
            at = ".".join([*above[start:], self.name])
            if any(item["type"] == "NS" for item in self.records.get(at, ())):
                return None if at == name and kind == dns.rdatatype.DS else at
        return None

    def _referral(self, found: _Answer, cut: str) -> _Answer:
        servers = [item for item in self.records[cut] if item["type"] == "NS"]
        found.authoritative = bool(found.answer)  # the AA flag is about the first name (RFC 1035 section 4.1.1)
        found.authority.append(_rrset(dns.name.from_text(cut), dns.rdatatype.NS, servers))
        for name in {item["content"] for item in servers}:
            for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
                glue = [item for item in self.records.get(name, ()) if item["type"] == kind.name]
                found.additional += [_rrset(dns.name.from_text(name), kind, glue)] if glue else []
        return found

    def _soa(self) -> dns.rrset.RRset:
        """Return the SOA; its serial changes with what is shown."""
        text = f"{NAME_SERVERS[0]}. dns.cloudflare.com. {self.serial} 10000 2400 604800 {_NEGATIVE_TTL}"
        return dns.rrset.from_text(self.origin, _NEGATIVE_TTL, _IN, dns.rdatatype.SOA, text)


def _plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _rrset(owner: dns.name.Name, kind: dns.rdatatype.RdataType, records: Sequence[Record]) -> dns.rrset.RRset:
    """Put records of one type into the form of the wire; raises DNSException for content that is none."""
    ttl = min(_TTL if record["ttl"] == 1 else record["ttl"] for record in records)
    return dns.rrset.from_rdata_list(owner, ttl, [_rdata(kind, record) for record in records])


def _rdata(kind: dns.rdatatype.RdataType, record: Record) -> dns.rdata.Rdata:
    content = record["content"]
    if kind == dns.rdatatype.TXT:
        return TXT(_IN, kind, character_strings(content))
    if kind in (dns.rdatatype.MX, dns.rdatatype.URI):
        content = f"{record['priority']} {content}"
    return dns.rdata.from_text(_IN, kind, content, origin=dns.name.root, relativize=False)


def _edge(name: str, kind: dns.rdatatype.RdataType) -> list[str]:
    """Return the two addresses in Cloudflare's networks that a proxied name has."""
    first, second = hashlib.blake2b(name.encode(), digest_size=2).digest()
    if kind == dns.rdatatype.A:
        return [f"104.21.{first}.{second}", f"172.67.{first}.{second}"]
    return [f"2606:4700:3030::{first:x}:{second:x}", f"2606:4700:3037::{first:x}:{second:x}"]


def _answer(zones: Zones, query: dns.message.Message) -> dns.message.Message:
    """Answer a query from what a server shows."""
    reply = dns.message.make_response(query, our_payload=_PAYLOAD)
    if query.edns > 0:
        reply.set_rcode(dns.rcode.BADVERS)
    elif query.opcode() != dns.opcode.QUERY:
        reply.set_rcode(dns.rcode.NOTIMP)
    elif len(query.question) != 1:
        reply.set_rcode(dns.rcode.FORMERR)
    else:
        _fill(reply, zones, query.question[0])
    return reply


def _fill(reply: dns.message.Message, zones: Zones, asked: dns.rrset.RRset) -> None:
    name = _plain(asked.name)
    own = max((zone for zone in zones if name == zone or name.endswith(f".{zone}")), key=len, default=None)
    transfers = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)
    if own is None or asked.rdclass != _IN or asked.rdtype in transfers:
        reply.set_rcode(dns.rcode.REFUSED)
        return
    try:
        found = _Zone(own, zones[own]).answer(asked.name, asked.rdtype)
    except dns.exception.DNSException:  # Cloudflare stored what makes no such record
        reply.set_rcode(dns.rcode.SERVFAIL)
        return
    reply.set_rcode(found.code)
    reply.flags |= dns.flags.AA if found.authoritative else 0
    reply.answer, reply.authority, reply.additional = found.answer, found.authority, found.additional


# --------------------------------------------------------------------------------------------------------- serving
class _Udp(socketserver.BaseRequestHandler):
    server: _Datagrams

    def handle(self) -> None:
        data, connection = self.request
        reply = self.server.respond(data, udp=True)
        if reply is not None:
            connection.sendto(reply, self.client_address)


class _Tcp(socketserver.BaseRequestHandler):
    server: _Connections

    def handle(self) -> None:
        self.request.settimeout(_IDLE)
        with contextlib.suppress(OSError, EOFError):
            while True:
                (size,) = struct.unpack("!H", self._read(2))
                reply = self.server.respond(self._read(size), udp=False)
                if reply is None:
                    return
                self.request.sendall(struct.pack("!H", len(reply)) + reply)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.request.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data


class _Datagrams(Prompt, socketserver.ThreadingUDPServer):
    max_packet_size = 65535
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], respond: Callable[..., bytes | None]) -> None:
        self.respond = respond
        super().__init__(address, _Udp)


class _Connections(Prompt, socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], respond: Callable[..., bytes | None]) -> None:
        self.respond = respond
        super().__init__(address, _Tcp)


class _Server:
    """One name server at one port of UDP and TCP. ``held`` is what it shows in place of what there is by now.

    ``latency`` is added to every answer, in seconds.
    """

    def __init__(self, shown: Callable[[], Zones], host: str, port: int) -> None:
        self._shown, self.host = shown, host
        self.held: Zones | None = None
        self.latency = 0.0
        self.queries: list[tuple[str, str, str]] = []
        self._sockets: list[_Datagrams | _Connections] = []
        self.port = port
        self._bind()

    def _bind(self) -> None:
        """Bind both sockets at once, so that the port is known; a free port of one may be taken of the other."""
        while not self._sockets:
            stream = _Connections((self.host, self.port), self.respond)
            try:
                self._sockets = [stream, _Datagrams(stream.server_address, self.respond)]  # type: ignore[arg-type]
            except OSError:
                stream.server_close()
                if self.port:
                    raise
        self.port = self._sockets[0].server_address[1]

    @property
    def zones(self) -> Zones:
        return self._shown() if self.held is None else self.held

    @property
    def is_bound(self) -> bool:
        return bool(self._sockets)

    def start(self) -> None:
        if not self._sockets:
            self._bind()
        for item in self._sockets:
            threading.Thread(target=item.serve_forever, daemon=True).start()

    def stop(self, *, serving: bool) -> None:
        for item in self._sockets:
            if serving:
                item.shutdown()
            item.server_close()
        self._sockets = []

    def respond(self, data: bytes, *, udp: bool) -> bytes | None:
        """Answer a message; None for what deserves no answer."""
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return _malformed(data)
        if query.flags & dns.flags.QR:
            return None
        for asked in query.question:
            self.queries.append(("udp" if udp else "tcp", _plain(asked.name), dns.rdatatype.to_text(asked.rdtype)))
        time.sleep(self.latency)
        reply = _answer(self.zones, query)
        size = max(_LEAST, min(query.payload, _PAYLOAD)) if udp and query.edns >= 0 else _LEAST
        try:
            return reply.to_wire(max_size=size if udp else 65535)
        except dns.exception.TooBig:  # the whole answer is asked for over TCP then (RFC 2181 section 9)
            reply.answer, reply.authority, reply.additional = [], [], []
            reply.flags |= dns.flags.TC
            return reply.to_wire(max_size=size)


def _malformed(data: bytes) -> bytes | None:
    """Return FORMERR with the id of a query that can't be read, if there is as much as an id."""
    if len(data) < 12 or data[2] & 0x80:
        return None
    reply = dns.message.Message(id=int.from_bytes(data[:2]))
    reply.flags = dns.flags.QR
    reply.set_rcode(dns.rcode.FORMERR)
    return reply.to_wire()


class NameServers:
    """Name servers on loopback that all show the same zones, but for the one that lags or is away.

    ``shown`` returns the records of every zone as they are now (`Cloudflare.shown`); ``ports`` has one for each server,
    0 takes a free one. Servers are counted from 0. They answer from `start` on, or in a ``with`` block.
    """

    def __init__(self, shown: Callable[[], Zones], ports: Sequence[int] = (0, 0), *, host: str = "127.0.0.1") -> None:
        """Bind the ports at once, so that ``servers`` are known before they are started."""
        self._shown = shown
        self._all = [_Server(shown, host, port) for port in ports]
        self._serving: set[int] = set()

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers as ``HOST:PORT``, as RECONCILER_NAMESERVERS takes them."""
        return tuple(f"{item.host}:{item.port}" for item in self._all)

    @property
    def queries(self) -> list[list[tuple[str, str, str]]]:
        """The questions that each server was asked: ``udp`` or ``tcp``, the name and the type."""
        return [list(item.queries) for item in self._all]

    def delay(self, seconds: float) -> None:
        """Let all of them take longer for every answer."""
        for item in self._all:
            item.latency = seconds

    def hold(self, number: int) -> None:
        """Let a server show for now what it shows at this moment."""
        self._all[number].held = dict(self._all[number].zones)

    def release(self, number: int) -> None:
        """Let a server show what there is by now."""
        self._all[number].held = None

    def stop(self, number: int | None = None) -> None:
        """Make a server unreachable, or all of them: nobody listens at its port."""
        for index in range(len(self._all)) if number is None else (number,):
            self._all[index].stop(serving=index in self._serving)
            self._serving.discard(index)

    def start(self, number: int | None = None) -> Self:
        """Let a server answer, or all of them, at the port that it had."""
        for index in range(len(self._all)) if number is None else (number,):
            if index not in self._serving:
                self._all[index].start()
                self._serving.add(index)
        return self

    def reset(self) -> None:
        """Let all answer what there is by now, and forget what they were asked."""
        self.start()
        for item in self._all:
            item.held = None
            item.queries.clear()

    def values(self, name: str, kind: str) -> tuple[frozenset[str], ...]:
        """Return what each server that answers shows at a name, without a query on the wire.

        The strings of a TXT are joined, hosts come without the last dot, an MX as ``10 mail.example.com``.
        """
        query = dns.message.make_query(name, kind)
        return tuple(frozenset(_texts(_answer(self._all[index].zones, query), kind)) for index in sorted(self._serving))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _texts(reply: dns.message.Message, kind: str) -> Iterator[str]:
    for rrset in reply.answer:
        if rrset.rdtype == dns.rdatatype.from_text(kind):
            for item in rrset:
                yield b"".join(item.strings).decode("latin-1") if isinstance(item, TXT) else item.to_text().rstrip(".")
