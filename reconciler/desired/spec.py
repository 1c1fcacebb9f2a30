"""The shape of the YAML, and nothing else: names and nesting are those of the files.

Every scalar arrives as the text that was written (see `reconciler.desired.yaml.value`), ``null`` as ``None``. What was
written at all is in ``model_fields_set``: an absent key is unmanaged, ``null`` or ``[]`` clears.

Annotations are evaluated as they stand: pydantic needs them all, and evaluating texts costs a tenth of `validate`.
"""

import datetime as dt
import re
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from reconciler import keys
from reconciler.desired import objects, template
from reconciler.desired import stalwart as words
from reconciler.desired.presets import PRESETS
from reconciler.dns.names import invisible, is_name
from reconciler.dns.types import OTHER, TYPES
from reconciler.resources import SecretRef
from reconciler.url import may_go_plain

REQUIRED = "is missing"


Wrong = tuple[tuple[str | int, ...], str, str]


def wrong(summary: str, hint: str = "", *field: str | int) -> PydanticCustomError:
    """Make the error of a value; ``field`` leads to it from where it is raised. Neither text repeats a secret."""
    return wrongs([(field, summary, hint)])


def wrongs(errors: Sequence[Wrong]) -> PydanticCustomError:
    """Make one error of several, each with its field, summary and hint."""
    return PydanticCustomError("wrong", "{summary}", {"summary": errors[0][1], "errors": tuple(errors)})


# --------------------------------------------------------------------------------------------------------- scalars
def _text(value: Any) -> str:
    if value is None:
        raise wrong("is empty", "write a value, or take the key away")
    if not isinstance(value, str):
        raise wrong("must be text", "is a dash, a colon or a brace too much?")
    return value


def _integer(low: int, high: int, what: str) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value) and low <= int(value) <= high:
            return int(value)
        raise wrong(f"must be {what}", "write it in digits alone")

    return parse


def _boolean(value: Any) -> bool:
    known = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
    found = known.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise wrong("must be true or false", "write one of the two")
    return found


def _pattern(pattern: str, summary: str, hint: str = "") -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise wrong(summary, hint)
        return value

    return AfterValidator(check)


Text = Annotated[str, BeforeValidator(_text)]
Flag = Annotated[bool, PlainValidator(_boolean), WithJsonSchema({"type": "boolean"})]


def _number(low: int, high: int, what: str = "") -> tuple[PlainValidator, WithJsonSchema]:
    schema = WithJsonSchema({"type": "integer", "minimum": low, "maximum": high})
    return PlainValidator(_integer(low, high, what or f"a number from {low} to {high}")), schema


_port, _port_schema = _number(1, 65535, "a port: a number from 1 to 65535")
Port = Annotated[int, _port, _port_schema]
_short, _short_schema = _number(0, 65535)
Short = Annotated[int, _short, _short_schema]
_count, _count_schema = _number(0, 1_000_000)
Count = Annotated[int, _count, _count_schema]

_LABEL = r"[^\s.@/\\\"'<>()\[\]{},;:*]{1,63}"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_EMAIL = re.compile(rf"[^\s@<>()\[\],;:\\\"]{{1,64}}@{_LABEL}(\.{_LABEL})*")


def _domain(value: str) -> str:
    if value.endswith("."):
        raise wrong("ends in a dot", f"write {value.rstrip('.')}")
    if not _DOMAIN.fullmatch(value) or not is_name(value):
        raise wrong(f"is no domain name{_hidden(value)}", "write it like mail.example.com")
    return value


def _hidden(value: str) -> str:
    """Name a character that nobody sees, as the end of a summary; empty where there is none."""
    return f": it holds the invisible character {name}" if (name := invisible(value)) else ""


def _zone(value: str) -> str:
    if "." not in _domain(value):
        raise wrong("is no zone", "write the domain as Cloudflare lists it, like example.com")
    return value


def _email(value: str) -> str:
    if not _EMAIL.fullmatch(value) or not is_name(value.rpartition("@")[2]):
        raise wrong(f"is no e-mail address{_hidden(value)}", "write it like name@example.com")
    return value


def _account_name(value: str) -> str:
    if "@" in value:
        return _email(value)
    if not re.fullmatch(r"[^\s@/<>()\[\],;:\\\"]{1,64}", value):
        raise wrong("is no account's name", "write an e-mail address, or a plain name for an administrator without one")
    return value


