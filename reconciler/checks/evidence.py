"""What checks judge by: values that are gathered once, side by side, before any check. No value is a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from reconciler.checks.check import Unread
from reconciler.desired.public_ip import Line
from reconciler.dns.publication import Answers
from reconciler.plan import Plan
from reconciler.problem import Problem
from reconciler.resources import Record
from reconciler.traffic import Recipient, Traffic


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system: ``holds`` is what lies there, sizes are in bytes, ``files`` the share of names left."""

    holds: str
    free: int
    size: int
    files: float = 1.0


@dataclass(frozen=True, slots=True)
class ServerContainer:
    """The container that the mail server runs in.

    ``memory`` and ``limit`` are in bytes, 0 where they are not told. ``kills`` is when the kernel ended a process of it
    for want of memory, as far as the engine remembers; ``hours`` are the bytes that it used in the hours of the last
    week in which somebody looked, ``disks`` the file systems that its data lies on, where they are this machine's.
    ``published`` maps its TCP ports to the addresses and ports of the host that lead there. ``misplaced`` are volumes
    that keep nothing of it, ``unpinned`` what is wrong with its tag, ``closed`` that it lets nobody in after a loss,
    ``refused`` that it does not open its store; each as its target tells it.
    """

    name: str
    image: str
    state: str = "running"
    health: str = ""
    restarts: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    memory: int = 0
    limit: int = 0
    kills: tuple[datetime, ...] = ()
    hours: tuple[int, ...] = ()
    disks: tuple[Disk, ...] = ()
    published: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    local: bool = True  # whether the engine runs on this machine
    admin: int = 0  # the port of the management API inside the container, 0 where it is not known
    misplaced: tuple[Problem, ...] = ()
    unpinned: tuple[Problem, ...] = ()
    closed: tuple[Problem, ...] = ()
    refused: tuple[Problem, ...] = ()
    log: tuple[str, ...] | Unread = ()  # its last lines


@dataclass(frozen=True, slots=True)
class Service:
    """A service that sends mail, as it runs; of its variables only the names, by what is wrong with them."""

    name: str
    containers: int = 1
    state: str = "running"
    health: str = ""
    restarts: int = 0
    outdated: tuple[str, ...] = ()  # others that the files would give another value by now
    empty: tuple[str, ...] = ()  # variables that should say something, and say nothing
    padded: tuple[str, ...] = ()  # whose value has quotes or blanks about it
    known: tuple[str, ...] = ()  # whose value everybody knows


@dataclass(frozen=True, slots=True)
class KeyTrial:
    """How a service answers a request that needs a key, with which HTTP status.

    ``status`` is for a caller's key, ``bare`` for none; each is None where nothing was asked or answered, as ``why``
    says. ``caller`` is the variable that holds the key.
    """

    service: str
    where: str
    caller: str = ""
    status: int | None = None
    bare: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Services:
    """The services that send mail. ``apart`` are those of all ``links`` that differ, ``trials`` tried keys."""

    services: tuple[Service, ...]
    apart: tuple[tuple[str, ...], ...] = ()
    links: int = 0
    trials: tuple[KeyTrial, ...] = ()


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server shows. ``refused`` says why it is not trusted, empty where it is."""

    names: tuple[str, ...]
    expires: datetime
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a mail server says to who hands in mail as a service does.

    ``closed`` says why there was no connection. ``banner`` is empty where the connection was ended before one;
    ``later`` is then what a second try, some seconds after, was greeted with. ``mode`` is how the service begins TLS
    (``starttls``, ``implicit``, ``none``). ``tls`` is what TLS ended with: its
    version, or nothing, and ``tls_failure`` why there is none. ``login`` is the answer to the one AUTH, None where none
    was sent, as ``untried`` says. ``sender`` is the address that was given to MAIL FROM, and ``sending`` the answer.
    """

    where: str
    services: tuple[str, ...]
    account: str = ""
    door: str = ""
    closed: str = ""
    banner: str = ""
    later: str = ""
    name: str = ""
    anonymous: bool = False  # whether nobody logs in there
    mode: str = "starttls"
    starttls: bool = False
    tls: str = ""
    tls_failure: str = ""
    verified: bool = True  # whether the service looks at the certificate
    certificate: Certificate | None = None
    mechanisms: tuple[str, ...] = ()
    login: tuple[int, str] | None = None
    untried: str = ""
    sender: str = ""
    sending: tuple[int, str] | None = None
    token: str = ""  # the word of the mail that was handed in as well
    posted: tuple[int, str] | None = None  # and the answer to it


