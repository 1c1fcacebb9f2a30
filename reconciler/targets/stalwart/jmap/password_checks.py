"""Whether an account of Stalwart 0.16 has the declared password, which nobody can read back (traps.md, 17).

What is known comes from logins: of our own administrator at each run, and of others only when a try is due, as each
refused one counts towards a ban (traps.md, 34). A refusal is followed by a write and never by a second try; a password
that is refused again after that write is not tried any more. What was found out is kept in the data directory; losing
it loses this knowledge and nothing else. Of a password it holds a fingerprint, made with a random key of its own.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reconciler import files
from reconciler.problem import Problem, Severity, TargetUnreadable
from reconciler.resources import Different, Same, SecretRef, Unreadable, Verdict
from reconciler.secrets.schemes import is_crypt_hash
from reconciler.target import Reveal
from reconciler.targets.stalwart.connection import Connection

FILE = "passwords.json"
VERSION = 1
MOST_REFUSED = 20
"""Refused logins within a day after which no more are tried: the server bans an address at 100, and consumers behind
the same gateway share ours."""

_DAY = timedelta(days=1)
_FRESH = timedelta(hours=1)  # an accepted login is noted again only after that
SESSION = "/jmap/session"
"""Tells any account who it is: with credentials it checks them (observed.md)."""

_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError)  # what JSON of another form raises

Clock = Callable[[], datetime]

TryLogin = Callable[[str, str], bool | None]
"""Tries an address and a password once. None: the answer tells neither. Raises `TargetUnreadable` without an answer."""


def try_login(connection: Connection, address: str, password: str) -> bool | None:
    """Log in once over HTTP, and say whether the password was accepted; None where the answer tells neither.

    Raises `TargetUnreadable` when no answer comes, or one that is about bans, limits or the server's health.
    """
    answer = connection.ask_as(address, password, SESSION)
    match answer.status:
        case 200 | 402:  # 402 asks for a one-time code, but only who knows the password
            return True
        case 401:
            return False
        case 403:  # this account may not log in, or not from here
            return None
        case 429 if "Authentication" in answer.word("title"):
            summary, hint = "has banned this address for refused logins", "declare this network under allowed_ips"
        case 429:
            summary, hint = "limits the rate of requests", "try again in a minute"
        case status:
            summary, hint = f"answers {status} to a login", "look at the server's log"
    raise TargetUnreadable(connection.problem(summary, hint))


# ------------------------------------------------------------------------------------------------------- what is known
class State(enum.StrEnum):
    """What was last found out of an account's password."""

    TRIED = "tried"  # without an answer that tells
    ACCEPTED = "accepted"
    WRITTEN = "written"
    REFUSED = "refused"
    REWRITTEN = "written after a refusal"
    STOPPED = "refused after that"


