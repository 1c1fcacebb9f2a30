"""Whether an address may send mail in a domain's name by SPF, as a receiver finds out (RFC 7208 sections 4 to 7). Pure.

What a receiver asks DNS meanwhile is handed in as values. What is not among them is named by the result, so that it is
asked and the evaluation done again: a few rounds, as receivers take at most ten look-ups.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from reconciler.dns import text
from reconciler.dns.policies import spf
from reconciler.dns.policies.spf import MOST_LOOKUPS, Macro, Mechanism
from reconciler.dns.publication import Question

Values = Mapping[Question, tuple[str, ...]]
"""What DNS shows, as `publication.Answer.values`; nothing where a name or a type does not exist."""

MOST_VOID = 2  # look-ups that find nothing, RFC 7208 section 4.6.4
_MOST_EXCHANGES = 10  # hosts of one mx
_RESULTS = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_LONGEST = 253


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How it ended.

    ``result`` is RFC 7208's word (section 2.6); ``term`` what decided, and ``why`` says of an error what it is.
    ``lookups`` and ``void`` are how many were made. ``named`` maps each term that names hosts to their addresses.
    ``missing`` are questions whose answers are needed first: the rest is not to be relied on then.
    """

    result: str
    term: str = ""
    why: str = ""
    lookups: int = 0
    void: int = 0
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: frozenset[Question] = frozenset()


class _PermanentError(Exception):
    """The record can't be evaluated: receivers take it for a mistake of ours."""


def evaluate(domain: str, address: str, sender: str, values: Values) -> Evaluation:
    """Evaluate the record of a domain (lower case, Punycode) for an IPv4 or IPv6 address and a MAIL FROM."""
    work = _Evaluation(ipaddress.ip_address(address), sender, values)
    try:
        result, term, why = (*work.check(domain), "")
    except _PermanentError as error:
        result, term, why = "permerror", work.at, str(error)
    return Evaluation(result, term, why, work.lookups, work.void, work.named, frozenset(work.missing))


def _read(record: str, domain: str) -> spf.Spf:
    read = spf.parse(record)
    if read.value is None:
        fault = next((item for item in read.faults if item.breaks), read.faults[0])
        raise _PermanentError(f"the SPF record of {domain}: {fault.piece} {fault.cause}".replace("  ", " "))
    return read.value