def _host(value: str) -> str:
    if not re.fullmatch(r"[^\s/@]+", value) or (":" in value and not _is_address(value)):
        raise wrong("is no host", "write a name or an IP address alone; the port has a key of its own")
    return value


Domain = Annotated[Text, AfterValidator(_domain)]
Zone = Annotated[Text, AfterValidator(_zone)]
Email = Annotated[Text, AfterValidator(_email)]
AccountName = Annotated[Text, AfterValidator(_account_name)]
Host = Annotated[Text, AfterValidator(_host)]
EnvName = Annotated[
    Text, _pattern(r"[A-Za-z_][A-Za-z0-9_]*", "is no variable's name", "letters, digits and _, no digit first")
]
LinkEnd = Annotated[
    Text,
    _pattern(
        r"[A-Za-z0-9][A-Za-z0-9._-]*\.[A-Za-z_][A-Za-z0-9_]*",
        "must read SERVICE.VARIABLE",
        "write it like web.SMTP_PASSWORD",
    ),
]


# --------------------------------------------------------------------------------------------------------- secrets
SOURCES = ("env", "file", "sops", "age", "account")
_FORMS = {
    "env": (r"[A-Za-z_][A-Za-z0-9_]*", "the name of a variable: letters, digits and _"),
    "file": (r"[^\0\n]+", "a path, relative to the directory"),
    "sops": (r"[^\0\n#]+#[^\0\n]+", "PATH#KEY"),
    "age": (r"[^\0\n]+", "a path, relative to the directory"),
    "account": (_EMAIL.pattern + r"|[^\s@/]+", "the key of a declared account"),
}
_REFERENCE = "write {env: NAME}, {file: PATH}, {sops: PATH#KEY}, {age: PATH} or {account: ADDRESS} in its place"


def _secret(value: Any) -> SecretRef:
    """Read a reference. No message repeats what stands there: it may be the secret itself."""
    if isinstance(value, str):
        raise wrong("is a secret written out: it must be a reference", _REFERENCE)
    if not isinstance(value, dict) or len(value) != 1:
        raise wrong("must be a reference to a secret", _REFERENCE)
    ((source, name),) = value.items()
    if source not in _FORMS:
        raise wrong("is a reference to a place that is not known", _REFERENCE)
    pattern, what = _FORMS[source]
    if not isinstance(name, str) or not re.fullmatch(pattern, name):
        raise wrong(f"is no reference: {source} takes {what}", "the value itself belongs there, not here")
    return SecretRef(source, name)


_SECRET_SCHEMA = {
    "type": "object",
    "description": "A reference to a secret, never the value itself.",
    "properties": {source: {"type": "string"} for source in SOURCES},
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}
SecretName = Annotated[SecretRef, PlainValidator(_secret), WithJsonSchema(_SECRET_SCHEMA)]
# It may be absent; a key with nothing behind it is a mistake, since nothing is cleared by it.
SecretIfAny = Annotated[SecretRef | None, PlainValidator(_secret), WithJsonSchema(_SECRET_SCHEMA)]


def _passwords(value: Any) -> tuple[SecretRef, ...]:
    if not isinstance(value, list):
        return (_secret(value),)
    if not value:
        raise wrong("is an empty list", _REFERENCE)
    return tuple(_secret(item) for item in value)


Passwords = Annotated[
    tuple[SecretRef, ...],
    PlainValidator(_passwords),
    WithJsonSchema({"anyOf": [_SECRET_SCHEMA, {"type": "array", "items": _SECRET_SCHEMA, "minItems": 1}]}),
]


def _text_or_secret(value: Any) -> str | SecretRef:
    return _secret(value) if isinstance(value, dict) else _text(value)


_TEXT_SCHEMA: dict[str, Any] = {"type": ["string", "number", "boolean"]}


