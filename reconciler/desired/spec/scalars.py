"""What the models are made of: texts, numbers, names, references to secrets, maps and lists.

Every scalar arrives as the text that was written (see `reconciler.desired.yaml.value`), ``null`` as ``None``.
"""

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Annotated, Any
from unicodedata import is_normalized, normalize

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from reconciler import url
from reconciler.names import invisible, is_name, meant
from reconciler.resources import SecretRef

REQUIRED = "is missing"

Wrong = tuple[tuple[str | int, ...], str, str]


def wrong(summary: str, hint: str = "", *field: str | int) -> PydanticCustomError:
    """Make the error of a value; ``field`` leads to it from where it is raised. Neither text repeats a secret."""
    return wrongs([(field, summary, hint)])


def wrongs(errors: Sequence[Wrong]) -> PydanticCustomError:
    """Make one error of several, each with its field, summary and hint."""
    return PydanticCustomError("wrong", "{summary}", {"summary": errors[0][1], "errors": tuple(errors)})


# --------------------------------------------------------------------------------------------------------- scalars
def as_text(value: Any) -> str:
    """Return a scalar that must be there."""
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


def matching(regex: str, summary: str, hint: str = "") -> AfterValidator:
    """Make the validator of texts that match a pattern as a whole."""

    def check(value: str) -> str:
        if not re.fullmatch(regex, value):
            raise wrong(summary, hint)
        return value

    return AfterValidator(check)


Text = Annotated[str, BeforeValidator(as_text)]
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
_octet, _octet_schema = _number(1, 255)
Octet = Annotated[int, _octet, _octet_schema]
_limit, _limit_schema = _number(1, 1_000_000)
Limit = Annotated[int, _limit, _limit_schema]

_LABEL = r"[^\s.@/\\\"'<>()\[\]{},;:*]{1,63}"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_EMAIL = re.compile(rf"[^\s@<>()\[\],;:\\\"]{{1,64}}@{_LABEL}(\.{_LABEL})*")


def _domain(value: str) -> str:
    if value.endswith("."):
        raise wrong("ends in a dot", f"write {value.rstrip('.')}")
    if is_address(value):
        raise wrong("is an address, where a domain's name has to stand", "write it like mail.example.com")
    if value.startswith("-") or not _DOMAIN.fullmatch(value) or not is_name(value):
        raise wrong(f"is no domain name{hidden(value)}", f"write {meant(value) or 'it like mail.example.com'}")
    return value


def hidden(value: str) -> str:
    """Name a character that nobody sees, as the end of a summary; empty where there is none."""
    return f": it holds the invisible character {name}" if (name := invisible(value)) else ""


def is_address(text: str) -> bool:
    """Whether a text is an IP address, without a port or brackets."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _zone(value: str) -> str:
    if "." not in _domain(value):
        raise wrong("is no zone", "write the domain as Cloudflare lists it, like example.com")
    return value


def _email(value: str) -> str:
    if "*" in value or value.startswith("@"):
        domain = value.rpartition("@")[2]
        raise wrong("stands for more than one address", f"write domains: {{{domain}: {{catch_all: ADDRESS}}}}")
    if not _EMAIL.fullmatch(value) or not is_name(value.rpartition("@")[2]):
        raise wrong(f"is no e-mail address{hidden(value)}", "write it like name@example.com")
    return _one_spelling(value)


def _one_spelling(value: str) -> str:
    """Refuse a name that looks like another one: two accounts would be one to whoever reads (RFC 6532 section 3.1)."""
    if invisible(value):
        raise wrong(f"is no name{hidden(value)}", "take it out")
    if not is_normalized("NFC", value):
        raise wrong("holds a letter and its accent as two characters", f"write {normalize('NFC', value)}")
    return value


def _account_name(value: str) -> str:
    if "@" in value:
        return _email(value)
    if not re.fullmatch(r"[^\s@/<>()\[\],;:\\\"]{1,64}", value):
        raise wrong("is no account's name", "write an e-mail address, or a plain name for an administrator without one")
    return _one_spelling(value)


def _host(value: str) -> str:
    try:
        url.host(value)
    except url.NoUrl as error:
        raise wrong(f"is no host: it {error.why}", f"{error.hint}; the port has a key of its own") from None
    return value


DomainName = Annotated[Text, AfterValidator(_domain)]
ZoneName = Annotated[Text, AfterValidator(_zone)]
Email = Annotated[Text, AfterValidator(_email)]
AccountName = Annotated[Text, AfterValidator(_account_name)]
HostName = Annotated[Text, AfterValidator(_host)]
EnvName = Annotated[  # as of Spring: spring.mail.host
    Text,
    matching(r"[A-Za-z_][A-Za-z0-9_.-]*", "is no variable's name", "letters, digits, _, . and -; a letter or _ first"),
]
SecretFileName = Annotated[
    Text, matching(r"[A-Za-z0-9][A-Za-z0-9._-]*", "is no name of a compose secret", "as it stands below `secrets:`")
]
ValueName = Annotated[
    Text, matching(r"[A-Za-z_][A-Za-z0-9_-]*", "is no value's name", "letters, digits, _ and -; a letter or _ first")
]
ServiceName = Annotated[
    Text, matching(r"[A-Za-z0-9][A-Za-z0-9._-]*", "is no service's name", "letters, digits, ., _ and -, no mark first")
]
LinkEnd = Annotated[
    Text,
    matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]*\.[A-Za-z_][A-Za-z0-9_]*",
        "must read SERVICE.VARIABLE",
        "write it like web.SMTP_PASSWORD",
    ),
]


def link_end(text: str) -> tuple[str, str]:
    """Return service and variable of a link's end; the name of a service may hold dots."""
    service, _, variable = text.rpartition(".")
    return service, variable


