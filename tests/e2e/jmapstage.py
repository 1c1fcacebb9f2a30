"""The newer generation on the stage: how its container is declared, what is not ours in its store, what it means."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

import httpx

from reconciler.simulator.example import Example
from reconciler.simulator.stage import Stage
from reconciler.simulator.stalwart.jmap import accounts, dkim
from reconciler.simulator.stalwart.jmap.server import StalwartJmap
from reconciler.simulator.stalwart.passwords import verify

OUR_DOMAINS = ("mana.how", "mana.test")
MANUAL = {name: {"@type": "Manual"} for name in ("dkimManagement", "dnsManagement", "certificateManagement")}
# What is ours of the singletons that others write too.
OUR_FIELDS = {
    "SystemSettings": ("defaultHostname", "defaultDomainId"),
    "Security": ("scanBanRate",),
    "SpamPyzor": ("enable",),
}
OUR_LISTENERS = ("submission", "extra")


def declare(example: Example) -> None:
    """Write the container as 0.16 wants it: its two volumes, and the recovery administrator."""
    example.secrets["STALWART_RECOVERY_ADMIN"] = f"admin:{secrets.token_urlsafe(18).lstrip('-_')}"
    name = example.compose_file.name
    example.edit(
        name,
        "      - stalwart_data:/opt/stalwart-mail\n",
        "      - stalwart_etc:/etc/stalwart\n      - stalwart_data:/var/lib/stalwart\n",
    )
    example.edit(name, "  stalwart_data:\n", "  stalwart_data:\n  stalwart_etc:\n")
    example.edit(
        name,
        "      - STALWART_ADMIN_PASSWORD=${STALWART_ADMIN_PASSWORD}\n",
        "      STALWART_RECOVERY_ADMIN: ${STALWART_RECOVERY_ADMIN:-}\n",
    )
    text = example.env_file.read_text()
    text += f"STALWART_RECOVERY_ADMIN={example.secrets['STALWART_RECOVERY_ADMIN']}\n"
    example.env_file.write_text(text)


def server(stage: Stage) -> StalwartJmap:
    assert isinstance(stage.stalwart, StalwartJmap)
    return stage.stalwart


def ask(stage: Stage, *calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Ask as the recovery administrator does; calls are like ``("Domain/set", {..})``."""
    name, _, password = server(stage).environment["STALWART_RECOVERY_ADMIN"].partition(":")
    wanted = [[f"x:{method}", arguments, str(number)] for number, (method, arguments) in enumerate(calls)]
    answer = httpx.post(
        f"{stage.stalwart_server.url}/jmap",
        json={"using": ["urn:ietf:params:jmap:core", "urn:stalwart:jmap"], "methodCalls": wanted},
        auth=(name, password),
        timeout=60,
        trust_env=False,
        verify=False,
    )
    return [response[1] for response in answer.json()["methodResponses"]]


def create(stage: Stage, kind: str, **body: Any) -> str:
    [answer] = ask(stage, (f"{kind}/set", {"create": {"x": body}}))
    assert "created" in answer, answer
    return str(answer["created"]["x"]["id"])


def strangers(stage: Stage, password: str) -> None:
    """Put things of other people into the store."""
    domain = create(stage, "Domain", name="other.org", description="not ours", **MANUAL)
    group = create(stage, "Account", **{"@type": "Group"}, name="crew", domainId=domain, description="not ours")
    credentials = {"0": {"@type": "Password", "secret": password}}
    body = {"name": "stranger", "domainId": domain, "description": "not ours", "memberGroupIds": {group: True}}
    create(stage, "Account", **{"@type": "User"}, **body, credentials=credentials)
    create(stage, "MailingList", name="friends", domainId=domain, recipients={"a@b.org": True})
    create(stage, "AllowedIp", address="198.51.100.0/24", reason="not ours")
    create(stage, "BlockedIp", address="203.0.113.9")
    create(stage, "Role", description="strangers", enabledPermissions={"authenticate": True})
    create(stage, "NetworkListener", name="strange", bind={"[::]:2626": True}, protocol="smtp")
    rate = {"authBanRate": {"count": 77, "period": 86400000}}
    [answer] = ask(stage, ("Security/set", {"update": {"singleton": rate}}))
    assert "updated" in answer, answer


def foreign(stage: Stage) -> dict[str, Any]:
    """Return everything in the store that is not ours."""
    found = {f"{kind} {key}": value for kind, key, value in _objects(stage) if not _is_ours(stage, kind, value)}
    for kind, fields in OUR_FIELDS.items():
        value = server(stage).store.singleton(kind)
        found[f"{kind} singleton"] = {name: item for name, item in value.items() if name not in fields}
    return found


def _objects(stage: Stage) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for kind, items in server(stage).dump()["store"]["objects"].items():
        yield from ((kind, key, value) for key, value in items.items())


def _is_ours(stage: Stage, kind: str, value: dict[str, Any]) -> bool:
    if kind == "AllowedIp":
        return bool(value["address"] == "172.18.0.0/16")
    if kind == "NetworkListener":
        return value["name"] in OUR_LISTENERS
    domain = server(stage).store.get("Domain", str(value.get("domainId"))) if "domainId" in value else value
    return (
        kind in ("Domain", "Account", "MailingList", "DkimSignature")
        and domain is not None
        and domain["name"] in OUR_DOMAINS
    )


def account(stage: Stage, address: str) -> dict[str, Any] | None:
    """Return what is kept of the account with this address."""
    found = accounts.find(server(stage).store, address, None)
    return found[1] if found else None


def meaning(stage: Stage, known: list[tuple[str, str]]) -> dict[str, Any]:
    """Return what a server is without ids, salts and times; passwords by the names of secrets."""
    fake = server(stage)
    return {
        "config": fake.config,
        "objects": sorted(f"{kind} {_lasting(value, known)}" for kind, _, value in _objects(stage)),
        "running": [
            str(item) for item in (fake.hostname, fake.core.default_domain, fake.core.rates, fake.core.allowed)
        ],
        "listeners": sorted(item.name for item in fake.listeners),
        "signing": sorted(fake.signing()),
    }


def _lasting(value: dict[str, Any], known: list[tuple[str, str]]) -> str:
    # Beside times: the keys and numbers that a server makes for itself at its first start, each time others.
    made = ("createdAt", "webPushKey", "encryptionKey", "signatureKey", "queueId")
    kept = {name: item for name, item in value.items() if name not in made}
    for credential in kept.get("credentials", {}).values():
        credential["secret"] = next(
            (name for name, it in known if verify(credential["secret"], it)), credential["secret"]
        )
    return json.dumps(kept, sort_keys=True)


def public_keys(stage: Stage) -> dict[str, str | None]:
    """Return the base64 of our keys' public halves by selector; each is there once."""
    fake = server(stage)
    ours = [item for kind, _, item in _objects(stage) if kind == "DkimSignature" and _is_ours(stage, kind, item)]
    assert len({item["selector"] for item in ours}) == len(ours), "a duplicate"
    return {item["selector"]: dkim.public_key(item, fake.secret_text) for item in ours}


def secrets_of(log: str) -> list[str]:
    """Return the one-time passwords that a log shows."""
    return re.findall(r"^\s*password:\s*(\S+)\s*$", log, re.MULTILINE)