# ---------------------------------------------------------------------------------------------------------- models
class Model(BaseModel):
    """A map with known keys. Keys that begin with ``x-`` are free, for anchors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        defer_build=True,
        hide_input_in_errors=True,
        json_schema_extra={"patternProperties": {"^x-": {}}},
    )

    @model_validator(mode="before")
    @classmethod
    def _without_free_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise wrong("must be a map", "write KEY: VALUE lines below it, {KEY: VALUE}, or {} for an empty one")
        if any(key.startswith("x-") for key in value):
            return {key: item for key, item in value.items() if not key.startswith("x-")}
        return value


def _open_map(value: Any) -> Any:
    """Read a map whose keys are names. Nothing below it is an empty one; names never begin with ``x-``."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong("must be a map", "write NAME: and what belongs to it below")
    if any(is_free(key) for key in value):
        return {key: item for key, item in value.items() if not is_free(key)}
    return value


def is_free(key: str) -> bool:
    """Whether a key of a map of names is free for anchors: ``x-ray@mana.how`` and ``x-ray.dev`` are names."""
    return key.startswith("x-") and "@" not in key and "." not in key


def _list(value: Any) -> Any:
    if not isinstance(value, list):
        raise wrong("must be a list", "write [ONE, ANOTHER], or a line with a dash for each; [] for an empty one")
    return value


def _empty_list(value: Any) -> Any:
    return [] if value is None else _list(value)


def _empty_map(value: Any) -> Any:
    return {} if value is None else value


OpenMap = BeforeValidator(_open_map)
List = BeforeValidator(_list)
ListOrNull = BeforeValidator(lambda value: None if value is None else _list(value))


# --------------------------------------------------------------------------------------------------------- targets
def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise wrong("is no URL", "write it like https://mail.example.com:8443") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or parts.query or parts.fragment:
        raise wrong("is no URL", "write it like https://mail.example.com:8443")
    if parts.username is not None:
        raise wrong("holds a user name or password", "they have keys of their own: username and password")
    return value


Url = Annotated[Text, AfterValidator(_url)]


class StalwartTarget(Model):
    """The mail server's management API."""

    url: Url
    username: Text
    password: Passwords
    container: Text | None = None
    recovery: SecretIfAny = None
    generation: Literal["rest", "jmap"] | None = None
    allow_plain_http: Flag = False

    @model_validator(mode="after")
    def _plain_http(self) -> Self:
        if not self.allow_plain_http and not may_go_plain(self.url, self.container):
            hint = "use https, an SSH tunnel to localhost, or allow_plain_http: true"
            raise wrong("would send the password in clear text over a network", hint, "url")
        return self


class CloudflareTarget(Model):
    """A Cloudflare token, and the zones it is for where there are several."""

    token: SecretName
    base_url: Url | None = None
    zones: Annotated[tuple[Zone, ...], List] | None = None

    @field_validator("base_url")
    @classmethod
    def _plain_http(cls, value: str | None) -> str | None:
        if value and not may_go_plain(value):
            raise wrong("would send the token in clear text over a network", "use https")
        return value


class ComposeTarget(Model):
    """The Compose project; paths are relative to the directory."""

    file: Text
    env_file: Text | None = None
    project: Annotated[Text, _pattern(r"[a-z0-9][a-z0-9_-]*", "is no project's name", "a-z, 0-9, _ and -")] | None = (
        None
    )


def _one_or_many(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class Targets(Model):
    """Where the systems are; each is optional."""

    stalwart: StalwartTarget | None = None
    cloudflare: Annotated[
        tuple[CloudflareTarget, ...],
        BeforeValidator(_one_or_many, json_schema_input_type=CloudflareTarget | tuple[CloudflareTarget, ...]),
    ] = ()
    compose: ComposeTarget | None = None


class Prune(Model):
    """What absence may remove."""

    dns: Literal["owned", "never"] = "owned"


class Policy(Model):
    """How far the reconciler may go."""

    prune: Prune = Prune.model_construct()
    max_deletes: Count = 3


# -------------------------------------------------------------------------------------------------- accounts, keys
_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate(("k", "M", "G", "T"), 1)} | {"KB": 1000}
_UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate(("K", "M", "G", "T"), 1)}
_QUOTA = re.compile(r"([0-9]{1,18})(\.[0-9]{1,6})?\s*([A-Za-z]*)")


