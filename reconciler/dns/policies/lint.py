"""Which policy a text is meant to be, however it was pasted, and what keeps receivers from reading it so. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from reconciler.dns import text as texts
from reconciler.dns.policies.reading import MOST_FAULTS, Fault, mended
from reconciler.dns.text import DKIM, POLICIES, SPF, MailPolicy
from reconciler.names import host as plain_host
from reconciler.names import invisible, is_name
from reconciler.problem import printable
from reconciler.resources import Record


@dataclass(frozen=True, slots=True)
class Lint:
    """One thing to tell about a policy's text: what is wrong, what to do, and whether that is about its name."""

    summary: str
    hint: str
    in_name: bool = False


def judge(name: str, text: str, *, host: str = "", led_to: bool = False) -> tuple[Lint, ...]:
    """Tell of all that is wrong with a TXT record's text, its strings joined; of one that is no policy nothing is said.

    ``name`` is as in its zone, ``host`` the whole one. ``led_to`` says that an alias leads to it, so that its name
    tells nothing.
    """
    host = host or name
    policy = meant(host, text)
    if policy is None:
        return ()
    right, faults = _read(policy, host, text)
    if not led_to:
        faults += _misplaced(policy, name, host)
    whole = mended(right, faults)
    shown = whole if whole != text and len(whole) <= _SHOWN and _is_harmless(whole) else ""
    certain = all(fault.instead is not None for fault in faults if not fault.in_name)
    return tuple(
        Lint(_summary(policy, fault), _hint(fault, shown if certain or fault.at > len(right) else ""), fault.in_name)
        for fault in faults[:MOST_FAULTS]
    )


def aliases(records: Iterable[Record]) -> frozenset[str]:
    """Return the hosts that aliases lead to: what stands there may be meant for another name."""
    return frozenset(str(item.content) for item in records if item.type == "CNAME")


def of_record(item: Record, led_to: Collection[str]) -> tuple[Lint, ...]:
    """Tell of all that is wrong with a record's text, given the hosts that `aliases` lead to."""
    if item.type != "TXT" or not isinstance(item.content, str):
        return ()
    return judge(item.name, item.content, host=item.host, led_to=item.host in led_to)


def corrected(name: str, text: str) -> str:
    """Return a text with all that is evident put right; one that is no policy as it is."""
    policy = meant(name, text)
    return mended(*_read(policy, name, text)) if policy else text


_SHOWN = 1000  # characters of a text that a hint writes out: a key of 4096 bits has 800
_PIECE = 60  # characters of a piece that is named
_SUMMARY = 300


def _summary(policy: MailPolicy, fault: Fault) -> str:
    piece = printable(fault.piece.strip(), _PIECE)
    return printable(f"{policy.label}: {piece} {fault.cause}" if piece else f"{policy.label}: {fault.cause}", _SUMMARY)


def _hint(fault: Fault, whole: str) -> str:
    if fault.in_name or fault.instead is None:
        return fault.hint
    if whole:
        return f"write content: {_yaml(whole)}"
    if fault.instead.strip(" ;"):
        return f"write {printable(fault.instead.strip(), _PIECE)} {'in its place' if fault.piece else 'there'}"
    return fault.hint or ("write a semicolon there" if fault.instead else "take it out")


def _yaml(text: str) -> str:
    """Write a text as YAML takes it on one line."""
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


def _is_harmless(text: str) -> bool:
    """Whether a text may be shown as a whole: it is printable, and no private key was pasted into it."""
    return text.isprintable() and "PRIVATE KEY" not in text


def _read(policy: MailPolicy, host: str, text: str) -> tuple[str, list[Fault]]:
    """Bring a text into the form that its grammar reads; return that, and all that is wrong."""
    faults: list[Fault] = []
    for step in (_seen, _unpacked, _versioned):
        better, cause = step(policy, text)
        if better != text:
            faults.append(Fault("", cause, instead=""))
        text = better
    faults = [replace(fault, at=len(text) + 1) for fault in faults]  # they are mended already
    return text, [*faults, *policy.read(text, host).faults]


