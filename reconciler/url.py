"""An address is parsed once, here: every check and every use takes the value, never the text again.

What two programs could read in two ways is refused, not mended: a person can write it plainly.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, ip_network

IP = IPv4Address | IPv6Address

Admits = Callable[[IP], bool]
"""Whether a connection may go to what a name resolved to."""

_CONTAINER_NETWORKS = IPv4Network("172.16.0.0/12")  # Docker's default pool; 10/8 and 192.168/16 are also people's LANs
SSH_PORT = 22
_PORTS = {"http": 80, "https": 443, "tcp": 2375, "ssh": SSH_PORT}  # the last two are Docker's
_WEB = ("http", "https")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]@]*\]|[^\[\]:@]*)(?::(?P<port>.*))?", re.DOTALL)
_LABELS = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # what ends in one is an address to some programs (WHATWG URL, 3.5)
_DOTS = "\u3002\uff0e\uff61"  # full stops of other scripts, which IDNA takes for dots
_LONGEST = 253  # characters of a name (RFC 1035)


class NoUrl(ValueError):
    """A text that is no address: ``why``, and a ``hint`` what to write. Neither repeats it: it may hold a password."""

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.why, self.hint = why, hint

    @property
    def summary(self) -> str:
        """Say it of a URL."""
        return f"is no URL: it {self.why}"


@dataclass(frozen=True, slots=True)
class Url:
    """Where a request goes. ``host`` is an ASCII name in lower case, or an address as `ipaddress` writes it.

    ``path`` is empty or begins with a slash and ends with none. ``user`` is a login of ``ssh://``.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    user: str = ""

    @property
    def tls(self) -> bool:
        """Whether the way is encrypted, and the other side proves who it is."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """Host and port as a URL has them; a port that follows from the scheme is left out."""
        return shown(self.host, None if self.port == _PORTS[self.scheme] else self.port)

    @property
    def url(self) -> str:
        """The one spelling of it, without a slash at its end."""
        return f"{self.scheme}://{self.user}{'@' if self.user else ''}{self.authority}{self.path}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine itself."""
        return is_loopback(self.host)

    def may_go_plain(self, container: str | None = None) -> bool:
        """Whether a secret may go there: TLS, loopback, a private container network, or the declared ``container``.

        A name without a dot counts as a service's in a container network; `admits` holds it to that.
        """
        if self.tls or self.is_loopback or self.host == (container or "").lower():
            return True
        found = ip(self.host)
        return "." not in self.host if found is None else _is_inside(found)

    def admits(self, found: IP) -> bool:
        """Whether what the host resolved to is where a name may lead in clear: this machine, or a container network."""
        if self.tls or ip(self.host) is not None:
            return True
        return found.is_loopback or (not self.is_loopback and _is_inside(found))


def parse(text: str, schemes: Collection[str] = _WEB) -> Url:
    """Parse a URL with one of some schemes. Raises `NoUrl`.

    A user name is taken with ``ssh://`` alone; a query and a fragment never.
    """
    _look(text)
    if text.partition("://")[0].lower() not in schemes:
        raise NoUrl(f"does not begin with {' or '.join(f'{item}://' for item in schemes)}", _EXAMPLE)
    match = _URL.fullmatch(text)
    if match is None:
        raise NoUrl("holds a query, a fragment or what no path has", _EXAMPLE)
    scheme, authority, path = match[1].lower(), match[2], match[3] or ""
    user = ""
    if "@" in authority:
        user, _, authority = authority.rpartition("@")
        if scheme != "ssh":
            raise NoUrl("holds a user name or password", "they have keys of their own: username and password")
        if not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*", user):
            raise NoUrl("holds more than a user name before the host", "write ssh://user@server")
    if any(part in (".", "..") for part in path.replace("%2e", ".").replace("%2E", ".").split("/")):
        raise NoUrl("holds . or .. in its path", "write the path itself")
    found, port = _host_and_port(authority, _PORTS[scheme])
    return Url(scheme, found, port, path.rstrip("/"), user)


