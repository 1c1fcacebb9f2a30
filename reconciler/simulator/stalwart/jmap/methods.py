"""The methods of Stalwart 0.16's registry: ``x:<Object>/get``, ``/set`` and ``/query``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from reconciler.simulator.stalwart.jmap import accounts, app_passwords, dkim, registry
from reconciler.simulator.stalwart.jmap.envelope import Arguments, MethodError, references, replaced
from reconciler.simulator.stalwart.jmap.query import query
from reconciler.simulator.stalwart.jmap.store import Object, SetFailure, Store, object_id

MAX_OBJECTS = 500
_BOOTSTRAP = (
    "The server is in bootstrap mode. Only the 'Bootstrap' object type can be {} until the bootstrap process is "
    "complete."
)
_COMPUTED = ("dnsZoneFile", "emailAddress", "publicKey", "usedDiskQuota")
_VERBS = {"create": "Create", "update": "Update", "destroy": "Destroy"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may do. ``account`` is ``None`` for the recovery administrator."""

    id: str
    name: str
    permissions: frozenset[str]
    account: Object | None = None


class Machine(Protocol):
    """What the methods need of the server."""

    store: Store
    bootstrapping: bool

    @property
    def hostname(self) -> str:
        """The name that is in force."""

    @property
    def policy(self) -> Mapping[str, Any]:
        """The Authentication singleton that is in force."""

    def secret_text(self, value: Mapping[str, Any]) -> str:
        """Read a SecretText. Raises OSError where its file or variable is not there."""

    def act(self, variant: str) -> None:
        """Run an action. Raises `SetFailure`."""

    def changed(self, name: str, key: str, old: Object | None, new: Object | None) -> None:
        """Take note of a write."""

    def bootstrap(self, values: Mapping[str, Any]) -> Object:
        """Set up an empty store and return the new administrator. Raises `SetFailure`."""

    def bootstrap_defaults(self) -> Object:
        """Return what the Bootstrap object reads."""


def handle(machine: Machine, caller: Caller, method: str, arguments: Arguments) -> Arguments:
    """Run one method. Raises `MethodError`."""
    said, _, verb = method.removeprefix("x:").partition("/")
    if method == "Core/echo":
        return arguments
    name = registry.called(said) or ""
    run = {"get": _get, "set": _set, "query": _query}.get(verb)
    if run is _query and registry.is_singleton(name):
        run = None
    if run is None or not method.startswith("x:") or not name:
        raise MethodError("unknownMethod", method)
    if machine.bootstrapping and (name != "Bootstrap" or verb == "query"):
        raise MethodError("forbidden", _BOOTSTRAP.format("modified" if verb == "set" else "accessed"))
    return {"accountId": caller.id, **run(machine, caller, name, arguments)}


def _need(caller: Caller, permission: str, what: str = "perform this action") -> None:
    if permission not in caller.permissions:
        raise MethodError("forbidden", f"You are not authorized to {what}")


def _too_large() -> MethodError:
    return MethodError(
        "requestTooLarge",
        "The number of ids requested by the client exceeds the maximum number the server is willing to process in a "
        "single method call.",
    )


def _account(machine: Machine, caller: Caller) -> Object:
    """Return the caller's own account as it is kept now."""
    found = machine.store.get("Account", caller.id)
    if found is None:
        raise MethodError("forbidden", "Account not found.")
    return found


# ---------------------------------------------------------------------------------------------------------- get, query
def _get(machine: Machine, caller: Caller, name: str, arguments: Arguments) -> Arguments:
    _need(caller, f"sys{name}Get")
    ids, wanted = arguments.get("ids"), arguments.get("properties")
    if isinstance(ids, list) and len(ids) > MAX_OBJECTS:
        raise _too_large()
    if name == app_passwords.KIND:
        known = app_passwords.own(_account(machine, caller))
        found = [(key, known.get(key)) for key in (known if ids is None else ids)]
    else:
        found = [(key, _read(machine, name, str(key))) for key in (_all(machine, name) if ids is None else ids)]
    shown = [_shown(machine, name, key, value, wanted or ()) for key, value in found if value is not None]
    return {"list": shown, "notFound": [key for key, value in found if value is None]}


def _all(machine: Machine, name: str) -> list[str]:
    """List what ``ids: null`` means: the first five hundred, and no singleton, written or not."""
    if registry.is_singleton(name):
        return [registry.SINGLETON] if name == "Bootstrap" else []
    return (list(machine.store.tasks) if name == "Task" else machine.store.ids(name))[:MAX_OBJECTS]


