"""What an import learns of a server from 0.16: all but its secrets, of which it shows none.

The server's own objects are put in the shape of ``stalwart.objects``, as far as a fresh server has them not: what that
makes by itself is in ``defaults.json`` (``tests/targets/stalwart/jmap/facts.py`` learns it from a real one), a long
value as its digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reconciler.desired import objects
from reconciler.desired.objects import TYPE, Type
from reconciler.resources import Setting
from reconciler.secrecy import Withheld, is_secret_form, looks_secret
from reconciler.target import differences
from reconciler.targets.stalwart.jmap.api import JmapApi, Registry, Selection, merged
from reconciler.targets.stalwart.jmap.kind import NOT_SHOWN, Raw, ResourceKind
from reconciler.targets.stalwart.jmap.kinds.raw_objects import Names
from reconciler.targets.stalwart.jmap.kinds.setting import WORDED, WORDS
from reconciler.targets.stalwart.release import JMAP
from reconciler.targets.stalwart.survey import Objects, Omissions

_UNDECLARED = {
    "Certificate": ("certificates", "put them on a new server, or let ACME get them"),
    "AcmeProvider": ("ACME providers", "set them up on a new server"),
}

NAMELESS = object()
"""A value that refers to what has no name to find it by."""

_DOWNLOADED = ("SpamRule", "SpamTag", "SpamDnsblServer", "SpamFileExtension", "HttpLookup", "MemoryLookupKey")
"""What a server loads from its maker at a first start: hundreds of objects."""

_INSTALLATION = frozenset({objects.BOOTSTRAP, "DataStore"})  # how the server was installed: its config.json says it
_MASK = "****"
_LONG = 300  # characters of a value that is kept as its digest


def shortened(value: Any) -> Any:
    """Return a value, or the digest of a long one."""
    text = json.dumps(value, sort_keys=True)
    return value if len(text) <= _LONG else {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def declarable(kinds: Sequence[ResourceKind]) -> tuple[str, ...]:
    """List the objects that an import looks at: all that may be declared, but for those that are a kind of ours."""
    ours = {item.name for kind in kinds for item in kind.objects[:1]}
    return tuple(name for name in objects.names() if name not in {*_INSTALLATION, *_DOWNLOADED, *ours})


def everything(kinds: Sequence[ResourceKind]) -> list[Selection]:
    """List all that an import reads, whole but for what is costly or secret."""
    ours = merged(item for kind in kinds for item in (*kind.reads(WORDS), *kind.surveyed))
    whole = [Selection(name, objects.is_singleton(name)) for name in declarable(kinds)]
    named = [Selection(name, properties=("id",)) for name in _UNDECLARED]
    return list({item.name: item for item in (*ours, *whole, *named)}.values())


def tell_of_downloads(api: JmapApi, omissions: Omissions) -> None:
    """Count what comes from the server's maker; there may be thousands."""
    calls = [(f"x:{name}/query", {"limit": 1, "calculateTotal": True}) for name in _DOWNLOADED]
    for name, response in zip(_DOWNLOADED, api.call(*calls), strict=True):
        total = response.arguments.get("total") if response.error is None else None
        if total:
            hint = "a new server downloads them again; your own among them, declare under stalwart.objects"
            omissions.note(f"{total} of {name}", "come from the server's maker and are not imported", hint)


# ---------------------------------------------------------------------------------------------------- shapes
class _Unnamed(ValueError):
    """A value refers to an object that has no name to find it by."""


class Shapes:
    """From objects as JMAP has them to what a person writes: names for ids, lists for sets and lists."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def entry(self, name: str, item: Raw) -> dict[str, Any]:
        """Return an object's properties that a directory may name; `NAMELESS` is one that refers to what has none."""
        variant = item.get(TYPE)
        known = objects.properties(name, variant)
        keys = {TYPE} if objects.key_of(name) == TYPE else set(objects.key_of(name).replace("/", "@").split("@"))
        made: dict[str, Any] = {TYPE: variant} if objects.variants(name) and TYPE not in keys else {}
        for key, kind in known.items():
            if key in keys or key not in item or (name, key) in WORDED or _is_fixed(kind):
                continue
            try:
                made[key] = self.value(kind, item[key])
            except _Unnamed:
                made[key] = NAMELESS
        return made

    def value(self, kind: Type, value: Any) -> Any:
        """Return one value as a person would write it. Raises `_Unnamed`."""
        if value is None or value == "":
            return None
        made, inner = value, kind.item or Type("text")
        match kind.base if kind.base == "id" or isinstance(value, Mapping) else "":
            case "id":
                made = self.names.name_of(kind.of, str(value))
                if made is None:
                    raise _Unnamed(value)
            case "set":
                made = sorted(self.value(inner, item) for item in value)
            case "list":
                made = [self._object(kind, value[key]) for key in sorted(value, key=int)]
            case "map":
                made = {key: self.value(inner, value[key]) for key in sorted(value)}
            case "object":
                made = self._object(kind, value)
        return made

    def _object(self, kind: Type, value: Raw) -> dict[str, Any]:
        variant = value.get(TYPE)
        known = objects.properties(kind.of, variant)
        made: dict[str, Any] = {TYPE: variant} if objects.variants(kind.of) else {}
        for key, part in known.items():
            if key in value and not _is_fixed(part):
                found = self.value(part, value[key])
                made |= {} if found is None and not part.optional else {key: found}
        return made