def endpoint(text: str, port: int | None = None) -> tuple[str, int]:
    """Parse ``HOST:PORT``, or a bare host where a ``port`` is given for it. Raises `NoUrl`."""
    _look(text)
    if text.count(":") > 1 and not text.startswith("["):  # an address of IPv6 has no port without brackets
        text = f"[{text}]"
    return _host_and_port(text, port)


def host(text: str) -> str:
    """Parse a name or an address, which stands alone and without brackets. Raises `NoUrl`."""
    _look(text)
    return _v6(text) if ":" in text else _name(text)


def ip(found: str) -> IP | None:
    """Return a parsed host as an address; None for a name."""
    try:
        return IPv6Address(found) if ":" in found else IPv4Address(found)
    except AddressValueError:
        return None


def shown(found: str, port: int | None) -> str:
    """Write host and port for a person, an address of IPv6 in brackets."""
    bracketed = f"[{found}]" if ":" in found else found
    return bracketed if port is None else f"{bracketed}:{port}"


def is_loopback(found: str) -> bool:
    """Whether a parsed host is this machine itself; `localhost` and what is below it never leave it (RFC 6761)."""
    if found == "localhost" or found.endswith(".localhost"):
        return True
    address = ip(found)
    return address is not None and address.is_loopback


_HOME = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))  # RFC 1918, RFC 4193


def is_home(found: IP) -> bool:
    """Whether an address is this machine's, or in a network of one's own, such as that of a router at home."""
    own = any(found.version == network.version and found in network for network in _HOME)
    return own or found.is_loopback or found.is_link_local


def _is_inside(found: IP) -> bool:
    return found.version == _CONTAINER_NETWORKS.version and found in _CONTAINER_NETWORKS


# --------------------------------------------------------------------------------------------------------- the parts
_EXAMPLE = "write it like https://mail.example.com:8443"
_PLAIN = "write the name or the address plainly"


def _look(text: str) -> None:
    """Refuse characters that some programs drop, and others take for a slash."""
    if any(character.isspace() or character == "\\" or not character.isprintable() for character in text):
        raise NoUrl("holds a blank, a backslash or a character that nobody sees", "take it out")


def _host_and_port(authority: str, default: int | None) -> tuple[str, int]:
    match = _AUTHORITY.fullmatch(authority)
    if match is None or not match["host"]:
        raise NoUrl("names no host", _PLAIN)
    found = match["host"]
    found = _v6(found[1:-1]) if found.startswith("[") else _name(found)
    port = match["port"]
    if port is None and default is not None:
        return found, default
    if port is None or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) >= 2**16:
        raise NoUrl("holds what is no port", "write a number from 1 to 65535 behind the colon")
    return found, int(port)


def _v6(text: str) -> str:
    """Read an address of IPv6. One of IPv4 in its clothes, and one that counts on one cable only, have none."""
    try:
        found = IPv6Address(text)
    except AddressValueError:
        raise NoUrl("holds brackets or colons around what is no IPv6 address", _PLAIN) from None
    if found.scope_id is not None:
        raise NoUrl("holds an address with a zone (%...), which counts on this machine alone", _PLAIN)
    if found.ipv4_mapped is not None:
        raise NoUrl("holds an IPv4 address written as IPv6", "write the IPv4 address")
    return str(found)


def _name(text: str) -> str:
    """Read a name, or an address of IPv4, in the one spelling that every program reads alike."""
    name = text.lower() if text.isascii() else _international(text)
    if name.endswith("."):
        raise NoUrl("holds a host that ends in a dot", "write it without")
    if len(name) > _LONGEST or not _LABELS.fullmatch(name):
        raise NoUrl("holds a host with characters that no name has", _PLAIN)
    if _NUMBER.fullmatch(name.rpartition(".")[2]) and ip(name) is None:
        raise NoUrl("holds a number that may be an address", "write an address as four decimal numbers: 127.0.0.1")
    return name


def _international(text: str) -> str:
    """Return a name of other scripts as DNS has it (IDNA 2008). What would have to be mapped first is refused."""
    import idna

    try:
        if unicodedata.normalize("NFKC", text) == text and not any(dot in text for dot in _DOTS):
            return idna.encode(text.lower()).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        pass
    raise NoUrl("holds a host with characters that stand for others", _PLAIN)
