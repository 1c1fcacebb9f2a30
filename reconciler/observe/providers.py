"""Asks an SMTP provider's API which records DNS has to show for a mail domain. Brevo's is the one that is known.

Shapes as in its reference (GET /v3/senders/domains/DOMAIN) and in public clients of it: ``dns_records`` maps
``brevo_code`` and ``dkim1Record``, ``dkim2Record`` (or, in older accounts, ``dkim_record``) to ``type``, ``host_name``
and ``value``; what an account does not have is null or absent.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from reconciler import http, keys
from reconciler.desired.presets import PRESETS
from reconciler.desired.provider_records import ProviderAnswer
from reconciler.dns import records
from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.resources import Record, SecretRef
from reconciler.target import Progress, Reveal
from reconciler.url import NoUrl, Url, parse

if TYPE_CHECKING:
    from reconciler.desired.spec.smtp import Provider

API = "https://api.brevo.com"
_NAME = "Brevo"
_BOUNDS = http.Bounds(1 << 20, seconds=20.0, silence=10.0, connect=5.0)  # a real answer has 1 KiB
_PAUSE = 0.5  # seconds before the second try
_PATIENCE = 15.0  # seconds to wait at most where Brevo asks for a pause
_STRONG = 2048  # bits; RFC 8301 section 3.2 wants them of signers
_DOMAINS = "https://app.brevo.com/senders/domain/list"
_ADDRESSES = "https://app.brevo.com/security/authorised_ips"


class _Failed(Exception):
    """Why Brevo did not tell. ``final`` is what asking for another domain would not change."""

    def __init__(self, summary: str, hint: str, *, final: bool = True) -> None:
        super().__init__(summary)
        self.summary, self.hint, self.final = summary, hint, final


@dataclass(slots=True)
class Providers:
    """The providers' APIs: each domain is asked for once, and nothing more with a key that was refused.

    ``reveal`` gives an API key, only when one is needed; ``base_url`` is asked in place of Brevo's own.
    """

    reveal: Reveal = field(repr=False)
    base_url: str | None = None
    progress: Progress = lambda _: None
    _answers: dict[tuple[str, str], ProviderAnswer] = field(default_factory=dict)
    _failed: dict[SecretRef, _Failed] = field(default_factory=dict)

    def __call__(self, name: str, provider: Provider, zone: str, domain: str) -> ProviderAnswer:
        """Return what a provider that has an ``api_key`` asks for; ``domain`` lies in ``zone``. Never raises."""
        if (name, domain) not in self._answers:
            self._answers[name, domain] = self._asked(name, provider, zone, domain)
        return self._answers[name, domain]

    def _asked(self, name: str, provider: Provider, zone: str, domain: str) -> ProviderAnswer:
        where, ref = f"smtp.providers.{name}", provider.api_key
        if ref is None:
            return ProviderAnswer()
        if ref.held:
            hint = "until then the records of this provider stay as they are"
            untold = Problem(where, f"{ref} is not read before the merge", hint, Severity.WARNING)
            return ProviderAnswer(problems=(untold,), complete=False)
        try:
            if ref in self._failed:
                raise self._failed[ref]
            self.progress(f"{_NAME}: asking for the records of {domain}")
            return _understood(where, zone, domain, self._configuration(ref, domain))
        except _Failed as failure:
            if failure.final:
                self._failed[ref] = failure
            hint = f"{failure.hint}; until then the records of this provider stay as they are"
            return ProviderAnswer(problems=(Problem(where, failure.summary, hint),), complete=False)

    def _configuration(self, ref: SecretRef, domain: str) -> Mapping[str, Any] | None:
        """Return what Brevo has of a domain, None where it has none of that name. Raises `_Failed`."""
        try:
            address = parse(self.base_url or API)
        except NoUrl as error:
            summary = f"BREVO_BASE_URL {error.summary}; the API key {ref} is not sent anywhere in clear text"
            raise _Failed(summary, error.hint) from None
        path = f"/v3/senders/domains/{quote(domain)}"
        url = address.url + path
        if not (address.tls or address.is_loopback):
            raise _Failed(f"{url} would get the API key {ref} in clear text", "set BREVO_BASE_URL to an https URL")
        got = self._get(address, path, _key(ref, self.reveal))
        status, answer = got.status, got.json()
        if status == 404 and isinstance(answer, dict) and "code" in answer:  # noqa: PLR2004 (HTTP)
            return None
        if status != 200:  # noqa: PLR2004 (HTTP)
            raise _refused(url, ref, status, answer)
        if not isinstance(answer, dict) or not isinstance(answer.get("dns_records"), dict):
            raise _Failed(f"GET {url}: the answer is not what {_NAME} documents", _ON_THE_WAY, final=False)
        return answer

    def _get(self, address: Url, path: str, key: str) -> http.Answer:
        """Ask, and once more where the answer was lost or a pause was asked for. Raises `_Failed`."""
        url = address.url + path
        headers = {"api-key": key, "accept": "application/json"}
        try:
            client = http.client(address, _BOUNDS, proxied=True, headers=headers, name="brevo")
        except http.Unsent as error:
            raise _Failed(f"GET {url}: {error}", _ON_THE_WAY) from None
        with client:
            for last in (False, True):
                try:
                    answer = http.exchange(client, "GET", path)
                except http.Endless:
                    raise _Failed(f"GET {url}: the answer does not end", _ON_THE_WAY) from None
                except http.Unanswered as error:
                    failure = _Failed(f"GET {url}: no answer: {error}", "check the network, and plan again")
                    pause = _PAUSE
                else:
                    if answer.status != 429 and answer.status < 500:  # noqa: PLR2004 (HTTP)
                        return answer
                    pause = max(_PAUSE, http.retry_after(answer.headers, "x-sib-ratelimit-reset") or 0.0)
                    summary = f"GET {url}: {_NAME} answers {answer.status}"
                    failure = _Failed(summary, "plan again in some minutes; see https://status.brevo.com")
                if last or pause > _PATIENCE:
                    break
                time.sleep(pause)
        raise failure


# -------------------------------------------------------------------------------------------------------- the wire
_ON_THE_WAY = "check BREVO_BASE_URL, and proxies on the way"


def _key(ref: SecretRef, reveal: Reveal) -> str:
    try:
        key = reveal(ref)
    except SecretUnreadable as error:
        problem = error.problems[0]
        raise _Failed(f"the API key can't be read: {problem.where}: {problem.summary}", problem.hint) from None
    if key.startswith("xsmtpsib-"):
        hint = f"put an API key there (xkeysib-...), made at {_NAME} under SMTP & API, API keys"
        raise _Failed(f"the secret {ref} is an SMTP key, which the API does not take", hint)
    if not re.fullmatch(r"[!-~]+", key):
        hint = "put the API key there, alone, without quotes or a line break"
        raise _Failed(f"the secret {ref} holds white space or characters that no API key has", hint)
    return key


def _refused(url: str, ref: SecretRef, status: int, answer: Any) -> _Failed:
    """Say why Brevo refused, and what helps: a key is tried once, as who guesses is locked out."""
    said = str(answer.get("message") or "") if isinstance(answer, dict) else ""
    summary = f"GET {url}: {_NAME} answers {status}{f': {http.short(said, 300)}' if said else ''}"
    if status not in (401, 403):
        return _Failed(summary, _ON_THE_WAY, final=False)
    if "IP address" in said:
        return _Failed(summary, f"allow this machine's address at {_ADDRESSES}")
    return _Failed(summary, f"check that {ref} is an API key (xkeysib-...) of this account that was not revoked")


# ------------------------------------------------------------------------------------------------------ the answer
def _understood(where: str, zone: str, domain: str, answer: Mapping[str, Any] | None) -> ProviderAnswer:
    """Make records of an answer. Raises `_Failed` for what can't be what Brevo asks for."""
    if answer is None:
        return ProviderAnswer(problems=(_warning(where, f"{domain} is not added at {_NAME}", _ADD),), complete=False)
    try:
        records = tuple(_records(zone, domain, answer["dns_records"]))
    except ValueError as error:
        raise _Failed(f"{_NAME}'s answer for {domain} can't be used: {error}", _ON_THE_WAY, final=False) from None
    keyed = any("._domainkey" in f".{record.name}" for record in records)
    if not keyed:
        warning = _warning(where, f"{_NAME} names no DKIM record for {domain}", f"see {_DOMAINS}, and plan again")
        return ProviderAnswer(records, (warning,), complete=False)
    return ProviderAnswer(records, tuple(_warnings(where, domain, records, answer)))


