"""What a Stalwart 0.16 server keeps in its data store: typed objects with ids, unique keys and references."""

from __future__ import annotations

import datetime as dt
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reconciler.simulator.stalwart.jmap import registry

Object = dict[str, Any]

# Types whose ids are counted; the ids of all others hold the time they were made at.
_COUNTED = ("Account", "Domain", "MailingList", "Role")
_EPOCH = 1632280000  # seconds; where the clock of ids starts

_NAMED = ("MtaConnectionStrategy", "MtaDeliverySchedule", "MtaRoute", "MtaTlsStrategy", "MtaVirtualQueue")
_UNIQUE: dict[str, tuple[str, ...]] = dict.fromkeys((*_NAMED, "NetworkListener"), ("name",))
_UNIQUE |= {"AllowedIp": ("address",), "BlockedIp": ("address",), "Domain": ("name", "aliases")}
_UNIQUE |= {"SpamTag": ("tag",), "SpamFileExtension": ("extension",)}

_FILTERS = {
    "Account": ("text", "@type", "domainId", "memberGroupIds", "memberTenantId", "name"),
    "AllowedIp": ("address",),
    "BlockedIp": ("address",),
    "DkimSignature": ("domainId", "memberTenantId"),
    "Domain": ("text", "aliases", "memberTenantId", "name"),
    "MailingList": ("text", "memberTenantId"),
    "Role": ("description", "memberTenantId"),
    **dict.fromkeys((*_NAMED, "NetworkListener"), ("name",)),
}
_TEXT = ("name", "description", "aliases", "recipients")  # what `text` looks into


class SetFailure(Exception):
    """One object's error inside a ``set``: its body is a SetError (RFC 8620, section 5.3)."""

    def __init__(self, kind: str, description: str | None = None, *properties: str, **more: Any) -> None:
        super().__init__(kind)
        self.body: Object = {"type": kind, **more}
        if description is not None:
            self.body["description"] = description
        if properties:
            self.body["properties"] = list(properties)


def object_id(name: str, key: str) -> dict[str, str]:
    """Name an object as errors do."""
    return {"object": name, "id": key}


