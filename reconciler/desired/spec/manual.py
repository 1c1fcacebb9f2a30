"""What every word of the directory means, once: for the schema, whose texts editors show, and for ``docs/format.md``.

Read only when one of these is made. `WORDS` has a sentence for each field of each model, as ``Model.word`` (the top
level has no model); `SHAPES` what a schema can say of a value and no type of ours does. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.desired.apps import APPS
from reconciler.desired.presets import PRESETS
from reconciler.dns.types import TYPES

_ABSENT = "Unmanaged when absent; `null` or `[]` clears it."

WORDS: Mapping[str, str] = {
    "version": "The version of this format: 1.",
    "stack": "The mark of what is ours, at the end of each record's comment: no two directories may say the same.",
    "targets": "Where the systems are; each is optional.",
    "policy": "How far a plan may go before a person is asked.",
    "daemon": "How the daemon works. Whom it trusts comes from its own environment, never from here.",
    "router": "The line's router, which `doctor` asks (TR-064) for the ports that lead to the mail server.",
    "accounts": "Logins with a mailbox, by e-mail address; an administrator may have a bare name.",
    "groups": "Shared mailboxes, by e-mail address. Accounts say in `groups` that they belong to one.",
    "lists": "Addresses that pass their mail on, by e-mail address.",
    "domains": "Mail domains, where more is to be said than that one exists: that follows from the addresses in it.",
    "dkim": "Keys that mail is signed with, by domain. Their records follow and are not declared under `dns`.",
    "dns": "Records by zone, as Cloudflare lists it. A zone that is taken out becomes unmanaged.",
    "stalwart": "The mail server's settings, in words for every version, and in its own.",
    "smtp": "Which services send mail, and through whom.",
    "removed": "Addresses of what is to go: `account/old@example.com`. Nothing of the mail server goes by absence.",
    "moved": "What gets another name and keeps its mailbox.",
    "adopt": "Addresses of what exists, differs, and is taken over.",
    # ---- targets
    "Targets.stalwart": "The mail server.",
    "Targets.cloudflare": "The token for DNS, or a list of tokens with the zones of each.",
    "Targets.compose": "The Compose project whose services are told of their provider.",
    "StalwartTarget.url": "The management API. Plain http is for loopback, a private container network or `container`.",
    "StalwartTarget.username": "As whom the reconciler logs in; an account of its own, or the fallback administrator.",
    "StalwartTarget.password": "Its password; a list (new, then old) rotates it. Each is tried once.",
    "StalwartTarget.container": "The server's container: looked at for its volume, restarted where a change needs it.",
    "StalwartTarget.recovery": "From 0.16 `user:password` of the recovery administrator, where the login is refused.",
    "StalwartTarget.generation": "Refuse a server of the other one: `rest` is up to 0.15, `jmap` from 0.16.",
    "StalwartTarget.release": "Refuse a server of another release line.",
    "StalwartTarget.allow_plain_http": "Let the password go in clear to another host. Off by default.",
    "CloudflareTarget.token": "An API token with Zone: Read and DNS: Edit.",
    "CloudflareTarget.base_url": "Another address of the API, for tests.",
    "CloudflareTarget.zones": "The zones that this token is for; needed where there are several tokens.",
    "CloudflareTarget.account": "Name or id of the account, where the token sees a zone of one name in several.",
    "CloudflareTarget.zone_id": "The zone's id, where the token sees several of one name.",
    "ComposeTarget.file": "The compose file, or several in order, relative to the directory.",
    "ComposeTarget.env_file": "The env file that values are written to, or several in order.",
    "ComposeTarget.directory": "The project's directory, where it is not that of the first file.",
    "ComposeTarget.project": "The project's name, where Compose is told one.",
    # ---- policy, daemon
    "Policy.prune": "What absence may remove.",
    "Policy.max_deletes": "A plan that deletes more records is refused until `--allow-deletes N`.",
    "Policy.approval": "`merge`: what is merged is applied. `plan`: each plan is approved by a person.",
    "Prune.dns": "`owned`: our records that nobody declares any more go. `never`: they are named.",
    "Daemon.interval": "How long it rests between two cycles.",
    "Daemon.check_passwords": "How often it logs in once as each account, where a server shows no password.",
    "Daemon.notices": "Where it tells people: references to URLs of ntfy, Slack, e-mail and others.",
    "Daemon.github": "Where it sets a commit's status.",
    "Daemon.plans": "Plan pull requests, and comment on them.",
    "GitHub.repository": "OWNER/NAME.",
    "GitHub.token": "A token that may set commit statuses there.",
    "Router.address": "HOST or HOST:PORT of the router in the own network, such as 192.168.178.1.",
    "Router.forwards": "The ports that the Internet has to reach: 25, 465, 587.",
    "Router.username": "As whom `doctor` logs in there; routers that ask for a password alone need none.",
    "Router.password": "Its password; without one doctor says what to look at by hand.",
    "Router.to": "The address of the machine that the mail server runs on; this one when absent.",
    # ---- mail
    "Account.description": f"What people read beside the address. {_ABSENT}",
    "Account.roles": "`user`, `admin`, or roles of the server's own; enforced.",
    "Account.password": "Where the password is: the clear value, or a crypt hash (`$6$...`, `$argon2id$...`).",
    "Account.aliases": f"Further addresses of the mailbox. {_ABSENT}",
    "Account.quota": f"How large the mailbox may become: 1 GiB, 500 MB or bytes. {_ABSENT}",
    "Account.groups": f"The groups it belongs to, by address; a bare name where a group has none. {_ABSENT}",
    "Account.enforce_password": "`false`: set it only when the account is made, so that its owner may change it.",
    "Account.login": "The name to log in with up to 0.15 (the local part when absent); from 0.16 it is the address.",
    "Account.locked": "Nobody may log in as it, while its mail still arrives. Unmanaged when absent.",
    "Account.locale": "The language of what the server writes to it. Unmanaged when absent; `null` is the default.",
    "Group.description": f"What people read beside the address. {_ABSENT}",
    "Group.aliases": f"Further addresses. {_ABSENT}",
    "List.description": f"What people read beside the address. {_ABSENT}",
    "List.aliases": f"Further addresses. {_ABSENT}",
    "List.members": f"Who gets its mail: addresses here and elsewhere, but no other list. {_ABSENT}",
    "Domain.description": f"What people read beside the name. {_ABSENT}",
    "Domain.catch_all": f"The address that gets what nobody else has. {_ABSENT}",
    "Domain.aliases": f"Other domains whose addresses mean the same; from 0.16. {_ABSENT}",
    "Domain.sub_addressing": "Whether `name+anything` reaches `name`. Unmanaged when absent.",
    "Key.selector": "Its name in DNS: SELECTOR._domainkey. A new key takes a new one.",
    "Key.algorithm": "One active key of each is usual: many receivers know rsa alone.",
    "Key.stage": "`pending`: published. `active`: signs, too. `retiring`: published only. `retired`: gone.",
    "Key.public_key": "What `p=` holds in DNS; needed for pending and retiring keys.",
    "Key.private_key": "Where the private half is. Without it the server's own key is kept and published.",
    "Key.since": "The day of its last change of stage.",
    "Move.from": "What it is called now: `account/old@example.com`.",
    "Move.to": "What it will be called, as it is declared.",
    # ---- dns
    "Record.type": "The type of record.",
    "Record.name": "Relative to the zone; `@` is the zone itself.",
    "Record.content": "Its value. In an A record `{public_ip: true}` follows the line's address.",
    "Record.data": "The parts of types that are made of some (CAA, SRV, TLSA, ...), in place of `content`.",
    "Record.priority": "Of MX, URI and SRV: the lower the sooner.",
    "Record.ttl": "Seconds that resolvers keep it; `auto` is Cloudflare's choice.",
    "Record.proxied": "Whether Cloudflare answers in its place: A, AAAA and CNAME only, and never for mail.",
    "Record.comment": f"Your own text; our mark stands behind it, 100 characters together. {_ABSENT}",
    # ---- stalwart
    "Stalwart.hostname": "What the server calls itself. `null` is the server's default.",
    "Stalwart.default_domain": "The domain of bare login names; may be left out where one domain is declared.",
    "Stalwart.allowed_ips": "Networks that are never banned; `{network: NAME}` is one of the compose project.",
    "Stalwart.auto_ban": "When an address is banned.",
    "Stalwart.listeners": "Ports that it listens on, by name. Opened by a restart.",
    "Stalwart.settings": "Settings in the server's own words, up to 0.15: KEY: VALUE. `null` puts the default back.",
    "Stalwart.objects": "Objects in the server's own words, from 0.16: KIND: NAME: PROPERTY: VALUE.",
    "AutoBan.auth": "Failed logins: `off`, or a rate such as 100/1d. `null` is the server's default.",
    "AutoBan.abuse": "Mail to addresses that are not there, and the like.",
    "AutoBan.loiter": "Connections that do nothing.",
    "AutoBan.scan": "Requests that only a scanner makes.",
    "Listener.bind": 'Address and port, or several: "[::]:587".',
    "Listener.protocol": "What is spoken there.",
    "Listener.tls": "How TLS begins; by the port when absent: 443, 465, 993 and 995 are implicit.",
    "Listener.tls_disable": f"Versions of TLS that are not spoken there. {_ABSENT}",
    "Listener.proxy_networks": f"Networks whose connections begin with a PROXY header, as of HAProxy. {_ABSENT}",
    "Listener.max_connections": f"How many there may be at once. {_ABSENT}",
    "Listener.backlog": f"How many may wait to be taken. {_ABSENT}",
    "Listener.tls_disable_ciphers": f"Cipher suites that are not offered there. {_ABSENT}",
    "Listener.tls_ignore_client_order": f"Whether the server's order of suites counts. {_ABSENT}",
    "Listener.tls_timeout": f"How long a TLS handshake may take. {_ABSENT}",
    "Listener.no_delay": f"Whether small packets are sent at once (TCP_NODELAY). {_ABSENT}",
    "Listener.reuse_address": f"Whether its address may be bound again at once (SO_REUSEADDR). {_ABSENT}",
    "Listener.reuse_port": f"Whether several sockets may share its port (SO_REUSEPORT). {_ABSENT}",
    "Listener.send_buffer": f"Size of its socket's buffer for sending, such as 1 MiB. {_ABSENT}",
    "Listener.receive_buffer": f"Size of its socket's buffer for receiving. {_ABSENT}",
    "Listener.ttl": f"How many hops its packets may take. {_ABSENT}",
    "Listener.tos": f"The type of service in its packets' heads (IPv4). {_ABSENT}",
    # ---- smtp
    "Smtp.provider": "Who delivers for all services that say nothing else.",
    "Smtp.failover": "Who stands in while the provider in use takes no mail; the daemon switches.",
    "Smtp.providers": "Who may deliver, by a name of yours.",
    "Smtp.consumers": "Services of the compose project that send mail, by their names there.",
    "Smtp.links": "Variables that must agree: SERVICE.VARIABLE, ...; with `value` they are set.",
    "Failover.to": "The provider that stands in; it has `standby: true`.",
    "Failover.after": "How long the other one has to be down.",
    "Failover.back_after": "How long it has to be well again.",
    "Provider.preset": "A provider that is known: its host, port and records.",
    "Provider.host": "Its server; needed without a preset.",
    "Provider.port": "Its port; needed without a preset.",
    "Provider.tls": "How TLS begins; by the port when absent.",
    "Provider.account": "A declared account of this stack, in place of username and password.",
    "Provider.username": "The login there; a reference where it is a token.",
    "Provider.password": "Where its password is.",
    "Provider.verify_tls": "`false` takes any certificate. On by default.",
    "Provider.from": "The address that mail is sent from.",
    "Provider.values": "Values of your own, for `{values.NAME}` in templates.",
    "Provider.standby": "Publish its records ahead, so that it can take over at once.",
    "Provider.api_key": "Where the key of its API is, which tells the records it needs.",
    "Provider.dns": "The records it needs, by zone, where no API tells them.",
    "Consumer.app": "An application whose variables are known.",
    "Consumer.provider": "Another provider than `smtp.provider`.",
    "Consumer.env": "Variables and values: {host} {port} {username} {password} are filled in; `null` leaves one out.",
    "Consumer.secrets": "Compose secrets and the contents of their files, likewise.",
    "Link.in": "The variables: SERVICE.VARIABLE.",
    "Link.check": "Where `doctor` tries the value: a GET that changes nothing and needs it.",
    "KeyCheck.service": "The service of the link that gets the others' key.",
    "KeyCheck.port": "The port in its container.",
    "KeyCheck.path": "What is asked for: a page that changes nothing and that nobody sees without the key.",
    "KeyCheck.header": "The header that the key is sent in, such as X-Service-Key.",
    "Link.value": "Where the value is that they all get; without it they only have to agree.",
}

_DOMAIN = r"^[^\s.@/]{1,63}(\.[^\s.@/]{1,63})*$"
_ZONE = r"^[^\s.@/]{1,63}(\.[^\s.@/]{1,63})+$"
_EMAIL = r"^[^\s@<>()\[\],;:\\\"]{1,64}@[^\s.@/]{1,63}(\.[^\s.@/]{1,63})*$"
_ADDRESS = r"^(account|group|list|domain|dkim|dns|smtp|stalwart)/.+$"
_NETWORK = r"^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$"


def _text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


def _one(values: Any) -> dict[str, Any]:
    return {"enum": sorted(values)}


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def _null(shape: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [shape, {"type": "null"}]}


SHAPES: Mapping[str, dict[str, Any]] = {
    "stack": _text(r"^[a-z0-9-]{1,24}$"),
    "removed": _null(_list(_text(_ADDRESS))),
    "adopt": _null(_list(_text(_ADDRESS))),
    "Move.from": _text(_ADDRESS),
    "Move.to": _text(_ADDRESS),
    "Account.aliases": _null(_list(_text(_EMAIL))),
    "Account.quota": _null({"type": ["string", "integer"], "pattern": r"^[0-9]+(\.[0-9]{1,6})?\s*([kKMGT]?i?B)?$"}),
    "Account.locale": _null(_text(r"^[a-z]{2,3}([_-][A-Za-z0-9]{2,8})?$")),
    "Group.aliases": _null(_list(_text(_EMAIL))),
    "List.aliases": _null(_list(_text(_EMAIL))),
    "List.members": _null(_list(_text(_EMAIL))),
    "Domain.catch_all": _null(_text(_EMAIL)),
    "Domain.aliases": _null(_list(_text(_DOMAIN))),
    "Key.selector": _text(r"^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$"),
    "Record.type": _one({*TYPES, *map(str.lower, TYPES)}),
    "Record.name": _text(r"^(@|(\*|[^\s.*@\"\\]{1,63})(\.[^\s.*@\"\\]{1,63})*)$"),
    "CloudflareTarget.zones": _null(_list(_text(_ZONE))),
    "GitHub.repository": _text(r"^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$"),
    "Listener.proxy_networks": _null(_list(_text(_NETWORK))),
    "Provider.preset": _null(_one(PRESETS)),
    "Consumer.app": _null(_one(APPS)),
}
NAMES: Mapping[str, str] = {
    "accounts": rf"{_EMAIL[:-1]}$|^[^\s@/<>()\[\],;:\\\"]{{1,64}}$",
    "groups": rf"{_EMAIL[:-1]}$|^x-[^@.]*$",
    "lists": rf"{_EMAIL[:-1]}$|^x-[^@.]*$",
    "domains": rf"{_DOMAIN}|^x-[^@.]*$",
    "dkim": rf"{_DOMAIN}|^x-[^@.]*$",
    "dns": rf"{_ZONE}|^x-[^@.]*$",
}
"""Patterns of the keys of maps."""


def explain(schema: dict[str, Any]) -> dict[str, Any]:
    """Put texts and shapes into a schema, whose models are in ``$defs``. Raises KeyError for a word without a text."""
    for name, part in schema["properties"].items():
        schema["properties"][name] = _explained(name, part)
    for model, shape in schema["$defs"].items():
        for name, part in shape.get("properties", {}).items():
            shape["properties"][name] = _explained(f"{model}.{name}", part)
    for name, pattern in NAMES.items():
        for part in schema["properties"][name].get("anyOf", ()):
            if part.get("type") == "object":
                part["propertyNames"] = {"pattern": pattern}
    return schema


def _explained(word: str, part: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in part.items() if key in ("default", "title")}
    made = {**(kept | SHAPES[word] if word in SHAPES else part), "description": WORDS[word]}
    if "nmanaged when absent" in WORDS[word]:
        made.pop("default", None)  # that would be a value
    return made