def size(value: Any) -> int | None:
    """Read a size such as ``1 GiB``, ``500 MB`` or a number of bytes; ``None`` is no quota."""
    if value is None:
        return None
    match = _QUOTA.fullmatch(value) if isinstance(value, str) else None
    units = {name.lower(): factor for name, factor in _UNITS.items()}
    if match is None or match[3].lower() not in units:
        hint = "write it like quota: 1 GiB, or quota: null for none"
        raise wrong("must be a size such as 1 GiB, 500 MB or a number of bytes", hint)
    unit, fraction = units[match[3].lower()], match[2] or ".0"
    scaled = int(match[1]) * unit * 10**6 + int(fraction[1:].ljust(6, "0")) * unit
    if scaled <= 0 or scaled % 10**6 or scaled // 10**6 >= 1 << 63:
        hint = "write null for no quota" if scaled == 0 else "write it in a smaller unit"
        raise wrong("must be a whole number of bytes, above 0 and below 8 EiB", hint)
    return scaled // 10**6


class Account(Model):
    """A login with its mailbox. ``quota aliases groups description`` are unmanaged when absent."""

    description: Text | None = None
    roles: Annotated[tuple[Text, ...], List] = ("user",)
    password: SecretIfAny = None
    aliases: Annotated[tuple[Email, ...] | None, ListOrNull] = None
    quota: Annotated[int | None, PlainValidator(size), WithJsonSchema({"type": ["string", "integer", "null"]})] = None
    groups: Annotated[tuple[Text, ...] | None, ListOrNull] = None
    enforce_password: Flag = True
    login: Annotated[Text, _pattern(r"[^\s/]{1,255}", "is no login name", "no spaces, no /")] | None = None


def _day(value: Any) -> dt.date:
    try:
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            return dt.date.fromisoformat(value)
    except ValueError:
        pass
    raise wrong("must be a day", "write it like 2026-11-01")


class Key(Model):
    """A DKIM key; ``public_key`` is as `reconciler.keys.public_key` gives it. No ``private_key``: the server's own."""

    selector: Annotated[
        Text,
        _pattern(
            r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", "is no selector", "a-z, 0-9 and -"
        ),
    ]
    algorithm: Literal["ed25519", "rsa"]
    stage: Literal["pending", "active", "retiring", "retired"] = "active"
    public_key: Annotated[Text | None, Field(validate_default=True)] = None
    private_key: SecretIfAny = None
    since: Annotated[dt.date, PlainValidator(_day), WithJsonSchema({"type": "string", "format": "date"})] | None = None

    @field_validator("public_key")
    @classmethod
    def _public_key(cls, value: str | None, info: ValidationInfo) -> str | None:
        algorithm, stage = info.data.get("algorithm"), info.data.get("stage")
        if value is None:
            if stage in {"pending", "retiring"}:
                raise wrong(f"{REQUIRED}: a {stage} key is published, so its public half must be known", _GENERATE)
            return None
        if "PRIVATE" in value:
            raise wrong(
                "is a private key",
                "take it out of here, and make a new one: `reconciler dkim generate DOMAIN`",
            )
        if algorithm is None:
            return value
        try:
            public = keys.public_key(algorithm, value)
            bits = keys.rsa_bits(public) if algorithm == "rsa" else 0
        except (ValueError, IndexError) as error:
            raise wrong(f"is no {algorithm} key: {error}", _GENERATE) from None
        if algorithm == "rsa" and bits < 1024:  # noqa: PLR2004 - RFC 8301 section 3.2: verifiers must refuse it
            hint = "make one of 2048: `reconciler dkim generate DOMAIN --algorithm rsa`"
            raise wrong(f"has {bits} bits, which no one accepts", hint)
        return public


_GENERATE = (
    "copy what p= holds in DNS; or make a key: `reconciler dkim generate DOMAIN` writes both halves where they belong"
)


# ------------------------------------------------------------------------------------------------------------- dns
_RECORD_NAME = re.compile(r"@|(\*|[^\s.*@\"\\]{1,63})(\.[^\s.*@\"\\]{1,63})*")
_TTL = (60, 86400)


def _ttl(value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}", value) and _TTL[0] <= int(value) <= _TTL[1]:
        return int(value)
    hint = "write ttl: auto" if value == "1" else "write ttl: auto, or ttl: 300"
    raise wrong("must be auto, or 60 to 86400 seconds", hint)