def _read(machine: Machine, name: str, key: str) -> Object | None:
    if name == "Bootstrap":
        return machine.bootstrap_defaults() if machine.bootstrapping and key == registry.SINGLETON else None
    if name == "Task":
        return machine.store.tasks.get(key)
    if registry.is_singleton(name) and key == registry.SINGLETON:
        return machine.store.singleton(name)
    return machine.store.get(name, key)


def _shown(machine: Machine, name: str, key: str, value: Object, wanted: Any) -> Object:
    shown = registry.render(name, value)
    for computed in _COMPUTED:
        if computed in shown and (not wanted or computed in wanted):
            shown[computed] = _computed(machine, computed, key, value)
    if name == "Bootstrap":
        shown = {word: item for word, item in shown.items() if word not in ("username", "secret")}
    if shown.get("publicKey", "") is None:  # a key in a file that can't be read
        del shown["publicKey"]
    shown["id"] = key
    return {word: item for word, item in shown.items() if not wanted or word in wanted or word == "id"}


def _computed(machine: Machine, computed: str, key: str, value: Object) -> Any:
    match computed:
        case "dnsZoneFile":
            return dkim.zone(machine.store, key, value, machine.hostname, machine.secret_text)
        case "emailAddress":
            return accounts.email(machine.store, value)
        case "publicKey":
            return dkim.public_key(value, machine.secret_text)
        case _:
            return 0


def _query(machine: Machine, caller: Caller, name: str, arguments: Arguments) -> Arguments:
    _need(caller, f"sys{name}Query")
    if name == "Action":
        raise MethodError("invalidArguments", "Actions cannot be queried")
    if name == app_passwords.KIND:
        return {"queryState": "n", "position": 0, "ids": list(app_passwords.own(_account(machine, caller)))}
    return query(machine.store, name, arguments)


# ----------------------------------------------------------------------------------------------------------------- set
def _set(machine: Machine, caller: Caller, name: str, arguments: Arguments) -> Arguments:
    """Write objects one by one: each has a result of its own, there is no transaction (traps.md 5)."""
    create, update = arguments.get("create") or {}, arguments.get("update") or {}
    destroy = arguments.get("destroy") or []
    if len(create) + len(update) + len(destroy) > MAX_OBJECTS:
        raise _too_large()
    for verb, wanted in (("create", create), ("update", update), ("destroy", destroy)):
        if wanted:
            what = "create, update or destroy objects of this type"
            _need(caller, f"sys{name}{'Update' if registry.is_singleton(name) else _VERBS[verb]}", what)
    writer = (_AppPasswordWriter if name == app_passwords.KIND else _Writer)(machine, caller, name)
    for key, value in create.items():
        writer.run("created", key, lambda key=key, value=value: writer.create(key, value))
    for key, value in update.items():
        if not registry.is_id(key):  # it is passed over in silence
            continue
        writer.run("updated", key, lambda key=key, value=value: writer.update(key, value, destroy))
    for key in filter(registry.is_id, destroy):
        writer.run("destroyed", key, lambda key=key: writer.destroy(key))
    return writer.result()


