"""``stack``, ``targets``, ``policy``, ``daemon``: where the systems are, how far one may go, and how often."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainValidator,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from reconciler.desired import yaml
from reconciler.desired.spec.scalars import (
    Count,
    Flag,
    List,
    Model,
    Port,
    SecretIfAny,
    SecretList,
    SecretName,
    Text,
    ZoneName,
    as_text,
    empty_map,
    matching,
    one_or_many,
    wrong,
)
from reconciler.files import plain
from reconciler.resources import SecretRef
from reconciler.url import NoUrl, endpoint, ip, is_home, parse


def _url(value: str) -> str:
    try:
        parse(value)
    except NoUrl as error:
        raise wrong(error.summary, error.hint) from None
    return value


Url = Annotated[Text, AfterValidator(_url)]


class StalwartTarget(Model):
    """The mail server's management API."""

    url: Url
    username: Text
    password: SecretList
    container: Text | None = None
    recovery: SecretIfAny = None
    generation: Literal["rest", "jmap"] | None = None
    release: Literal["0.16", "1"] | None = None
    allow_plain_http: Flag = False

    @model_validator(mode="after")
    def _plain_http(self) -> Self:
        if not self.allow_plain_http and not parse(self.url).may_go_plain(self.container):
            hint = "use https, an SSH tunnel to localhost, or allow_plain_http: true"
            raise wrong("would send the password in clear text over a network", hint, "url")
        return self


class CloudflareTarget(Model):
    """A Cloudflare token, the zones it is for where there are several, and which of several zones of one name."""

    token: SecretName
    base_url: Url | None = None
    zones: Annotated[tuple[ZoneName, ...], List] | None = None
    account: Text | None = None
    zone_id: Annotated[
        Text, matching(r"[0-9a-f]{32}", "is no zone's id", "32 of 0-9 and a-f, as Cloudflare shows it")
    ] | (None) = None

    @model_validator(mode="after")
    def _one_zone(self) -> Self:
        if self.zone_id is not None and len(self.zones or ()) != 1:
            raise wrong("is one zone's, and it is not said which", "name it: zones: [NAME]", "zone_id")
        return self

    @field_validator("base_url")
    @classmethod
    def _plain_http(cls, value: str | None) -> str | None:
        if value and not parse(value).may_go_plain():
            raise wrong("would send the token in clear text over a network", "use https")
        return value


def _paths(value: Any) -> str | tuple[str, ...]:
    if not isinstance(value, list):
        return as_text(value)
    if not value:
        raise wrong("names no file", "name one, or several in Compose's order")
    return tuple(as_text(item) for item in value)


