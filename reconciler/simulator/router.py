"""A stand-in for a FRITZ!Box at TR-064's wire: its descriptions, digest logins, and the connection's port mappings.

By AVM's "TR-064 First Steps", "WANIPConnection" and "WANPPPConnection", and UPnP IGD:1 (WANIPConnection 2.4). It shares
no code with what asks it; `fritzconnection` reads it as it reads a real one. A login that is wrong is counted: a real
one makes whoever guesses wait.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from reconciler.simulator.wire import Reply, Request

REALM = "HTTPS Access"
_TR64 = "urn:dslforum-org:service:"
_UPNP = "urn:schemas-upnp-org:service:"
_CONTROL = {"WANIPConnection:1": "/upnp/control/wanipconnection1", "WANPPPConnection:1": "/upnp/control/wanpppconn1"}
_IGD = "/igdupnp/control/WANIPConn1"
_XML = 'text/xml; charset="utf-8"'
_NO_INDEX, _NO_ENTRY, _BAD_ACTION, _BAD_ARGUMENTS = 713, 714, 401, 402  # UPnP's errors
_WORDS = {713: "SpecifiedArrayIndexInvalid", 714: "NoSuchEntryInArray", 401: "Invalid Action", 402: "Invalid Args"}


@dataclass(slots=True)
class Mapping:
    """One entry of the table of port mappings, as a person or a program made it."""

    external: int
    internal: int
    client: str
    protocol: str = "TCP"
    enabled: bool = True
    remote: str = ""
    description: str = "mail"
    by_upnp: bool = False


@dataclass(slots=True)
class Router:
    """The fake: a callable from `Request` to `Reply`.

    ``tr064`` is whether it has "Allow access for applications"; without it only UPnP's description is there. ``uses``
    is the connection in use. ``logins`` counts accepted and refused logins.
    """

    wan: str = "194.191.241.139"
    user: str = "reconciler"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    mappings: list[Mapping] = field(default_factory=list)
    tr064: bool = True
    upnp: bool = True
    model: str = "FRITZ!Box 7590"
    uses: str = "WANIPConnection:1"
    accepted: int = 0
    refused: int = 0
    _nonces: set[str] = field(default_factory=set)

    def __call__(self, request: Request) -> Reply:
        """Answer a request."""
        if request.method == "GET":
            return self._described(request.path)
        kind, _, action = request.headers.get("soapaction", "").strip('"').partition("#")
        if request.path == _IGD and self.upnp and kind == f"{_UPNP}WANIPConnection:1":
            return self._said(kind, action, request.body, [item for item in self.mappings if item.by_upnp])
        name = next((name for name, path in _CONTROL.items() if path == request.path), "")
        if not self.tr064 or not name or kind != _TR64 + name:
            return Reply(404, b"<html><body>404</body></html>", "text/html")
        if (challenge := self._challenge(request)) is not None:
            return challenge
        if name != self.uses:
            return self._in_disuse(kind, action)
        return self._said(kind, action, request.body, self.mappings)

    # ---------------------------------------------------------------------------------------------------- descriptions
    def _described(self, path: str) -> Reply:
        if path == "/tr64desc.xml" and self.tr064:
            services = [(f"{_TR64}{name}", where) for name, where in _CONTROL.items()]
            return Reply(200, self._device("urn:dslforum-org:device-1-0", services).encode(), _XML)
        if path == "/igddesc.xml" and self.upnp:
            services = [(f"{_UPNP}WANIPConnection:1", _IGD)]
            return Reply(200, self._device("urn:schemas-upnp-org:device-1-0", services).encode(), _XML)
        if path.endswith("SCPD.xml"):
            return Reply(200, _actions().encode(), _XML)
        return Reply(404, b"<html><body>404</body></html>", "text/html")

    def _device(self, namespace: str, services: list[tuple[str, str]]) -> str:
        listed = "".join(
            f"<service><serviceType>{kind}</serviceType><serviceId>urn:{kind.split(':')[1]}:serviceId:"
            f"{kind.split(':')[3]}1</serviceId><controlURL>{where}</controlURL><eventSubURL>{where}</eventSubURL>"
            f"<SCPDURL>/connSCPD.xml</SCPDURL></service>"
            for kind, where in services
        )
        version = "<systemVersion><HW>226</HW><Major>154</Major><Minor>8</Minor><Patch>3</Patch></systemVersion>"
        return (
            f'<?xml version="1.0"?><root xmlns="{namespace}"><specVersion><major>1</major></specVersion>'
            f"{version}<device><deviceType>urn:{namespace.split(':')[1]}:device:InternetGatewayDevice:1</deviceType>"
            f"<friendlyName>{self.model}</friendlyName><manufacturer>AVM</manufacturer>"
            f"<modelName>{self.model}</modelName><deviceList><device><deviceType>WANConnectionDevice</deviceType>"
            f"<modelName>{self.model}</modelName><serviceList>{listed}</serviceList></device></deviceList></device></root>"
        )

    # ----------------------------------------------------------------------------------------------------------- login
    def _challenge(self, request: Request) -> Reply | None:
        """Check the digest (RFC 7616, MD5 with qop=auth, as FRITZ!OS asks for it); None where it is right."""
        given = dict(re.findall(r'(\w+)="?([^",]*)"?', request.headers.get("authorization", "").partition(" ")[2]))
        if given.get("nonce") in self._nonces:
            secret = _md5(f"{self.user}:{REALM}:{self.password}")
            what = _md5(f"{request.method}:{given.get('uri', '')}")
            parts = (secret, given["nonce"], given.get("nc", ""), given.get("cnonce", ""), given.get("qop", ""), what)
            if given.get("username") == self.user and given.get("response") == _md5(":".join(parts)):
                self.accepted += 1
                return None
            self.refused += 1
        nonce = secrets.token_hex(8)
        self._nonces.add(nonce)
        challenge = f'Digest realm="{REALM}",nonce="{nonce}",algorithm=MD5,qop="auth"'
        return Reply(401, b"<html><body>401 Unauthorized</body></html>", "text/html", {"WWW-Authenticate": challenge})

    # --------------------------------------------------------------------------------------------------------- actions
    def _said(self, kind: str, action: str, body: bytes, shown: list[Mapping]) -> Reply:
        text = body.decode()
        given = dict(re.findall(r"<(New\w+)>([^<]*)</New\w+>", text))
        if f'<u:{action} xmlns:u="{kind}"' not in text:
            return _fault(_BAD_ACTION)
        match action:
            case "GetExternalIPAddress":
                return _answer(kind, action, {"NewExternalIPAddress": self.wan})
            case "GetPortMappingNumberOfEntries" if kind.startswith(_TR64):
                return _answer(kind, action, {"NewPortMappingNumberOfEntries": str(len(shown))})
            case "GetGenericPortMappingEntry":
                index = given.get("NewPortMappingIndex", "")
                if not index.isdigit():
                    return _fault(_BAD_ARGUMENTS)
                return _entry(kind, action, shown[int(index)]) if int(index) < len(shown) else _fault(_NO_INDEX)
            case "GetSpecificPortMappingEntry":
                wanted = (given.get("NewExternalPort"), given.get("NewProtocol"))
                found = [item for item in shown if (str(item.external), item.protocol) == wanted]
                return _entry(kind, action, found[0], specific=True) if found else _fault(_NO_ENTRY)
        return _fault(_BAD_ACTION)

    def _in_disuse(self, kind: str, action: str) -> Reply:
        """Answer for the connection that is not in use: it has no address and no table."""
        match action:
            case "GetExternalIPAddress":
                return _answer(kind, action, {"NewExternalIPAddress": "0.0.0.0"})
            case "GetPortMappingNumberOfEntries":
                return _answer(kind, action, {"NewPortMappingNumberOfEntries": "0"})
        return _fault(_NO_ENTRY)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _entry(kind: str, action: str, item: Mapping, *, specific: bool = False) -> Reply:
    where = {"NewRemoteHost": item.remote, "NewExternalPort": str(item.external), "NewProtocol": item.protocol}
    rest = {
        "NewInternalPort": str(item.internal),
        "NewInternalClient": item.client,
        "NewEnabled": str(int(item.enabled)),
        "NewPortMappingDescription": item.description,
        "NewLeaseDuration": "0",
    }
    return _answer(kind, action, rest if specific else where | rest)


def _answer(kind: str, action: str, values: dict[str, str]) -> Reply:
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in values.items())
    return _envelope(f'<u:{action}Response xmlns:u="{kind}">{inner}</u:{action}Response>')


def _fault(code: int) -> Reply:
    detail = (
        '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0">'
        f"<errorCode>{code}</errorCode><errorDescription>{_WORDS[code]}</errorDescription></UPnPError>"
    )
    said = f"<faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>{detail}</detail>"
    return _envelope(f"<s:Fault>{said}</s:Fault>", 500)


def _envelope(inner: str, status: int = 200) -> Reply:
    text = (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        f's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>{inner}</s:Body></s:Envelope>'
    )
    return Reply(status, text.encode(), _XML)


_ENTRY = {
    "NewRemoteHost": "string",
    "NewExternalPort": "ui2",
    "NewProtocol": "string",
    "NewInternalPort": "ui2",
    "NewInternalClient": "string",
    "NewEnabled": "boolean",
    "NewPortMappingDescription": "string",
    "NewLeaseDuration": "ui4",
}
_ACTIONS: dict[str, tuple[dict[str, str], dict[str, str]]] = {  # what goes in, what comes out
    "GetExternalIPAddress": ({}, {"NewExternalIPAddress": "string"}),
    "GetPortMappingNumberOfEntries": ({}, {"NewPortMappingNumberOfEntries": "ui2"}),
    "GetGenericPortMappingEntry": ({"NewPortMappingIndex": "ui2"}, _ENTRY),
    "GetSpecificPortMappingEntry": (dict(list(_ENTRY.items())[:3]), dict(list(_ENTRY.items())[3:])),
}


def _actions() -> str:
    """Write the description of the actions (SCPD)."""
    variables, actions = dict[str, str](), ""
    for action, directions in _ACTIONS.items():
        arguments = ""
        for direction, values in zip(("in", "out"), directions, strict=True):
            for name, kind in values.items():
                variables[name.removeprefix("New")] = kind
                related = f"<relatedStateVariable>{name.removeprefix('New')}</relatedStateVariable>"
                arguments += f"<argument><name>{name}</name><direction>{direction}</direction>{related}</argument>"
        actions += f"<action><name>{action}</name><argumentList>{arguments}</argumentList></action>"
    table = "".join(
        f'<stateVariable sendEvents="no"><name>{name}</name><dataType>{kind}</dataType></stateVariable>'
        for name, kind in variables.items()
    )
    return (
        '<?xml version="1.0"?><scpd xmlns="urn:dslforum-org:service-1-0"><specVersion><major>1</major><minor>0</minor>'
        f"</specVersion><actionList>{actions}</actionList><serviceStateTable>{table}</serviceStateTable></scpd>"
    )
