"""Accounts of the fake Stalwart 0.16: passwords, logins and what a login may do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reconciler.simulator.stalwart.jmap import app_passwords, registry
from reconciler.simulator.stalwart.jmap.store import Object, SetFailure, Store
from reconciler.simulator.stalwart.passwords import hashed, verify

RECOVERY_ID = registry.encode_id((1 << 32) - 1)

# Permissions by the server's names; a real administrator has some six hundred.
_USER = (
    *("authenticate", "authenticateWithAlias", "emailSend", "emailReceive", "jmapMailboxGet", "jmapEmailQuery"),
    *("jmapEmailGet", "jmapSieveScriptGet", "jmapVacationResponseGet"),
)
_VERBS = {"object": ("Get", "Query", "Create", "Update", "Destroy"), "singleton": ("Get", "Update")}
_OWN = tuple(f"sys{app_passwords.KIND}{verb}" for verb in _VERBS["object"])  # the recovery administrator has none
_ACTIONS = tuple(f"action{name}" for name in registry.variants("Action"))
ADMIN_PERMISSIONS = frozenset(
    {
        *_USER,
        *_ACTIONS,
        *(f"sys{name}{verb}" for name, kind in registry.object_types().items() for verb in _VERBS[kind]),
        *("impersonate", "unlimitedRequests", "unlimitedUploads", "fetchAnyBlob"),
    }
) - {*_OWN}
BOOTSTRAP_PERMISSIONS = frozenset({"sysBootstrapGet", "sysBootstrapUpdate"})
ROLES: Mapping[str, frozenset[str]] = {
    name: frozenset(found)
    for name, found in json.loads(Path(__file__).with_name("roles.json").read_text(encoding="utf-8")).items()
}
"""What the four roles of a first start permit, in the order in which they are made."""

_HASH = re.compile(
    r"\$argon2(id|i|d)\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+"
    r"|\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}"
    r"|\$[156]\$(rounds=\d+\$)?[./A-Za-z0-9]{0,16}\$[./A-Za-z0-9]{1,86}"
    r"|\$(pbkdf2|scrypt|sha1)\S+\$\S+"
    r"|\{(SSHA|SSHA256|SSHA512|SHA|SHA256|SHA512|MD5)\}[A-Za-z0-9+/]{22,}={0,2}"
    r"|\{(CRYPT|PLAIN|BLF-CRYPT|ARGON2ID?)\}\S+",
    re.IGNORECASE,
)
_COMMON = re.compile(
    r"password|passw0rd|letmein|welcome|admin|qwerty|abc123|a1b2c3|iloveyou|monkey|secret|summer|winter|(?:19|20)\d\d"
    r"|0?1234(?:5(?:6(?:7(?:89?)?)?)?)?"
)
_STRONG = 26.6  # bits: a hundred million guesses, where the third of the four points of zxcvbn begins


def is_hash(secret: str) -> bool:
    """Say whether the server would keep a secret as the hash that it is."""
    return _HASH.fullmatch(secret) is not None


def check_strength(secret: str, policy: Mapping[str, Any]) -> None:
    """Refuse a weak password: the length, and about what zxcvbn gives less than three of four points.

    ``policy`` is the Authentication singleton. Raises `SetFailure`.
    """
    longest, shortest = policy["passwordMaxLength"], policy["passwordMinLength"]
    if len(secret.encode()) > longest:
        raise _refused(f"Password must be at most {longest} characters long.")
    if len(secret.encode()) < shortest:
        raise _refused(f"Password must be at least {shortest} characters long.")
    if _bits(secret) < _STRONG:
        raise _refused("Password is too weak. Add another word or two. Uncommon words are better.")


def _bits(secret: str) -> float:
    """Guess how hard a password is to guess: letters make words, so they count less than other characters."""
    rest = _COMMON.sub("\0", re.sub(r"(.)\1+", r"\1", secret.lower()))
    return sum(9.0 if letter == "\0" else 2.2 if letter.isalpha() else 3.5 for letter in rest)


def _refused(message: str) -> SetFailure:
    return SetFailure("invalidProperties", message, "secret")


def settle(account: Object, old: Object | None, policy: Mapping[str, Any]) -> None:
    """Number the credentials of an account about to be stored and hash what is clear. Raises `SetFailure`."""
    if old is not None and account["@type"] != old["@type"]:
        raise SetFailure("invalidProperties", "Cannot change the type of an existing account.", "@type")
    if account["@type"] != "User":
        return
    before = {item["credentialId"]: item for item in old["credentials"].values()} if old else {}
    passwords, last = 0, -1
    for credential in account["credentials"].values():
        known = before.get(credential["credentialId"])
        if credential["@type"] != "Password":
            if known is None:
                raise SetFailure("invalidProperties", "Secondary credentials cannot be set directly.", "credentials")
            continue
        passwords += 1
        if passwords > 1:
            raise SetFailure("invalidProperties", "Only one password credential is allowed.", "credentials")
        if known is not None and credential["secret"] == registry.MASK:
            credential["secret"] = known["secret"]
        elif policy.get("directoryId") and (known is None or credential["secret"] != known["secret"]):
            text = "Cannot change credentials for accounts in an external directory."
            raise SetFailure("forbidden", text)
        elif (known is None or credential["secret"] != known["secret"]) and not is_hash(credential["secret"]):
            check_strength(credential["secret"], policy)
            credential["secret"] = hashed(credential["secret"])
    numbers = [item["credentialId"] for item in account["credentials"].values() if item["credentialId"]]
    last = max((registry.decode_id(number) for number in numbers), default=last)
    for credential in account["credentials"].values():
        if not credential["credentialId"]:
            last += 1
            credential["credentialId"] = registry.encode_id(last)


def domain(store: Store, name: str) -> tuple[str, Object] | None:
    """Find a domain by its name or an alias."""
    return store.by_key("Domain", "name", name) or store.by_key("Domain", "aliases", name)


def find(store: Store, login: str, default_domain: str | None) -> tuple[str, Object] | None:
    """Find the account of a login name, an address or an alias; a bare name needs the default domain in force."""
    local, at, name = login.partition("@")
    if not at:
        if default_domain is None:
            return None
        name = default_domain
    found = domain(store, name)
    owner = store.by_email(local, found[0]) if found else None
    if owner is None or owner[0] != "Account":
        return None
    account = store.objects["Account"][owner[1]]
    disabled = [alias["name"] for alias in account.get("aliases", {}).values() if not alias["enabled"]]
    return (owner[1], account) if account["@type"] == "User" and local not in disabled else None


def password(account: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return an account's password credential."""
    credentials: Mapping[str, Mapping[str, Any]] = account["credentials"]
    return next((item for item in credentials.values() if item["@type"] == "Password"), None)