Paths = Annotated[
    str | tuple[str, ...],
    PlainValidator(_paths),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
"""One path, or several in order."""


def several(paths: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return what is declared as one path or several, as several."""
    return (paths,) if isinstance(paths, str) else paths or ()


class ComposeTarget(Model):
    """The Compose project; paths are relative to the directory.

    Of several files, and of several env files, the later ones win, as on Compose's command line. ``directory`` is the
    project's, where it is not that of the first file.
    """

    file: Paths
    env_file: Paths | None = None
    directory: Text | None = None
    project: Annotated[Text, matching(r"[a-z0-9][a-z0-9_-]*", "is no project's name", "a-z, 0-9, _ and -")] | None = (
        None
    )

    def places(self, base: Path) -> tuple[tuple[Path, ...], tuple[Path, ...], Path | None]:
        """Return compose files, env files and the project directory, None where it is not declared, seen from a folder.

        Without an env file it is Compose's own, ``.env`` in the project directory.
        """
        compose, named = (tuple(plain(base / name) for name in several(paths)) for paths in (self.file, self.env_file))
        directory = plain(base / self.directory) if self.directory else None
        return compose, named or ((directory or compose[0].parent) / ".env",), directory


class Targets(Model):
    """Where the systems are; each is optional."""

    stalwart: StalwartTarget | None = None
    cloudflare: Annotated[
        tuple[CloudflareTarget, ...],
        BeforeValidator(one_or_many, json_schema_input_type=CloudflareTarget | tuple[CloudflareTarget, ...]),
    ] = ()
    compose: ComposeTarget | None = None

    @property
    def secrets(self) -> Iterator[tuple[yaml.Path, SecretRef]]:
        """Every reference to a secret, with the path of where it stands."""
        if (server := self.stalwart) is not None:
            for index, password in enumerate(server.password):
                yield ("targets", "stalwart", "password", index), password
            if server.recovery is not None:
                yield ("targets", "stalwart", "recovery"), server.recovery
        for index, cloudflare in enumerate(self.cloudflare):
            yield ("targets", "cloudflare", index, "token"), cloudflare.token


ROUTER_PORT = 49000
"""Where a FRITZ!Box answers by TR-064; a router of another make has a port of its own."""

_LEFT_OUT = "dslf-config"  # the user of a FRITZ!Box before 7.24, and of one that asks for the password alone


def _router(value: str) -> str:
    try:
        host, _ = endpoint(value, ROUTER_PORT)
    except NoUrl as error:
        raise wrong(f"is no address of a router: it {error.why}", "write it like 192.168.178.1") from None
    found = ip(host)
    if found is not None and not is_home(found):
        raise wrong("is an address of the Internet: the login would go there", "write the router's address at home")
    return value


class RouterEntry(Model):
    """The line's router, as `doctor` asks it (TR-064): which ports lead from the Internet to the mail server.

    ``address`` is ``HOST[:PORT]`` in a network of one's own, ``forwards`` are the ports from outside, ``to`` is the
    machine that the mail server runs on; this one where it is absent.
    """

    address: Annotated[Text, AfterValidator(_router)]
    forwards: Annotated[tuple[Port, ...], List]
    username: Text = _LEFT_OUT
    password: SecretIfAny = None
    to: Annotated[Text, matching(r"(\d{1,3}\.){3}\d{1,3}", "is no IPv4 address", "write it like 192.168.178.131")] | (
        None
    ) = None

    @property
    def door(self) -> tuple[str, int]:
        """Host and port at which it is asked."""
        return endpoint(self.address, ROUTER_PORT)


class Prune(Model):
    """What absence may remove."""

    dns: Literal["owned", "never"] = "owned"


class PolicyEntry(Model):
    """How far the reconciler may go."""

    prune: Prune = Prune.model_construct()
    max_deletes: Count = 3
    approval: Literal["merge", "plan"] = "merge"


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> int:
    """Return the seconds of ``90s``, ``5m``, ``12h`` or ``7d``. Raises ValueError."""
    if not re.fullmatch(r"[1-9][0-9]{0,5}[smhd]", text):
        raise ValueError(text)
    return int(text[:-1]) * _UNITS[text[-1]]


def _duration(value: Any) -> int:
    try:
        return duration(as_text(value))
    except ValueError:
        raise wrong("is no time", "write it like 90s, 5m, 12h or 7d") from None


Duration = Annotated[
    int, PlainValidator(_duration), WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,5}[smhd]$"})
]


class GitHubEntry(Model):
    """Where the daemon sets a commit status for each revision: a repository, and a token that may write statuses.

    Which GitHub that is, ``GITHUB_API_URL`` says in the daemon's environment.
    """

    repository: Annotated[
        Text,
        matching(
            r"[A-Za-z0-9_][A-Za-z0-9_-]{0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}", "is no repository", "write OWNER/NAME"
        ),
    ]
    token: SecretName


class DaemonEntry(Model):
    """How the daemon works. Whom it trusts is not said here: the directory is what it judges.

    ``interval`` and ``check_passwords`` are seconds: how long from one cycle to the next, and how old the last try of
    a password that can't be compared may be. ``notices`` are the addresses that are told, ``github`` where commit
    statuses are set.
    """

    interval: Duration | None = None
    check_passwords: Duration | None = None
    notices: Annotated[tuple[SecretName, ...], List] = ()
    github: GitHubEntry | None = None
    plans: Flag = False


def _version(value: Any) -> int:
    if value != "1":
        raise wrong("must be 1", "this version of the reconciler knows no other format")
    return 1


class Frame(Model):
    """What holds for a whole directory."""

    version: Annotated[Literal[1], PlainValidator(_version), WithJsonSchema({"const": 1})] = 1
    stack: Annotated[
        Text, matching(r"[a-z0-9-]{1,24}", "is no stack's name", "1 to 24 of a-z, 0-9 and -: it marks what is ours")
    ]
    targets: Annotated[Targets, BeforeValidator(empty_map)] = Targets.model_construct()
    policy: Annotated[PolicyEntry, BeforeValidator(empty_map)] = PolicyEntry.model_construct()
    daemon: Annotated[DaemonEntry, BeforeValidator(empty_map)] = DaemonEntry.model_construct()
    router: RouterEntry | None = None