# ----------------------------------------------------------------------------------------- what a text is meant to be
_BEGINNING = 200  # characters of a text that say what it is
_NEAR = re.compile(
    r"v\s*(?:[=:-]\s*|\s)(?:(?P<spf>spf)|(?P<dmarc>dmarc)|(?P<dkim>dkim)|(?P<mtasts>(?:mta-?)?sts)|(?P<tlsrpt>(?:smtp)?tls-?rpt)"
    r"|(?P<bimi>bimi))\s*[._-]?\s*v?\s*\d*(?![A-Za-z0-9]{4})",
    re.IGNORECASE,
)
_HEAD = re.compile(r"v\s*[=:]\s*[A-Za-z0-9]{3,10}(?![A-Za-z0-9._-])", re.IGNORECASE)
_ALIKE = 0.8  # of two versions, by difflib: one letter of five


def meant(host: str, text: str) -> MailPolicy | None:
    """Return the policy that a text at a name is meant to be, be it ever so wrong; None for any other text."""
    exact = texts.policy(host, text)
    if exact is not None and exact is not DKIM:
        return exact
    begin = _unpacked(DKIM, _seen(DKIM, text[:_BEGINNING])[0])[0].lstrip()
    found = _beginning(begin)
    if found:
        return found[0]
    first = re.match(r"([A-Za-z]{1,4})\s*=", begin)
    if exact is None and first:
        places = (item for item in POLICIES if item.place and item.place in _labels(host))
        return next((item for item in places if first[1].lower() in item.tags), None)
    return exact if _is_key(host) else None


def _beginning(text: str) -> tuple[MailPolicy, int] | None:
    """Return the policy whose version a text nearly begins with, and where that version ends."""
    text = text[:_BEGINNING]
    found = _NEAR.match(text)
    if found:
        named = next(name for name, value in found.groupdict().items() if value)
        return next(item for item in POLICIES if item.label.replace("-", "").lower() == named), found.end()
    head = _HEAD.match(text)
    if head:
        from difflib import SequenceMatcher  # only mistakes ask

        written = re.sub(r"\s", "", head[0].lower()).replace(":", "=")
        alike = {item: SequenceMatcher(None, written, item.version).ratio() for item in POLICIES}
        best = max(alike, key=lambda item: alike[item])
        return (best, head.end()) if alike[best] >= _ALIKE else None
    return None


def _labels(host: str) -> str:
    return f".{host.lower()}."


def _is_key(host: str) -> bool:
    """Whether a name is that of a key: what begins with an underscore has a meaning of its own (RFC 5617, RFC 6651)."""
    selector, mark, _ = host.lower().partition("._domainkey")
    return bool(mark) and not selector.startswith("_")


# ------------------------------------------------------------------------------------------------ how it was pasted
_TYPED = str.maketrans({**dict.fromkeys("“”„‟«»", '"'), **dict.fromkeys("‘’‚‛", "'"), **dict.fromkeys("‐‑‒–—−", "-")})


def _seen(_policy: MailPolicy, text: str) -> tuple[str, str]:
    """Put away what nobody sees, and what word processors make of quotes, dashes and blanks."""
    if text.isascii() and text.isprintable():
        return text, ""
    hidden = invisible(text)
    plain = "".join(_character(char) for char in unicodedata.normalize("NFKC", text.translate(_TYPED)))
    plain = " ".join(_punycode(word) for word in plain.split(" "))
    odd = next((char for char in text if not (char.isascii() and char.isprintable())), "")
    what = f"the invisible character {hidden}" if hidden else f"{odd} ({unicodedata.name(odd, f'U+{ord(odd):04X}')})"
    return plain, f"holds {what}, and receivers know printable ASCII alone"


