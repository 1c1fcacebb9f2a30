"""Which hosts get secrets of a directory: whoever writes it chooses both, so the head of each plan names them. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from reconciler.desired import words
from reconciler.desired.derivation import provider_questions, resolve
from reconciler.desired.objects import TYPE, Parts, key_of
from reconciler.desired.spec import Spec, references
from reconciler.desired.spec.stalwart import Stalwart
from reconciler.plan import Receiver
from reconciler.resources import SecretRef
from reconciler.url import NoUrl, parse, shown

CLOUDFLARE_API, BREVO_API = "https://api.cloudflare.com", "https://api.brevo.com"
GITHUB_API = "https://api.github.com"

NOTICES = "whom the daemon tells of problems"  # the host is a part of the secret

_Sent = tuple[str, Iterable[SecretRef]]


def receivers(
    spec: Spec,
    targets: Collection[str],
    overrides: Mapping[str, str | None],
    routes: Mapping[tuple[str, int], tuple[str, int]],
    services: Mapping[str, Collection[SecretRef]] = MappingProxyType({}),
) -> tuple[Receiver, ...]:
    """Return each host that these targets send secrets to, by plan or by apply, with the secrets' references.

    Who is told by the daemon stands there, too: which service it is, the reference alone does not say. So does the
    router that doctor asks, though it gets a digest alone.

    ``overrides`` are URLs that hold in place of the declared ones, by ``stalwart``, ``cloudflare``, ``brevo``,
    ``github`` and ``docker``; ``routes`` are hosts and ports that are reached elsewhere; ``services`` are addresses of
    key services that are asked to decrypt what references lead to.
    """
    sources = {"stalwart": _to_stalwart, "cloudflare": _to_cloudflare, "compose": _to_compose}
    found: dict[str, set[SecretRef]] = defaultdict(set)
    for target in targets:
        for where, refs in sources[target](spec, overrides):
            found[_through(where, routes)].update(resolve(spec, ref) for ref in refs)
    for address, refs in services.items():
        found[_origin(address) or address].update(refs)
    found[NOTICES].update(spec.daemon.notices)
    if spec.router is not None and spec.router.password is not None:
        found[f"http://{shown(*spec.router.door)}"].add(spec.router.password)
    if spec.daemon.github is not None:
        found[_origin(overrides.get("github") or GITHUB_API)].add(spec.daemon.github.token)
    return tuple(
        Receiver(where, tuple(sorted(refs, key=str))) for where, refs in sorted(found.items()) if where and refs
    )


def _to_stalwart(spec: Spec, overrides: Mapping[str, str | None]) -> Iterator[_Sent]:
    """The login, and all that is written there: passwords, private keys, secret settings."""
    server = spec.targets.stalwart
    if server is not None:
        written = (ref for path, ref in references(spec) if path[0] in ("accounts", "dkim", "stalwart"))
        recovery = [server.recovery] if server.recovery else []
        yield _origin(overrides.get("stalwart") or server.url), (*server.password, *recovery, *written)
        yield from _passed_on(spec.stalwart)


_HOST = re.compile(r"(?:^|[.a-z-])(?:address(?:es)?|host(?:name)?|ur[il]s?|endpoint|server)s?$", re.IGNORECASE)
_MACRO = re.compile(r"%\{(env|file):([^}]*)\}%")
_PLACE = re.compile(r"((?:[a-z][a-z0-9+.-]*://)?)(?:[^/?#]*@)?([^/?#]+)", re.IGNORECASE)

_AMBIGUOUS = re.compile(r"[\\\s]|^[a-z][a-z0-9+.-]*:(?!//[^/])(?![0-9]+$)", re.IGNORECASE)


def _passed_on(declared: Stalwart) -> Iterator[_Sent]:
    """Yield the hosts that the server itself uses secrets with: relays, hooks, stores, directories, log collectors.

    A host and a secret belong together where one entry of the server's own words holds both. What the server is to read
    from its own environment or files is a secret that no `RECONCILER_SECRETS` holds.
    """
    for name, entries in declared.objects.items():
        for entry, fields in entries.items():
            said = [(key_of(name), entry), *_texts("", Parts(fields))]
            refs = [it for _, value in said for it in _used(value)]
            yield from ((host, refs) for host in _hosts(said))
    used = {key: list(_used(value)) for key, value in declared.settings.items()}
    for key, value in declared.settings.items():
        parent = re.sub(r"\.\d+$", "", key).rpartition(".")[0]
        refs = [ref for other, found in used.items() if parent and other.startswith(f"{parent}.") for ref in found]
        yield from ((host, refs) for host in _hosts([(key, value)]))


def _used(value: Any) -> Iterator[SecretRef]:
    """Yield a value where it is a secret: a reference, or ``%{env:NAME}%`` and ``%{file:PATH}%`` of the server."""
    if isinstance(value, SecretRef):
        yield value
    elif isinstance(value, str):
        yield from (SecretRef(f"{kind} of Stalwart", name) for kind, name in _MACRO.findall(value))


def _texts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values inside a value, each with the name it stands under."""
    if isinstance(value, Parts):
        own = {"EnvironmentVariable": "env", "File": "file"}.get(str(value.get(TYPE)))
        for key, part in value.items():
            is_own = own is not None and key in ("variableName", "filePath")
            ref = SecretRef(f"{own} of Stalwart", str(part))
            yield from _texts(name if key.isdigit() else key, ref if is_own else part)
    elif isinstance(value, tuple):
        for part in value:
            yield from _texts(name, part)
    else:
        yield name, value


