"""The management API of Stalwart from 0.16: method calls over POST /jmap, and the four levels of its errors.

A request fails as a whole (HTTP), a call does (``error``), an object does (``notCreated`` and its like), or an object
is named in no answer at all, which is a failure too (jmap-0.16.md, section 0).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from reconciler.desired.objects import TYPE
from reconciler.http import Answer, short
from reconciler.problem import TargetUnreadable
from reconciler.targets.stalwart.connection import AnswerLost, Connection, NotFound
from reconciler.targets.stalwart.release import JMAP, Release
from reconciler.targets.stalwart.schema import is_understood, key_properties

CALLS = 16  # calls of one request (maxCallsInRequest)
OBJECTS = 500  # objects of one call (maxObjectsInGet, maxObjectsInSet)
_PAGE = 5000  # ids of one query
_MOST, _READING = 1_000_000, 600.0  # objects, and seconds, of one reading
_USING = ("urn:ietf:params:jmap:core", "urn:stalwart:jmap")
_SINGLETON = "singleton"

_STRANGE = "check the url: a proxy, or another version than 0.16?"
LIMITS = f"give x:Jmap its default limits: {CALLS} calls in a request, {OBJECTS} objects in a get or set"
_RIGHTS = (
    "give the account the role admin, or the API key the rights sys<Object>Get, -Query, -Create, -Update and -Destroy "
    "for the objects it keeps, and those for actions"
)

Registry = Mapping[str, Sequence[Mapping[str, Any]]]
"""What was read: the raw objects by the name of their kind; of a singleton there is one."""


class Rejected(Exception):
    """The server understood a request and declined it as a whole. No text of it holds a secret.

    ``error`` is the server's word, such as ``limit`` or ``forbidden``.
    """

    def __init__(self, summary: str, error: str = "", hint: str = "") -> None:
        super().__init__(summary)
        self.summary, self.error, self.hint = summary, error, hint


class UnknownObject(TargetUnreadable):
    """Objects that we read are not there, or not as we know them: perhaps another release than was thought answers."""


class Bootstrapping(Rejected):
    """The server is in bootstrap mode: it has no ``config.json``, serves no mail and knows only ``x:Bootstrap``."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one object was not written, or one call not carried out. Its own texts may be the server's: see `words`.

    ``object`` is kind and id of what stands in the way, ``linked`` of what refers to it, ``validation`` the errors of
    single properties.
    """

    type: str
    description: str = ""
    properties: tuple[str, ...] = ()
    object: tuple[str, str] | None = None
    linked: tuple[tuple[str, str], ...] = ()
    validation: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, error: Any) -> Failure:
        """Read a SetError or the arguments of a method error."""
        if not isinstance(error, Mapping):
            return UNANSWERED
        return cls(
            type=str(error.get("type") or "unknown"),
            description=str(error.get("description") or ""),
            properties=tuple(map(str, _list(error.get("properties")))),
            object=_identity(error.get("objectId")),
            linked=tuple(it for item in _list(error.get("linkedObjects")) if (it := _identity(item))),
            validation=tuple(it for it in _list(error.get("validationErrors")) if isinstance(it, Mapping)),
        )

    def words(self) -> str:
        """Put it into words for people; what might quote a secret is left out."""
        about = f" of {', '.join(self.properties)}" if self.properties else ""
        match self.type:
            case "primaryKeyViolation":
                return f"the server has another object with this {', '.join(self.properties) or 'name'}"
            case "objectIsLinked":
                return f"other objects refer to it: {_listed(self.linked)}"
            case "unsupported":
                return f"it was not sent: this release {self.description}"
            case "notFound" | "unanswered" | "invalidResultReference":
                return _PLAIN[self.type]
        said = [text for text in (public(self.description), *map(_invalid, self.validation)) if text]
        where = f" (in {self.object[0]})" if self.object else ""
        return f"the server answers {public(self.type)}{about}{where}" + (f": {'; '.join(said)}" if said else "")


_PLAIN = {
    "notFound": "the server does not have it any more",
    "unanswered": "the server did not say whether it did this",
    "invalidResultReference": "what it refers to was not made",
}

UNSUPPORTED = "unsupported"
"""The error, none of the server's, of what this release does not have: it was not sent."""

UNANSWERED = Failure("unanswered")
"""The fourth level: named among neither the successes nor the failures."""