def _is_fixed(kind: Type) -> bool:
    return kind.server_set or kind.enterprise


class Differing:
    """The objects of one server that are not as a fresh server has them."""

    def __init__(self, registry: Registry, kinds: Sequence[ResourceKind], omissions: Omissions) -> None:
        self._registry, self._kinds, self._out = registry, kinds, omissions
        self._names = Names(registry)
        self._shapes = Shapes(self._names)

    def objects(self) -> Objects:
        """Return what to declare, by kind and name."""
        made: dict[str, dict[str, dict[str, Any]]] = {}
        for name in declarable(self._kinds):
            usual: Mapping[str, Raw] = JMAP.defaults()["objects"].get(name, {})
            for entry, items in self._names.entries(name).items():
                if is_secret_form(entry):
                    self._out.note(
                        name, "is known by a name or URL that holds a secret", "set it again on a new server"
                    )
                elif len(items) > 1:
                    self._out.note(f"{name} {entry}", "is there several times", "remove all but one on the server")
                elif fields := self._declared(name, entry, items[0], usual.get(entry, {})):
                    made.setdefault(name, {})[entry] = fields
            self._tell_of_missing(name, usual)
        for name, (what, hint) in _UNDECLARED.items():
            for item in self._registry.get(name, ()):
                self._out.note(str(item.get("id")), f"{what} can't be declared", hint)
        return made

    def _declared(self, name: str, entry: str, item: Raw, usual: Raw) -> dict[str, Any]:
        """Return the properties that differ, can be declared, and are unchanged to the next plan."""
        found = self._shapes.entry(name, item)
        tag = {TYPE: found.pop(TYPE)} if TYPE in found else {}
        another = tag.get(TYPE) != usual.get(TYPE)
        made: dict[str, Any] = {}
        for key, value in found.items():
            if _is_empty(value) and _is_empty(usual.get(key)):
                continue
            if value is not NAMELESS and shortened(value) == usual.get(key) and not another:
                continue
            # What a name alone makes a secret may be no text, in which no reference can stand.
            forms = [_withheld(value, key, rule) for rule in (looks_secret, lambda _, text: is_secret_form(text))]
            tried = [(form, self._objection(name, entry, tag, key, form)) for form in forms]
            form, why = next((item for item in tried if item[1] is None), tried[-1])
            if why is None:
                made[key] = form
            else:
                self._out.note(f"{name} {entry} {key}", *why)
        return tag | made if made or another else {}

    def _objection(self, name: str, entry: str, tag: Raw, key: str, value: Any) -> tuple[str, str] | None:
        """Say why a property can't be declared; None where it can."""
        again = "set it again on a new server"
        if value is NAMELESS:
            return "refers to what has no name to declare it by", again
        secrets: list[str] = []
        told = _referring(value, secrets)
        if _MASK in json.dumps([told, secrets]):
            return "holds a secret, which the server does not show", "declare it with a reference to the secret"
        values, wrong = objects.declared(name, entry, {**tag, key: told})
        if (wrong or key not in values) and secrets:
            return "seems to hold a secret, which the directory must not", again
        if wrong or key not in values:
            return "has a value that can't be declared", again
        setting = Setting(objects.word(name, entry, key), values[key])
        names = Names(self._registry, lambda ref: secrets[int(getattr(ref, "name", 0))])
        seen = names.live([setting], self._out.tell, lambda *_: NOT_SHOWN)
        return (
            None
            if any(not differences(setting, live.resource) for live in seen)
            else ("has a value that can't be compared", again)
        )

    def _tell_of_missing(self, name: str, usual: Mapping[str, Raw]) -> None:
        """Tell of what a fresh server makes and this one has not."""
        if objects.is_singleton(name) or name not in self._registry:
            return
        for entry in sorted(usual.keys() - self._names.entries(name).keys()):
            self._out.note(f"{name} {entry}", "is not there, and a new server makes it", "remove it again on that one")


def _withheld(value: Any, name: str, secret: Callable[[str, str], bool]) -> Any:
    """Return a value with its texts withheld that are secrets, by their form or by the name they stand under."""
    if isinstance(value, dict):
        values = {key: it if key == TYPE else _withheld(it, key, secret) for key, it in value.items()}
        everything = name.lower().endswith("headers")  # whatever a header is called, its value may be one
        return {key: Withheld(it) if everything and isinstance(it, str) else it for key, it in values.items()}
    if isinstance(value, list):
        return [_withheld(item, name, secret) for item in value]
    return Withheld(value) if isinstance(value, str) and secret(name, value) else value


def _referring(value: Any, secrets: list[str]) -> Any:
    """Return a value with references in place of what is withheld, which is put into ``secrets`` by number."""
    if isinstance(value, dict):
        return {name: _referring(item, secrets) for name, item in value.items()}
    if isinstance(value, list):
        return [_referring(item, secrets) for item in value]
    if not isinstance(value, Withheld):
        return value
    secrets.append(value.value)
    return {"env": str(len(secrets) - 1)}


def _is_empty(value: Any) -> bool:
    return value is None or value in ([], {})