class Record(Model):
    """A DNS record. The fields are checked in this order, each against those before it."""

    type: Text
    name: Text
    proxied: Flag = False
    ttl: Annotated[
        int | Literal["auto"],
        PlainValidator(_ttl),
        WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 60, "maximum": 86400}]}),
    ] = "auto"
    data: Annotated[dict[str, str], PlainValidator(lambda value: value), WithJsonSchema({"type": "object"})] | None = (
        None
    )
    content: Annotated[Text | None, Field(validate_default=True)] = None
    priority: Annotated[Short | None, Field(validate_default=True)] = None
    comment: Text | None = None

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        upper = value.upper()
        if upper not in TYPES:
            if upper == "SPF":
                raise wrong("SPF is no type any more (RFC 7208)", "write type: TXT")
            raise wrong("is no type that Cloudflare serves", f"known are {', '.join(sorted(TYPES))}")
        return upper

    @field_validator("name")
    @classmethod
    def _relative_name(cls, value: str) -> str:
        if value.endswith(".") and len(value) > 1:
            raise wrong("ends in a dot", "write the name relative to the zone, @ for the zone itself")
        if not _RECORD_NAME.fullmatch(value):
            raise wrong(f"is no record's name{_hidden(value)}", "write it relative to the zone, like mail, @ or *.dev")
        return value

    @field_validator("proxied")
    @classmethod
    def _proxiable(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic calls it so
        if value and not TYPES[info.data.get("type", "A")].proxiable:
            raise wrong("only A, AAAA and CNAME can be proxied", "remove it")
        return value

    @field_validator("ttl")
    @classmethod
    def _proxied_ttl(cls, value: int | str, info: ValidationInfo) -> int | str:
        if value != "auto" and info.data.get("proxied"):
            raise wrong("a proxied record has ttl: auto", "remove the ttl; Cloudflare sets it")
        return value

    @field_validator("data")
    @classmethod
    def _known_data(cls, value: Any, info: ValidationInfo) -> Any:
        type = info.data.get("type")  # noqa: A001 - the field's own name
        if value is None or type is None:
            return value
        known, errors = list(TYPES[type].parts), list[Wrong]()
        if not known:
            raise wrong(f"{type} takes content, not data", "write content: VALUE")
        if not isinstance(value, dict):
            raise wrong("must be a map", f"with {', '.join(known)}")
        for key, item in value.items():
            if key not in known and key != "priority":
                errors.append(((key,), "is not known", f"{type} takes {', '.join(known)}"))
            elif not isinstance(item, str):
                errors.append(((key,), "must be text or a number", ""))
        missing = [key for key in known if key not in value and key not in TYPES[type].optional]
        if missing:
            errors.append(((), f"{type} needs {', '.join(missing)}", f"it is made of {', '.join(known)}"))
        if errors:
            raise wrongs(errors)
        return value

    @field_validator("content")
    @classmethod
    def _needed_content(cls, value: str | None, info: ValidationInfo) -> str | None:
        type, data = info.data.get("type"), info.data.get("data")  # noqa: A001 - the field's own name
        if value is None or value == "":
            if type is None or "data" not in info.data or data is not None:
                return None
            named = ", ".join(f"{part}: ..." for part in TYPES[type].parts)
            parts = f"write data: {{{named}}}" if named else ""
            what = "data or content" if parts else "content"
            raise wrong(f"{REQUIRED}: {type} needs a {what}", parts or "write content: VALUE")
        if data is not None:
            raise wrong("stands beside data", "keep one of them")
        if "\n" in value or "\r" in value:
            raise wrong("holds a line break", "fold it with >- in place of |, or write it on one line in quotes")
        if type and TYPES[type].points and _is_address(value):
            raise wrong(f"{type} points to a name, not to an address", "make an A record and name it here")
        return value

    @field_validator("priority")
    @classmethod
    def _needed_priority(cls, value: int | None, info: ValidationInfo) -> int | None:
        type, content = info.data.get("type"), info.data.get("content")  # noqa: A001 - the field's own name
        data, row = info.data.get("data") or {}, TYPES.get(type or "", OTHER)
        if value is None and row.prioritised and "content" in info.data and "priority" not in data:
            if content != "." and not re.match(r"\d{1,5}\s", content or ""):
                raise wrong(f"{REQUIRED}: {type} needs a priority", "write priority: 10")
        elif value is not None and type and not row.has_priority:
            raise wrong(f"{type} has no priority", "remove it")
        return value

    @field_validator("comment")
    @classmethod
    def _comment(cls, value: str | None) -> str | None:
        if value and ("\n" in value or "\r" in value):
            raise wrong("holds a line break", "write it on one line; Cloudflare takes no other")
        if value and re.search(r"(^|\s)reconciler:[a-z0-9-]", value):
            raise wrong("holds an ownership mark", "the reconciler writes it by itself: keep your own text only")
        return value


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


# -------------------------------------------------------------------------------------------------------- stalwart
def _rate(value: Any) -> str | None:
    if value is None:
        return None
    try:
        return words.ban_rate(_text(value))
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


class Network(Model):
    """A network of the compose project."""

    network: Text


def _allowed_ip(value: Any) -> str | Network:
    if isinstance(value, dict):
        return Network.model_validate(value)
    try:
        ip_network(_text(value), strict=False)
    except ValueError as error:
        if isinstance(error, PydanticCustomError):
            raise
        hint = "write it like 172.18.0.0/16, or {network: NAME} for a network of the compose project"
        raise wrong("is no address and no network", hint) from None
    return str(value)


AllowedIp = Annotated[
    str | Network,
    PlainValidator(_allowed_ip),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"network": {"type": "string"}}, "required": ["network"]},
            ]
        }
    ),
]


