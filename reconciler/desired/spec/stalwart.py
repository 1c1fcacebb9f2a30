"""``stalwart``: neutral words, and the settings and objects of a server's own."""

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from reconciler.desired import objects
from reconciler.desired import raw_keys as words
from reconciler.desired.spec.mail import Size
from reconciler.desired.spec.scalars import (
    REFERENCE_HINT,
    DomainName,
    Flag,
    Limit,
    ListOrNull,
    Model,
    Octet,
    OpenMap,
    Text,
    Wrong,
    as_text,
    empty_list,
    empty_map,
    is_address,
    one_or_many,
    open_map,
    text_or_secret,
    wrong,
    wrongs,
)
from reconciler.desired.spec.targets import Duration
from reconciler.resources import Listener, SecretRef


def _rate(value: Any) -> str | None:
    if value is None:
        return None
    try:
        return words.ban_rate(as_text(value))
    except ValueError as error:
        if isinstance(error, PydanticCustomError):
            raise
        raise wrong(str(error), "write off, 30/1d, or null for the server's default") from None


Rate = Annotated[str | None, PlainValidator(_rate), WithJsonSchema({"type": ["string", "boolean", "null"]})]


class AutoBan(Model):
    """When an address is banned: ``off``, a rate such as ``30/1d``, or ``None`` for the server's default."""

    auth: Rate = None
    abuse: Rate = None
    loiter: Rate = None
    scan: Rate = None


class NetworkEntry(Model):
    """A network of the compose project."""

    network: Text


def _allowed_ip(value: Any) -> str | NetworkEntry:
    if isinstance(value, dict):
        return NetworkEntry.model_validate(value)
    try:
        ip_network(as_text(value), strict=False)
    except ValueError as error:
        if isinstance(error, PydanticCustomError):
            raise
        hint = "write it like 172.18.0.0/16, or {network: NAME} for a network of the compose project"
        raise wrong("is no address and no network", hint) from None
    return str(value)


AllowedIpEntry = Annotated[
    str | NetworkEntry,
    PlainValidator(_allowed_ip),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"network": {"type": "string", "description": "A network of the compose project."}},
                    "required": ["network"],
                },
            ]
        }
    ),
]


def _network(value: str) -> str:
    try:
        return str(ip_network(value, strict=False))
    except ValueError:
        raise wrong("is no address and no network", "write it like 172.18.0.0/16") from None


def _bind(value: str) -> str:
    host, _, port = value.rpartition(":")
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not is_address(inner) or (":" in inner) == (inner == host) or not re.fullmatch(r"[1-9][0-9]{0,4}", port):
        raise wrong("is no address with a port", 'write it like "[::]:587" or "0.0.0.0:587"')
    return value


Cipher = Literal[
    "TLS13_AES_256_GCM_SHA384",
    "TLS13_AES_128_GCM_SHA256",
    "TLS13_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
]
"""The suites of both generations, as those up to 0.15 spell them; 0.16 in lower case and with dashes."""
_SUITES = {"TLSv1.2": "TLS_", "TLSv1.3": "TLS13_"}  # how those of a version begin

_IMPLICIT_TLS = frozenset({"443", "465", "993", "995"})  # RFC 8314 section 3.3, RFC 9110 section 4.2.2


