"""Whether directory, server and name servers agree about each DKIM key, and what to do where they don't. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from reconciler import keys
from reconciler.desired.derivation import zone_of
from reconciler.desired.spec import Spec
from reconciler.desired.spec.mail import Key
from reconciler.dkim.findings import Agrees, Defect, Finding, KeyReading, Mismatch, Shown, Signing, Standing, judge
from reconciler.dkim.rotation import RETIRING, free
from reconciler.dns.publication import Answer, Answers, Question
from reconciler.dns.records import dkim_record
from reconciler.names import host, key_name
from reconciler.problem import Problem, Severity
from reconciler.resources import UNKNOWN, UNMANAGED, SecretRef, Signature

PublicHalf = Callable[[SecretRef, str], str | Problem]
"""From a private key's reference and its algorithm to the public key, or why it can't be told."""

_OVERDUE = dt.timedelta(days=2)
"""How long a key may wait for its turn: by then no resolver remembers that it was not there (RFC 2308 section 5)."""

LIFETIME = dt.timedelta(days=180)
"""How long a key should sign (M3AAWG DKIM Key Rotation Best Common Practices, 2019: six months)."""

_ACCEPTED, _STRONG = 1024, 2048  # bits of an RSA key: RFC 8301 section 3.2


def key_questions(spec: Spec, server: Collection[Signature] | None) -> frozenset[Question]:
    """Return what to ask the name servers: the name of every key that is declared or that the server has."""
    return frozenset(Question(key_name(selector, domain), "TXT") for domain, selector in _entries(spec, server or ()))


def standings(
    spec: Spec,
    server: Collection[Signature] | None,
    answers: Answers,
    today: dt.date,
    half: PublicHalf | None = None,
) -> tuple[Standing, ...]:
    """Compare every key that is declared or that the server has, in the order of the directory.

    ``server`` is None where the server was not read. ``half`` derives the public half of a private key; without it no
    private key is looked at.
    """
    found = []
    for (domain, selector), entry in _entries(spec, server or ()).items():
        held = tuple(item for item in server or () if (item.domain, item.selector) == (domain, selector))
        private = entry.private_key if entry else None
        key = _Key(
            domain=domain,
            selector=selector,
            entry=entry,
            held=None if server is None else held,
            half=half(private, entry.algorithm) if half and entry and private and entry.stage != "retired" else None,
            answers=answers.get(Question(key_name(selector, domain), "TXT"), ()),
            today=today,
            zone=zone_of(domain, spec.dns) if spec.targets.cloudflare else None,
        )
        found.append(key.standing())
    return tuple(found)


def _entries(spec: Spec, server: Iterable[Signature]) -> dict[tuple[str, str], Key | None]:
    """Name every key by domain and selector: a domain's declared ones, then those that only the server has."""
    declared = {(host(domain), key.selector): key for domain, entries in spec.dkim.items() for key in entries}
    others = sorted({(item.domain, item.selector) for item in server} - declared.keys())
    domains = list(dict.fromkeys(domain for domain, _ in (*declared, *others)))
    names = sorted([*declared, *others], key=lambda it: domains.index(it[0]))  # stable
    return {it: declared.get(it) for it in names}