def _bind(value: str) -> str:
    host, _, port = value.rpartition(":")
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not _is_address(inner) or (":" in inner) == (inner == host) or not re.fullmatch(r"[1-9][0-9]{0,4}", port):
        raise wrong("is no address with a port", 'write it like "[::]:587" or "0.0.0.0:587"')
    return value


_IMPLICIT_TLS = frozenset({"443", "465", "993", "995"})  # RFC 8314 section 3.3, RFC 9110 section 4.2.2


class Listener(Model):
    """A port that the server listens on. Without ``tls``, the port decides: 443, 465, 993 and 995 begin with TLS."""

    bind: Annotated[
        tuple[Annotated[Text, AfterValidator(_bind)], ...],
        BeforeValidator(_one_or_many, json_schema_input_type=str | tuple[str, ...]),
    ]
    protocol: Literal["smtp", "lmtp", "http", "imap", "pop3", "managesieve"]
    tls: Literal["implicit", "starttls"] | None = None

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
    for key, item in _open_map(value).items():
        try:
            settings[key] = _setting(key, item)
        except PydanticCustomError as error:
            errors += [((key,), summary, hint) for _, summary, hint in (error.context or {})["errors"]]
    if errors:
        raise wrongs(errors)
    return settings


def _setting(key: str, value: Any) -> str | SecretRef | None:
    if word := words.word_of(key) or _NEUTRAL_KEYS.get(key):
        where = word if word == "dkim" else f"stalwart.{word.replace('/', '.')}"
        raise wrong(f"has a word of its own: {where}", "say it there, and take this one away")
    if not words.is_known(key):
        raise wrong("is a setting of no version", "write the key as the server's documentation has it; 0.16: objects")
    if isinstance(value, list):
        raise wrong("must be one value", "write KEY.0: FIRST and KEY.1: SECOND, as the server does")
    if isinstance(value, str) and value and words.is_secret(key) and not value.startswith("%{"):
        raise wrong("is a secret written out: it must be a reference", _REFERENCE)
    return None if value is None else _text_or_secret(value)


def _objects(value: Any) -> dict[str, Any]:
    made: dict[str, Any] = {}
    errors: list[Wrong] = []
    for key, entries in _open_map(value).items():
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
    values, misfits = objects.declared(name, entry, {key: fields[key] for key in fields if key not in words})
    return values, [*wrong, *((path, misfit.summary, misfit.hint) for path, misfit in misfits)]


class Stalwart(Model):
    """What a recreated volume would lose: neutral words, and the server's own for anything else."""

    hostname: Domain | None = None
    default_domain: Domain | None = None
    allowed_ips: Annotated[tuple[AllowedIp, ...], BeforeValidator(_empty_list)] = ()
    auto_ban: Annotated[AutoBan, BeforeValidator(_empty_map)] = AutoBan.model_construct()
    listeners: Annotated[dict[str, Listener], OpenMap] = {}
    settings: Annotated[
        dict[str, str | SecretRef | None],
        PlainValidator(_settings),
        WithJsonSchema({"type": ["object", "null"]}),
    ] = {}
    objects: Annotated[dict[str, Any], PlainValidator(_objects), WithJsonSchema({"type": ["object", "null"]})] = {}


