"""Settings of Stalwart up to 0.15, words and raw keys, and the addresses that it never bans: each is one key."""

from __future__ import annotations

import functools
import hmac
import ipaddress
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from reconciler.desired.objects import place
from reconciler.desired.raw_keys import (
    ALLOWED_IP,
    DEFAULT_RATES,
    LISTENER,
    SIGNATURE,
    WORD_KEYS,
    ban_rate,
    is_known,
    is_secret,
    list_of,
    raw_key,
    word_of,
)
from reconciler.problem import Problem, SecretUnreadable
from reconciler.resources import AllowedIp, Different, Live, Resource, Same, SecretRef, SecretText, Setting, Unreadable
from reconciler.secrecy import Public, looks_secret
from reconciler.target import Change, Reveal
from reconciler.targets.stalwart.rest.kind import PENDING, Edit, Import, KeyKind, Keys, Reading, fresh, text_of
from reconciler.targets.stalwart.survey import Omissions

_SHADOWS = {"server.hostname": "hostname", "lookup.default.domain": "default_domain"}  # other spellings of words
_SHADOW = "server.hostname"  # where it is set, it is used in place of the hostname that we keep (config/network.rs)


class Settings(KeyKind[Setting]):
    """The wanted words and keys; of others nothing is looked at."""

    resource = Setting

    def single(self, wanted: Sequence[Resource]) -> Iterable[str]:
        """Name the keys that are wanted."""
        names = (raw_key(item) for item in _own(wanted))
        return (_SHADOW, *dict.fromkeys(list_of(key) or key for key in names))

    def below(self, wanted: Sequence[Resource]) -> Iterable[str]:
        """Name what is or may be a list: each is one value, and what else is in it goes."""
        return {list_of(key) or key for item in _own(wanted) if (key := raw_key(item)) not in WORD_KEYS.values()}

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield the wanted ones. While the generation is not known, what only 0.16 has is asked for, too."""
        own = [item for item in reading.of(Setting) if place(item) is None]
        strays = _strays({raw_key(item) for item in own}, reading)
        for item in own:
            live = Live(Setting(item.word, _value(item, reading)), id=raw_key(item))
            yield _with_strays(live, item, strays.get(list_of(live.id) or live.id, ()))
        shadow = reading.keys.get(_SHADOW)
        wanted = next((item.value for item in own if item.word == "hostname"), None)
        if shadow and wanted not in (None, shadow):
            known = Setting("hostname", shadow).disclosed(None).value
            summary = f"{_SHADOW} = {known!r} in config.toml is used in its place"
            hint = (
                f"remove the line `{_SHADOW} = ...` from config.toml and restart the container, or ask for "
                f"DELETE /api/settings/{_SHADOW} and then GET /api/reload"
            )
            reading.report(Problem("stalwart/hostname", summary, hint))

    def edit(self, change: Change, before: Keys, reveal: Reveal, others: Sequence[Change]) -> Edit:
        """Write its key, or remove it where it is not to be set; what else is in its list goes."""
        del others
        setting = change.resource
        if not isinstance(setting, Setting):
            raise TypeError(change.address)
        key, value = raw_key(setting), setting.value
        strays = tuple(it for it in (change.before.detail or () if change.before else ()) if it in before)
        if change.after is None or value is None:
            return Edit(change, drop=(key, *strays))
        if isinstance(value, SecretRef | SecretText):
            return Edit(change, strays, put={key: reveal(value)})
        if setting.word in DEFAULT_RATES and ban_rate(value) == "off":
            return Edit(change, put={key: "false"})
        return Edit(change, strays, put={key: text_of(value)})

    def in_database(self, resource: Setting) -> Iterable[str]:
        """Name its key."""
        return (raw_key(resource),)

    def means(self, text: str, resource: Setting, live: Resource | None) -> bool:
        """Whether a text is its value as it would be stored."""
        del live
        return text_of(resource.value) == text

    def imported(self, live: Sequence[Live], taken: Import) -> Iterator[Live]:
        """Yield the words that are set at all, and are what counts."""
        for item in live:
            value = getattr(item.resource, "value", None)
            shadow = taken.keys.get(_SHADOW) if getattr(item.resource, "word", "") == "hostname" else None
            if value is not None and not isinstance(value, Public) and shadow in (None, value):
                yield item


def _own(wanted: Sequence[Resource]) -> Iterator[Setting]:
    yield from (item for item in wanted if isinstance(item, Setting) and place(item) is None)


def _strays(wanted: Collection[str], reading: Reading) -> dict[str, tuple[str, ...]]:
    """Map what is wanted, a list by its name, to the keys of the same value that nobody wants.

    The server reads one key, or a list of them below it: where both are there, the one key alone.
    """
    found: dict[str, tuple[str, ...]] = {list_of(key) or key: () for key in wanted}
    for key in sorted(reading.keys.keys() - wanted):
        name = list_of(key) or key
        if name in found:
            found[name] = (*found[name], key)
    return found


def _with_strays(live: Live, wanted: Setting, strays: Sequence[str]) -> Live:
    """Let a value that has more keys than what is wanted differ: with it goes the rest."""
    if not strays:
        return live
    setting: Any = live.resource
    if isinstance(setting.value, Same) or setting.value == wanted.value:
        name = list_of(live.id) or live.id
        listed = ", ".join(key.removeprefix(f"{name}.") for key in strays)
        value = "a list" if wanted.value is None else f"{wanted.value}, and in this list"
        setting = replace(setting, value=Public(f"{value} {listed} besides"))  # no value that is only live
    return replace(live, resource=setting, detail=tuple(strays))


def _value(wanted: Setting, reading: Reading) -> Any:
    if raw_key(wanted) in reading.waiting:  # what is in force is no value of ours, not even the usual one
        return Public("(another one, until a reload)")
    stored = reading.keys.get(raw_key(wanted))
    if wanted.word in DEFAULT_RATES:
        return _rate(wanted, stored)
    if isinstance(wanted.value, SecretRef | SecretText):
        return _secret(wanted, wanted.value, stored, reading)
    if stored is None:
        return None
    same = wanted.value is not None and text_of(wanted.value) == stored
    if is_secret(raw_key(wanted)) and not same:
        return Different()  # never shown, whatever is wanted in its place
    return wanted.value if same else stored


def _rate(wanted: Setting, stored: str | None) -> str | None:
    if stored is None:
        return None if wanted.value is None else DEFAULT_RATES[wanted.word]
    try:
        return ban_rate(stored)
    except ValueError:
        return stored


def _secret(wanted: Setting, secret: SecretRef | SecretText, stored: str | None, reading: Reading) -> Any:
    address = wanted.address
    if secret.held:
        return None if stored is None else Different()
    try:
        value = reading.reveal(secret)
    except SecretUnreadable as error:
        for problem in error.problems:
            reading.report(Problem(address, f"{problem.where}: {problem.summary}", problem.hint, scope=address))
        return Unreadable("its secret can't be read")
    if stored is None:
        return None
    return Same(secret) if hmac.compare_digest(value.encode(), stored.encode()) else Different()


class AllowedIps(KeyKind[AllowedIp]):
    """The allowed addresses: the key's name is the network, its value is empty.

    They are written first, so that nothing that follows gets us banned.
    """

    resource, prefixes = AllowedIp, (ALLOWED_IP.removesuffix("."),)

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all of them; one that nobody wants, and that a reload brings or takes, is still there."""
        wanted = {_network(item.network): item.network for item in reading.of(AllowedIp)}
        for key in sorted(reading.keys):
            if key.startswith(ALLOWED_IP):
                name = key.removeprefix(ALLOWED_IP)
                network = _network(name)
                yield Live(AllowedIp(wanted.get(network, network)), id=name)
        for key in sorted(reading.waiting):
            name = key.removeprefix(ALLOWED_IP)
            if key.startswith(ALLOWED_IP) and _network(name) not in wanted:
                yield Live(AllowedIp(name), id=name)

    def edit(self, change: Change, before: Keys, reveal: Reveal, others: Sequence[Change]) -> Edit:
        """Write or remove its one key; a single address is stored without its length."""
        del before, reveal, others
        network = getattr(change.resource, "network", "")
        bare = network.removesuffix("/32") if ":" not in network else network.removesuffix("/128")
        key = f"{ALLOWED_IP}{change.before.id if change.before else bare}"
        return Edit(change, (key,), rank=0) if change.after is None else Edit(change, put={key: ""}, rank=0)