@dataclass(frozen=True, slots=True)
class _Key:
    """All that is known of one key. ``zone`` is the declared zone that its record belongs to, if it is ours."""

    domain: str
    selector: str
    entry: Key | None
    held: tuple[Signature, ...] | None
    half: str | Problem | None
    answers: tuple[Answer, ...]
    today: dt.date
    zone: str | None

    @property
    def address(self) -> str:
        """How people name it, as `Standing.address`."""
        return f"dkim/{self.domain}/{self.selector}"

    @property
    def host(self) -> str:
        """Where it is published."""
        return key_name(self.selector, self.domain)

    @property
    def stage(self) -> str:
        """The stage; empty where the directory does not declare it."""
        return self.entry.stage if self.entry else ""

    @property
    def algorithm(self) -> str:
        """The algorithm, as declared or as the server says."""
        return self.entry.algorithm if self.entry else next((item.algorithm for item in self.held or ()), "")

    @property
    def declared(self) -> str | None:
        """The public key that the directory says, itself or by its private half."""
        said = self.entry.public_key if self.entry else None
        return said or (self.half if isinstance(self.half, str) else None)

    @property
    def server_key(self) -> str | None:
        """The key that the server signs with or, where it signs with none, that it has."""
        chosen = [*self.signing_keys, *(self.held or ())]
        known = (item.public_key for item in chosen[:1])
        return next((key for key in known if isinstance(key, str) and key), None)

    @property
    def signing_keys(self) -> list[Signature]:
        """What the server signs with, another key than the declared one first: it is what breaks mail."""
        signing = [item for item in self.held or () if item.signs is True]
        return sorted(signing, key=lambda item: item.public_key == self.declared)

    @property
    def key(self) -> str | None:
        """The public key that is to be published, as far as it is known."""
        return self.declared or self.server_key

    @property
    def signing(self) -> Signing:
        """What the server does with it."""
        if self.held is None:
            return Signing.UNREAD
        if not self.held:
            return Signing.ABSENT
        if any(item.signs is UNMANAGED for item in self.held):
            return Signing.UNTOLD
        if None not in (self.declared, self.server_key) and self.declared != self.server_key:
            return Signing.ANOTHER
        return Signing.SIGNS if self.signing_keys else Signing.IDLE

    def standing(self) -> Standing:
        """Judge the key."""
        shown = tuple(self._shown(answer) for answer in self.answers)
        since = self.entry.since if self.entry else None
        age = self._age()
        return Standing(
            domain=self.domain,
            selector=self.selector,
            algorithm=self.algorithm,
            stage=self.stage,
            since=since,
            age=age,
            key=self.key,
            signing=self.signing,
            shown=shown,
            agrees=self._agrees(shown),
            findings=(
                *self._server(),
                *self._private(),
                *self._published(shown),
                *self._strength(shown),
                *self._due(shown, age),
            ),
        )

    def _age(self) -> int | None:
        born = self.entry.since if self.entry else None
        match = re.search(r"(20\d\d)(0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])?[a-z]?$", self.selector)
        if born is None and match:
            born = dt.date(int(match[1]), int(match[2]), 1)
        return max((self.today - born).days, 0) if born else None

    def _finding(self, kind: Mismatch, summary: str, hint: str, severity: Severity = Severity.ERROR) -> Finding:
        return Finding(kind, Problem(self.address, summary, hint, severity))

    # ------------------------------------------------------------------------------------------------- agreement
    def _agrees(self, shown: Sequence[Shown]) -> Agrees:
        """Say whether the server and DNS agree: about the key it signs with, or that there is none to show."""
        if self.signing in (Signing.UNREAD, Signing.UNTOLD):
            return Agrees.UNTOLD
        if self.signing_keys:
            return _everywhere(shown, self.server_key) if self.server_key else Agrees.UNTOLD
        if self.stage == "active":
            return Agrees.NO
        if self.stage in ("pending", "retiring"):
            return _everywhere(shown, self.declared)
        nowhere = _nowhere(shown)
        if self.stage == "retired" or nowhere is not Agrees.NO:
            return nowhere
        return _everywhere(shown, self.server_key)  # spare: the server has it, and nobody declares it

    # ---------------------------------------------------------------------------------------------------- server
    def _server(self) -> Iterator[Finding]:
        signs = bool(self.signing_keys)
        if self.signing is Signing.UNTOLD:
            what = "whether the server signs with it can't be told: its rule auth.dkim.sign is not the default"
            hint = "`settings: {auth.dkim.sign: null}` puts the default back"
            if not self.algorithm:  # of a removal that was stored and is not in force only the name is left
                what, hint = "the server may still sign with it until it is reloaded", "`reconciler apply` reloads it"
            yield self._finding(Mismatch.SIGNING_UNTOLD, what, hint, Severity.WARNING)
        elif not self.stage and signs:
            hint = f"declare it under dkim.{self.domain}, or take it away with `removed: [{self.address}]`"
            yield self._finding(Mismatch.SERVER_SIGNS_UNDECLARED, "the server signs with it; it is not declared", hint)
        elif self.signing is Signing.ANOTHER and self.stage in ("active", "pending"):
            yield self._another(signs=signs)
        elif self.stage == "active":
            yield from self._unused()
        elif signs:
            yield self._untimely()

    def _another(self, *, signs: bool) -> Finding:
        what = "signs with another key under this selector" if signs else "has another key under this selector"
        hint = (
            f"`reconciler apply` puts the declared key there; if the server's is right, public_key is {self.server_key}"
        )
        if self.entry and self.entry.private_key is None:
            hint = f"name its private_key, or correct public_key: the server's is {self.server_key}"
        return self._finding(Mismatch.SERVER_HAS_ANOTHER_KEY, f"the server {what}", hint)

    def _unused(self) -> Iterator[Finding]:
        """Tell of an active key that the server lacks, or keeps where it does not sign."""
        if self.signing is Signing.IDLE:
            what = "the server has it, but under an id or a stage that does not sign"
            yield self._finding(Mismatch.SERVER_DOES_NOT_SIGN, what, "`reconciler apply` puts it in use")
        elif self.signing is Signing.ABSENT and self.entry:
            hint = "`reconciler apply` has the server make one, and publishes it"
            if self.entry.private_key:
                fits = isinstance(self.half, str | None) and self.half in (None, self.declared)
                hint = "`reconciler apply` brings it from private_key" + ("" if fits else ", once that is put right")
            elif self.entry.public_key:
                hint = f"name its private_key; if that is lost: reconciler dkim rotate {self.domain}"
            what = "the server does not sign with it: it has no such key"
            yield self._finding(Mismatch.SERVER_LACKS_KEY, what, hint)

    def _untimely(self) -> Finding:
        """Tell of a key that signs before its time or after it."""
        what = f"the server signs with it, though its stage is {self.stage}"
        if self.stage == "pending":
            hint = f"if it is to sign: `stage: active` and `since: {self.today}`; else take it away at the server"
            return self._finding(Mismatch.SERVER_SIGNS_TOO_EARLY, what, hint)
        return self._finding(Mismatch.SERVER_STILL_SIGNS, what, "`reconciler apply` takes it from the server")

    # ----------------------------------------------------------------------------------------------- private key
    def _private(self) -> Iterator[Finding]:
        entry = self.entry
        if entry is None or entry.stage == "retired":
            return
        if isinstance(self.half, Problem):
            hint = f"{self.half.hint}; if it is gone for good: reconciler dkim rotate {self.domain}; without it a lost "
            hint += "server can't get its key back"
            yield self._finding(Mismatch.PRIVATE_KEY_UNREADABLE, self.half.summary, hint, Severity.WARNING)
        elif self.half and entry.public_key and self.half != entry.public_key:
            what = f"private_key {entry.private_key} is not the private half of public_key"
            hint = f"name the key's own file, or correct public_key: the private key's is {self.half}"
            yield self._finding(Mismatch.PRIVATE_KEY_OF_ANOTHER, what, hint)
        elif entry.private_key is None and entry.stage in ("active", "pending"):
            what = "no private_key is declared: the server alone holds the key, and it is lost with the server's volume"
            hint = f"name its private_key; or take one that the stack holds: reconciler dkim rotate {self.domain}"
            if entry.stage == "pending":
                what = "no private_key is declared: the server can't be given it when its turn comes"
                hint = f"name its private_key; or delete its entry, then: reconciler dkim rotate {self.domain}"
            yield self._finding(Mismatch.PRIVATE_KEY_ABSENT, what, hint, Severity.WARNING)

    # ------------------------------------------------------------------------------------------------------- DNS
    def _shown(self, answer: Answer) -> Shown:
        reading = self._reading(answer)
        defects = tuple(item.kind for item in reading.defects)
        return Shown(answer.server, reading.key, answer.values, defects, answer.unread, answer.alias)

    def _reading(self, answer: Answer) -> KeyReading:
        """Read what a name server shows; a key that is not the expected one is a defect, too."""
        if answer.unread or not answer.values:
            return KeyReading()
        if len(answer.values) > 1:
            what = f"{len(answer.values)} TXT records stand at one name: which of them counts is undefined"
            hint = f"remove all TXT records of {self.host} but the key's own"
            return KeyReading(None, (Defect(Mismatch.SEVERAL_RECORDS, what, hint),))
        reading = judge(answer.values[0], self.algorithm)
        if None in (reading.key, self.key) or reading.key == self.key:
            return reading
        whose = "declared" if self.declared else "server's"
        what = f"another key is published than the {whose}"
        return KeyReading(reading.key, (*reading.defects, Defect(Mismatch.ANOTHER_KEY_PUBLISHED, what)))

    def _published(self, shown: Sequence[Shown]) -> Iterator[Finding]:
        yield from self._unread(shown)
        if self.stage == "retired":
            yield from self._still_published(shown)
        elif self.stage or self.signing_keys:
            yield from self._unpublished(shown)
            yield from self._defects()
            yield from self._aliases(shown)

    def _unread(self, shown: Sequence[Shown]) -> Iterator[Finding]:
        hint = "run it again later; what it shows can't be told until then"
        for item in shown:
            if item.unread:
                what = f"the name server {item.server} could not be asked: {item.unread}"
                yield self._finding(Mismatch.UNREAD, what, hint, Severity.WARNING)
        if not shown:
            what = f"no authoritative name server was found for {self.host}"
            yield self._finding(Mismatch.UNREAD, what, "look at the domain's delegation, then run it again")

    def _still_published(self, shown: Sequence[Shown]) -> Iterator[Finding]:
        """Tell of a retired key that is still there; one that is revoked says the same as none (RFC 6376 6.1.2)."""
        there = [item.server for item in shown if item.values and Mismatch.REVOKED not in item.defects]
        if there:
            hint = f"remove the TXT record of {self.host}, seven full days after it signed last"
            if self.zone:
                hint = "`reconciler apply` removes the record, or says until when mail still needs it"
            what = f"is still published at {', '.join(there)}, though it is retired"
            yield self._finding(Mismatch.STILL_PUBLISHED, what, hint, Severity.WARNING)

    def _unpublished(self, shown: Sequence[Shown]) -> Iterator[Finding]:
        """Tell where the name does not exist. Where an alias leads to nothing, the alias is what is wrong."""
        asked = [item for item in shown if not item.unread and not item.alias]
        missing = [item.server for item in asked if not item.values]
        there = [item.server for item in shown if item.values]
        severity = Severity.WARNING if self.stage == "pending" else Severity.ERROR
        if missing and there:
            what = f"is published only at {', '.join(there)}: {', '.join(missing)} does not show it yet"
            hint = "name servers take a few minutes to follow each other: run it again"
            yield self._finding(Mismatch.PARTLY_PUBLISHED, what, hint, severity)
        elif missing:
            where = f" at {', '.join(missing)}" if len(missing) < len(shown) else ""
            what = f"is not published{where}: there is no TXT record at {self.host}"
            yield self._finding(Mismatch.NOT_PUBLISHED, what, self._correction(), severity)

    def _defects(self) -> Iterator[Finding]:
        """Tell of each defect once, and of the name servers that have it where others do not."""
        asked = [answer for answer in self.answers if not answer.unread]
        where: dict[Defect, list[str]] = {}
        for answer in asked:
            for defect in self._reading(answer).defects:
                where.setdefault(defect, []).append(answer.server)
        for defect, servers in where.items():
            at = "" if len(servers) == len(asked) else f"at {', '.join(servers)} "
            yield self._finding(defect.kind, at + defect.what, defect.hint or self._correction(), defect.severity)

    def _aliases(self, shown: Sequence[Shown]) -> Iterator[Finding]:
        """Tell of a CNAME at the name: whoever owns its target decides about the key."""
        for alias in dict.fromkeys(item.alias for item in shown if item.alias):
            led = [item for item in shown if item.alias == alias]
            good = all(item.carries(self.key) for item in led)
            what = f"a CNAME leads to {alias}, which {'shows' if good else 'does not show'} the key"
            hint = "remove the CNAME if the key is to be published from here: no TXT record can stand beside it"
            yield self._finding(Mismatch.ALIAS, what, hint, Severity.WARNING if good else Severity.ERROR)

    def _correction(self) -> str:
        """Say how the right record gets there."""
        if self.zone and self.entry:
            name = dkim_record(self.zone, self.domain, self.selector, self.algorithm, UNKNOWN).address
            return f"`reconciler apply` publishes it; a record that is not ours is replaced with `--adopt {name}`"
        if self.key is None:
            return "publish the key that the server has, as a TXT record"
        content = dkim_record(self.domain, self.domain, self.selector, self.algorithm, self.key).content
        return f"publish as the TXT record of {self.host}: {content}"

    # ------------------------------------------------------------------------------------------ strength and dates
    def _strength(self, shown: Sequence[Shown]) -> Iterator[Finding]:
        key = self.key or next((item.key for item in shown if item.key), None)
        if self.algorithm != "rsa" or key is None or self.stage == "retired":
            return
        bits = keys.rsa_bits(key)
        hint = f"make one of {_STRONG}: reconciler dkim generate {self.domain} --algorithm rsa"
        if bits < _ACCEPTED:
            yield self._finding(Mismatch.WEAK, f"has {bits} bits: receivers must refuse it (RFC 8301)", hint)
        elif bits < _STRONG:
            what = f"has {bits} bits, where signers should use {_STRONG} (RFC 8301)"
            yield self._finding(Mismatch.WEAK, what, hint, Severity.WARNING)

    def _due(self, shown: Sequence[Shown], age: int | None) -> Iterator[Finding]:
        """Tell of a stage that has lasted long enough."""
        hint = f"reconciler dkim rotate {self.domain}"
        if self.entry is None or age is None:
            return
        days = dt.timedelta(days=age)
        if self.stage == "active" and days > LIFETIME:
            what = f"is active for {age} days; keys should be rotated every six months"
            yield self._finding(Mismatch.OLD, what, hint, Severity.WARNING)
        if self.entry.since is None:
            return
        if self.stage == "pending" and days >= _OVERDUE and _everywhere(shown, self.declared) is Agrees.YES:
            what = f"is pending for {age} days, though every name server shows it"
            yield self._finding(Mismatch.PENDING_OVERDUE, what, f"put it in use: {hint}", Severity.WARNING)
        elif self.stage == "retiring" and self.today >= free(self.entry.since):
            what = f"is retiring for {age} days; {RETIRING.days} are enough"
            yield self._finding(Mismatch.RETIRING_OVERDUE, what, f"retire it: {hint}", Severity.WARNING)


def _everywhere(shown: Sequence[Shown], key: str | None) -> Agrees:
    """Whether every name server shows a key; one that could not be asked leaves it open."""
    if any(not item.unread and not item.carries(key) for item in shown):
        return Agrees.NO
    return Agrees.UNTOLD if not shown or any(item.unread for item in shown) else Agrees.YES


def _nowhere(shown: Sequence[Shown]) -> Agrees:
    """Whether no name server shows anything but a revoked key."""
    if any(item.values and Mismatch.REVOKED not in item.defects for item in shown):
        return Agrees.NO
    return Agrees.UNTOLD if not shown or any(item.unread for item in shown) else Agrees.YES