class Store:
    """Objects by type and id. ``initialized`` is true once a server has started on it in normal mode."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.initialized = False
        self.objects: dict[str, dict[str, Object]] = {}
        self.tasks: dict[str, Object] = {}
        self._counters: Counter[str] = Counter()
        self._unique: dict[tuple[str, ...], tuple[str, str]] = {}
        self._links: dict[tuple[str, str], set[tuple[str, str]]] = {}  # what refers to an object

    # ------------------------------------------------------------------------------------------------------ reading
    def get(self, name: str, key: str) -> Object | None:
        """Return an object as it is kept, or nothing."""
        return self.objects.get(name, {}).get(key)

    def singleton(self, name: str) -> Object:
        """Return the one object of a type, with its defaults when nobody wrote it."""
        return self.get(name, registry.SINGLETON) or registry.new(name)

    def ids(self, name: str) -> list[str]:
        """List the ids of a type, oldest first."""
        return sorted(self.objects.get(name, {}), key=registry.decode_id)

    def all(self, name: str) -> list[tuple[str, Object]]:
        """List ids and objects of a type, oldest first."""
        return [(key, self.objects[name][key]) for key in self.ids(name)]

    def by_key(self, name: str, attribute: str, value: str) -> tuple[str, Object] | None:
        """Find an object by a unique property."""
        found = self._unique.get((name, attribute, value))
        return None if found is None else (found[1], self.objects[found[0]][found[1]])

    def by_email(self, local: str, domain_id: str) -> tuple[str, str] | None:
        """Find what an address belongs to: the type, Account or MailingList, and the id."""
        return self._unique.get(("", "email", local, domain_id))

    def check_filter(self, name: str, wanted: Mapping[str, Any]) -> None:
        """Raise `KeyError` with the property that a filter can't ask for."""
        for attribute, word in wanted.items():
            if attribute not in _FILTERS.get(name, ()) or not isinstance(word, str):
                raise KeyError(attribute)

    def matches(self, name: str, value: Object, wanted: Mapping[str, Any]) -> bool:
        """Say whether an object passes a filter that was checked."""
        return all(_passes(name, value, attribute, word) for attribute, word in wanted.items())

    # ------------------------------------------------------------------------------------------------------ writing
    def insert(self, name: str, value: Object, key: str | None = None) -> str:
        """Store a new object and return its id. Raises `SetFailure`."""
        self._check(name, key, value, set())
        if key is None:
            key = registry.SINGLETON if registry.is_singleton(name) else self._new_id(name)
        self._put(name, key, registry.copied(value))
        return key

    def update(self, name: str, key: str, value: Object) -> None:
        """Replace an object. Raises `SetFailure`."""
        old = self.get(name, key)
        if old is None:
            self.insert(name, value, key)
            return
        self._check(name, key, value, set(registry.references(name, old)))
        self._take(name, key)
        self._put(name, key, registry.copied(value))

    def _put(self, name: str, key: str, value: Object) -> None:
        self.objects.setdefault(name, {})[key] = value
        self._unique |= dict.fromkeys(_keys(name, value), (name, key))
        for of, _, target in registry.references(name, value):
            self._links.setdefault((of, target), set()).add((name, key))

    def _take(self, name: str, key: str) -> None:
        value = self.objects[name].pop(key)
        for word in _keys(name, value):
            self._unique.pop(word, None)
        for of, _, target in registry.references(name, value):
            self._links[of, target].discard((name, key))

    def delete(self, name: str, key: str) -> None:
        """Remove an object. Raises `SetFailure` while others refer to it."""
        if links := self._links.get((name, key)):
            ordered = sorted(links, key=lambda link: (link[0], registry.decode_id(link[1])))
            linked = [object_id(*link) for link in ordered]
            raise SetFailure("objectIsLinked", objectId=object_id(name, key), linkedObjects=linked)
        self._take(name, key)

    def _check(self, name: str, key: str | None, value: Object, known: set[tuple[str, str, str]]) -> None:
        if errors := registry.validate(name, value):
            raise SetFailure("validationFailed", validationErrors=errors)
        for of, variant, target in registry.references(name, value):
            found = self.get(of, target)
            if (of, variant, target) not in known and (
                found is None or (variant and found["@type"] != variant) or (of, target) == (name, key)
            ):
                raise SetFailure("invalidForeignKey", objectId=object_id(of, target))
        for word in _keys(name, value):
            other = self._unique.get(word)
            if other is not None and other != (name, key):
                raise SetFailure("primaryKeyViolation", None, word[1], objectId=object_id(*other))

    def _new_id(self, name: str) -> str:
        if name in _COUNTED:
            self._counters[name] += 1
            return registry.encode_id(self._counters[name])
        self._counters[""] += 1
        elapsed = int((self.clock() - _EPOCH) * 1000)
        return registry.encode_id(elapsed << 21 | (self._counters[""] & 0xFFF) << 9)

    def schedule(self, task: Object, due: float) -> str:
        """Put off a task until a time and return its id; tasks keep nothing they refer to from being removed."""
        key = self._new_id("Task")
        status = {"@type": "Pending", "createdAt": self.now(), "due": _moment(due)}
        self.tasks[key] = task | {"due": _moment(due), "status": status, "at": due}
        return key

    def now(self) -> str:
        """Return the time as objects hold it."""
        return _moment(self.clock())

    # ---------------------------------------------------------------------------------------------------- as a whole
    def dump(self) -> Object:
        """Return everything as JSON."""
        return {
            "initialized": self.initialized,
            "objects": registry.copied(self.objects),
            "tasks": registry.copied(self.tasks),
            "counters": dict(self._counters),
        }

    @classmethod
    def load(cls, clock: Callable[[], float], state: Mapping[str, Any]) -> Store:
        """Go on from what `dump` returned."""
        store = cls(clock)
        store.initialized = state["initialized"]
        store.tasks = registry.copied(state["tasks"])
        store._counters = Counter(state["counters"])
        for name, values in state["objects"].items():
            for key, value in values.items():
                store._put(name, key, registry.copied(value))
        return store