# --------------------------------------------------------------------------------------------------------- secrets
SOURCES = ("env", "credential", "file", "sops", "age", "account")
_FORMS = {
    "env": (r"[A-Za-z_][A-Za-z0-9_]*", "the name of a variable: letters, digits and _"),
    "credential": (r"[A-Za-z0-9_][^\0/:\s]{0,254}", "the plain name of a file in $CREDENTIALS_DIRECTORY"),
    "file": (r"[^\0\n]+", "a path, relative to the directory"),
    "sops": (r"[^\0\n#]+#[^\0\n]+", "PATH#KEY"),
    "age": (r"[^\0\n]+", "a path, relative to the directory"),
    "account": (_EMAIL.pattern + r"|[^\s@/]+", "the key of a declared account"),
}
_VARIABLE = re.compile(r"\$\{([A-Z_][A-Z0-9_]{0,80})(?::?[-?][^}]*)?\}")  # in capitals, which no password is by chance
REFERENCE_HINT = (
    "write {env: NAME}, {credential: NAME}, {file: PATH}, {sops: PATH#KEY}, {age: PATH} or {account: ADDRESS} in its "
    "place"
)


def _secret(value: Any) -> SecretRef:
    """Read a reference. No message repeats what stands there: it may be the secret itself."""
    if isinstance(value, str) and (variable := _VARIABLE.fullmatch(value)):
        raise wrong("is written as in a shell or a compose file", f"write {{env: {variable[1]}}} in its place")
    if isinstance(value, str):
        raise wrong("is a secret written out: it must be a reference", REFERENCE_HINT)
    if not isinstance(value, dict) or len(value) != 1:
        raise wrong("must be a reference to a secret", REFERENCE_HINT)
    ((source, name),) = value.items()
    if source not in _FORMS:
        raise wrong("is a reference to a place that is not known", REFERENCE_HINT)
    pattern, what = _FORMS[source]
    if not isinstance(name, str) or not re.fullmatch(pattern, name):
        raise wrong(f"is no reference: {source} takes {what}", "the value itself belongs there, not here")
    return SecretRef(source, name)


SECRET_SCHEMA = {
    "type": "object",
    "description": "A reference to a secret, never the value itself.",
    "properties": {
        "env": {"type": "string", "description": "The name of an environment variable."},
        "credential": {"type": "string", "description": "The name of a file that systemd or Compose hands over."},
        "file": {"type": "string", "description": "The path of a file, relative to the directory."},
        "sops": {"type": "string", "description": "PATH#KEY of a file that sops encrypts."},
        "age": {"type": "string", "description": "The path of a file that age encrypts."},
        "account": {"type": "string", "description": "The password of this declared account."},
    },
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}
SecretName = Annotated[SecretRef, PlainValidator(_secret), WithJsonSchema(SECRET_SCHEMA)]
# It may be absent; a key with nothing behind it is a mistake, since nothing is cleared by it.
SecretIfAny = Annotated[SecretRef | None, PlainValidator(_secret), WithJsonSchema(SECRET_SCHEMA)]


def _passwords(value: Any) -> tuple[SecretRef, ...]:
    if not isinstance(value, list):
        return (_secret(value),)
    if not value:
        raise wrong("is an empty list", REFERENCE_HINT)
    return tuple(_secret(item) for item in value)


SecretList = Annotated[
    tuple[SecretRef, ...],
    PlainValidator(_passwords),
    WithJsonSchema({"anyOf": [SECRET_SCHEMA, {"type": "array", "items": SECRET_SCHEMA, "minItems": 1}]}),
]


def text_or_secret(value: Any) -> str | SecretRef:
    """Read a reference where a map stands, else a text."""
    return _secret(value) if isinstance(value, dict) else as_text(value)


TEXT_SCHEMA: dict[str, Any] = {"type": ["string", "number", "boolean"]}
TextOrSecret = Annotated[
    str | SecretRef, PlainValidator(text_or_secret), WithJsonSchema({"anyOf": [TEXT_SCHEMA, SECRET_SCHEMA]})
]


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


def open_map(value: Any) -> Any:
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


def empty_list(value: Any) -> Any:
    """Read a list; nothing is an empty one."""
    return [] if value is None else _list(value)


def empty_map(value: Any) -> Any:
    """Read a map; nothing is an empty one."""
    return {} if value is None else value


OpenMap = BeforeValidator(open_map)
List = BeforeValidator(_list)
ListOrNull = BeforeValidator(lambda value: None if value is None else _list(value))


def one_or_many(value: Any) -> Any:
    """Read a list, or one thing as a list of it."""
    return value if isinstance(value, list) else [value]
