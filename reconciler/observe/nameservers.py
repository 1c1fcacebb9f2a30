"""Asking the authoritative name servers, each by itself: what one shows, another may not show yet."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from reconciler import url
from reconciler.dns.publication import Answer, Answers, Question
from reconciler.problem import Problem, ReconcilerError

if TYPE_CHECKING:  # dnspython is imported where it is used: most runs ask nothing
    from dns.message import Message, QueryMessage
    from dns.name import Name
    from dns.rdata import Rdata
    from dns.resolver import Resolver

_VARIABLE = "RECONCILER_NAMESERVERS"

# Seconds. A server that is slower than this is no server to rely on; a person waits no longer than for all of it.
_ATTEMPT, _PATIENCE, _LIMIT = 1.0, 2.0, 5.0
_THREADS = 32
_HOPS = 8  # of CNAMEs
_LATE = "no answer in time"

_Address = tuple[str, int]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ready() -> None:
    """Import what asking needs: threads that come to a package's circle from two sides end in a deadlock."""
    import dns.message
    import dns.rcode
    import dns.resolver  # noqa: F401 (for its being there, as the others)


def look(
    questions: Collection[Question],
    *,
    nameservers: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
    resolver: Resolver | None = None,
    port: int = 53,
) -> Answers:
    """Ask every authoritative name server of each question's zone (a `published.Look`), within about five seconds.

    ``nameservers`` (``HOST[:PORT]``) are asked in place of the authoritative ones, which ``resolver`` (the system's
    where it is None) finds, and which listen on ``port``. Where that fails, one answer whose ``unread`` says why
    stands for all of them. Raises `ReconcilerError` for a name server that is no ``HOST[:PORT]``.
    """
    given = [_given(text) for text in dict.fromkeys(nameservers)]
    if not questions:
        return {}
    progress("Asking the name servers")
    ready()
    return _Inquiry(given, resolver, port).answers(sorted(questions))


def remembered(questions: Collection[Question], resolvers: Sequence[str]) -> Mapping[str, Answers]:
    """Ask resolvers (``HOST[:PORT]``), which answer from what they remember; within about five seconds.

    Each question has one answer, by the resolver's name. Raises `ReconcilerError` for what is no ``HOST[:PORT]``.
    """
    servers = [_given(text) for text in dict.fromkeys(resolvers)]
    ready()
    deadline = time.monotonic() + _LIMIT
    pairs = [(server, item) for server in servers for item in sorted(questions)]
    said = side_by_side(lambda pair: _recalled(*pair), pairs, deadline)
    return {
        server.name: {item: (said.get((server, item)) or Answer(server.name, unread=_LATE),) for item in questions}
        for server in servers
    }


def _recalled(server: _Server, question: Question) -> Answer:
    """Ask a resolver one question; whatever it does ends in an answer."""
    import dns.exception
    import dns.message
    import dns.rcode

    query, why = dns.message.make_query(question.host, question.type, use_edns=0, payload=1232), _LATE
    for address in server.addresses * 2:
        try:
            response = exchange(address, query, _ATTEMPT)
        except dns.exception.Timeout:
            why = f"it does not answer at {_shown(address)}"
            continue
        except (OSError, EOFError) as error:
            why = f"{words(error)} at {_shown(address)}"
            continue
        except Exception as error:  # noqa: BLE001 (an answer nobody thought of must not spoil the others')
            return Answer(server.name, unread=f"its answer makes no sense ({type(error).__name__})")
        if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return Answer(server.name, unread=f"it says {dns.rcode.to_text(response.rcode())}")
        return Answer(server.name, as_texts(response.resolve_chaining().answer or ()))
    return Answer(server.name, unread=why)


def _given(text: str) -> _Server:
    """Read one name server of the variable, which DNS writes with a dot at its end; a name is looked up later."""
    try:
        return _Server(text, (url.endpoint(re.sub(r"(?<=[A-Za-z])\.(?=:|$)", "", text), 53),))
    except url.NoUrl:
        raise _wrong(text) from None


def _wrong(text: str) -> ReconcilerError:
    hint = "write HOST or HOST:PORT, such as 127.0.0.1:5301 or [::1]:53, or unset it"
    return ReconcilerError(Problem(_VARIABLE, f"{text!r} is no name server", hint))


@dataclass(frozen=True, slots=True)
class _Server:
    """A name server and where it may be reached; ``unknown`` says why nowhere."""

    name: str
    addresses: tuple[_Address, ...] = ()
    unknown: str = ""


