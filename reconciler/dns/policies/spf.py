"""SPF records (RFC 7208) as values: their terms, typed, and what is wrong with them. Pure.

Who evaluates a record takes `Spf.terms` in order, `Spf.redirect` where none matches, and `pieces` of a domain-spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from reconciler.dns.policies.reading import MOST_FAULTS, Fault, Reading, is_printable, nearest

VERSION = "v=spf1"
MOST_LOOKUPS = 10  # RFC 7208 section 4.6.4
MECHANISMS = ("all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists")
_MODIFIERS = ("redirect", "exp")
_REPORTING = ("ra", "rp", "rr")  # RFC 6652
_LOOKING = frozenset({"include", "a", "mx", "ptr", "exists"})

_MACRO = re.compile(r"%(?:\{([slodiphcrtv])(\d*)(r?)([.+,/_=-]*)\}|[%_-])", re.IGNORECASE)
_ENDING = re.compile(_MACRO.pattern + r"\Z", re.IGNORECASE)
_TOP = re.compile(r"[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*|[A-Za-z0-9]+-[A-Za-z0-9-]*[A-Za-z0-9]")
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_DIRECTIVE = re.compile(r"([+~?-]?)([A-Za-z][A-Za-z0-9_.-]*)(.*)", re.DOTALL)
_LENGTHS = re.compile(r"(?:/(0|[1-9]\d{0,5}))?(?://(0|[1-9]\d{0,5}))?\Z")
_GLUED = re.compile(r"(.+[^\s:=/])([+~?-]all)", re.IGNORECASE)
_LABEL, _NAME = 63, 253  # RFC 1035 section 2.3.4


# ---------------------------------------------------------------------------------------------------------- values
@dataclass(frozen=True, slots=True)
class Macro:
    """A macro of a domain-spec (RFC 7208 section 7): its letter, in upper case to be URL-escaped.

    ``digits`` is how many parts from the right are taken, 0 for all; ``delimiters`` part them, a dot where empty.
    """

    letter: str
    digits: int = 0
    reverse: bool = False
    delimiters: str = ""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One directive: ``qualifier`` is one of ``+ - ~ ?``, ``name`` one of `MECHANISMS`.

    ``domain`` is a domain-spec as written, empty for the domain of the record. ``network`` is that of ip4 and ip6;
    ``prefix4`` and ``prefix6`` are how many bits of an address count for a and mx. ``text`` is the term as written.
    """

    qualifier: str
    name: str
    text: str
    domain: str = ""
    network: IPv4Network | IPv6Network | None = None
    prefix4: int = 32
    prefix6: int = 128

    @property
    def looks_up(self) -> bool:
        """Whether it counts as one of the ten look-ups."""
        return self.name in _LOOKING


@dataclass(frozen=True, slots=True)
class Spf:
    """A record: its directives in order, and the domain-specs of its modifiers, empty where there is none."""

    terms: tuple[Mechanism, ...]
    redirect: str = ""
    exp: str = ""

    @property
    def reached(self) -> tuple[Mechanism, ...]:
        """The directives that can be reached: none behind the first ``all``."""
        end = next((at for at, term in enumerate(self.terms, 1) if term.name == "all"), len(self.terms))
        return self.terms[:end]

    @property
    def lookups(self) -> int:
        """How many look-ups the text alone takes, without what it includes."""
        own = sum(term.looks_up for term in self.reached)
        return own + bool(self.redirect and not any(term.name == "all" for term in self.terms))


def pieces(domain: str) -> tuple[str | Macro, ...]:
    """Part a domain-spec into what is written and what is to be filled in. Of a faulty one the rest is as written."""
    parts: list[str | Macro] = []
    end = 0
    for found in _MACRO.finditer(domain):
        parts += [domain[end : found.start()]] if found.start() > end else []
        letter, digits, reverse, delimiters = found.groups()
        literal = {"%%": "%", "%_": " ", "%-": "%20"}.get(found[0], "")
        parts.append(literal or Macro(letter, int(digits[:4] or 0), bool(reverse), delimiters))
        end = found.end()
    return (*parts, domain[end:]) if end < len(domain) else tuple(parts)