def _network(text: str) -> str:
    """Return a network in canonical form; the server keeps ``172.18.0.1/16`` as typed."""
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return text


# ------------------------------------------------------------------------------------------------ unlike a fresh server
def unlike_fresh(keys: Keys, waiting: Sequence[str], out: Omissions) -> tuple[dict[str, str | None], dict[str, str]]:
    """Return raw settings that a fresh server does not have like this, and those of them that are secret."""
    usual: Keys = fresh()["keys"]
    for key in waiting:
        hint = "see that the server reloads (GET /api/reload without errors), then import again"
        out.note(key, "is stored and not in force", hint)
    settings: dict[str, str | None] = {}
    secrets: dict[str, str] = {}
    everything = sorted((keys.keys() | usual.keys()) - {PENDING, *waiting})
    lists = {list_of(key) for key in everything if keys.get(key) != usual.get(key)} - {""}  # each is one value
    for key in everything:
        value = keys.get(key)
        if (value == usual.get(key) and list_of(key) not in lists) or not _declarable(key, value, out):
            continue
        if value and not value.startswith("%{") and (is_secret(key) or looks_secret(key, value)):
            secrets[key] = value
        else:
            settings[key] = value
    return settings, secrets


def _declarable(key: str, value: str | None, out: Omissions) -> bool:
    """Whether a raw setting may stand in the directory; tell of it where it is lost with its volume."""
    if word_of(key) in WORD_KEYS:
        return False
    reason = next((said for applies, *said in _REASONS if applies(key)), None)
    if reason is None:
        return True
    why, hint = reason
    if why and value is not None:
        out.note(key, why, hint)
    return False


