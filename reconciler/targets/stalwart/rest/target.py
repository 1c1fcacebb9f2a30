"""The target for Stalwart up to 0.15: two requests observe it, and changes go in as few as its API allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reconciler.desired.raw_keys import WORD_KEYS
from reconciler.desired.spec.mail import LIMITS
from reconciler.problem import Problem, TargetUnreadable
from reconciler.resources import Account, Observation, Resource, Setting
from reconciler.target import Change, Outcome, Progress, Reveal, Stopped
from reconciler.targets.stalwart import external
from reconciler.targets.stalwart.connection import TARGET, Connect, Connection
from reconciler.targets.stalwart.container import Docker, causes, look
from reconciler.targets.stalwart.moved import hazards
from reconciler.targets.stalwart.ports import with_open
from reconciler.targets.stalwart.rest.api import Rejected, RestApi
from reconciler.targets.stalwart.rest.kind import PENDING, Import, Item, KeyKind, Kind, Reading, overridden, pending
from reconciler.targets.stalwart.rest.kinds.account import LOCK, Accounts, asks_for_roles, taken_logins
from reconciler.targets.stalwart.rest.kinds.domain import Domains
from reconciler.targets.stalwart.rest.kinds.groups_and_lists import Groups, MailingLists
from reconciler.targets.stalwart.rest.kinds.listener import Listeners
from reconciler.targets.stalwart.rest.kinds.setting import AllowedIps, Settings, unlike_fresh
from reconciler.targets.stalwart.rest.kinds.signature import Signatures, domains_of_macros
from reconciler.targets.stalwart.rest.principals import Principal, in_turn, own_emails
from reconciler.targets.stalwart.rest.run import Run, override
from reconciler.targets.stalwart.survey import Omissions, Survey, fit, is_lost, refuse_empty

KINDS: tuple[Kind[Any], ...] = (
    *(Domains(), Groups(), Accounts(), MailingLists()),
    *(Signatures(), Settings(), AllowedIps(), Listeners()),
)
"""All there is of this generation: a further kind is a file, and an entry here."""

_LOGINS = Accounts()
_PRINCIPALS = {kind.resource: kind for kind in KINDS if isinstance(kind, Principal)}
_KEYS = {kind.resource: kind for kind in KINDS if isinstance(kind, KeyKind)}
_TYPES = [kind.types[0] for kind in _PRINCIPALS.values()]

_KNOWN_FIELDS = frozenset(
    (
        *("type", "id", "name", "emails", "secrets", "description", "quota", "usedQuota", "roles", "memberOf", "lists"),
        *("members", "externalMembers", "locale"),
    )
)
_SAYABLE = {"disabledPermissions": [LOCK]}
"""What the directory says of a field by another word."""
_OTHERS = {
    "role": ("roles", "make them on a new server before you apply: accounts may have them"),
    "apiKey": ("API keys", "make new ones on a new server"),
}


class StalwartRest:
    """Stalwart up to 0.15. ``connect`` opens a connection as our user; ``docker`` is the declared container."""

    name = TARGET

    def __init__(self, connect: Connect, docker: Docker | None, progress: Progress) -> None:
        """Remember how to get there; nothing is asked yet."""
        self._connect, self._docker, self._progress = connect, docker, progress

    def observe(self, wanted: Sequence[Resource], reveal: Reveal) -> Observation:
        """Read everything in two requests, asking Docker meanwhile. Raises `TargetUnreadable`."""
        with self._connect(reveal) as connection:
            try:
                return self._observed(wanted, reveal, connection)
            except Rejected as error:
                hint = error.hint or "look at the server's log, then try again"
                raise TargetUnreadable(connection.problem(error.summary, hint)) from error

    def _observed(self, wanted: Sequence[Resource], reveal: Reveal, connection: Connection) -> Observation:
        problems: list[Problem] = []
        with ThreadPoolExecutor(max_workers=1) as pool:
            looking = pool.submit(look, self._docker, file=True)
            api = RestApi(connection, _TYPES)
            items, stored = api.principals(), api.keys(*_query(wanted))
            report, progress, declared = problems.append, self._progress, wanted
            if directory := _external(stored):
                problems += external.warning(wanted, directory, connection.where)
                wanted = external.others(wanted)
            host = looking.result()
            known: dict[str, Any] = {
                "roles": api.roles() if asks_for_roles(wanted) else None,
                "shown": _shown(api, stored),
            }
            known |= {"file": host.file.keys if host.file else None}
            reading = Reading(items, stored, wanted, reveal=reveal, report=report, progress=progress, **known)
            there = {str(item["name"]) for item in items}
            if any(isinstance(item, Account) and _LOGINS.name(item) not in there for item in wanted):
                problems += taken_logins(wanted, there, api.others())
            live = [item for kind in KINDS for item in kind.live(reading)]
        live = list(external.as_wanted(live, declared, directory)) if directory else live
        live = with_open(live, wanted, connection.host, host.container)
        lost = is_lost(wanted, live)
        problems += [*([host.problem] if host.problem else []), *hazards(host.container, "rest", lost=lost)]
        there_now = {item.resource.address: item.resource for item in live} if host.file else {}
        for item in wanted if host.file else ():
            if (kind := _KEYS.get(type(item))) is not None and host.file is not None:
                keys = overridden(kind, host.file.keys, item, there_now.get(item.address))
                problems += [override(item.address, key, host.file) for key in keys]
        login = connection.login.username.lower()
        ours = [it.id for it in live if isinstance(it.resource, Account) and it.id == login]
        return Observation(
            TARGET,
            live=live,
            problems=tuple(problems),
            head=(f"{connection.where}: up to 0.15 (REST)",),
            lost=lost,
            cause=causes(host.container) if lost and host.container else (),
            generation="rest",
            account=next(iter(ours), ""),
            login=login,
        )

    def apply(self, changes: Sequence[Change], reveal: Reveal, stopped: Stopped) -> Iterator[Outcome]:
        """Carry out changes: principals, then keys all at once; removals of principals last."""
        principals = [change for change in changes if type(change.resource) in _PRINCIPALS]
        keys = [(kind, change) for change in changes if (kind := _KEYS.get(type(change.resource)))]
        with self._connect(reveal) as connection:
            run = Run(RestApi(connection, _TYPES), reveal, self._docker, self._progress, principals)
            for change, early in in_turn([item for item in principals if not item.deletes], _principal_of):
                if stopped():
                    return
                if early:
                    run.release(change)
                else:
                    yield from run.principal(_principal_of(change), change)
            yield from run.finish()
            if keys and not stopped():
                yield from run.keys(keys, _query(change.resource for _, change in keys))
            for change in (item for item in principals if item.deletes):
                if stopped():
                    return
                yield from run.principal(_principal_of(change), change)

    # --------------------------------------------------------------------------------------------------------- import
    def survey(self, reveal: Reveal) -> Survey:
        """Read everything in two requests. Raises `TargetUnreadable`, and `Refused` where nothing is there."""
        with self._connect(reveal) as connection:
            api = RestApi(connection, _TYPES)
            try:
                items, stored = api.principals(others=True), api.settings()
                shown = _shown(api, stored)
            except Rejected as error:
                hint = error.hint or "look at the server's log"
                raise TargetUnreadable(connection.problem(error.summary, hint)) from error
        out = Omissions(connection.where)
        wanted = [Setting(word, None) for word in WORD_KEYS]
        host = look(self._docker, file=True)
        file = host.file.keys if host.file else None
        reading = Reading(items, stored, wanted, shown=shown, file=file, reveal=reveal, report=out.tell)
        live = {kind: list(kind.live(reading)) for kind in KINDS}
        refuse_empty(connection.where, [item for found in live.values() for item in found])
        taken = Import(items, reading.keys, out, connection.host, host.container)
        imported = [it for kind, found in live.items() for it in kind.imported(list(fit(found, "rest", out)), taken)]
        settings, secrets = unlike_fresh(reading.keys, pending(stored), out)
        _tell_of_others(items, out)
        return Survey(
            "rest",
            live=tuple(imported),
            hashes=taken.hashes,
            private_keys=taken.private_keys,
            settings=settings,
            secrets=secrets,
            removed=tuple(taken.removed),
            omitted=out.problems(),
        )


def _tell_of_others(items: Sequence[Item], out: Omissions) -> None:
    """Tell of what else is in the server's directory."""
    kinds = {word: kind for kind in KINDS if isinstance(kind, Principal) for word in kind.types}
    domains = {item["name"] for item in items if item.get("type") == "domain"}
    for item in items:
        word, name = str(item.get("type")), str(item["name"])
        if kind := kinds.get(word):
            known = _KNOWN_FIELDS - kind.undeclared
            for field in sorted(
                key for key, value in item.items() if key not in known and value and value != _SAYABLE.get(key)
            ):
                hint = LIMITS if field.endswith("Permissions") else "set them again on a new server"
                out.note(name, f"its {field} can't be declared", hint)
            if any(address.rpartition("@")[2] not in domains for address in own_emails(item)[1:]):
                hint = "they get no mail: they are left out"
                out.note(name, "has addresses in domains that the server does not have", hint)
        else:
            what, hint = _OTHERS.get(word, (f"principals of the type {word}", "make them anew on a new server"))
            out.note(name, f"{what} can't be declared", hint)


_DIRECTORY = "storage.directory"


def _external(stored: Mapping[str, str]) -> str:
    """Name the directory that the server looks accounts up in, with its type; empty where it is its own."""
    name = stored.get(_DIRECTORY, "")
    kind = stored.get(f"directory.{name}.type", "internal").lower()
    return "" if kind == "internal" else f"{name} ({kind.upper()})"


def _shown(api: RestApi, stored: Mapping[str, str]) -> dict[str, str]:
    """Ask for the key records of the domains whose keys can't be read otherwise; mostly there is none."""
    records = (api.key_records(domain) for domain in sorted(domains_of_macros(stored)))
    return {name: content for found in records for name, content in found.items()}


def _principal_of(change: Change) -> Principal[Any]:
    return _PRINCIPALS[type(change.resource)]


def _query(resources: Iterable[Resource]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return prefixes and single keys that hold what is live of all kinds, in one request."""
    items = list(resources)
    single = {PENDING, _DIRECTORY, *(key for kind in KINDS for key in kind.single(items))}
    prefixes = {"directory"} | {prefix for kind in _KEYS.values() for prefix in (*kind.prefixes, *kind.below(items))}
    return tuple(sorted(prefixes)), tuple(sorted(single))