def _character(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Zs" or char in "\t\r\n":
        return " "
    return "" if category in ("Cc", "Cf", "Zl", "Zp") else char


_LONGEST = 300  # characters of a word that may be a domain


def _punycode(word: str) -> str:
    """Write the domain at the end of a word as DNS has it."""
    if word.isascii() or len(word) > _LONGEST:
        return word
    found = re.fullmatch(r"(.*[:=@])?([^:=@/]+\.[^:=@/;,]+)([/;,].*)?", word)
    if found and (found[1] or "").isascii() and (found[3] or "").isascii() and is_name(found[2]):
        return f"{found[1] or ''}{plain_host(found[2])}{found[3] or ''}"
    return word


_ENTRY = re.compile(r'[^"(;]{0,253}?\bTXT\s*(?=["(])', re.IGNORECASE)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


def _unpacked(_policy: MailPolicy, text: str) -> tuple[str, str]:
    """Take a text out of what a zone file puts around it: its name, brackets, quotes, escapes, a comment."""
    cause = "stands in the brackets, quotes or escapes of a zone file"
    plain = text.strip(" ")
    entry = _ENTRY.match(plain)
    plain = plain[entry.end() :] if entry else plain
    if plain.startswith("("):
        inner, bracket, comment = plain[1:].rpartition(")")
        plain = inner.strip(" ") if bracket and '"' not in comment else plain[1:].strip(" ")
    if plain[:1] in ("'", "`") and plain[-1:] == plain[:1]:
        plain = plain[1:-1]
    if plain.startswith('"') or plain.endswith('"'):
        strings = _STRING.findall(plain)
        whole = not _STRING.sub("", plain).strip()  # quotes round a value alone are no zone file's
        plain = "".join(strings) if strings and whole else plain.replace('"', "")
        plain = re.sub(r"\\(.)", r"\1", plain)
    plain = plain.replace("\\;", ";")  # never right: a backslash before what ends a tag
    plain = plain.strip(" ")
    if plain == text.strip(" "):
        return text.lstrip(" "), "begins with a blank"
    return plain, cause


def _versioned(policy: MailPolicy, text: str) -> tuple[str, str]:
    """Write the version as it must be, where the beginning nearly is one."""
    behind = "" if policy is SPF else ";"
    found = _beginning(text)
    if found is None or found[0] is not policy:
        return text, ""
    end = found[1]
    right, rest = policy.written, text[end:]
    ended = re.match(r"\s*(;|$)", rest) is not None
    exact = re.sub(r"\s*=\s*", "=", text[:end]).strip() if policy.spaced else text[:end]
    if exact == right and (rest[:1] in ("", " ") if policy is SPF else ended):
        return text, ""
    rest = rest.lstrip(" ;") if ended else rest.lstrip(" ,;:.")
    after = "no semicolon" if behind else "no blank"
    if exact == right:
        cause = f"has {after} behind {right}"
    else:
        cause = f"begins with {printable(text[:end].strip(), 30)}, where {right} stands"
    return f"{right}{behind} {rest}".rstrip(), cause


# -------------------------------------------------------------------------------------------------- where it stands
def _misplaced(policy: MailPolicy, name: str, host: str) -> Iterator[Fault]:
    """Tell of a name that nobody looks for such a policy at."""
    labels = _labels(host)
    if policy.place and f".{policy.place}." not in labels:
        hint = f"write name: {_right_name(policy, name)}"
        yield Fault("", f"stands where nobody looks for it: that is at {policy.place}", hint, in_name=True)
        return
    other = next((item for item in POLICIES if item.place and f".{item.place}." in labels), None)
    if not policy.place and other is not None:
        summary = f"stands at {other.place}, where receivers look for {other.label} alone"
        outer = host.lower().partition(f"{other.place}.")[2]
        yield Fault("", summary, f"write it at {outer or 'the name of the domain itself'}", in_name=True)


def _right_name(policy: MailPolicy, name: str) -> str:
    """Say which name is right in place of another."""
    place = policy.place
    parts = [] if name == "@" else name.split(".")
    bare = [label.lstrip("_").lower() for label in place.split(".")]
    if [part.lstrip("_").lower() for part in parts[: len(bare)]] == bare:
        parts = parts[len(bare) :]
    if policy.selected:
        behind = parts[1:]
        behind = behind[1:] if behind[:1] == bare else behind
        return ".".join([*(parts[:1] or [policy.selected]), place, *behind])
    return ".".join([place, *parts])
