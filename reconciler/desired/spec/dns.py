"""``dns``: records, by their zones."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationInfo, WithJsonSchema, field_validator

from reconciler.desired import public_ip
from reconciler.desired.spec.scalars import (
    REQUIRED,
    Flag,
    List,
    Model,
    OpenMap,
    Short,
    Text,
    Wrong,
    ZoneName,
    hidden,
    wrong,
    wrongs,
)
from reconciler.dns import text
from reconciler.dns.types import OTHER, TYPES

_RECORD_NAME = re.compile(r"@|(\*|[^\s.*@\"\\]{1,63})(\.[^\s.*@\"\\]{1,63})*")
_TTL = (60, 86400)


def _ttl(value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}", value) and _TTL[0] <= int(value) <= _TTL[1]:
        return int(value)
    hint = "write ttl: auto" if value == "1" else "write ttl: auto, or ttl: 300"
    raise wrong("must be auto, or 60 to 86400 seconds", hint)


_FOLLOWS = {
    "type": "object",
    "description": "Of an A record: follows the line's address.",
    "properties": {"public_ip": {"const": True, "description": "It follows the line's address."}},
    "required": ["public_ip"],
    "additionalProperties": False,
}
_CONTENT = {"anyOf": [{"type": "string"}, _FOLLOWS, {"type": "null"}], "default": None}


def _line(type: str, value: dict[str, Any]) -> str:
    """Read ``{public_ip: true}``, which is a template from here on."""
    if set(value) != {"public_ip"}:
        raise wrong("must be text", "is a dash, a colon or a brace too much?")
    if type == "AAAA":
        summary = "can't follow the line: behind it every machine has an IPv6 address of its own"
        raise wrong(summary, "write the server's own lasting address (no privacy extension)")
    if type != "A":
        raise wrong(f"only an A record follows the line's address, and this is {type}", _WHERE)
    if value["public_ip"] not in ("true", "on", "yes"):
        raise wrong("says public_ip, and not true", "write content: {public_ip: true}, or the address itself")
    return public_ip.SLOT


_WHERE = "content: {public_ip: true} stands in an A record, and {public_ip} in the text of an SPF record"


class RecordEntry(Model):
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
    content: Annotated[Text | None, Field(validate_default=True), WithJsonSchema(_CONTENT)] = None
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
            raise wrong(f"is no record's name{hidden(value)}", "write it relative to the zone, like mail, @ or *.dev")
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
            elif public_ip.SLOT in item:
                errors.append(((key,), "holds {public_ip} where nothing follows the line's address", _WHERE))
        missing = [key for key in known if key not in value and key not in TYPES[type].optional]
        if missing:
            errors.append(((), f"{type} needs {', '.join(missing)}", f"it is made of {', '.join(known)}"))
        if errors:
            raise wrongs(errors)
        return value

    @field_validator("content", mode="before")
    @classmethod
    def _following(cls, value: Any, info: ValidationInfo) -> Any:
        type, name = info.data.get("type", "A"), info.data.get("name", "@")  # noqa: A001 - the field's own name
        if isinstance(value, dict):
            return _line(type, value)
        if not isinstance(value, str) or "{" not in value:
            return value
        if type == "A" or not public_ip.is_template(type, name, value):
            if public_ip.SLOT in value:
                raise wrong("holds {public_ip} where nothing follows the line's address", _WHERE)
        elif brace := public_ip.stray(value):
            raise wrong(f"has a single {brace}", f"known is {public_ip.SLOT}; write {brace * 2} for a brace")
        return value

    @property
    def template(self) -> str:
        """What the content is filled from, where braces mean something in it; else empty."""
        content = self.content or ""
        return text.joined(content) if public_ip.is_template(self.type, self.name, content) else ""

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
        if value and re.search(r"[\x00-\x1f\x7f]", value):
            raise wrong(f"holds a character that Cloudflare takes in no comment{hidden(value)}", "remove it")
        if value and re.search(r"(^|\s)reconciler:[a-z0-9-]", value):
            raise wrong("holds an ownership mark", "the reconciler writes it by itself: keep your own text only")
        return value


ZoneRecords = Annotated[dict[ZoneName, Annotated[tuple[RecordEntry, ...], List]], OpenMap]