@dataclass(frozen=True, slots=True)
class Response:
    """What one call was answered."""

    method: str
    arguments: Mapping[str, Any]
    error: Failure | None = None

    @property
    def unknown(self) -> bool:
        """Whether the server does not know something that was written."""
        if self.error is not None:
            return self.error.type == "unknownMethod"
        failures = (it for level in ("notCreated", "notUpdated") for it in (self.arguments.get(level) or {}).values())
        return any(isinstance(item, Mapping) and item.get("type") == "invalidPatch" for item in failures)

    def created(self, creation: str) -> Mapping[str, Any] | None:
        """Return what the server chose for an object that was created, its ``id`` above all; None where it was not."""
        found = (self.arguments.get("created") or {}).get(creation)
        return found if isinstance(found, Mapping) else None

    def updated(self, id: str) -> Mapping[str, Any]:
        """Return what the server set of itself while it updated an object; mostly nothing."""
        found = (self.arguments.get("updated") or {}).get(id)
        return found if isinstance(found, Mapping) else {}

    def failure(self, id: str) -> Failure | None:
        """Say why an object, by its creation id or id, was not created, updated or destroyed; None if it was."""
        if self.error is not None:
            return self.error
        for level in ("notCreated", "notUpdated", "notDestroyed"):
            if id in (errors := self.arguments.get(level) or {}):
                return Failure.of(errors[id])
        done = any(id in (self.arguments.get(level) or ()) for level in ("created", "updated", "destroyed"))
        return None if done else UNANSWERED


@dataclass(frozen=True, slots=True)
class Selection:
    """What of one kind of object to read: of ``Account`` which properties (all where none are named).

    Of what every server has a ``few`` of, the number is not asked for ahead: one get brings all.
    """

    name: str
    singleton: bool = False
    properties: tuple[str, ...] = ()
    few: bool = False


def merged(kinds: Iterable[Selection]) -> list[Selection]:
    """Make one of several that name the same object: to be read with the properties of each."""
    found: dict[str, Selection] = {}
    for kind in kinds:
        other = found.get(kind.name, kind)
        properties = tuple(dict.fromkeys((*other.properties, *kind.properties)))
        found[kind.name] = replace(kind, properties=properties)
    return list(found.values())