# --------------------------------------------------------------------------------------------------------- reading
def parse(text: str, name: str = "") -> Reading[Spf]:
    """Read a record, given the name it stands at; no value where receivers find an error in it (permerror)."""
    if text[: len(VERSION)].lower() != VERSION or text[len(VERSION) : len(VERSION) + 1] not in ("", " "):
        return Reading(None, (Fault("", f"does not begin with {VERSION} and a blank", f"write {VERSION} before it"),))
    reader = _Reader()
    reader.read(text)
    value = Spf(tuple(reader.terms), reader.modifiers.get("redirect", ""), reader.modifiers.get("exp", ""))
    broken = any(fault.breaks for fault in reader.faults)
    faults = [*reader.faults, *_doubts(value, reader, name)]
    if not broken and value.lookups > MOST_LOOKUPS:
        cause = f"takes {value.lookups} look-ups, and receivers stop with an error behind {MOST_LOOKUPS}"
        hint = "write addresses as ip4: and ip6:, and take out what you do not send through"
        faults.append(Fault("", cause, hint))
    return Reading(None if broken or value.lookups > MOST_LOOKUPS else value, tuple(faults[:MOST_FAULTS]))


class _Reader:
    """Reads the terms of one record, and goes on behind a faulty one."""

    def __init__(self) -> None:
        self.terms: list[Mechanism] = []
        self.starts: list[int] = []
        self.modifiers: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.end = 0

    def read(self, text: str) -> None:
        """Read all terms behind the version; a term that is cut in two by a blank is one fault."""
        found = [(match[0], match.start()) for match in re.finditer("[^ ]+", text) if match.start() >= len(VERSION)]
        self.end = found[-1][1] + len(found[-1][0]) if found else len(VERSION)
        skip = False
        for index, (term, at) in enumerate(found):
            if skip or len(self.faults) >= MOST_FAULTS:
                skip = False
                continue
            follower = found[index + 1] if index + 1 < len(found) else None
            if (
                follower
                and (term in ("+", "-", "~", "?") or term.endswith((":", "=")))
                and _is_right(term + follower[0])
            ):
                piece = text[at : follower[1] + len(follower[0])]
                self.faults.append(Fault(piece, "has a blank in it", at=at, instead=term + follower[0]))
                skip = True
                continue
            self.term(term, at)

    def term(self, term: str, at: int) -> None:
        """Read one term."""
        modifier = _MODIFIER.fullmatch(term)
        if modifier:
            self.modifier(term, at, modifier[1].lower(), modifier[2])
            return
        read = _directive(term)
        if isinstance(read, Mechanism):
            self.terms.append(read)
            self.starts.append(at)
            self.faults += _strange(read.domain, term, at)
        else:
            self.faults.append(read.at_term(term, at))

    def modifier(self, term: str, at: int, name: str, value: str) -> None:
        """Read a modifier. Receivers ignore one that they do not know, whatever its value, if its macros are right."""
        if name not in _MODIFIERS:
            self.faults += _unknown(term, at, name, value)
            return
        if name in self.modifiers:
            self.faults.append(Fault(term, f"is a second {name}=", "keep one of the two", at))
        self.modifiers.setdefault(name, value)
        cause = _domain_fault(value, explains=name == "exp")
        if cause:
            self.faults.append(Fault(term, cause, "write the domain that it leads to", at))
        else:
            self.faults += _strange(value, term, at)


@dataclass(frozen=True, slots=True)
class _Wrong:
    """Why a term is none."""

    cause: str
    hint: str = ""
    instead: str | None = None

    def at_term(self, term: str, at: int) -> Fault:
        return Fault(term, self.cause, self.hint, at, self.instead)