def _hosts(said: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield the hosts among values: what is a URL, or stands under a name that says so."""
    for name, value in said:
        if isinstance(value, str) and ("://" in value or _HOST.search(re.sub(r"\.\d+$", "", name))):
            yield f"{_origin_of(value)}, by way of Stalwart"


def _origin_of(value: str) -> str:
    """Return scheme, host and port of what a server is told; all of it where programs could read it in two ways.

    Its parser is none of ours (WHATWG URL): a backslash ends a host, tabs are left out, `https:/HOST` leads there.
    """
    match = None if _AMBIGUOUS.search(value) or not value.isprintable() else _PLACE.match(value)
    return f"{match[1]}{match[2]}" if match else repr(value)


def _to_cloudflare(spec: Spec, overrides: Mapping[str, str | None]) -> Iterator[_Sent]:
    """Each token where it is for, and the keys of the providers' APIs, which tell records."""
    for item in spec.targets.cloudflare:
        yield _origin(overrides.get("cloudflare") or item.base_url or CLOUDFLARE_API), (item.token,)
    for _, provider, *_ in provider_questions(spec):
        yield _origin(overrides.get("brevo") or BREVO_API), [provider.api_key] if provider.api_key else ()


def _to_compose(spec: Spec, overrides: Mapping[str, str | None]) -> Iterator[_Sent]:
    """The logins that are proved, where the consumers are to use them; and an engine on another machine."""
    for consumer in spec.smtp.consumers.values():
        provider = spec.smtp.providers.get(consumer.provider or spec.smtp.provider or "")
        filled = any(words.is_filled(entry.value) for entry in consumer.entries(provider).values())
        if provider is not None and filled:
            account = spec.accounts.get(provider.account or "")
            login = (provider.username, provider.password, account.password if account else None)
            host, port = provider.door
            yield f"{host}:{port}", [ref for ref in login if isinstance(ref, SecretRef)]
    engine = overrides.get("docker") or ""
    if engine and not engine.startswith(("unix://", "http+unix://")):
        yield (
            _origin(engine if "://" in engine else f"tcp://{engine}"),
            (ref for path, ref in references(spec) if path[0] == "smtp" and path[-1] != "api_key"),
        )


def _origin(url: str) -> str:
    """Return scheme, host and port of a URL as they are understood, without what may be a secret."""
    try:
        found = parse(url, ("http", "https", "tcp", "ssh"))
    except NoUrl:
        return ""  # nothing is sent there, and the target says why
    return f"{found.scheme}://{found.authority}"


def _through(where: str, routes: Mapping[tuple[str, int], tuple[str, int]]) -> str:
    host, _, port = where.rpartition(":")
    there = routes.get((host, int(port))) if port.isdigit() else None
    return f"{there[0]}:{there[1]}" if there else where
