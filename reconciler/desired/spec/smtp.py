"""``smtp``: who delivers the mail of which service."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema, field_validator, model_validator

from reconciler.desired import template
from reconciler.desired.presets import PRESETS
from reconciler.desired.spec.dns import ZoneRecords
from reconciler.desired.spec.scalars import (
    REQUIRED,
    SECRET_SCHEMA,
    TEXT_SCHEMA,
    AccountName,
    EnvName,
    Flag,
    HostName,
    LinkEnd,
    List,
    Model,
    OpenMap,
    Port,
    SecretIfAny,
    ServiceName,
    Text,
    TextOrSecret,
    Wrong,
    empty_list,
    empty_map,
    text_or_secret,
    wrong,
    wrongs,
)
from reconciler.desired.spec.targets import Duration
from reconciler.resources import SecretRef


class Provider(Model):
    """Who delivers mail: where, and as whom."""

    host: HostName | None = None
    port: Port | None = None
    account: AccountName | None = None
    username: TextOrSecret | None = None
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
    text = text_or_secret(value)
    if isinstance(text, str):
        try:
            template.split(text)
        except template.WrongTemplate as error:
            raise wrong(error.summary, error.hint) from None
    return text


EnvValue = Annotated[
    str | SecretRef, PlainValidator(_template), WithJsonSchema({"anyOf": [TEXT_SCHEMA, SECRET_SCHEMA]})
]


class Consumer(Model):
    """A service that sends mail, and the variables it is told by: templates, plain values or references."""

    provider: Text | None = None
    env: Annotated[dict[EnvName, EnvValue], BeforeValidator(empty_map)] = {}


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


class FailoverEntry(Model):
    """Who stands in for the provider in use while that takes no mail. Both times are seconds.

    ``after`` is for how long it takes none before the consumers are switched, ``back_after`` for how long it takes
    mail again before they go back.
    """

    to: Text
    after: Duration = 600
    back_after: Duration = 3600


class Smtp(Model):
    """Who delivers the mail of which service."""

    provider: Text | None = None
    failover: FailoverEntry | None = None
    providers: Annotated[dict[str, Provider], OpenMap] = {}
    consumers: Annotated[dict[ServiceName, Consumer], OpenMap] = {}
    links: Annotated[tuple[Link, ...], BeforeValidator(empty_list)] = ()