def _moment(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _keys(name: str, value: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield what may be there once: by type and property, addresses over accounts and lists."""
    if name in ("Account", "MailingList"):
        yield "", "email", value["name"], value["domainId"]
        for alias in value["aliases"].values():
            yield "", "email", alias["name"], alias["domainId"]
    for attribute in _UNIQUE.get(name, ()):
        found = value.get(attribute)
        if isinstance(found, dict):
            yield from ((name, attribute, member) for member in found)
        elif found is not None:
            yield name, attribute, found


def _passes(name: str, value: Object, attribute: str, word: str) -> bool:
    if attribute == "text":
        words = {part for key in _TEXT for part in _words(value.get(key))}
        return set(_words(word)) <= words
    if name == "Role":
        return set(_words(word)) <= set(_words(value.get(attribute)))
    found = value.get(attribute)
    return word in found if isinstance(found, dict) else found == word


def _words(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [part for key, item in value.items() for part in _words(item if isinstance(item, dict) else key)]
    return re.findall(r"[^\W_]+", value.lower()) if isinstance(value, str) else []


# -------------------------------------------------------------------------------------------------- a first start
_LISTENERS = (
    *(("smtp", "smtp", 25, False), ("submissions", "smtp", 465, True), ("imaps", "imap", 993, True)),
    *(("pop3s", "pop3", 995, True), ("sieve", "manageSieve", 4190, False), ("https", "http", 443, True)),
    ("http", "http", 8080, False),
)


_First = tuple[str, str | None, Object]  # a type, a variant of it, and what differs from its defaults


def _with(of: str, variant: str | None = None, /, **values: Any) -> _First:
    return of, variant, values


def _made_of(of: str, variant: str | None, values: Object) -> tuple[str, Object]:
    return of, registry.of_old(of, registry.new(of, variant)) | values


def first_objects(roles: Mapping[str, frozenset[str]], is_empty: Callable[[str], bool]) -> Iterator[tuple[str, Object]]:
    """Yield what a normal start puts into a store, or most of it, for each type that is empty (traps.md 33)."""
    yield from (_made_of(*item) for item in _first(roles) if is_empty(item[0]))


def _first(roles: Mapping[str, frozenset[str]]) -> Iterator[_First]:
    for description, keys, rate in (
        ("Sender IP throttle", ("remoteIp",), (5, 1000)),
        ("Sender address to recipient throttle", ("rcpt", "senderDomain"), (25, 3600000)),
    ):
        value = {"count": rate[0], "period": rate[1]}
        key = dict.fromkeys(keys, True)
        yield _with("MtaInboundThrottle", description=description, enable=True, key=key, rate=value)
    for name, what, threads in (
        ("local", "Local", 25),
        ("remote", "Remote", 50),
        ("dsn", "Delivery Status Notification", 5),
        ("report", "DMARC and TLS report", 5),
    ):
        yield _with("MtaVirtualQueue", name=name, description=f"{what} delivery queue", threadsPerNode=threads)
    yield _with(
        "MtaTlsStrategy", name="invalid-tls", description="Allow invalid TLS certificates", allowInvalidCerts=True
    )
    yield _with("MtaTlsStrategy", name="default", description="Default TLS settings", allowInvalidCerts=False)
    yield _with("MtaRoute", "Mx", name="mx", description="MX delivery route", maxMultihomed=2, maxMxHosts=2)
    yield _with("MtaRoute", "Local", name="local", description="Local delivery route")
    yield _with("MtaConnectionStrategy", name="default", description="Default connection strategy")
    for description, permissions in roles.items():
        yield _with("Role", description=description, enabledPermissions=dict.fromkeys(sorted(permissions), True))
    for name, protocol, port, tls in _LISTENERS:
        bind = {f"[::]:{port}": True}
        yield _with("NetworkListener", name=name, protocol=protocol, bind=bind, tlsImplicit=tls)
    yield _with("Tracer", "Log", path="/var/log/stalwart", prefix="stalwart.log", ansi=False)
    yield _with(
        "Application",
        description="Stalwart Web Interface",
        resourceUrl="https://github.com/stalwartlabs/webui/releases/latest/download/webui.zip",
        urlPrefix={"/admin": True, "/account": True},
        autoUpdateFrequency=2592000000,
    )
    yield _with("OidcProvider", signatureAlgorithm="es256", encryptionKey=_made("Value"), signatureKey=_made("Text"))
    yield _with("Jmap", webPushKey=_made("Text"))


def first_schedules(queues: Mapping[str, str]) -> Iterator[tuple[str, Object]]:
    """Yield the delivery schedules of a normal start; ``queues`` are the ids of virtual queues by name."""
    minutes = {"0": 15, "1": 30, "2": 60, "3": 120}
    retry = {"@type": "Custom", "intervals": {key: {"duration": 60_000 * item} for key, item in minutes.items()}}
    for name, what, more in (
        ("local", "Local", {}),
        ("remote", "Remote", {}),
        ("dsn", "Delivery Status Notification", {"expiry": {"@type": "Attempts", "maxAttempts": 10}, "retry": retry}),
    ):
        values: Object = {"description": f"{what} delivery schedule", "queueId": queues[name], **more}
        yield _made_of(*_with("MtaDeliverySchedule", name=name, **values))


def _made(kind: str) -> Object:
    """Return a secret as the server makes one for itself."""
    return {"@type": kind, "secret": secrets.token_urlsafe(32)}