class ListenerEntry(Model):
    """A port that the server listens on. Without ``tls``, the port decides: 443, 465, 993 and 995 begin with TLS.

    The rest is unmanaged when absent; ``null`` and ``[]`` put the server's default back. From ``proxy_networks`` a
    connection begins with a PROXY header, as HAProxy and the like send it.
    """

    bind: Annotated[
        tuple[Annotated[Text, AfterValidator(_bind)], ...],
        BeforeValidator(one_or_many, json_schema_input_type=str | tuple[str, ...]),
    ]
    protocol: Literal["smtp", "lmtp", "http", "imap", "pop3", "managesieve"]
    tls: Literal["implicit", "starttls", "none"] | None = None
    tls_disable: Annotated[tuple[Literal["TLSv1.2", "TLSv1.3"], ...] | None, ListOrNull] = None
    proxy_networks: Annotated[tuple[Annotated[Text, AfterValidator(_network)], ...] | None, ListOrNull] = None
    max_connections: Limit | None = None
    backlog: Limit | None = None
    tls_disable_ciphers: Annotated[tuple[Cipher, ...] | None, ListOrNull, Field(validate_default=True)] = None
    tls_ignore_client_order: Flag | None = None
    tls_timeout: Duration | None = None
    no_delay: Flag | None = None
    reuse_address: Flag | None = None
    reuse_port: Flag | None = None
    send_buffer: Size = None
    receive_buffer: Size = None
    ttl: Octet | None = None
    tos: Octet | None = None

    @field_validator("tls_disable_ciphers")
    @classmethod
    def _leaves_something(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        """Up to 0.15 nothing disabled and both versions disabled are the same; no one could speak without a suite."""
        off = set(info.data.get("tls_disable") or ())
        spoken = [start for version, start in _SUITES.items() if version not in off]
        left = [it for it in get_args(Cipher) if it not in (value or ()) and it.startswith(tuple(spoken))]
        if info.data.get("tls") != "none" and not left:
            raise wrong("leaves nothing of TLS to speak there", "write `tls: none` for a port without, or keep some")
        return value

    @property
    def options(self) -> dict[str, Any]:
        """What is said of it besides where it listens, as `Listener` has it."""
        said = {name for name in Listener.USUAL if name != "tls" and name in self.model_fields_set}
        found = {name: getattr(self, name) for name in said}
        made = {name: Listener.USUAL[name] if value is None else value for name, value in found.items()}
        return made | ({"tls": self.tls != "none"} if self.tls is not None else {})

    @property
    def tls_implicit(self) -> bool:
        """Whether a connection begins with TLS."""
        if self.tls is not None:
            return self.tls == "implicit"
        return any(address.rpartition(":")[2] in _IMPLICIT_TLS for address in self.bind)


_NEUTRAL_KEYS = {"server.hostname": "hostname", "lookup.default.domain": "default_domain"}
_NEUTRAL_OBJECTS = {
    "AllowedIp": "stalwart.allowed_ips",
    "NetworkListener": "stalwart.listeners",
    "DkimSignature": "dkim",
    "Account": "accounts",
    "Domain": "accounts and dkim",
}
_NEUTRAL_FIELDS = {
    ("SystemSettings", "defaultHostname"): "stalwart.hostname",
    ("SystemSettings", "defaultDomainId"): "stalwart.default_domain",
    **{("Security", f"{word}BanRate"): f"stalwart.auto_ban.{word}" for word in ("auth", "abuse", "loiter", "scan")},
}


def _settings(value: Any) -> dict[str, str | SecretRef | None]:
    settings: dict[str, str | SecretRef | None] = {}
    errors: list[Wrong] = []
    for key, item in open_map(value).items():
        for name, part in _flat(key, item):
            try:
                if name in settings:
                    raise wrong("stands there twice", "write the list, or its entries one by one")
                settings[name] = _setting(name, part)
            except PydanticCustomError as error:
                errors += [((key,), summary, hint) for _, summary, hint in (error.context or {})["errors"]]
    if errors:
        raise wrongs(errors)
    return settings


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a setting: a list has one for each entry, or for each of its ``if``, ``then`` and ``else``."""
    if not isinstance(value, list):
        yield key, value
    elif not value:
        yield key, None  # a list of nothing is none: the default holds
    for number, entry in enumerate(value if isinstance(value, list) else ()):
        name = f"{key}.{number:04}"
        if isinstance(entry, dict) and entry and entry.keys() <= {"if", "then", "else"}:
            yield from ((f"{name}.{part}", item) for part, item in entry.items())
        else:
            yield name, entry


def _setting(key: str, value: Any) -> str | SecretRef | None:
    if word := words.word_of(key) or _NEUTRAL_KEYS.get(key):
        where = word if word == "dkim" else f"stalwart.{word.replace('/', '.')}"
        raise wrong(f"has a word of its own: {where}", "say it there, and take this one away")
    if not words.is_known(key):
        raise wrong("is a setting of no version", "write the key as the server's documentation has it; 0.16: objects")
    if isinstance(value, list):
        raise wrong("must be one value", "write KEY.0: FIRST and KEY.1: SECOND, as the server does")
    if isinstance(value, str) and value and words.is_secret(key) and not value.startswith("%{"):
        raise wrong("is a secret written out: it must be a reference", REFERENCE_HINT)
    return None if value is None else text_or_secret(value)


def _objects(value: Any) -> dict[str, Any]:
    made: dict[str, Any] = {}
    errors: list[Wrong] = []
    for key, entries in open_map(value).items():
        name = key.removeprefix("x:")
        refused = _refused_object(name, entries)
        if refused is not None:
            errors.append(((key,), *refused))
            continue
        made[name] = {}
        for entry, fields in entries.items():
            made[name][objects.entry_name(name, entry)], wrong = _object(name, entry, fields)
            errors += [((key, entry, *path), summary, hint) for path, summary, hint in wrong]
    if errors:
        raise wrongs(errors)
    return made


def _refused_object(name: str, entries: Any) -> tuple[str, str] | None:
    if word := _NEUTRAL_OBJECTS.get(name.partition("/")[0]):
        return f"has words of its own: {word}", "say it there"
    if (refused := objects.refusal(name)) is not None:
        return refused
    if not isinstance(entries, dict):
        return "must be a map", "write {singleton: {FIELD: VALUE}}, or a name in place of singleton"
    return None


def _object(name: str, entry: str, fields: Any) -> tuple[dict[str, Any], list[Wrong]]:
    if objects.is_singleton(name) and entry != objects.SINGLETON:
        return {}, [((), "is there once only and has no name", "write {singleton: {FIELD: VALUE}}")]
    if not objects.is_singleton(name) and entry == objects.SINGLETON:
        return {}, [((), "is no singleton", f"write its {objects.key_of(name)} in place of singleton")]
    if not isinstance(fields, dict):
        return {}, [((), "must be a map", "write {FIELD: VALUE}")]
    words = {field: word for field in fields if (word := _NEUTRAL_FIELDS.get((name, field)))}
    wrong: list[Wrong] = [((field,), f"has a word of its own: {word}", "say it there") for field, word in words.items()]
    wrong += _permissions(fields) if name == "Role" else ()
    values, misfits = objects.declared(name, entry, {key: fields[key] for key in fields if key not in words})
    return values, [*wrong, *((path, misfit.summary, misfit.hint) for path, misfit in misfits)]


def _permissions(fields: Mapping[str, Any]) -> Iterator[Wrong]:
    """Yield permissions by the names that they had up to 0.15, which the server would refuse half-way."""
    for field in ("enabledPermissions", "disabledPermissions"):
        given = fields.get(field)
        for item in given if isinstance(given, list | dict) else ():
            if isinstance(item, str) and "-" in item:
                first, *rest = item.split("-")
                written = "".join([first, *(word.capitalize() for word in rest)])
                yield (field,), f"names {item}, as permissions are called up to 0.15", f"write {written}"


class Stalwart(Model):
    """What a recreated volume would lose: neutral words, and the server's own for anything else."""

    hostname: DomainName | None = None
    default_domain: DomainName | None = None
    allowed_ips: Annotated[tuple[AllowedIpEntry, ...], BeforeValidator(empty_list)] = ()
    auto_ban: Annotated[AutoBan, BeforeValidator(empty_map)] = AutoBan.model_construct()
    listeners: Annotated[dict[str, ListenerEntry], OpenMap] = {}
    settings: Annotated[
        dict[str, str | SecretRef | None],
        PlainValidator(_settings),
        WithJsonSchema({"type": ["object", "null"]}),
    ] = {}
    objects: Annotated[dict[str, Any], PlainValidator(_objects), WithJsonSchema({"type": ["object", "null"]})] = {}