def _warnings(where: str, domain: str, records: tuple[Record, ...], answer: Mapping[str, Any]) -> Iterator[Problem]:
    for record in records:
        if (bits := _bits(record)) < _STRONG:
            hint = f"let {_NAME} give the domain the two CNAME records in its place: {_DOMAINS}"
            yield _warning(where, f"{record.host} is a key of {bits} bits, too short for some receivers", hint)
    if answer.get("authenticated") is False:
        summary = f"{_NAME} has not authenticated {domain} yet: it sends its mail under another name"
        yield _warning(where, summary, f"when its records and DMARC are published, let it check them: {_DOMAINS}")


_ADD = f"mail of this domain is sent under another name; add the domain: {_DOMAINS}"


def _warning(where: str, summary: str, hint: str) -> Problem:
    return Problem(where, summary, hint, Severity.WARNING)


def _records(zone: str, domain: str, told: Mapping[str, Any]) -> Iterator[Record]:
    """Yield the DKIM and verification records of an answer. The DMARC record is the user's own. Raises ValueError."""
    for name, item in told.items():
        if not (name.startswith("dkim") or name == "brevo_code") or not item:
            continue
        if not isinstance(item, dict) or not all(isinstance(item.get(part), str) for part in ("type", "value")):
            raise ValueError(f"{name} has no type and value")
        full = _full(str(item.get("host_name") or ""), domain)
        record = records.record(zone, item["type"], f"{full}.", item["value"])
        if not any(need.fits(record, domain) for need in PRESETS["brevo"].needs):
            raise ValueError(f"{name} is neither a DKIM key nor a verification of {domain}: {record.type} {full}")
        yield record


def _full(name: str, domain: str) -> str:
    """Return the whole name of a record. Brevo writes it relative to the zone, to the domain, or whole.

    Of a mail domain below a zone the domain's own labels stand at the end (``brevo1._domainkey.news``).
    """
    name = name.strip().lower().removesuffix(".")
    if name in ("", "@", domain) or name.endswith(f".{domain}"):
        return domain if name in ("", "@") else name
    labels = domain.split(".")
    for count in range(len(labels) - 2, 0, -1):
        head = ".".join(labels[:count])
        if name == head or name.endswith(f".{head}"):
            return f"{name}.{'.'.join(labels[count:])}"
    return f"{name}.{domain}"


def _bits(record: Record) -> int:
    """Return how long the RSA key is that a record publishes; one behind a CNAME is long enough (facts.md 2.5)."""
    match = re.search(r"\bk=rsa; .*\bp=(\S+)$", str(record.content)) if record.type == "TXT" else None
    return keys.rsa_bits(match[1]) if match else _STRONG
