"""The JMAP envelope of Stalwart 0.16 (RFC 8620, section 3): calls, their limits, and what refers to earlier ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reconciler.simulator.stalwart.problems import JSON, PROBLEM
from reconciler.simulator.wire import Reply

MAX_CALLS = 16
MAX_SIZE = 10_000_000  # bytes
_ID = re.compile(r"[a-z]Ids?")

Arguments = dict[str, Any]
Handle = Callable[[str, Arguments], Arguments]


class MethodError(Exception):
    """A call that fails as a whole: its answer is ``["error", {"type": ..}, ..]``."""

    def __init__(self, kind: str, description: str | None = None) -> None:
        super().__init__(kind)
        self.body = {"type": kind} | ({"description": description} if description else {})


def _refuse(kind: str, detail: str, **more: str) -> Reply:
    body = {"type": f"urn:ietf:params:jmap:error:{kind}", "status": 400, "detail": detail, **more}
    return Reply.of(body, 400, PROBLEM)


def not_json() -> Reply:
    """Refuse a body whose type is not JSON."""
    return _refuse("notJSON", "Failed to parse JSON: The Content-Type header must be application/json.")


def answer(body: bytes, state: str, handle: Handle) -> Reply:
    """Answer a request; ``handle`` gets each method's name and arguments, and raises `MethodError`."""
    if len(body) > MAX_SIZE:
        return _refuse("limit", "The request is larger than the server is willing to process.", limit="maxSizeRequest")
    try:
        request = json.loads(body)
        calls = [(str(name), dict(arguments), str(tag)) for name, arguments, tag in request["methodCalls"]]
        known = {str(key): str(value) for key, value in request.get("createdIds", {}).items()}
        list(request["using"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return _refuse("notRequest", body.decode(errors="replace"))
    if any("ifInState" in arguments for _, arguments, _ in calls):  # observed.md: not known
        return _refuse("notRequest", body.decode(errors="replace"))
    if len(calls) > MAX_CALLS:
        detail = "The request exceeds the maximum number of calls in a single request."
        return _refuse("limit", detail, limit="maxCallsInRequest")
    conversation = Conversation(known)
    responses = [conversation.call(name, arguments, tag, handle) for name, arguments, tag in calls]
    reply: Arguments = {"methodResponses": responses, "sessionState": state}
    if "createdIds" in request:
        reply["createdIds"] = conversation.created
    return Reply.of(reply, content_type=JSON)


class Conversation:
    """What one request made so far: its answers, and the ids behind creation ids."""

    def __init__(self, created: Mapping[str, str]) -> None:
        self.created = dict(created)
        self._answers: list[list[Any]] = []

    def call(self, name: str, arguments: Arguments, tag: str, handle: Handle) -> list[Any]:
        """Run one call and return its answer."""
        try:
            result = handle(name, self._resolved(arguments))
        except MethodError as error:
            found = ["error", error.body, tag]
        else:
            found = [name, result, tag]
            made = result.get("created")  # of changes (RFC 8620, section 5.2) it is a list of ids
            self.created |= (
                {key: item["id"] for key, item in made.items() if "id" in item} if isinstance(made, dict) else {}
            )
        self._answers.append(found)
        return found

    def _resolved(self, arguments: Arguments) -> Arguments:
        found = dict(arguments)
        for key in [key for key in found if key.startswith("#")]:
            found[key[1:]] = self._result(found.pop(key))
        if isinstance(found.get("ids"), list):
            found["ids"] = [self._id(key) if str(key).startswith("#") else key for key in found["ids"]]
        if isinstance(found.get("create"), dict):
            found["create"] = self._in_order(found["create"])
        if isinstance(found.get("update"), dict):
            for value in found["update"].values():
                for missing in set(references(value)) - set(self.created):
                    raise MethodError("invalidResultReference", f'Id reference "{missing}" not found.')
            found["update"] = {key: replaced(value, self.created) for key, value in found["update"].items()}
        return found

    def _id(self, reference: str) -> str:
        if reference[1:] not in self.created:
            message = f'Id reference "{reference[1:]}" does not exist or is invalid.'
            raise MethodError("invalidResultReference", message)
        return self.created[reference[1:]]

    def _in_order(self, create: Mapping[str, Any]) -> dict[str, Any]:
        """Put what is referred to before what refers to it; what no call made fails the whole method."""
        found: dict[str, Any] = {}
        left = {key: set(references(value)) - set(self.created) for key, value in create.items()}
        for key, wanted in left.items():
            for missing in wanted - set(create):
                message = f'Invalid reference to non-existing object "{missing}" from "{key}"'
                raise MethodError("invalidResultReference", message)
        while left:
            ready = [key for key, wanted in left.items() if wanted <= set(found)]
            if not ready:
                raise MethodError("invalidResultReference", "Circular reference in object graph")
            for key in ready:
                del left[key]
                found[key] = replaced(create[key], self.created)
        return found

    def _result(self, reference: Any) -> Any:
        name, tag, path = (str(reference.get(part)) for part in ("name", "resultOf", "path"))
        result = next((item for method, item, call in self._answers if (method, call) == (name, tag)), None)
        if result is None:
            raise MethodError("invalidResultReference", f"Result reference to {tag}#{name} not found.")
        try:
            return _at(result, path.split("/")[1:])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            message = f"Failed to evaluate {path} result reference."
            raise MethodError("invalidResultReference", message) from error


def _at(value: Any, pointer: list[str]) -> Any:
    """Follow a JSON pointer, where ``*`` is every item of a list (RFC 8620, section 3.7)."""
    if not pointer:
        return value
    if pointer[0] == "*":
        found = [_at(item, pointer[1:]) for item in value]
        return [inner for item in found for inner in (item if isinstance(item, list) else [item])]
    return _at(value[int(pointer[0])] if isinstance(value, list) else value[pointer[0]], pointer[1:])


def references(value: Any, key: str = "") -> Iterator[str]:
    """Yield the creation ids that an object names as values of ids.

    Those that are members of a set are known from earlier calls and objects only: nothing waits for them.
    """
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from references(item, inner)
    elif isinstance(value, str) and value.startswith("#") and _ID.search(key):
        yield value[1:]


def replaced(value: Any, known: Mapping[str, str], key: str = "") -> Any:
    """Return an object with the ids behind the creation ids that are known."""
    if isinstance(value, dict):
        return {
            known.get(inner[1:], inner) if inner.startswith("#") else inner: replaced(item, known, inner)
            for inner, item in value.items()
        }
    if isinstance(value, str) and value.startswith("#") and _ID.search(key):
        return known.get(value[1:], value)
    return value