def _is_right(term: str) -> bool:
    modifier = _MODIFIER.fullmatch(term)
    if modifier:
        return modifier[1].lower() in _MODIFIERS and not _domain_fault(modifier[2])
    return isinstance(_directive(term, guess=False), Mechanism)


def _directive(term: str, *, guess: bool = True) -> Mechanism | _Wrong:
    """Read a directive, or say why it is none; with ``guess`` also what is right in its place, if that is evident."""
    found = _DIRECTIVE.fullmatch(term)
    qualifier, name, rest = (found[1] or "+", found[2].lower(), found[3]) if found else ("+", "", "")
    read: Mechanism | _Wrong
    if name in ("ip4", "ip6"):
        read = _network(qualifier, name, rest, term)
    elif name == "all" and rest:
        read = _Wrong("has something behind all", instead=f"{found[1] if found else ''}all")
    elif name == "all":
        read = Mechanism(qualifier, name, term)
    elif name in MECHANISMS:
        read = _named(qualifier, name, rest, term)
    else:
        read = _Wrong("is no mechanism", f"known are {', '.join(MECHANISMS)}, redirect= and exp=")
    if isinstance(read, Mechanism) or not guess:
        return read
    return _guessed(term, read) or read


def _named(qualifier: str, name: str, rest: str, term: str) -> Mechanism | _Wrong:
    """Read a mechanism that may name a domain, and how much of an address counts."""
    prefix4, prefix6 = 32, 128
    if name in ("a", "mx") and (lengths := _LENGTHS.search(rest)):
        prefix4, prefix6 = int(lengths[1] or prefix4), int(lengths[2] or prefix6)
        rest = rest[: lengths.start()]
        if prefix4 > 32 or prefix6 > 128:  # noqa: PLR2004 (bits of an address)
            return _Wrong("counts more bits than an address has", "at most /32 for IPv4, and //128 for IPv6")
    if not rest and name in ("include", "exists"):
        return _Wrong("names no domain", f"write {name}:DOMAIN")
    if rest and not rest.startswith(":"):
        return _Wrong(f"is no mechanism: {name} goes on with a colon", f"write {name}:DOMAIN")
    domain = rest[1:]
    if rest and (cause := _domain_fault(domain)):
        percent = "close the macro with }, or write %% for a percent sign"
        return _Wrong(cause, percent if "%" in domain else f"write {name}:DOMAIN, and a domain with all its parts")
    return Mechanism(qualifier, name, term, domain, prefix4=prefix4, prefix6=prefix6)


def _network(qualifier: str, name: str, rest: str, term: str) -> Mechanism | _Wrong:
    """Read ip4 and ip6: an address, and how many bits of it count."""
    address, slash, length = rest.removeprefix(":").partition("/")
    most = 32 if name == "ip4" else 128
    version = "IPv4" if name == "ip4" else "IPv6"
    if not rest.startswith(":") or not address:
        return _Wrong("names no address", f"write {name}:ADDRESS")
    if not _is_address(name, address):
        return _Wrong(f"is no {version} address", f"write the {version} address that you send from")
    if slash and not (re.fullmatch("0|[1-9][0-9]{0,2}", length) and int(length) <= most):
        return _Wrong(f"counts no number of bits from 0 to {most}", f"write /{most} for one address")
    prefix = int(length) if slash else most
    made = IPv4Network if name == "ip4" else IPv6Network
    return Mechanism(qualifier, name, term, network=made((address, prefix), strict=False))


def _is_address(name: str, text: str) -> bool:
    if name == "ip4":
        octets = text.split(".", 4)
        return len(octets) == 4 and all(re.fullmatch("0|[1-9][0-9]{0,2}", it) and int(it) < 256 for it in octets)  # noqa: PLR2004
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text and is_printable(text)