def _is(group: str, key: str) -> bool:
    """Whether a key is one of a group of patterns: ``generated``, ``downloaded`` or ``installation``."""
    return any(fnmatchcase(key, pattern) for pattern in fresh()[group])


def _is_worded(key: str) -> bool:
    """Whether a key is part of what has words of its own, and is read there."""
    return key.startswith((ALLOWED_IP, SIGNATURE)) or (key.startswith(LISTENER) and word_of(key) is not None)


_REASONS: tuple[tuple[Any, str, str], ...] = (
    (_is_worded, "", ""),
    (functools.partial(_is, "generated"), "", ""),
    (lambda key: key.startswith("server.blocked-ip."), "", ""),
    (
        functools.partial(_is, "downloaded"),
        "come from the server's maker and are not imported",
        "a new server downloads them again; what you changed among them, declare under stalwart.settings",
    ),
    (
        functools.partial(_is, "installation"),
        "describe how the server was installed and are not imported",
        "a new server gets them from its first start, or from its config.toml",
    ),
    (
        lambda key: key.startswith("certificate."),
        "certificates are not imported",
        "put them on a new server as you did on this one, or let ACME get them",
    ),
    (
        lambda key: key in _SHADOWS,
        "is used in place of stalwart.hostname and stalwart.default_domain, and can't be declared",
        "write the word, and take this key away on the server",
    ),
    (
        lambda key: word_of(key) is not None,
        "belong to listeners or bans, and can't be declared",
        "set them again on a new server",
    ),
    (
        lambda key: not is_known(key),
        "are settings of no version: they are stored and never read",
        "they are left out: remove them on the server",
    ),
)
