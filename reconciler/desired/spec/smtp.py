"""``smtp``: who delivers the mail of which service."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema, field_validator, model_validator

from reconciler.desired import apps, template, words
from reconciler.desired.presets import PRESETS, Preset, tls_mode
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
    SecretFileName,
    SecretIfAny,
    ServiceName,
    Text,
    TextOrSecret,
    ValueName,
    Wrong,
    empty_list,
    empty_map,
    link_end,
    matching,
    text_or_secret,
    wrong,
    wrongs,
)
from reconciler.desired.spec.targets import Duration
from reconciler.resources import SECRET_FILES, SecretRef


class Provider(Model):
    """Who delivers mail: where, and as whom. Without a login it is a relay that takes mail from anybody near.

    ``values`` are what templates call ``{values.NAME}``. The YAML calls ``sender`` ``from``.
    """

    host: HostName | None = None
    port: Port | None = None
    tls: Literal["starttls", "implicit", "none"] | None = None
    account: AccountName | None = None
    username: TextOrSecret | None = None
    password: SecretIfAny = None
    verify_tls: Flag = True
    sender: TextOrSecret | None = Field(default=None, alias="from")
    values: Annotated[dict[ValueName, TextOrSecret], BeforeValidator(empty_map)] = {}
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
        half = (self.username is None) != (self.password is None)
        if self.account is None and (half or (self.username is None and self.preset is not None)):
            absent = "username" if self.username is None else "password"
            hint = "a provider has username and password, or the account of this server, or no login at all"
            errors.append(((absent,), REQUIRED, hint))
        if errors:
            raise wrongs(errors)
        return self

    @property
    def door(self) -> tuple[str, int]:
        """Host and port, its own or its preset's."""
        known = PRESETS.get(self.preset or "", Preset(""))
        return self.host or known.host, self.port or known.port

    @property
    def terms(self) -> words.Terms:
        """What choices of values go by."""
        mode = tls_mode(self.tls, self.door[1])
        return words.Terms(mode, self.verify_tls, self.account is not None or self.password is not None)


def _template(value: Any) -> words.Value:
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)).partition("|")[0] in template.NAMES:
        raise wrong("is a template without quotes, which YAML reads as a map", f'write "{{{next(iter(value))}}}"')
    try:
        return words.read(value, _leaf)
    except template.WrongTemplate as error:
        raise wrong(error.summary, error.hint) from None


def _leaf(value: Any) -> str | SecretRef:
    text = text_or_secret(value)
    if isinstance(text, str):
        template.split(text)
    return text


CHOICE_SCHEMA = {
    "type": "object",
    "description": "Values by the provider's TLS mode, by whether it is verified, or by whether one logs in.",
    "properties": {option: {"description": f"The value where it is {option}."} for option in words.OPTIONS},
    "additionalProperties": False,
    "minProperties": 1,
}
EnvValue = Annotated[
    str | SecretRef | words.Choice,
    PlainValidator(_template),
    WithJsonSchema({"anyOf": [TEXT_SCHEMA, SECRET_SCHEMA, CHOICE_SCHEMA]}),
]
EnvEntry = Annotated[
    str | SecretRef | words.Choice | None,
    PlainValidator(lambda value: None if value is None else _template(value)),
    WithJsonSchema({"anyOf": [TEXT_SCHEMA, SECRET_SCHEMA, CHOICE_SCHEMA, {"type": "null"}]}),
]


class Consumer(Model):
    """A service that sends mail, and the variables it is told by: templates, plain values, references, choices.

    ``app`` brings the variables of an application, of which ``env`` replaces some or, by ``null``, takes them out.
    ``secrets`` are contents of compose secrets' files, by the secrets' names.
    """

    app: Text | None = None
    provider: Text | None = None
    env: Annotated[dict[EnvName, EnvEntry], BeforeValidator(empty_map)] = {}
    secrets: Annotated[dict[SecretFileName, EnvValue], BeforeValidator(empty_map)] = {}

    @field_validator("app")
    @classmethod
    def _known_app(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if value not in apps.APPS:
            raise wrong("is no application that is known", apps.suggestion(value))
        if why := apps.APPS[value].why_none:
            raise wrong(f"takes its mail server from no variable: {why}", apps.APPS[value].remedy)
        return value

    @model_validator(mode="after")
    def _nothing_left_out(self) -> Self:
        known = apps.APPS[self.app].variables if self.app is not None else {}
        errors: list[Wrong] = [
            (("env", name), "is empty", "write a value; null takes out what `app` brings")
            for name, value in self.env.items()
            if value is None and name not in known
        ]
        if errors:
            raise wrongs(errors)
        return self

    def entries(self, provider: Provider | None) -> dict[str, apps.Entry]:
        """Return what the service is given, by the variable's name, or by ``secrets/NAME``.

        What an application is told by a word that the provider has no value for is left out.
        """
        brought = apps.APPS[self.app].variables if self.app is not None else {}
        given = {
            name: entry
            for name, entry in brought.items()
            if name not in self.env and not (entry.needs_from and (provider is None or provider.sender is None))
        }
        own = {
            name: apps.Entry(value, brought[name].assumed if name in brought else None)
            for name, value in self.env.items()
            if value is not None
        }
        return given | own | {f"{SECRET_FILES}{name}": apps.Entry(value) for name, value in self.secrets.items()}


class KeyCheck(Model):
    """Where `doctor` asks whether a service takes the others' key: a GET that changes nothing, and needs the key.

    ``service`` is one of the link, at ``port`` of its containers; ``header`` is what the key is sent in.
    """

    service: ServiceName
    port: Port
    path: Annotated[Text, matching(r"/[A-Za-z0-9._~/-]*", "is no path", "write it like /api/v1/templates")]
    header: Annotated[
        Text, matching(r"[A-Za-z][A-Za-z0-9-]{0,60}", "is no header's name", "write it like X-Service-Key")
    ]


class Link(Model):
    """Variables that must agree; with ``value`` they are also set. The YAML calls ``ends`` ``in``, or is the list.

    ``check`` is where `doctor` tries them.
    """

    value: SecretIfAny = None
    ends: Annotated[tuple[LinkEnd, ...], List] = Field(alias="in")
    check: KeyCheck | None = None

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
        services = [service for service, _ in map(link_end, self.ends)]
        if self.check is not None and (self.check.service not in services or len(set(services)) == 1):
            hint = "name the service of the link that gets the others' key"
            raise wrong("is no service of this link that another one asks", hint, "check", "service")
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