# --------------------------------------------------------------------------------------------------------- domains
def _domain_fault(domain: str, *, explains: bool = False) -> str:
    """Say why a text is no domain-spec (RFC 7208 section 7.1); empty where it is one."""
    if not domain:
        return "names no domain"
    if not is_printable(domain) or " " in domain:
        return "holds a character that can't stand here"
    if cause := macro_fault(domain, explains=explains):
        return cause
    if _ENDING.search(domain):
        return ""
    end = domain.removesuffix(".").rpartition(".")
    if not end[1] or not _TOP.fullmatch(end[2]):
        return f"names {domain[-_LABEL:]}, which is no whole domain"
    return ""


def macro_fault(text: str, *, explains: bool = False) -> str:
    """Say what is wrong with the macros of a text; empty where nothing is. ``explains``: those of exp= too."""
    rest = _MACRO.sub("", text)
    if "%" in rest:
        at = rest.index("%")
        return f"has {rest[at : at + 12]}, which is no macro: a percent sign is %%"
    for found in _MACRO.finditer(text):
        if found[2] and not int(found[2][:9]):
            return f"has {found[0][:40]}, which takes no part at all"
        if not explains and (found[1] or "").lower() in ("c", "r", "t") and found[1]:
            return f"has {found[0][:40]}, which means something in explanations only"
    return ""


def _strange(domain: str, term: str, at: int) -> Iterator[Fault]:
    """Doubt a domain that the grammar takes and DNS can't have."""
    if not domain or "%" in domain:
        return
    plain = domain.removesuffix(".")
    url = re.fullmatch(r"https?://([A-Za-z0-9.-]+)/?", plain)
    if url:
        instead = term.replace(domain, url[1])
        yield Fault(term, "names a web address in place of a domain", at=at, instead=instead, breaks=False)
    elif glued := re.fullmatch(r"(.*[^:=/.])([+~?-]all)", term, re.IGNORECASE):
        yield Fault(term, "has no blank before all", at=at, instead=f"{glued[1]} {glued[2]}", breaks=False)
    elif not re.fullmatch(r"[A-Za-z0-9_.-]+", plain):
        yield Fault(term, "names what no domain can be called", "write the domain alone", at, breaks=False)
    elif len(plain) > _NAME or any(not 0 < len(label) <= _LABEL for label in plain.split(".")):
        cause = f"names a domain with a part that is empty or longer than {_LABEL} characters"
        yield Fault(term, cause, "write the domain as it is in DNS", at, breaks=False)


# -------------------------------------------------------------------------------------------------- what was meant
_SHORT = 512  # characters of a term that is guessed at


def _guessed(term: str, wrong: _Wrong) -> _Wrong | None:
    """Find what was meant by a term that is none; None where nothing is evident."""
    for instead, cause in _candidates(term[:_SHORT]) if len(term) <= _SHORT else ():
        if all(map(_is_right, instead.split(" "))):
            return _Wrong(cause or wrong.cause, wrong.hint, instead)
    return None


def _candidates(term: str) -> Iterator[tuple[str, str]]:
    """Yield terms that may be meant by another, with a better cause where there is one."""
    qualifier, bare = (term[0], term[1:]) if term[0] in "+-~?" else ("", term)
    name, mark, rest = bare.partition(":") if ":" in bare else bare.partition("=")
    lower = name.lower()
    address = re.fullmatch(r"(?:ip[46]?:|a:|mx:)?(.+)", bare, re.IGNORECASE)
    if lower in _MODIFIERS and mark:
        yield f"{lower}={rest}", "is a modifier, which takes = and no qualifier"
    if glued := _GLUED.fullmatch(term):
        yield f"{glued[1]} {glued[2]}", "has no blank before all"
    if term[-1] in ",;.":
        yield term.rstrip(",;."), f"has a {term[-1]} behind it, where terms are parted by blanks"
    if "," in term or ";" in term:
        yield " ".join(filter(None, re.split("[,;]", term))), "has no blank between its terms"
    if web := re.fullmatch(r"https?://([A-Za-z0-9.-]+)/?", rest):
        yield f"{qualifier}{lower}:{web[1]}", "names a web address in place of a domain"
    if address:
        for family in ("ip4", "ip6"):
            cause = f"is an address, which stands behind {family}:"
            yield f"{qualifier}{family}:{address[1].strip('[]')}", cause
    if lower not in MECHANISMS and (meant := _meant(lower)):
        joint = "=" if meant in _MODIFIERS else ":"
        yield f"{'' if meant in _MODIFIERS else qualifier}{meant}{joint if mark else ''}{rest}", ""
    yield from _netmask(qualifier, lower, rest)