class _Evaluation:
    """One evaluation: what it has counted so far."""

    def __init__(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, sender: str, values: Values) -> None:
        self.address, self.sender, self.values = address, sender, values
        self.lookups, self.void, self.at = 0, 0, ""
        self.missing = set[Question]()
        self.named = dict[str, tuple[str, ...]]()

    def check(self, domain: str) -> tuple[str, str]:
        """Return the result for a domain, and the term that decided. Raises `_PermanentError`."""
        texts = self.texts(domain)
        if not texts:
            return "none", ""
        if len(texts) > 1:
            raise _PermanentError(f"{domain} has {len(texts)} SPF records: receivers take that for an error")
        record = _read(texts[0], domain)
        for term in record.reached:
            self.at = term.text
            if self.matches(term, domain):
                return _RESULTS[term.qualifier], term.text
        if not record.redirect or any(term.name == "all" for term in record.terms):
            return "neutral", ""
        self.count(f"redirect={record.redirect}")
        target = self.expanded(record.redirect, domain)
        result, at = self.check(target)
        if result == "none" and not self.missing:
            raise _PermanentError(f"redirect={target} leads to no SPF record")
        return result, at

    def matches(self, term: Mechanism, domain: str) -> bool:
        """Whether the address is among those that a term names."""
        if term.looks_up:
            self.count(term.text)
        target = self.expanded(term.domain, domain) if term.domain else domain
        match term.name:
            case "ip4" | "ip6":
                network = term.network
                return network is not None and self.address.version == network.version and self.address in network
            case "include":
                return self.included(target)
            case "a":
                return self.among(term, self.addresses(target))
            case "mx":
                return self.among(term, self.exchanged(target))
            case "exists":
                return bool(self.asked(target, "A", counts=True))
        # What is left: `ptr` is slow, unreliable, and ours to warn of (section 5.5); `all` is everybody.
        return term.name == "all"

    def included(self, target: str) -> bool:
        """Evaluate another domain's record for the same address (section 5.2)."""
        before = set(self.missing)
        result, _ = self.check(target)
        if result == "none" and self.missing == before:
            raise _PermanentError(f"include:{target} leads to no SPF record")
        return result == "pass"

    # ------------------------------------------------------------------------------------------------------- asking
    def asked(self, host: str, kind: str, *, counts: bool = False) -> tuple[str, ...]:
        """Return what DNS shows; nothing where that is yet to be asked. Raises `_PermanentError`."""
        question = Question(host, kind)
        if question not in self.values:
            self.missing.add(question)
            return ()
        found = self.values[question]
        if counts and not found:
            self.void += 1
            if self.void > MOST_VOID:
                raise _PermanentError(f"more than {MOST_VOID} look-ups find nothing, the last for {host}")
        return found

    def count(self, term: str) -> None:
        """Count a look-up. Raises `_PermanentError` behind the tenth."""
        self.lookups += 1
        if self.lookups > MOST_LOOKUPS:
            raise _PermanentError(f"more than {MOST_LOOKUPS} look-ups, the last for {term}")

    def texts(self, domain: str) -> tuple[str, ...]:
        """Return the SPF records at a name; a second look-up that finds nothing counts as void."""
        found = self.asked(domain, "TXT", counts=self.lookups > 0)
        return tuple(item for item in found if text.policy("@", item) is text.SPF)

    def addresses(self, host: str) -> tuple[str, ...]:
        """Return the addresses of a host, of the kind that is evaluated for."""
        return self.asked(host, "A" if self.address.version == 4 else "AAAA", counts=True)  # noqa: PLR2004 (IPv4)

    def exchanged(self, domain: str) -> tuple[str, ...]:
        hosts = [item.partition(" ")[2] for item in self.asked(domain, "MX", counts=True)]
        if len(hosts) > _MOST_EXCHANGES:
            raise _PermanentError(f"mx:{domain} names more than {_MOST_EXCHANGES} hosts")
        return tuple(address for host in hosts if host not in ("", ".") for address in self.addresses(host))

    def among(self, term: Mechanism, addresses: Collection[str]) -> bool:
        """Whether the address shares as many bits with one of these as the term says."""
        self.named[term.text] = tuple(addresses)
        prefix = term.prefix4 if self.address.version == 4 else term.prefix6  # noqa: PLR2004 (IPv4)
        networks = (ipaddress.ip_network(f"{item}/{prefix}", strict=False) for item in addresses)
        return any(self.address in network for network in networks)

    # ------------------------------------------------------------------------------------------------------- macros
    def expanded(self, spec: str, domain: str) -> str:
        """Fill a domain-spec (section 7.3); what is too long loses labels from the left."""
        filled = "".join(part if isinstance(part, str) else self.macro(part, domain) for part in spf.pieces(spec))
        filled = filled.lower().rstrip(".")
        while len(filled) > _LONGEST and "." in filled:
            filled = filled.partition(".")[2]
        return filled

    def macro(self, macro: Macro, domain: str) -> str:
        local, _, host = self.sender.rpartition("@")
        version4 = self.address.version == 4  # noqa: PLR2004 (IPv4)
        plain = str(self.address) if version4 else ".".join(self.address.exploded.replace(":", ""))
        value = {
            "s": self.sender,
            "l": local or "postmaster",
            "o": host or domain,
            "d": domain,
            "i": plain,
            "p": "unknown",
            "v": "in-addr" if version4 else "ip6",
            "h": host or domain,
            "c": str(self.address),
        }.get(macro.letter.lower(), "")
        parts = re.split(f"[{re.escape(macro.delimiters)}]", value) if macro.delimiters else value.split(".")
        parts = parts[::-1] if macro.reverse else parts
        joined = ".".join(parts[-macro.digits :] if macro.digits else parts)
        return quote(joined, safe="-._~") if macro.letter.isupper() else joined