@dataclass(frozen=True, slots=True)
class Ban:
    """What the server's log says of an address that it does not talk to any more."""

    event: str  # such as security.scan-ban
    address: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Blocked:
    """An entry of the server's own list of bans: an address or a network, in the server's words.

    ``reason``, ``since`` and ``until`` are empty where it does not tell them; up to 0.15 a ban has no end.
    """

    entry: str
    reason: str = ""
    since: str = ""
    until: str = ""


@dataclass(frozen=True, slots=True)
class Names:
    """What DNS shows of the domains that mail goes by.

    ``host`` is the mail server's name, empty where it is not known. ``declared`` are the records for mail that the
    directory wants. ``answers`` are those of the authoritative name servers, ``resolvers`` those of public ones, by
    their name. ``line`` is the address from which mail leaves. ``mailboxes`` are the addresses that exist here,
    ``keyed`` the domains for which a key signs, None where the server could not be read.
    """

    domains: tuple[str, ...]
    host: str
    declared: tuple[Record, ...]
    answers: Answers
    resolvers: Mapping[str, Answers] = field(default_factory=dict)
    line: Line = field(default_factory=Line)
    mailboxes: frozenset[str] = frozenset()
    keyed: frozenset[str] | None = frozenset()


@dataclass(frozen=True, slots=True)
class Signed:
    """A DKIM signature of a mail that was read back.

    ``state`` is ``valid``, ``no-key`` (DNS shows none), ``altered`` (the text is not what was signed), ``differs`` (it
    does not fit the key), ``broken`` (it can't be read, or has ended) or ``unread`` (no name server could be asked).
    """

    domain: str
    selector: str
    algorithm: str
    state: str
    words: str

    @property
    def name(self) -> str:
        """``SELECTOR._domainkey.DOMAIN``."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class Probe:
    """A test mail that was sent as services do, and what came of it.

    ``answer`` is the provider's last one, None where nothing was sent, as ``unsent`` says. ``account`` is the account
    of our own server whose login it was, empty for a provider's. ``mailbox`` is the account whose mailbox the recipient
    is, empty where it is not ours to read, ``unread`` why it could not be; ``waited`` is how long (seconds) it was
    looked for. ``raw`` is the mail as it lay there, ``folder`` the role of its folder (RFC 8621), ``left`` why it still
    is there. ``fate`` is what our server tells of it, and ``untold`` why that is not known. ``last`` is
    the newest mail of the same sender that lies there and is no test.
    """

    where: str
    services: tuple[str, ...]
    sender: str
    recipient: str
    token: str
    answer: tuple[int, str] | None = None
    unsent: str = ""
    account: str = ""
    mailbox: str = ""
    unread: str = ""
    waited: float = 0.0
    raw: bytes | None = field(default=None, repr=False)
    folder: str = ""
    left: str = ""
    last: bytes | None = field(default=None, repr=False)
    signatures: tuple[Signed, ...] = ()
    fate: Recipient | None = None
    untold: str = ""

    @property
    def taken(self) -> bool:
        """Whether the provider took it."""
        return self.answer is not None and 200 <= self.answer[0] < 300  # noqa: PLR2004 (RFC 5321)


@dataclass(frozen=True, slots=True)
class Forward:
    """A port that a router leads on to a machine behind it. ``remote`` is who alone may come, empty for anybody."""

    protocol: str
    external: int
    internal: int
    client: str
    enabled: bool = True
    remote: str = ""


@dataclass(frozen=True, slots=True)
class RouterTold:
    """What a router says: its model, its address on the Internet (empty: none), and where it leads ports.

    ``whole`` is whether those are all: by UPnP alone a router tells what programs opened, not what a person wrote.
    """

    model: str = ""
    wan: str = ""
    forwards: tuple[Forward, ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Router:
    """The line's router as declared, and what it told: nothing where it is ``silent`` or ``refuses``, which say why.

    ``needed`` are the ports that should lead from the Internet to the mail server. ``to`` is the address of the machine
    that it runs on, where it is declared, ``here`` the one under which the router knows this machine.
    """

    where: str
    needed: tuple[int, ...]
    to: str = ""
    here: str = ""
    told: RouterTold | None = None
    silent: str = ""
    refuses: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was gathered. None stands for what is not declared, `Unread` for what could not be had."""

    plan: Plan | Unread
    now: datetime
    container: ServerContainer | Unread | None = None
    services: Services | Unread | None = None
    conversations: tuple[Conversation, ...] | Unread | None = None
    names: Names | Unread | None = None
    probes: tuple[Probe, ...] | Unread | None = None  # None: nobody asked for one
    traffic: Traffic | Unread | None = None
    router: Router | Unread | None = None
    blocked: tuple[Blocked, ...] | Unread | None = None
    generation: str = "jmap"  # of the mail server: `rest` up to 0.15
    soon: timedelta = timedelta(days=14)  # what ends within that time is told