class _Unread(Exception):
    """Why a server, or the resolver, could not be asked."""


class _Silent(_Unread):
    """A server that nothing came back from: it is not asked the other questions."""


class _Inquiry:
    """One call of `look`: nothing that is found out outlives it."""

    def __init__(self, given: Sequence[_Server], resolver: Resolver | None, port: int) -> None:
        self.given, self._resolver, self.port = given, resolver, port
        self.deadline = time.monotonic() + _LIMIT
        self.silent: dict[str, str] = {}

    def answers(self, questions: Sequence[Question]) -> Answers:
        """Return each question's answers, in the order of the servers' names."""
        servers = self.servers({item.host for item in questions})
        pairs = [(item, server) for item in questions for server in servers[item.host]]
        said = side_by_side(lambda pair: self.ask(*pair), pairs, self.deadline)
        return {
            item: tuple(
                said.get((item, server)) or Answer(server.name, unread=server.unknown or _LATE)
                for server in servers[item.host]
            )
            for item in questions
        }

    def left(self, at_most: float) -> float:
        """Return how long to wait for something. Raises `_Unread` when the time for everything is over."""
        seconds = min(at_most, self.deadline - time.monotonic())
        if seconds <= 0:
            raise _Unread(_LATE)
        return seconds

    # --------------------------------------------------------------------------------------- who is authoritative
    @cached_property
    def resolver(self) -> Resolver:
        """The resolver to find name servers with. Raises `_Unread` where the system has none."""
        return self._resolver or _system_resolver()

    def servers(self, hosts: Collection[str]) -> Mapping[str, tuple[_Server, ...]]:
        """Name the servers of the zone that each host lies in; none where no zone could be found."""
        if self.given:
            located = side_by_side(_located, self.given, self.deadline)
            given = tuple(located.get(item, _Server(item.name, unknown=_LATE)) for item in self.given)
            return dict.fromkeys(hosts, given)
        names = {host: _delegations(host) for host in hosts}
        cuts = side_by_side(self.delegated, {name for above in names.values() for name in above}, self.deadline)
        found = {host: _closest(host, above, cuts) for host, above in names.items()}
        wanted = {item for servers in found.values() for item in servers if isinstance(item, str)}
        reached = side_by_side(self.reached, wanted, self.deadline)
        return {
            host: tuple(
                reached.get(item, _Server(item, unknown=_LATE)) if isinstance(item, str) else item for item in servers
            )
            for host, servers in found.items()
        }

    def delegated(self, name: str) -> tuple[str, ...] | _Unread:
        """Return the name servers of the zone that begins at a name; none where no zone does."""
        try:
            found = self.resolved(name, "NS")
        except _Unread as error:
            return error
        return tuple(sorted({_plain(item.target) for item in found if hasattr(item, "target")}))

    def reached(self, name: str) -> _Server:
        """Find the addresses of a name server. IPv4 comes first: IPv6 is what a network may lack."""
        addresses, why = list[_Address](), ""
        for kind in ("A", "AAAA"):
            try:
                addresses += [(item.to_text(), self.port) for item in self.resolved(name, kind, alias=True)]
            except _Unread as error:
                why = str(error)
        unknown = "" if addresses else why or "its name does not resolve"
        return _Server(name, tuple(addresses), unknown)

    def resolved(self, name: str, kind: str, *, alias: bool = False) -> Sequence[Rdata]:
        """Ask the resolver; nothing for what does not exist, or is an alias where none may be. Raises `_Unread`."""
        import dns.exception
        import dns.name
        import dns.resolver

        absolute = dns.name.from_text(name)
        try:
            found = self.resolver.resolve(absolute, kind, raise_on_no_answer=False, lifetime=self.left(_PATIENCE))
        except dns.resolver.NXDOMAIN:
            return ()
        except dns.exception.Timeout:
            raise _Unread("the system's resolver does not answer") from None
        except dns.resolver.NoNameservers:
            raise _Unread(f"the system's resolver could not look up {name}") from None
        except (dns.exception.DNSException, OSError) as error:
            raise _Unread(f"the system's resolver: {words(error)}") from None
        if found.rrset is None or (found.rrset.name != absolute and not alias):
            return ()
        return tuple(found.rrset)

    # ----------------------------------------------------------------------------------------- what a server says
    def ask(self, question: Question, server: _Server) -> Answer:
        """Ask one server one question; whatever a server does ends in an answer."""
        unread = server.unknown or self.silent.get(server.name)
        if unread:
            return Answer(server.name, unread=unread)
        try:
            values, alias = self.read(question, server)
        except _Unread as error:
            if isinstance(error, _Silent):
                self.silent[server.name] = str(error)
            return Answer(server.name, unread=str(error))
        except Exception as error:  # noqa: BLE001 (an answer nobody thought of must not spoil the others')
            return Answer(server.name, unread=f"its answer makes no sense ({type(error).__name__})")
        return Answer(server.name, values, alias=alias)

    def read(self, question: Question, server: _Server) -> tuple[tuple[str, ...], str]:
        """Return the values at a name and, where CNAMEs led away from it, the name they led to. Raises `_Unread`."""
        name, values = self.shown(server, question.host, question.type)
        for _ in range(_HOPS):
            if values is not None:
                return values, "" if name == question.host else name
            if self.given:  # they stand for the Internet, and so for the zone that the alias leads to
                name, values = self.shown(server, name, question.type)
            else:
                values = as_texts(self.resolved(name, question.type, alias=True))
        raise _Unread(f"the CNAMEs from {question.host} lead nowhere")

    def shown(self, server: _Server, host: str, kind: str) -> tuple[str, tuple[str, ...] | None]:
        """Return the name that a server's CNAMEs lead to, or the name itself, and its values: None in another zone."""
        import dns.rcode

        response = self.exchange(server, host, kind)
        code = response.rcode()
        if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            text = dns.rcode.to_text(code)
            raise _Unread({"REFUSED": "it refuses the question", "SERVFAIL": "it fails"}.get(text, f"it says {text}"))
        if not _authoritative(response):
            raise _Unread(f"it is not authoritative for {host}")
        chain = response.resolve_chaining()
        name = _plain(chain.canonical_name)
        if chain.answer is None and name != host and not _negative(response, chain.canonical_name):
            return name, None
        return name, as_texts(chain.answer or ())

    def exchange(self, server: _Server, host: str, kind: str) -> QueryMessage:
        """Ask at one address after the other, at each at most twice: UDP is lost at times. Raises `_Unread`."""
        import dns.exception

        over, why = time.monotonic() + self.left(_PATIENCE), _LATE
        query = _query(host, kind)
        for address in server.addresses * 2:
            try:
                return exchange(address, query, min(_ATTEMPT, self.left(over - time.monotonic())))
            except dns.exception.Timeout:
                why = f"it does not answer at {_shown(address)}"
            except (OSError, EOFError) as error:
                why = f"{words(error)} at {_shown(address)}"
            except _Unread:  # the time is over
                break
        raise _Silent(why)


