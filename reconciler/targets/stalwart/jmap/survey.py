"""What an import learns of a server from 0.16: all but its secrets, of which it shows none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from reconciler.desired import objects
from reconciler.desired import stalwart as words
from reconciler.desired.objects import TYPE
from reconciler.problem import TargetUnreadable
from reconciler.reconcile import Reveal
from reconciler.resources import UNMANAGED, Account, Listener, Live, Resource, Setting, Signature
from reconciler.targets.stalwart import host
from reconciler.targets.stalwart.connection import Connection
from reconciler.targets.stalwart.container import Container, Docker
from reconciler.targets.stalwart.jmap import directory as jmap_directory
from reconciler.targets.stalwart.jmap import settings as jmap_settings
from reconciler.targets.stalwart.jmap import shapes as jmap_shapes
from reconciler.targets.stalwart.jmap import signatures as jmap_signatures
from reconciler.targets.stalwart.jmap.api import Bootstrapping, JmapApi, Kind, Registry, Rejected
from reconciler.targets.stalwart.jmap.directory import MANUAL, Directory, Raw
from reconciler.targets.stalwart.jmap.objects import NOT_SHOWN
from reconciler.targets.stalwart.survey import Omissions, Survey, answering, check, fit

_UNDECLARED = {
    "Certificate": ("certificates", "put them on a new server, or let ACME get them"),
    "AcmeProvider": ("ACME providers", "set them up on a new server"),
}
_WORDS = (Setting("hostname", ""), Setting("default_domain", ""), *(Setting(it, None) for it in words.DEFAULT_RATES))
_PLAIN_ACCOUNT: Raw = {
    "locale": "en_US",
    "timeZone": None,
    "permissions": {TYPE: "Inherit"},
    "encryptionAtRest": {TYPE: "Disabled"},
}
_PLAIN_DOMAIN: Raw = {
    "aliases": {},
    "isEnabled": True,
    "description": None,
    "catchAllAddress": None,
    "allowRelaying": False,
    "subAddressing": {TYPE: "Enabled"},
    "certificateManagement": MANUAL,
}


def survey(connection: Connection, reveal: Reveal, docker: Docker | None, domain: str) -> Survey:
    """Read everything in as few requests as the server's limits allow.

    Raises `TargetUnreadable`, `Refused` where nothing is there, `Bootstrapping` in that mode.
    """
    api = JmapApi(connection)
    omissions = Omissions(connection.where)
    try:
        registry = api.read(kinds(), lenient=True)
        _tell_of_downloads(api, omissions)
    except Bootstrapping:
        raise
    except Rejected as error:
        raise TargetUnreadable(connection.problem(error.summary, error.hint or "look at the server's log")) from error
    found = _Survey(connection, registry, omissions)
    return found.survey(reveal, host.look(docker).container, domain)


def kinds() -> Iterator[Kind]:
    """Yield everything to be read, whole but for what is costly or secret."""
    merged: dict[str, Kind] = {}
    own = (*jmap_directory.KINDS, *jmap_signatures.KINDS, *jmap_settings.kinds(_WORDS))
    for kind in own:
        other = merged.get(kind.name, kind)
        merged[kind.name] = replace(kind, properties=tuple(dict.fromkeys((*other.properties, *kind.properties))))
    for name, plain in (("Domain", _PLAIN_DOMAIN), ("Account", _PLAIN_ACCOUNT)):
        merged[name] = replace(merged[name], properties=(*dict.fromkeys((*merged[name].properties, *plain)),))
    merged |= {name: Kind(name, objects.is_singleton(name)) for name in jmap_shapes.kinds()}
    merged |= {name: Kind(name, properties=("id",)) for name in _UNDECLARED}
    yield from merged.values()


def _tell_of_downloads(api: JmapApi, omissions: Omissions) -> None:
    """Count what comes from the server's maker; there may be thousands."""
    calls = [(f"x:{name}/query", {"limit": 1, "calculateTotal": True}) for name in jmap_shapes.DOWNLOADED]
    for name, response in zip(jmap_shapes.DOWNLOADED, api.call(*calls), strict=True):
        total = response.arguments.get("total") if response.error is None else None
        if total:
            hint = "a new server downloads them again; your own among them, declare under stalwart.objects"
            omissions.note(f"{total} of {name}", "come from the server's maker and are not imported", hint)