class JmapApi:
    """The calls we need. All raise `TargetUnreadable` (nobody to talk to) or `Rejected` (declined as a whole)."""

    def __init__(self, connection: Connection, release: Release = JMAP) -> None:
        """Ask through a connection; ``release`` says what the server calls what we name as 0.16.18 does.

        ``unread`` names the objects that it does not have, or not as we take them; ``state`` is the session's, which
        is another one after each start of the server. ``surprised`` says that something was refused as unknown.
        """
        self.connection, self.release = connection, release
        self.unread: set[str] = set()
        self.state, self.surprised = "", False

    def call(self, *calls: tuple[str, Mapping[str, Any]]) -> list[Response]:
        """Send calls such as ``("x:Domain/get", {"ids": ["b"]})`` in one request; one response each, in their order.

        Raises `Bootstrapping` when the server is in bootstrap mode and a call was about anything else, `NotFound`
        when it is no server of this generation.
        """
        for name, args in calls:
            self._check(name, args)
        spelled = [[*self._spelled(name, args), str(n)] for n, (name, args) in enumerate(calls)]
        body = {"using": list(_USING), "methodCalls": spelled}
        reads = not any(name.endswith("/set") for name, _ in calls)
        answer = self.connection.send("POST", "/jmap", body=body, reads=reads)
        found = self._responses(answer)
        responses = [
            self._ours(name, found.get(str(number), Response(name, {}, UNANSWERED)))
            for number, (name, _) in enumerate(calls)
        ]
        for response in responses:
            self.surprised |= response.unknown
            if response.error and response.error.type == "forbidden" and "bootstrap" in response.error.description:
                raise Bootstrapping(
                    "is in bootstrap mode: it has no config.json and serves no mail",
                    "bootstrap",
                    "bootstrap it, or restore /etc/stalwart/config.json where its data is still there",
                )
        return responses

    def _check(self, method: str, arguments: Mapping[str, Any]) -> None:
        """See that nothing is sent that this release does not have. Raises `Rejected`."""
        name, _, verb = method.removeprefix("x:").partition("/")
        for part in ("create", "update") if verb == "set" else ():
            for body in (arguments.get(part) or {}).values():
                if why := self.objection(name, part, body):
                    raise Rejected(why, UNSUPPORTED, "stay with a release that is known")

    def objection(self, name: str, verb: str, body: Mapping[str, Any]) -> str:
        """Say why this release does not take an object that would be created, updated or destroyed; "" where it does.

        What is known to work is not looked at.
        """
        if self.release.schema is None:
            return ""
        return "; ".join(map(str, self.release.schema.objections(name, verb, body)))

    def _spelled(self, method: str, arguments: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        """Put a call into the words of this release."""
        kind, _, verb = method.removeprefix("x:").partition("/")
        said, spell = dict(arguments), partial(self.release.property, kind)
        if (schema := self.release.schema) is not None and verb == "set":
            for part in {"create", "update"} & said.keys():
                said[part] = {key: schema.spelled(kind, body) for key, body in said[part].items()}
        if kind in self.release.properties:
            if "properties" in said:
                said["properties"] = list(map(spell, said["properties"]))
            for part in {"create", "update"} & said.keys():
                said[part] = {key: {spell(name): it for name, it in body.items()} for key, body in said[part].items()}
        return f"x:{self.release.object(kind)}/{verb}", said

    def _ours(self, method: str, response: Response) -> Response:
        """Put what was read into our words."""
        kind = method.removeprefix("x:").partition("/")[0]
        if kind not in self.release.properties or "list" not in response.arguments:
            return response
        listed = [self.release.ours(kind, item) for item in response.arguments["list"]]
        return replace(response, arguments={**response.arguments, "list": listed})

    def _responses(self, answer: Answer) -> dict[str, Response]:
        if answer.status != 200:  # noqa: PLR2004 (HTTP)
            raise self._refusal(answer)
        body = answer.json()
        self.state = str(body.get("sessionState") or "") if isinstance(body, dict) else ""
        listed = body.get("methodResponses") if isinstance(body, dict) else None
        if not isinstance(listed, list) or not all(_is_response(item) for item in listed):
            kind = answer.content_type.partition(";")[0] or "nothing"
            raise AnswerLost(  # a proxy's page in place of the answer: what was asked may have been done
                self.connection.problem(f"answers {kind} that can't be understood where JMAP belongs", _STRANGE)
            )
        return {
            str(tag): Response(name, arguments, Failure.of(arguments) if name == "error" else None)
            for name, arguments, tag in listed
        }

    def _refusal(self, answer: Answer) -> Exception:
        """Put a refused request into words. Its ``detail`` is never shown: it may be the whole request."""
        word = answer.word("type").rpartition(":")[2]
        if answer.status == 404 or (answer.status == 400 and "Unknown capability" in answer.word("detail")):  # noqa: PLR2004
            return NotFound(self.connection.problem("has no management over JMAP", "check the url and the generation"))
        if answer.status == 403:  # noqa: PLR2004 (HTTP)
            who = self.connection.login.username
            return TargetUnreadable(self.connection.problem(f"does not let {who} in", _RIGHTS))
        if word == "limit":
            return Rejected(f"takes no request over its limit {public(answer.word('limit'))}", word, LIMITS)
        named = f" ({word})" if word and word.isalpha() else ""
        return Rejected(f"answers {answer.status}{named} to a JMAP request", word, "look at the server's log")

    def unreadable(self, error: Rejected) -> TargetUnreadable:
        """Say that nothing can be read, as a request was declined as a whole."""
        return TargetUnreadable(self.connection.problem(error.summary, error.hint or "look at the server's log"))

    # --------------------------------------------------------------------------------------------------------- reading
    def read(self, kinds: Iterable[Selection], *, lenient: bool = False) -> dict[str, list[dict[str, Any]]]:
        """Read all objects of some kinds whole, or not at all: a listing cut short raises `TargetUnreadable`.

        ``lenient`` leaves out kinds that the server does not know, or does not let us read, and spares no request:
        a server may be set to stop sooner.

        One request where they fit, mostly two for large servers. A get without ids is one call for a kind, but stops
        at 500 without a word; the ids that a query tells show what is missing.
        """
        listings = {kind.name: _Listing(kind) for kind in self._readable(kinds)}
        lists = [item for item in listings.values() if not item.kind.singleton]
        ahead = [item for item in lists if not item.kind.few]
        due: deque[_Call] = deque(item.get() for item in listings.values())
        spare = 2 * CALLS - len(due) if len(due) + len(ahead) > CALLS else CALLS - len(due)
        due.extend(item.query(0) for item in ahead[: len(ahead) if lenient else max(spare, 0)])
        until = time.monotonic() + _READING
        while due:
            if time.monotonic() > until or sum(len(item.ids) for item in lists) > _MOST:
                raise TargetUnreadable(self.connection.problem("lists its objects without end", _STRANGE))
            batch = [due.popleft() for _ in range(min(CALLS, len(due)))]
            responses = self.call(*((call.method, call.arguments) for call in batch))
            for call, response in zip(batch, responses, strict=True):
                if response.error is None:
                    call.listing.take(call, response)
                elif lenient and response.error.type in ("forbidden", "unknownMethod"):
                    listings.pop(call.listing.kind.name, None)
                else:
                    unknown = response.error.type == "unknownMethod"
                    raise (UnknownObject if unknown else TargetUnreadable)(self._unreadable(call, response.error))
            asked = {id(call.listing) for call in due}
            for item in listings.values():
                due.extend(item.missing() if id(item) not in asked else ())
        for item in listings.values():
            self._whole(item)
        found = {name: list(item.found.values()) for name, item in listings.items()}
        schema = self.release.schema
        understood = is_understood if schema is None else schema.is_understood
        for name in (name for name, items in found.items() if not all(understood(name, item) for item in items)):
            summary = f"answers {name} objects that can't be understood"
            raise UnknownObject(self.connection.problem(summary, _STRANGE))
        if schema is not None:
            return {name: [schema.seen(name, item) for item in items] for name, items in found.items()}
        return found

    def lacks(self, kinds: Iterable[Selection]) -> frozenset[str]:
        """Name what can't be read of some kinds: this release does not have them, or their keys, as they are known."""
        schema = self.release.schema
        if schema is None:
            return frozenset()

        def has(kind: Selection) -> bool:
            keys = (key for key in key_properties(kind.name) if key != TYPE or kind.properties)
            return schema.knows(kind.name) and all(schema.readable(kind.name, key) for key in keys)

        return frozenset(kind.name for kind in kinds if not has(kind))

    def _readable(self, kinds: Iterable[Selection]) -> Iterator[Selection]:
        """Yield what this release has of what we read, and what its singletons must say."""
        schema, kinds = self.release.schema, tuple(kinds)
        self.unread |= self.lacks(kinds)
        for kind in (kind for kind in kinds if kind.name not in self.unread):
            if schema is not None and kind.properties:
                found = [key for key in kind.properties if key == TYPE or schema.readable(kind.name, key)]
                found += schema.required(kind.name) if kind.singleton else ()
                yield replace(kind, properties=tuple(dict.fromkeys(found)) or ("id",))
            else:
                yield kind

    def _whole(self, listing: _Listing) -> None:
        if listing.lacking or len(listing.ids) < listing.total:
            total = max(listing.total, len(listing.ids))
            seen = len(listing.ids) - len(listing.lacking)
            summary = f"lists {seen} of {total} {listing.kind.name} objects"
            hint = "try again; nothing was compared or changed"
            raise TargetUnreadable(self.connection.problem(summary, hint))

    def _unreadable(self, call: _Call, error: Failure) -> Any:
        name = call.listing.kind.name
        if error.type == "forbidden":
            who = self.connection.login.username
            return self.connection.problem(f"does not let {who} read {name} objects", _RIGHTS)
        if error.type == "unknownMethod":
            return self.connection.problem(
                f"knows no {name} objects", f"another version than {self.release.name} may name them so"
            )
        hint = LIMITS if error.type == "requestTooLarge" else "look at the server's log"
        return self.connection.problem(f"does not list {name} objects: {error.words()}", hint)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a reading, and what it asks for: ``ids`` of a get, or the position of a query."""

    listing: _Listing
    method: str
    arguments: Mapping[str, Any]


@dataclass(slots=True)
class _Listing:
    """What is known of one kind while it is read."""

    kind: Selection
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    ids: dict[str, None] = field(default_factory=dict)  # in the server's order, each once
    total: int = 0
    queried: bool = False
    stuck: bool = False  # the last query told nothing new
    gone: set[str] = field(default_factory=set)
    sliced: set[str] = field(default_factory=set)

    def get(self, ids: Sequence[str] | None = None) -> _Call:
        """Ask for objects; for all, as far as the server's limit, without ids."""
        wanted = [_SINGLETON] if self.kind.singleton else ids
        arguments: dict[str, Any] = {"ids": wanted}
        if self.kind.properties:
            arguments["properties"] = list(self.kind.properties)
        return _Call(self, f"x:{self.kind.name}/get", arguments)

    def query(self, position: int) -> _Call:
        """Ask for ids."""
        self.queried = True
        arguments = {"position": position, "limit": _PAGE, "calculateTotal": True}
        return _Call(self, f"x:{self.kind.name}/query", arguments)

    def take(self, call: _Call, response: Response) -> None:
        """Keep what was answered."""
        if call.method.endswith("/query"):
            before = len(self.ids)
            self.ids |= dict.fromkeys(response.arguments.get("ids") or ())
            total = response.arguments.get("total")
            self.total = len(self.ids) if total is None else total
            self.stuck = len(self.ids) == before
            return
        self.gone |= set(response.arguments.get("notFound") or ())
        self.found |= {item["id"]: item for item in response.arguments.get("list") or ()}

    @property
    def lacking(self) -> list[str]:
        """The ids that a query told and no get brought, but for those that have gone meanwhile."""
        return [key for key in self.ids if key not in self.found and key not in self.gone]

    def missing(self) -> Iterator[_Call]:
        """Yield the calls that are still needed."""
        if self.kind.singleton:
            return
        if not self.queried and len(self.found) >= OBJECTS:
            yield self.query(0)
        elif len(self.ids) < self.total and not self.stuck:
            yield self.query(len(self.ids))
        lacking = [key for key in self.lacking if key not in self.sliced]
        self.sliced |= set(lacking)
        yield from (self.get(lacking[start : start + OBJECTS]) for start in range(0, len(lacking), OBJECTS))


def public(text: str) -> str:
    """Let only such words of the server through that can't quote a secret of ours."""
    if "PRIVATE KEY" in text or "$" in text or "{" in text or "****" in text:
        return "(not shown: it may quote a secret)"
    return short(" ".join(text.split()), 300)


def _is_response(item: Any) -> bool:
    """Whether something is a response to a call: name, answer and tag, with the answer's own parts of their kinds."""
    if not isinstance(item, list) or len(item) != 3 or not isinstance(item[1], dict):  # noqa: PLR2004 (see above)
        return False
    parts = ((_PARTS[key], value) for key, value in item[1].items() if key in _PARTS and value is not None)
    return all(is_right(value) for is_right, value in parts)


def _is_list(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _is_map(kind: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(isinstance(item, kind) for item in value.values())


_PARTS: Mapping[str, Callable[[Any], bool]] = {
    "list": lambda value: _is_list(dict)(value) and all(isinstance(item.get("id"), str) for item in value),
    **dict.fromkeys(("ids", "notFound", "destroyed"), _is_list(str)),
    **dict.fromkeys(("created", "updated"), _is_map(dict | None)),
    **dict.fromkeys(("notCreated", "notUpdated", "notDestroyed"), _is_map(dict)),
    "total": lambda value: type(value) is int,
}
"""What the parts of an answer to ``/get``, ``/query`` and ``/set`` look like (RFC 8620, sections 5.1, 5.3 and 5.5)."""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _identity(value: Any) -> tuple[str, str] | None:
    return (str(value.get("object")), str(value.get("id"))) if isinstance(value, Mapping) else None


def _listed(objects: Iterable[tuple[str, str]]) -> str:
    """Count objects by kind: ``3 of Account, SystemSettings``."""
    kinds = [kind for kind, _ in objects]
    return ", ".join(
        kind if kinds.count(kind) == 1 else f"{kinds.count(kind)} of {kind}" for kind in dict.fromkeys(kinds)
    )


def _invalid(error: Mapping[str, Any]) -> str:
    """Name one property's error: ``defaultDomainId: Required``."""
    name, kind = error.get("property"), error.get("type")
    required = error.get("required")
    return public(f"{name}: {kind}" + (f" {required}" if required is not None else ""))
