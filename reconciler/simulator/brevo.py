"""A fake of Brevo's API for sender domains: the records that a domain needs, and whether they are published.

Its shapes are those of Brevo's reference (``GET /v3/senders/domains`` and one domain of it). Accounts made before 2024
have one DKIM key as a TXT (``mail._domainkey``), newer ones two CNAMEs; both kinds are in use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Literal

from reconciler.simulator.wire import Reply, Request

_PATH = "/v3/senders/domains"
Form = Literal["cname", "txt"]
# 1024 bits, as Brevo's single key is.
_OLD_KEY = (
    "k=rsa;p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC1cC+EJROzUDkSTVshFWXsZS6UzZ/psgj1mnqgXib/HTCneLil8/3E69hSIkalA9"
    "zwVpwYFkg3LmL4einefZZX+1cvNBi5HCb1TThQRruPs1miQ1Hw0BtNoUmrttn/483lUrDCznGd2sd5DTqgXb8YasLIoO+Yg0tpxoygWIwAewIDAQAB"
)

Shows = Callable[[str, str], Iterable[frozenset[str]]]
"""Returns what each name server shows at a name (`NameServers.values`)."""


class Brevo:
    """Brevo's API for some domains: call it with a `wire.Request`, it answers a `wire.Reply`.

    ``zones`` are the registered domains, which are set up at Brevo, too; `add` sets up others below them. ``keys`` are
    the API keys that are let in, ``form`` the kind of DKIM records that the account has.
    """

    def __init__(self, zones: Iterable[str], shows: Shows, *, keys: Iterable[str], form: Form = "cname") -> None:
        self.keys = set(keys)
        self.form: Form = form
        self._zones = tuple(zones)
        self.domains = list(self._zones)
        self._shows = shows

    def add(self, domain: str) -> None:
        """Set a domain up, as a person does in the dashboard."""
        self.domains.append(domain)

    def __call__(self, request: Request) -> Reply:
        """Answer a request."""
        if "api-key" not in request.headers:
            return _refused(401, "unauthorized", "authentication not found in headers")
        if request.headers["api-key"] not in self.keys:
            return _refused(401, "unauthorized", "Key not found")
        path = request.path.rstrip("/")
        if path != _PATH and not path.startswith(f"{_PATH}/"):
            return _refused(404, "not_found", "Route not found")
        if request.method != "GET":
            return _refused(405, "method_not_allowed", "Method not allowed")
        if path == _PATH:
            return self._listing()
        name = path.removeprefix(f"{_PATH}/").lower()
        if name not in self.domains:
            return _refused(404, "document_not_found", "Domain does not exist")
        return Reply.of({"domain": name, **self._state(name), "dns_records": self.records(name)})

    def _listing(self) -> Reply:
        found = [
            {"id": _digest(name)[:24], "domain_name": name, **self._state(name), "ip": None} for name in self.domains
        ]
        return Reply.of({"domains": found, "count": len(found), "current_page": 1, "total_pages": 1})

    def _state(self, domain: str) -> dict[str, bool]:
        records = self.records(domain)
        return {
            "verified": records["brevo_code"]["status"],
            "authenticated": all(item["status"] for item in records.values()),
        }

    def records(self, domain: str) -> dict[str, dict[str, Any]]:
        """Return the records a domain needs, as the API does. ``host_name`` is relative to the registered domain."""
        code = f"brevo-code:{_digest(domain)}"
        dashed = domain.replace(".", "-")
        if self.form == "txt":
            keys = {"dkim_record": ("TXT", "mail._domainkey", _OLD_KEY)}
        else:
            keys = {
                f"dkim{number}Record": ("CNAME", f"brevo{number}._domainkey", f"b{number}.{dashed}.dkim.brevo.com")
                for number in (1, 2)
            }
        policy = "v=DMARC1; p=none; rua=mailto:rua@dmarc.brevo.com"
        wanted = {**keys, "brevo_code": ("TXT", "", code), "dmarc_record": ("TXT", "_dmarc", policy)}
        return {name: self._record(domain, *record) for name, record in wanted.items()}

    def _record(self, domain: str, kind: str, label: str, value: str) -> dict[str, Any]:
        own = max((zone for zone in self._zones if f".{domain}".endswith(f".{zone}")), key=len, default=domain)
        below = domain.removesuffix(own).removesuffix(".")
        host = ".".join(part for part in (label, below) if part)
        if self.form == "txt" and not below:
            host += "." if host else ""  # the older form: `mail._domainkey.`, and nothing for the domain itself
        elif not host:
            host = "@"
        full = f"{label}.{domain}" if label else domain
        return {"type": kind, "value": value, "host_name": host, "status": self._published(kind, full, value)}

    def _published(self, kind: str, name: str, value: str) -> bool:
        """Whether every name server shows a record; of DMARC any policy will do."""
        found = list(self._shows(name, kind))
        if value.startswith("v=DMARC1"):
            return bool(found) and all(any(text.startswith("v=DMARC1") for text in texts) for texts in found)
        return bool(found) and all(value in texts for texts in found)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _refused(status: int, code: str, message: str) -> Reply:
    return Reply.of({"message": message, "code": code}, status)