@dataclass(frozen=True, slots=True)
class LoginRecord:
    """What is known of one account's password.

    ``fingerprint`` is the HMAC-SHA256 of the value under ``key``. ``since`` is when it came into its state, ``tried``
    when a login was last begun, ``refused`` when one was last refused. ``container`` is the id of the server's
    container then, empty where it was not known.
    """

    state: State
    key: str
    fingerprint: str
    since: datetime
    tried: datetime | None = None
    refused: datetime | None = None
    container: str = ""

    @classmethod
    def of(cls, state: State, value: str, since: datetime, container: str, earlier: LoginRecord | None) -> LoginRecord:
        """Make a record; when a login was tried and refused before that stays known."""
        key = base64.b64encode(os.urandom(16)).decode()
        tried, refused = (earlier.tried, earlier.refused) if earlier else (None, None)
        return cls(state, key, _fingerprint(key, value), since, tried, refused, container)

    @classmethod
    def read(cls, item: Mapping[str, Any]) -> LoginRecord:
        """Read it from JSON. Raises KeyError, TypeError or ValueError for what is none."""
        texts = {name: item[name] for name in ("key", "fingerprint", "container")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise TypeError
        base64.b64decode(texts["key"], validate=True)
        tried, refused = (item[name] and _time(item[name]) for name in ("tried", "refused"))
        return cls(State(item["state"]), since=_time(item["since"]), tried=tried, refused=refused, **texts)

    def as_json(self) -> dict[str, str | None]:
        """Return what `read` takes."""
        times = {name: getattr(self, name) for name in ("since", "tried", "refused")}
        named = {name: getattr(self, name) for name in ("key", "fingerprint", "container")}
        return {"state": str(self.state), **named} | {name: time and time.isoformat() for name, time in times.items()}

    def holds(self, value: str) -> bool:
        """Whether it is about this value."""
        return hmac.compare_digest(self.fingerprint, _fingerprint(self.key, value))

    def is_of(self, container: str) -> bool:
        """Whether it is about this container, as far as both are known."""
        return not (self.container and container) or self.container == container

    @property
    def words(self) -> str:
        """Say since when nothing was found out."""
        written = "it was written at " if self.state in (State.WRITTEN, State.REWRITTEN) else ""
        return f"{written}{_shown(self.since)}"


def _fingerprint(key: str, value: str) -> str:
    return hmac.new(base64.b64decode(key), value.encode(), hashlib.sha256).hexdigest()


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without its zone")
    return time


def _shown(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")


def _now() -> datetime:
    return datetime.now(UTC)


class LoginRecords:
    """The records of one server in the data directory, by address. Other servers' are kept; others may write too."""

    def __init__(self, file: Path | None, server: str) -> None:
        """Read the file. ``None`` keeps everything in memory."""
        self.file, self.server = file, server
        self.problem: Problem | None = None
        self._changed: set[str] = set()
        self._known: dict[str, LoginRecord] = {}
        servers, why = self._read()
        if why.startswith("can't"):
            self.problem = self._warning(why, "let reconciler's user read it; until then no password is tried")
            return
        items = servers.get(server, {}) if servers else {}
        self._known = _records(items)
        if why or len(self._known) < len(items):
            hint = "nothing has to be done: what can't be read is left out when it is next written"
            self.problem = self._warning("is damaged, so it is not known of all passwords when they were checked", hint)

    def get(self, account: str) -> LoginRecord | None:
        """Return what is known of an account."""
        return self._known.get(account)

    def put(self, account: str, record: LoginRecord) -> None:
        """Remember it until it is saved."""
        self._known[account] = record
        self._changed.add(account)

    def refused_since(self, time: datetime) -> int:
        """Count the accounts of which a login was refused since then."""
        return sum(record.refused is not None and record.refused > time for record in self._known.values())

    def save(self) -> bool:
        """Write what has changed beside what others wrote meanwhile. False, and a problem, where that fails."""
        if not self._changed:
            return True
        if self.file is None:
            return False
        try:
            files.make_private(self.file.parent)
            with files.locked(self.file.parent):
                files.write(self.file, self._merged())
        except OSError as error:
            hint = "name a writable directory with --data; until then no password is tried"
            self.problem = self._warning(f"can't be written: {error.strerror}", hint)
            return False
        self._changed.clear()
        return True

    def _merged(self) -> bytes:
        servers, why = self._read()
        if why.startswith("can't"):
            raise OSError(0, f"it {why}")
        servers = servers or {}
        ours = _records(servers.get(self.server, {}))
        ours |= {account: self._known[account] for account in self._changed}
        items = {account: ours[account].as_json() for account in sorted(ours)}
        return json.dumps({"version": VERSION, "servers": {**servers, self.server: items}}).encode()

    def _read(self) -> tuple[Mapping[str, Mapping[str, Any]] | None, str]:
        """Return the servers in the file; None, and why, where nothing can be told."""
        return files.recall(self.file, _servers) if self.file else (None, "")

    def _warning(self, summary: str, hint: str) -> Problem:
        return Problem(str(self.file), summary, hint, Severity.WARNING)


def _servers(document: Any) -> Mapping[str, Mapping[str, Any]]:
    if document["version"] != VERSION:
        raise ValueError("another version")
    servers: Mapping[str, Mapping[str, Any]] = document["servers"]
    if not all(isinstance(items, dict) for items in servers.values()):
        raise TypeError
    return servers


def _records(items: Mapping[str, Any]) -> dict[str, LoginRecord]:
    """Read the records that can be read; one that is damaged costs no other one."""
    found = {}
    for account, item in items.items():
        with suppress(*_DAMAGED):
            found[account] = LoginRecord.read(item)
    return found


# ------------------------------------------------------------------------------------------------------------ checking
class _Why(enum.Enum):
    """Why it is not known whether an account has its password."""

    SINCE = "not checked since"
    NEVER = "never checked"
    SILENT = "a login was answered neither way"
    STOPPED = "refused again after it was written"
    HASH = "a hash, which can't be tried"


class PasswordChecks:
    """What is known of the passwords of one server's accounts, and when one may be tried. One object serves one run.

    ``due`` says how long ago the last login or write of a password must be before it is tried: None is never.
    Without a ``file`` nothing is remembered, and nothing tried: a try that can't be noted first is not made.
    """

    def __init__(
        self, file: Path | None = None, server: str = "", due: timedelta | None = None, clock: Clock = _now
    ) -> None:
        """Read what is known of the server at this URL."""
        self._records = LoginRecords(file, server.rstrip("/"))
        self._where = f"Stalwart at {self._records.server}"
        self._due, self._clock = due, clock
        self._accepted: set[str] = set()  # in this run
        self._settled: set[str] = set()  # tried or written in this run
        self._silent: set[str] = set()  # tried in this run, and the answer told neither
        self._unknown: dict[str, tuple[_Why, datetime | None]] = {}
        self._halt: Problem | None = None

    def verdict(
        self, account: str, ref: SecretRef, reveal: Reveal, try_login: TryLogin, container: str = ""
    ) -> Verdict:
        """Say whether the account with this address has this password, trying it only when that is due.

        ``container`` is the id of the server's container, empty when unknown. Raises `SecretUnreadable`.
        """
        value = reveal(ref)
        verdict = self._known(account, ref, value)
        if verdict is None and self._may_try(account, value, container):
            self._try(account, value, try_login, container)
            verdict = self._known(account, ref, value)
        self._unknown.pop(account, None)
        return verdict or self._unreadable(account, value, container)

    def written(self, account: str, value: str, container: str = "") -> None:
        """Take note that the account was given this password."""
        earlier = self._records.get(account)
        again = earlier is not None and earlier.state is State.REFUSED and earlier.holds(value)
        state = State.REWRITTEN if again else State.WRITTEN
        self._records.put(account, self._record(account, state, value, container))
        self._settled.add(account)
        self._accepted.discard(account)

    def answered(self, account: str, value: str, container: str = "", *, accepted: bool) -> None:
        """Take note of a login that happened anyway: our own administrator's, at each run."""
        same = self._same(account, value, container)
        if same is not None and same.state is State.ACCEPTED and accepted and self._clock() - same.since < _FRESH:
            self._accepted.add(account)
        elif accepted or same is None or same.state not in (State.REFUSED, State.STOPPED):
            self._answer(account, value, container, accepted=accepted)

    def words(self) -> tuple[str, ...]:
        """Say of how many accounts it is not known whether they have their password, and how many were tried well."""
        groups = []
        for why in _Why:
            times = [time for known, time in self._unknown.values() if known is why]
            dated = [time for time in times if time is not None]
            text = f"{why.value} {_shown(min(dated))}" if dated else why.value
            groups += [(len(times), text)] if times else []
        number = len(self._unknown)
        said = ", ".join(text if len(groups) == 1 else f"{count} {text}" for count, text in groups)
        triable = any(why in (_Why.SINCE, _Why.NEVER) for why, _ in self._unknown.values())
        tries = "; --check-passwords tries them" if self._due is None and triable else ""
        tried = len(self._accepted) if self._due is not None else 0
        lines = ((tried, "accepted just now"), (number, f"{said}{tries}"))
        return tuple(
            f"passwords of {count} account{'s' if count > 1 else ''}: {text}" for count, text in lines if count
        )

    def problems(self) -> tuple[Problem, ...]:
        """Return what keeps from checking, and the accounts that refuse what was written."""
        stopped = (_refused_again(account) for account, (why, _) in self._unknown.items() if why is _Why.STOPPED)
        return tuple(problem for problem in (self._records.problem, self._halt, *stopped) if problem is not None)

    def save(self) -> None:
        """Write what was found out; a directory that can't be written is a problem and stops nothing."""
        self._records.save()

    # ----------------------------------------------------------------------------------------------------- judging
    def _known(self, account: str, ref: SecretRef, value: str) -> Verdict | None:
        """Return the verdict where one is certain without a try."""
        record = self._records.get(account)
        if record is None or record.state is State.TRIED:
            return None
        if not record.holds(value):
            return Different()  # the account was last known to have, or was refused, another one
        if account in self._accepted:
            return Same(ref)
        return Different() if record.state is State.REFUSED else None

    def _unreadable(self, account: str, value: str, container: str) -> Unreadable:
        record = self._records.get(account)
        if is_crypt_hash(value):
            why = _Why.HASH
        elif self._is_stopped(account, container):
            why = _Why.STOPPED
        elif account in self._silent:
            why = _Why.SILENT
        elif record is None or record.state is State.TRIED:
            why = _Why.NEVER
        else:
            self._unknown[account] = _Why.SINCE, record.since
            return Unreadable(f"{_Why.SINCE.value} {record.words}")
        self._unknown[account] = why, None
        return Unreadable(why.value)

    def _same(self, account: str, value: str, container: str) -> LoginRecord | None:
        """Return the record of an account if it is about this value and this container."""
        record = self._records.get(account)
        return record if record is not None and record.holds(value) and record.is_of(container) else None

    def _is_stopped(self, account: str, container: str) -> bool:
        record = self._records.get(account)
        return record is not None and record.state is State.STOPPED and record.is_of(container)

    # ------------------------------------------------------------------------------------------------------ trying
    def _may_try(self, account: str, value: str, container: str) -> bool:
        if self._due is None or self._halt is not None or account in self._settled or is_crypt_hash(value):
            return False
        return self._is_due(account, self._due) and not self._is_stopped(account, container) and self._within_limit()

    def _is_due(self, account: str, due: timedelta) -> bool:
        record = self._records.get(account)
        if record is None:
            return True
        last = max(record.since, record.tried or record.since)
        return not timedelta(0) <= self._clock() - last < due  # where the clock was set back it is due

    def _within_limit(self) -> bool:
        if self._records.refused_since(self._clock() - _DAY) < MOST_REFUSED:
            return True
        hint = "apply writes the passwords that were refused; the others are tried a day later"
        self._stop(self._where, f"refused {MOST_REFUSED} logins within a day, and bans an address at 100", hint)
        return False

    def _try(self, account: str, value: str, try_login: TryLogin, container: str) -> None:
        """Note that a try is made, then make it: whatever comes in between, there is no second one."""
        self._settled.add(account)
        record = self._records.get(account)
        if record is None or not record.holds(value):
            record = self._record(account, State.TRIED, value, container)
        self._records.put(account, replace(record, tried=self._clock()))
        if not self._records.save():
            return
        try:
            accepted = try_login(account, value)
        except TargetUnreadable as error:
            problem = error.problems[0]
            self._stop(problem.where, problem.summary, problem.hint)
            return
        if accepted is None:
            self._silent.add(account)
        else:
            self._answer(account, value, container, accepted=accepted)

    def _answer(self, account: str, value: str, container: str, *, accepted: bool) -> None:
        same = self._same(account, value, container)
        again = same is not None and same.state in (State.REWRITTEN, State.STOPPED)
        state = State.ACCEPTED if accepted else State.STOPPED if again else State.REFUSED
        record = self._record(account, state, value, container)
        self._records.put(account, record if accepted else replace(record, refused=record.since))
        (self._accepted.add if accepted else self._accepted.discard)(account)

    def _record(self, account: str, state: State, value: str, container: str) -> LoginRecord:
        return LoginRecord.of(state, value, self._clock(), container, self._records.get(account))

    def _stop(self, where: str, summary: str, hint: str) -> None:
        self._halt = Problem(where, f"no more passwords are tried in this run: it {summary}", hint, Severity.WARNING)


def _refused_again(account: str) -> Problem:
    return Problem(
        f"account/{account}",
        "its password was refused, written, and refused again; it is not tried any more",
        "see what keeps this login out: an account that is disabled, an external directory for its domain, or a "
        "recovery administrator of that name. It is tried again when its secret, its address or the container changes",
    )
