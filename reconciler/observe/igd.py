"""A conversation with a router: its description, and actions of its services (UPnP Device Architecture 1.1, TR-064).

Nothing that it says leads elsewhere or costs more than the bounds of the client; an answer is XML without a document
type, without which there are no entities (SOAP 1.1 section 3 allows none).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from reconciler import http, url

if TYPE_CHECKING:
    import httpx

_OK, _UNAUTHORIZED, _FAULT = 200, 401, 500  # RFC 9110; a fault is a 500 (SOAP 1.1 section 6.2)
_BODY = """<?xml version="1.0"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" \
s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">\
<s:Body><u:{action} xmlns:u="{kind}">{arguments}</u:{action}></s:Body></s:Envelope>"""

Element = tuple[str, str]
"""Local name and text of an element, in the order in which they end."""


class Unusable(Exception):
    """The router gave no usable answer; the text says why."""


class Fault(Unusable):
    """The router understood and says no: ``code`` is UPnP's, 0 where it names none."""

    def __init__(self, code: int) -> None:
        super().__init__(f"it answers 500{f' ({code})' if code else ''}")
        self.code = code


class NotLetIn(Unusable):
    """The router refuses the login, or wants one."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service that a router describes: its type, and the path of the router at which it is asked."""

    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class Description:
    """What a router says of itself: what it is, and its services in their order."""

    model: str
    services: tuple[tuple[str, str], ...]
    where: str
    router: url.Url = field(repr=False)

    def service(self, kind: str, where: str) -> Service:
        """Return one of ``services`` with the path to ask at: the router's own, for nobody is led elsewhere.

        Raises `Unusable`.
        """
        try:
            found = url.parse(urljoin(self.router.url + self.where, where))
        except ValueError:
            raise Unusable("it describes a service at an address that is none") from None
        if (found.scheme, found.host, found.port) != (self.router.scheme, self.router.host, self.router.port):
            raise Unusable("it describes a service that is not its own")
        return Service(kind, found.path)


def describe(client: httpx.Client, router: url.Url, path: str) -> Description:
    """Read what a router describes at a path. Raises `Unusable` and `http.Unanswered`."""
    elements = _elements(http.exchange(client, "GET", path))
    found, now = list[tuple[str, str]](), dict[str, str]()
    for name, text in elements:
        if name == "service":
            found.append((now.get("serviceType", ""), now.get("controlURL", "")))
            now = {}
        else:
            now[name] = text
    model = next((text for name, text in elements if name == "modelName" and text), "")
    return Description(model, tuple(found), path, router)


def call(
    client: httpx.Client,
    service: Service,
    action: str,
    arguments: Mapping[str, str | int] | None = None,
    auth: httpx.Auth | None = None,
) -> Sequence[Element]:
    """Have a service carry out an action that changes nothing, and return what it answers.

    ``arguments`` are texts and numbers of ours. Raises `Fault`, `NotLetIn`, `Unusable` and `http.Unanswered`.
    """
    given = "".join(f"<{name}>{value}</{name}>" for name, value in (arguments or {}).items())
    content = _BODY.format(action=action, kind=service.kind, arguments=given)
    headers = {"content-type": 'text/xml; charset="utf-8"', "soapaction": f'"{service.kind}#{action}"'}
    try:
        answer = http.exchange(client, "POST", service.path, content=content, headers=headers, reads=True, auth=auth)
    except (LookupError, NotImplementedError, ValueError) as error:  # httpx, of a challenge with words of its own
        raise NotLetIn("it asks for a login in a way that is not known") from error
    if answer.status == _UNAUTHORIZED:
        raise NotLetIn("it answers 401")
    if answer.status == _FAULT:
        try:
            said = dict(_elements(answer, _FAULT))
        except Unusable:
            said = {}
        code = said.get("errorCode", "")
        raise Fault(int(code) if code.isascii() and code.isdigit() and len(code) < 6 else 0)  # noqa: PLR2004 (of three)
    return _elements(answer)


def _elements(answer: http.Answer, wanted: int = _OK) -> list[Element]:
    from xml.parsers import expat

    if answer.status != wanted:
        raise Unusable(f"it answers {answer.status}")
    found, texts = list[Element](), list[list[str]]()
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise Unusable("its answer has a document type")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda *_: texts.append([])
    parser.EndElementHandler = lambda name: found.append((name.rpartition(":")[2], "".join(texts.pop()).strip()))
    parser.CharacterDataHandler = lambda text: texts[-1].append(text)  # noqa: PLW0108 (of the innermost, each time)
    try:
        parser.Parse(answer.body, True)  # noqa: FBT003 (expat's own)
    except (expat.ExpatError, LookupError, ValueError):
        raise Unusable("its answer is no XML") from None
    return found
