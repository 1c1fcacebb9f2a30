"""HTTP for all that we ask: answers within bounds of size and time, and what became of a request that got none.

Redirects are never followed: they would carry a password or a token along. No error quotes a request.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import httpx

_E = TypeVar("_E", bound=BaseException)


class Unanswered(Exception):
    """No answer came. Its text is the cause; ``__cause__`` is the client's own error, where there is one."""


class Unsent(Unanswered):
    """There was no connection: nothing can have happened, and the request may be repeated."""


class Lost(Unanswered):
    """The request was sent, and its answer never came: it may have been carried out or not."""


class Endless(Lost):
    """The answer is larger, or takes longer, than any that is meant well."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one answer may cost: ``largest`` in bytes as they are read, ``seconds`` for its body, None without end."""

    largest: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered. The names of ``headers`` are in lower case."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str]

    def json(self) -> Any:
        """Parse the body; None when it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def word(self, name: str) -> str:
        """Return a text of a problem document (RFC 9457), empty where there is none."""
        body = self.json()
        return str(body.get(name) or "") if isinstance(body, dict) else ""


def exchange(client: httpx.Client, bounds: Bounds, method: str, url: str, **request: Any) -> Answer:
    """Send one request once and read its answer, whatever its status. Raises `Unsent` and `Lost`."""
    import httpx

    try:
        with client.stream(method, url, follow_redirects=False, **request) as response:
            content = body(response, bounds)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise unanswered(error) from error
    headers = dict(response.headers)
    return Answer(response.status_code, content, headers.get("content-type", ""), headers)


def body(response: httpx.Response, bounds: Bounds) -> bytes:
    """Read an answer to its end, within bounds, and close it: a server that drips would hold us for ever.

    Raises `Endless`, and the client's own errors.
    """
    content = bytearray()
    deadline = time.monotonic() + (bounds.seconds or float("inf"))
    announced = response.headers.get("content-length", "")
    try:
        if announced.isdecimal() and int(announced) > bounds.largest:
            raise Endless("the answer is too large")
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > bounds.largest or time.monotonic() > deadline:
                raise Endless("the answer does not end")
    finally:
        response.close()
    return bytes(content)


def unanswered(error: BaseException) -> Unanswered:
    """Tell a connection that was never made from an answer that never came, by the error of httpx."""
    import httpx

    never = httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.UnsupportedProtocol
    kind = Unsent if isinstance(error, never) else Lost
    return kind(str(error) or type(error).__name__)


def timed_out(error: Unanswered) -> bool:
    """Whether the other side took longer than the client's own bounds."""
    import httpx

    return isinstance(error.__cause__, httpx.TimeoutException)


def cause(error: BaseException, kind: type[_E]) -> _E | None:
    """Find an error of a kind among the causes of another one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, kind):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def retry_after(headers: Mapping[str, str], *others: str) -> float | None:
    """Return the seconds that a refusal asks to wait (RFC 9110 section 10.2.3: a number or a date), None without any.

    ``others`` are headers in which a vendor says it where ``Retry-After`` does not stand.
    """
    text = next((headers[name] for name in ("retry-after", *others) if headers.get(name)), "")
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text, re.ASCII):
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