def side_by_side(
    work: Callable[[_Item], _Result], items: Collection[_Item], deadline: float
) -> Mapping[_Item, _Result]:
    """Map items in threads; what is not there at the deadline (of `time.monotonic`) is left out."""
    found: dict[_Item, _Result] = {}
    waiting = deque(items)

    def run() -> None:
        while time.monotonic() < deadline:
            try:
                item = waiting.popleft()
            except IndexError:
                return
            found[item] = work(item)

    # Daemons: a signal ends the program at once, and so does the end of it.
    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(len(items), _THREADS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return {item: found[item] for item in items if item in found}


def _query(host: str, kind: str) -> Message:
    """Make a question without recursion."""
    import dns.flags
    import dns.message

    return dns.message.make_query(host, kind, use_edns=0, payload=1232, flags=dns.flags.Flag(0))


def exchange(address: _Address, query: Message, seconds: float) -> QueryMessage:
    """Ask one server once: by UDP, and by TCP what is too long for it (RFC 7766).

    Raises OSError, EOFError and dnspython's exceptions, of which Timeout says that the ``seconds`` are over.
    """
    import dns.exception
    import dns.message
    import dns.query

    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    # Connected: then a port where nothing listens is told at once, and nobody else's datagrams are taken.
    with _Datagrams(family, socket.SOCK_DGRAM) as udp:
        udp.until = time.monotonic() + seconds
        udp.setblocking(False)  # noqa: FBT003 (dnspython waits for it)
        udp.connect(address)
        response, _ = dns.query.udp_with_fallback(
            query, address[0], seconds, address[1], udp_sock=udp, ignore_errors=True
        )
    if not isinstance(response, dns.message.QueryMessage):
        raise dns.exception.FormError  # an answer to something else than a query
    return response


class _Datagrams(socket.socket):
    """A socket that takes no more when the time is over: dnspython looks at the clock only where it has to wait."""

    until = float("inf")

    def recvfrom(self, *arguments: int) -> Any:
        """Receive a datagram. Raises BlockingIOError where there is none, dnspython's Timeout when the time is over."""
        import dns.exception

        if time.monotonic() > self.until:
            raise dns.exception.Timeout
        return super().recvfrom(*arguments)


def _authoritative(response: Message) -> bool:
    import dns.flags

    return bool(response.flags & dns.flags.AA)


def _negative(response: Message, name: Name) -> bool:
    """Whether a response says that what a CNAME leads to is not there (RFC 2308 section 2, RFC 6604 section 3)."""
    import dns.rcode
    import dns.rdatatype

    zones = [item.name for item in response.authority if item.rdtype == dns.rdatatype.SOA]
    return response.rcode() == dns.rcode.NXDOMAIN or any(name.is_subdomain(zone) for zone in zones)


def _system_resolver() -> Resolver:
    """Return the resolver that the system is configured to use. Raises `_Unread`."""
    import dns.resolver

    try:
        return dns.resolver.Resolver()
    except (dns.resolver.NoResolverConfiguration, OSError):
        raise _Unread("the system has no DNS resolver") from None


def _delegations(host: str) -> tuple[str, ...]:
    """Name every place where the zone of a host may begin, the closest first; a top-level domain is none of ours.

    They are all looked up at once: that takes as long as one lookup.
    """
    labels = host.split(".")
    return tuple(".".join(labels[start:]) for start in range(max(1, len(labels) - 1)))


def _closest(
    host: str, above: Iterable[str], cuts: Mapping[str, tuple[str, ...] | _Unread]
) -> tuple[str | _Server, ...]:
    """Return the name servers of the zone cut that is closest to a host.

    A name that could not be looked up is passed over: were it a cut, the servers above it are not authoritative for
    the host, which they say themselves. Where nothing was found, it is the reason.
    """
    failed = ""
    for name in above:
        found = cuts.get(name) or ()
        if name not in cuts or isinstance(found, _Unread):
            failed = failed or str(found or "the system's resolver does not answer")
        elif found:
            return found
    return (_nobody(host, failed),) if failed else ()


def _nobody(host: str, why: str) -> _Server:
    """Stand for name servers that could not be found."""
    return _Server(f"the name servers of {host}", unknown=why)


def _located(server: _Server) -> _Server:
    """Resolve the name of a given server, as any program here would."""
    (host, port), *_ = server.addresses
    if url.ip(host) is not None:
        return server
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError:
        return _Server(server.name, unknown="its name does not resolve")
    return _Server(server.name, tuple(dict.fromkeys((str(item[4][0]), port) for item in found)))


def as_texts(found: Iterable[Rdata]) -> tuple[str, ...]:
    """Write the values of a set of records as `published.Answer` has them."""
    return tuple(sorted(map(_value, found)))


def _value(data: Rdata) -> str:
    """Write a value as `published.Answer` has it."""
    strings = getattr(data, "strings", None)
    if strings is not None:
        return b"".join(strings).decode(errors="backslashreplace")  # RFC 7208 section 3.3: without a space
    if (exchange := getattr(data, "exchange", None)) is not None:
        return f"{getattr(data, 'preference', 0)} {_plain(exchange)}"
    target = getattr(data, "target", None)
    return _plain(target) if target is not None and data.rdtype.name in ("CNAME", "NS", "PTR") else data.to_text()


def _plain(name: Name) -> str:
    """Write a name without its last dot, in lower case; the root, which a null MX names, is a dot (RFC 7505)."""
    return name.to_text(omit_final_dot=True).lower() or "."


def words(error: BaseException) -> str:
    """Say what went wrong on the way, as the system calls it: ``connection refused``."""
    text = getattr(error, "strerror", None) or ("the connection was closed" if isinstance(error, EOFError) else "")
    return str(text or type(error).__name__).lower()


def _shown(address: _Address) -> str:
    host, port = address
    where = f"[{host}]" if ":" in host and port != 53 else host  # noqa: PLR2004 (DNS)
    return where if port == 53 else f"{where}:{port}"  # noqa: PLR2004 (DNS)