# ------------------------------------------------------------------------------------------------------------ smtp
ZoneRecords = Annotated[dict[Zone, Annotated[tuple[Record, ...], List]], OpenMap]


class Provider(Model):
    """Who delivers mail: where, and as whom."""

    host: Host | None = None
    port: Port | None = None
    account: AccountName | None = None
    username: Text | None = None
    password: SecretIfAny = None
    verify_tls: Flag = True
    preset: Text | None = None
    standby: Flag = False
    api_key: SecretIfAny = None
    dns: ZoneRecords = {}

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str | None) -> str | None:
        if value is not None and value not in PRESETS:
            raise wrong("is no preset", f"known are {', '.join(PRESETS)}; or write host and port")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        errors: list[Wrong] = [
            ((field,), REQUIRED, f"write {field}: ..., or name a preset")
            for field in ("host", "port")
            if getattr(self, field) is None and self.preset is None
        ]
        if self.account is not None and (self.username is not None or self.password is not None):
            errors.append((("account",), "stands beside username or password", "keep account, or both of the others"))
        if self.account is None and (self.username is None or self.password is None):
            absent = "username" if self.username is None else "password"
            hint = "a provider has username and password, or the account of this server"
            errors.append(((absent,), REQUIRED, hint))
        if errors:
            raise wrongs(errors)
        return self


def _template(value: Any) -> str | SecretRef:
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)).partition("|")[0] in template.NAMES:
        raise wrong("is a template without quotes, which YAML reads as a map", f'write "{{{next(iter(value))}}}"')
    text = _text_or_secret(value)
    if isinstance(text, str):
        try:
            template.parse(text)
        except template.WrongTemplate as error:
            raise wrong(error.summary, error.hint) from None
    return text


EnvValue = Annotated[
    str | SecretRef, PlainValidator(_template), WithJsonSchema({"anyOf": [_TEXT_SCHEMA, _SECRET_SCHEMA]})
]


class Consumer(Model):
    """A service that sends mail, and the variables it is told by: templates, plain values or references."""

    provider: Text | None = None
    env: Annotated[dict[EnvName, EnvValue], BeforeValidator(_empty_map)] = {}