def accepts(account: Mapping[str, Any], secret: str) -> bool:
    """Say whether this is the account's password, or one of its app passwords."""
    if secret.startswith(app_passwords.PREFIX):
        return app_passwords.accepts(account, secret)
    credential = password(account)
    return credential is not None and verify(credential["secret"], secret, folds=True)


def email(store: Store, value: Mapping[str, Any]) -> str:
    """Return the address of an account or a list."""
    domain = store.get("Domain", value["domainId"])
    return f"{value['name']}@{domain['name'] if domain else ''}"


def addresses(store: Store, account: Mapping[str, Any]) -> list[str]:
    """Return all addresses of an account, its own one first."""
    aliases = [alias for alias in account["aliases"].values() if alias["enabled"]]
    return [email(store, account), *(email(store, alias) for alias in aliases)]


def permissions(store: Store, account: Mapping[str, Any]) -> frozenset[str]:
    """Return what an account may do: of its roles, and what is set on itself."""
    roles, own = account["roles"], account["permissions"]
    defaults = store.singleton("Authentication")
    ids = roles.get("roleIds") or defaults[f"default{'Admin' if roles['@type'] == 'Admin' else 'User'}RoleIds"]
    inherited = frozenset(_granted(store, ids, set()))
    if own["@type"] == "Inherit":
        return inherited
    granted = frozenset(own["enabledPermissions"]) - frozenset(own["disabledPermissions"])
    return granted | (inherited - frozenset(own["disabledPermissions"])) if own["@type"] == "Merge" else granted


def _granted(store: Store, ids: Mapping[str, bool], seen: set[str]) -> Iterator[str]:
    for key in ids:
        role = store.get("Role", key)
        if role is not None and key not in seen:
            seen.add(key)
            inner = {*role["enabledPermissions"], *_granted(store, role["roleIds"], seen)}
            yield from inner - set(role["disabledPermissions"])