class _Survey:
    """One reading of a server, and what is left out of it."""

    def __init__(self, connection: Connection, registry: Registry, omissions: Omissions) -> None:
        self._connection, self._registry, self._out = connection, registry, omissions

    def survey(self, reveal: Reveal, container: Container | None, domain: str) -> Survey:
        """Put everything together. Raises `Refused` where nothing is there."""
        directory = Directory(self._registry, (), domain)
        people = list(directory.live(lambda *_: NOT_SHOWN, self._out.tell))
        check(self._connection.where, people)
        self._strangers(directory)
        signatures = jmap_signatures.Signatures(self._registry, (), directory.ids).live(reveal, self._out.tell)
        settings = list(jmap_settings.live(self._registry, _WORDS, self._out.tell))
        live = [
            *map(self._without_zero, fit(people, "jmap", self._out)),
            *(item for item in fit(signatures, "jmap", self._out) if self._signs(item)),
            *(item for item in fit(settings, "jmap", self._out) if self._says(item.resource)),
        ]
        listeners = [item for item in live if isinstance(item.resource, Listener)]
        answered = list(answering(listeners, self._connection.host, container, self._out))
        live = [item for item in live if item not in listeners]
        made = jmap_shapes.declared(self._registry, self._out)
        return Survey(
            "jmap",
            live=tuple(replace(item, detail=None) for item in (*live, *answered)),
            objects=made,
            removed=tuple(self._closed()),
            omitted=self._out.problems(),
        )

    # ------------------------------------------------------------------------------------------------------ directory
    def _without_zero(self, live: Live) -> Live:
        account = live.resource
        if isinstance(account, Account):  # a quota of 0 is none, and nothing else that could be declared
            return replace(live, resource=replace(account, quota=account.quota or None))
        return live

    def _strangers(self, directory: Directory) -> None:
        """Tell of what else is in the server's directory."""
        for item in self._registry.get("Domain", ()):
            name = str(item.get("name"))
            self._options(name, item, _PLAIN_DOMAIN)
            if automatic := list(jmap_directory.automatic(item)):
                what = " and ".join(jmap_directory.TWO_WRITERS[key] for key in automatic)
                hint = f"`adopt: [domain/{name}]` makes it Manual: the keys and records stay as they are, and are ours"
                self._out.note(name, f"the server manages its {what} by itself, and a plan says so", hint)
        for item in self._registry.get("Account", ()):
            self._account(directory.ids.address(item), item)
        for kind, (what, hint) in _UNDECLARED.items():
            for item in self._registry.get(kind, ()):
                self._out.note(str(item.get("id")), f"{what} can't be declared", hint)

    def _account(self, address: str, item: Raw) -> None:
        if item.get(TYPE) == "Group":
            hint = "make them on a new server before you apply: accounts may be in them"
            self._out.note(address, "groups can't be declared", hint)
            return
        self._options(address, item, _PLAIN_ACCOUNT)
        credentials = [str(it.get(TYPE)) for it in (item.get("credentials") or {}).values()]
        for kind in sorted(set(credentials) - {"Password"}):
            hint = "whoever owns the account makes new ones on a new server"
            self._out.note(address, f"credentials of the type {kind} can't be declared", hint)
        if any(not alias.get("enabled", True) for alias in (item.get("aliases") or {}).values()):
            self._out.note(address, "aliases that are disabled are not imported", "delete or enable them")

    def _options(self, name: str, item: Raw, plain: Raw) -> None:
        for key, usual in plain.items():
            if key in item and item[key] != usual and (item[key] or usual):
                self._out.note(name, f"its {key} can't be declared", "set it again on a new server")

    # ---------------------------------------------------------------------------------------- signatures and listeners
    def _signs(self, live: Live) -> bool:
        """Whether a key can be declared as one that signs; tell why where it can't."""
        signature = live.resource
        if not isinstance(signature, Signature):
            return False
        managed = {
            str(item["name"]): (item.get("dnsManagement") or MANUAL).get(TYPE)
            for item in self._registry.get("Domain", ())
        }
        if managed.get(signature.domain) != "Manual":
            hint = "it replaces keys, too; to keep them here, adopt the domain, then import again"
            self._out.note(signature.address, "the server manages the records of its domain by itself", hint)
        elif not signature.signs:
            hint = "it is pending, retiring or retired there; its record in DNS is imported as it is"
            self._out.note(signature.address, "the server does not sign with it", hint)
        elif not isinstance(signature.public_key, str):
            self._out.note(signature.address, "the server can't read its key", "see where it keeps it")
        else:
            return True
        return False

    def _says(self, resource: Resource) -> bool:
        """Whether a word or listener is not as a fresh server has it."""
        if isinstance(resource, Listener):
            return resource not in _fresh_listeners()
        return not isinstance(resource, Setting) or bool(resource.value)

    def _closed(self) -> Iterator[str]:
        """Yield the listeners of a fresh server that are not there."""
        names = {str(item.get("name")) for item in self._registry.get("NetworkListener", ())}
        yield from (item.address for item in _fresh_listeners() if item.name not in names)


def _fresh_listeners() -> list[Listener]:
    found = jmap_shapes.fresh()["listeners"].items()
    return [Listener(name, tuple(it["bind"]), it["protocol"], it["tls_implicit"], open=UNMANAGED) for name, it in found]