class Link(Model):
    """Variables that must agree; with ``value`` they are also set. The YAML calls ``ends`` ``in``, or is the list."""

    value: SecretIfAny = None
    ends: Annotated[tuple[LinkEnd, ...], List] = Field(alias="in")

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, value: Any) -> Any:
        if not isinstance(value, list | dict):
            raise wrong("is no link", "write [SERVICE.VARIABLE, SERVICE.VARIABLE], or {value: {env: NAME}, in: [...]}")
        return {"in": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _enough(self) -> Self:
        fewest = 2 if self.value is None else 1
        if len(self.ends) < fewest:
            raise wrong(f"needs at least {fewest} SERVICE.VARIABLE", "one alone agrees with itself", "in")
        if len(set(self.ends)) < len(self.ends):
            raise wrong("names a variable twice", "keep one", "in")
        return self


class Smtp(Model):
    """Who delivers the mail of which service."""

    provider: Text | None = None
    providers: Annotated[dict[str, Provider], OpenMap] = {}
    consumers: Annotated[dict[str, Consumer], OpenMap] = {}
    links: Annotated[tuple[Link, ...], BeforeValidator(_empty_list)] = ()


# ------------------------------------------------------------------------------------------------------- the whole
_ADDRESSES = {
    "account": (r"account/.+", "account/NAME"),
    "domain": (r"domain/[^/]+", "domain/NAME"),
    "dkim": (r"dkim/[^/]+/[^/]+", "dkim/DOMAIN/SELECTOR"),
    "dns": (r"dns/[^/]+/[A-Z0-9]+/.+", "dns/ZONE/TYPE/NAME"),
    "stalwart": (r"stalwart/.+", "stalwart/WORD"),
    "smtp": (r"smtp/[^/]+/[^/]+", "smtp/SERVICE/VARIABLE"),
}


def _address(*kinds: str, removable: bool = False) -> Callable[[str], str]:
    known = " or ".join(_ADDRESSES[kind][1] for kind in kinds)

    def check(value: str) -> str:
        kind = value.partition("/")[0]
        if kind not in kinds or not re.fullmatch(_ADDRESSES[kind][0], value):
            raise wrong("is no address that can stand here", f"write {known}")
        if removable and kind == "stalwart" and not value.startswith("stalwart/listeners/"):
            raise wrong("can't be removed", "of these only stalwart/listeners/NAME; null puts a setting back")
        return value

    return check


Removable = Annotated[Text, AfterValidator(_address("account", "domain", "dkim", "stalwart", removable=True))]
Movable = Annotated[Text, AfterValidator(_address("account"))]
Address = Annotated[Text, AfterValidator(_address(*_ADDRESSES))]


class Move(Model):
    """An account that gets another name and keeps its mailbox. The YAML calls `source` ``from``, `target` ``to``."""

    source: Movable = Field(alias="from")
    target: Movable = Field(alias="to")


def _version(value: Any) -> int:
    if value != "1":
        raise wrong("must be 1", "this version of the reconciler knows no other format")
    return 1


class Spec(Model):
    """A whole directory."""

    version: Annotated[Literal[1], PlainValidator(_version), WithJsonSchema({"const": 1})] = 1
    stack: Annotated[
        Text, _pattern(r"[a-z0-9-]{1,24}", "is no stack's name", "1 to 24 of a-z, 0-9 and -: it marks what is ours")
    ]
    targets: Annotated[Targets, BeforeValidator(_empty_map)] = Targets.model_construct()
    policy: Annotated[Policy, BeforeValidator(_empty_map)] = Policy.model_construct()
    accounts: Annotated[dict[AccountName, Account], OpenMap] = {}
    dkim: Annotated[dict[Domain, Annotated[tuple[Key, ...], List]], OpenMap] = {}
    dns: ZoneRecords = {}
    stalwart: Annotated[Stalwart, BeforeValidator(_empty_map)] = Stalwart.model_construct()
    smtp: Annotated[Smtp, BeforeValidator(_empty_map)] = Smtp.model_construct()
    removed: Annotated[tuple[Removable, ...], BeforeValidator(_empty_list)] = ()
    moved: Annotated[tuple[Move, ...], BeforeValidator(_empty_list)] = ()
    adopt: Annotated[tuple[Address, ...], BeforeValidator(_empty_list)] = ()


def references(spec: Spec) -> Iterator[tuple[tuple[str | int, ...], SecretRef]]:
    """Yield every reference to a secret with the path of where it stands."""
    yield from _target_references(spec.targets)
    for name, account in spec.accounts.items():
        if account.password is not None:
            yield ("accounts", name, "password"), account.password
    for domain, domain_keys in spec.dkim.items():
        for index, key in enumerate(domain_keys):
            if key.private_key is not None:
                yield ("dkim", domain, index, "private_key"), key.private_key
    for name, setting in spec.stalwart.settings.items():
        if isinstance(setting, SecretRef):
            yield ("stalwart", "settings", name), setting
    yield from _object_references(spec.stalwart.objects)
    yield from _smtp_references(spec.smtp)


def _object_references(declared: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], SecretRef]]:
    for name, entries in declared.items():
        for entry, fields in entries.items():
            for path, ref in objects.secrets(objects.Parts(fields)):
                yield ("stalwart", "objects", name, entry, *path), ref


def _target_references(targets: Targets) -> Iterator[tuple[tuple[str | int, ...], SecretRef]]:
    if (server := targets.stalwart) is not None:
        for index, password in enumerate(server.password):
            yield ("targets", "stalwart", "password", index), password
        if server.recovery is not None:
            yield ("targets", "stalwart", "recovery"), server.recovery
    for index, cloudflare in enumerate(targets.cloudflare):
        yield ("targets", "cloudflare", index, "token"), cloudflare.token


def _smtp_references(smtp: Smtp) -> Iterator[tuple[tuple[str | int, ...], SecretRef]]:
    for name, provider in smtp.providers.items():
        for field, ref in (("password", provider.password), ("api_key", provider.api_key)):
            if ref is not None:
                yield ("smtp", "providers", name, field), ref
    for service, consumer in smtp.consumers.items():
        for variable, value in consumer.env.items():
            if isinstance(value, SecretRef):
                yield ("smtp", "consumers", service, "env", variable), value
    for index, link in enumerate(smtp.links):
        if link.value is not None:
            yield ("smtp", "links", index, "value"), link.value