class _Writer:
    """One ``set``: what came of it so far."""

    def __init__(self, machine: Machine, caller: Caller, name: str) -> None:
        self.machine, self.caller, self.name = machine, caller, name
        self.store = machine.store
        self.done: dict[str, dict[str, Any]] = {"created": {}, "updated": {}, "destroyed": {}}
        self.failed: dict[str, dict[str, Any]] = {"created": {}, "updated": {}, "destroyed": {}}

    def run(self, verb: str, key: str, write: Any) -> None:
        try:
            self.done[verb][key] = write()
        except SetFailure as error:
            self.failed[verb][key] = error.body
        except registry.PatchError as error:
            self.failed[verb][key] = SetFailure("invalidPatch", error.message, error.path).body

    def result(self) -> Arguments:
        """Return the answer: what is empty is left out."""
        found: Arguments = {verb: items for verb, items in self.done.items() if items}
        if "destroyed" in found:
            found["destroyed"] = list(found["destroyed"])
        return found | {f"not{verb.capitalize()}": items for verb, items in self.failed.items() if items}

    def create(self, key: str, value: Any) -> Object:
        """Make an object and return what the server chose."""
        if self.name == "Bootstrap":
            raise SetFailure("forbidden", self._only("Bootstrap objects can only be updated"))
        known = {name: item["id"] for name, item in self.done["created"].items()}
        value = replaced(value, known)
        for missing in references(value):
            raise SetFailure("notFound", f'Id reference "{missing}" not found.')
        new = registry.patch(self.name, registry.new(self.name), [], value, "create")
        if self.name == "Action":
            return self._act(new["@type"])
        if self.name == "Task":
            return {"id": self.store.schedule(new | {"due": self.store.now()}, self.store.clock())}
        if registry.is_singleton(self.name):
            self._write(registry.SINGLETON, self.store.get(self.name, registry.SINGLETON), new)
            return {"id": registry.SINGLETON}
        return {"id": self._write(None, None, new)}

    def _only(self, message: str) -> str:
        return message if self.machine.bootstrapping else "This operation is only allowed bootstrap mode"

    def _act(self, variant: str) -> Object:
        if f"action{variant}" not in self.caller.permissions:
            raise SetFailure("forbidden", f"Insufficient permissions to perform action of type {variant}")
        self.machine.act(variant)
        return {"id": registry.encode_id(int(self.store.clock()))}

    def update(self, key: str, value: Any, destroy: list[str]) -> Object | None:
        """Change an object."""
        if self.name == "Action":
            raise SetFailure("forbidden", "Actions cannot be updated")
        if self.name == "Bootstrap":
            return self._bootstrap(key, value)
        if key in destroy:
            raise SetFailure("willDestroy", "ID will be destroyed.")
        old = self.store.get(self.name, key)
        if old is None:
            if key != registry.SINGLETON or not registry.is_singleton(self.name):
                raise SetFailure("notFound")
            old = registry.new(self.name)
        new = _patched(self.name, old, value)
        if new != old:
            self._write(key, old, new)
        return None

    def _bootstrap(self, key: str, value: Any) -> Object:
        if not self.machine.bootstrapping:
            raise SetFailure("forbidden", self._only(""))
        if key != registry.SINGLETON:
            raise SetFailure("notFound")
        return self.machine.bootstrap(_patched("Bootstrap", self.machine.bootstrap_defaults(), value))

    def destroy(self, key: str) -> None:
        """Remove an object."""
        if registry.is_singleton(self.name):
            raise SetFailure("singleton", "Singletons cannot be created or destroyed.")
        if self.name == "Action":
            raise SetFailure("forbidden", "Actions cannot be destroyed")
        if self.name == "Task":
            if self.store.tasks.pop(key, None) is None:
                raise SetFailure("notFound")
            return
        old = self.store.get(self.name, key)
        if old is None:
            raise SetFailure("notFound")
        self.store.delete(self.name, key)
        self.machine.changed(self.name, key, old, None)

    def _write(self, key: str | None, old: Object | None, new: Object) -> str:
        new = registry.numbered(self.name, new)
        if "createdAt" in new and not new["createdAt"]:
            new["createdAt"] = self.store.now()
        match self.name:
            case "Account":
                accounts.settle(new, old, self.machine.policy)
            case "DkimSignature":
                dkim.check(new, old, self.machine.secret_text)
            case "Domain":
                _check_domain(self.store, key, new)
        if key is None:
            key = self.store.insert(self.name, new)
        else:
            self.store.update(self.name, key, new)
        self.machine.changed(self.name, key, old, new)
        return key


class _AppPasswordWriter(_Writer):
    """One ``set`` of the caller's own app passwords, which are kept in the account."""

    def __init__(self, machine: Machine, caller: Caller, name: str) -> None:
        super().__init__(machine, caller, name)
        self._account = copy.deepcopy(_account(machine, caller))

    def create(self, key: str, value: Any) -> Object:
        most = self.machine.policy["maxAppPasswords"]
        made = app_passwords.create(self._account, value, self.store.now(), most)
        self._keep()
        return made

    def update(self, key: str, value: Any, destroy: list[str]) -> None:
        app_passwords.update(self._account, key, value)
        self._keep()

    def destroy(self, key: str) -> None:
        app_passwords.destroy(self._account, key)
        self._keep()

    def _keep(self) -> None:
        self.store.update("Account", self.caller.id, self._account)


def _patched(name: str, old: Object, value: Any) -> Object:
    """Return an object with a JMAP patch in it; another ``@type`` makes it anew."""
    if not isinstance(value, dict):
        raise SetFailure("invalidPatch", "Invalid value type for object")
    if value.get("@type", old.get("@type")) != old.get("@type"):
        return registry.patch(name, old, [], value, "create")
    new = old
    for pointer, item in value.items():
        if pointer != "@type":
            parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")]
            new = registry.patch(name, new, parts, item, "update")
    return new


def _check_domain(store: Store, key: str | None, domain: Object) -> None:
    """Refuse a name that is another domain's alias, and an alias that is another domain's name."""
    for attribute, other, names in (("name", "aliases", [domain["name"]]), ("aliases", "name", domain["aliases"])):
        for name in names:
            found = store.by_key("Domain", other, name)
            if found is not None and found[0] != key:
                raise SetFailure("primaryKeyViolation", None, attribute, objectId=object_id("Domain", found[0]))