def _meant(name: str) -> str:
    known = {"ipv4": "ip4", "ipv6": "ip6", "ip": "ip4", "exist": "exists", "exits": "exists"}
    return known.get(name) or nearest(name, [it for it in (*MECHANISMS, *_MODIFIERS) if len(it) > 1])


def _netmask(qualifier: str, name: str, rest: str) -> Iterator[tuple[str, str]]:
    """Read a mask in place of a number of bits."""
    address, slash, mask = rest.partition("/")
    if name == "ip4" and slash and _is_address("ip4", mask):
        try:
            bits = IPv4Network((0, mask)).prefixlen
        except ValueError:
            return
        yield f"{qualifier}ip4:{address}/{bits}", "has a mask where the number of its bits stands"


def _unknown(term: str, at: int, name: str, value: str) -> Iterator[Fault]:
    """Doubt a modifier that receivers ignore where it is like something that they know."""
    if cause := macro_fault(value, explains=True):
        yield Fault(term, cause, "write %% for a percent sign", at)
    elif not is_printable(value):
        yield Fault(term, "holds a character that can't stand here", "write it in printable ASCII", at)
    elif name == "v":
        yield Fault(term, "is a second version", at=at, instead="", breaks=False)
    elif name not in _REPORTING:
        meant = name if name in MECHANISMS else _meant(name) if len(name) > 1 else ""
        instead = f"{meant}{'=' if meant in _MODIFIERS else ':'}{value}"
        if meant and _is_right(instead):
            cause = "is taken for a modifier that nobody knows, and ignored"
            yield Fault(term, cause, at=at, instead=instead, breaks=False)


# ---------------------------------------------------------------------------------------------------------- doubts
def _doubts(value: Spf, reader: _Reader, name: str) -> Iterator[Fault]:
    """Tell of what is right by the grammar and hardly meant."""
    reached = len(value.reached)
    ends = any(term.name == "all" for term in value.terms)
    behind: Sequence[tuple[Mechanism, int]] = list(zip(value.terms, reader.starts, strict=True))[reached:]
    for term, at in behind:
        if term.name == "all":
            yield Fault(term.text, "is a second all: the first one counts", at=at, instead="", breaks=False)
        else:
            first = value.terms[reached - 1].text
            hint = f"write it before {first}, or take it out"
            yield Fault(term.text, "stands behind all, where nobody reads it", hint, at, breaks=False)
    if ends and value.redirect:
        hint = "take one of the two out"
        yield Fault("", "has both all and redirect=, and then nobody follows redirect=", hint, breaks=False)
    for term, at in zip(value.terms[:reached], reader.starts, strict=False):
        if term.name == "ptr":
            hint = "take it out, and name what you send from by a:, mx or ip4:"
            cause = "is slow, and many receivers skip it (RFC 7208 section 5.5)"
            yield Fault(term.text, cause, hint, at, breaks=False)
    included = name.startswith("_")  # of a record that is there to be included nobody asks how it ends
    if not (ends or value.redirect or included or _hidden_end(reader)):
        cause = "has no all at its end: whoever is not named may send as well"
        yield Fault("", cause, at=reader.end, instead=" ~all", breaks=False)


def _hidden_end(reader: _Reader) -> bool:
    """Whether the end is among what is evident and wrong."""
    written = " ".join(fault.instead or fault.piece for fault in reader.faults).lower()
    return re.search(r"(^|[ +~?-])all\b|redirect", written) is not None
