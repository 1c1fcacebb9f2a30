"""The principals of Stalwart 0.15: one namespace for domains, accounts, groups, lists, roles and API keys."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from reconciler.simulator.stalwart import suffixes
from reconciler.simulator.stalwart.passwords import verify
from reconciler.simulator.stalwart.rest.answers import Failure, malformed

TYPES = ("individual", "group", "resource", "location", "list", "tenant", "role", "domain", "apiKey", "oauthClient")
_KINDS = {"list": "mailing-list", "apiKey": "api-key", "oauthClient": "oauth-client", "resource": "principal"}
_KINDS |= {"location": "principal", **{kind: kind for kind in ("individual", "group", "tenant", "role", "domain")}}
_VERBS = ("list", "get", "create", "update", "delete")

_TEXTS = ("description", "picture", "locale")
_FREE_LISTS = ("enabledPermissions", "disabledPermissions", "urls", "externalMembers")
_MEMBERS = {"group": ("individual", "group"), "list": ("individual", "group"), "role": ()}  # what a PATCH lets in
_MEMBERSHIPS = {"roles": ("role",), "lists": ("list",), "memberOf": ("group", "individual")}
_LISTS = ("emails", "secrets", "members", *_MEMBERSHIPS, *_FREE_LISTS)
FIELDS = frozenset({"name", "type", "quota", "usedQuota", "tenant", *_TEXTS, *_LISTS})

# Permissions this fake asks for, by the server's names; a real one has some three hundred.
_USER = ("authenticate", "authenticate-oauth", "email-send", "email-receive", "manage-passwords", "manage-encryption")
_MANAGE = (
    *(f"{kind}-{verb}" for kind in sorted(set(_KINDS.values())) for verb in _VERBS),
    *("settings-list", "settings-update", "settings-delete", "settings-reload"),
    *("dkim-signature-get", "dkim-signature-create", "message-queue-list", "purge-in-memory-store"),
    "logs-view",
    "unlimited-requests",
)
# Built-in roles are memberships with an id that no principal gets.
BUILT_IN = {"user": -1, "admin": -2, "tenant-admin": -3}
_GRANTS = {-1: _USER, -2: (*_USER, *_MANAGE), -3: _USER}
ADMIN_PERMISSIONS = frozenset(_GRANTS[-2])


def permission(kind: str, verb: str) -> str:
    """Name the permission that a verb on a type of principal needs."""
    return f"{_KINDS[kind]}-{verb}"


# ---------------------------------------------------------------------------------------------------------- secrets
def _is_app_password(secret: str) -> bool:
    return secret.startswith("$app$")


def _is_otp(secret: str) -> bool:
    return secret.startswith("otpauth://")


# ------------------------------------------------------------------------------------------------------- principals
@dataclass(slots=True)
class Principal:
    """One principal. ``emails`` has the primary address first and the aliases sorted behind it.

    ``member_of`` holds ids of groups, lists and roles without saying which is which: this is why `set` of one of
    them wipes the other two.
    """

    id: int
    type: str
    name: str
    description: str | None = None
    picture: str | None = None
    locale: str | None = None
    quota: int | None = None
    password: str | None = None
    otp: str | None = None
    app_passwords: list[str] = field(default_factory=list)
    emails: list[str] = field(default_factory=list)
    member_of: list[int] = field(default_factory=list)
    free: dict[str, list[str]] = field(default_factory=dict)  # enabledPermissions and other lists nobody checks

    @property
    def secrets(self) -> list[str]:
        """All secrets in the server's order."""
        return [secret for secret in (self.otp, self.password) if secret is not None] + self.app_passwords

    def accepts(self, given: str) -> bool:
        """Say whether this is the password or one of the app passwords."""
        stored = [self.password] if self.password is not None else []
        stored += [secret.removeprefix("$app$").partition("$")[2] for secret in self.app_passwords]
        return any(verify(secret, given) for secret in stored)

    def add_secret(self, secret: str) -> None:
        """Add a secret; a password replaces the password, an app password the one of its name."""
        if _is_otp(secret):
            self.otp = secret
        elif _is_app_password(secret):
            name = secret.split("$")[2]
            self.app_passwords = [item for item in self.app_passwords if item.split("$")[2] != name] + [secret]
        else:
            self.password = secret

    def remove_secret(self, secret: str) -> None:
        """Remove a secret; the empty one means all app passwords and the OTP secret, not the password."""
        if not secret:
            self.app_passwords, self.otp = [], None
        elif _is_app_password(secret):
            self.app_passwords = [item for item in self.app_passwords if not item.startswith(secret)]
        elif secret == self.password:
            self.password = None

    def set_emails(self, emails: Iterable[str]) -> None:
        """Set the addresses; only the first one's position counts."""
        primary, *aliases = list(dict.fromkeys(emails)) or [""]
        self.emails = [primary, *sorted(aliases)] if primary else []


@dataclass(slots=True)
class Directory:
    """All principals, by id. A failed change leaves nothing behind."""

    principals: dict[int, Principal] = field(default_factory=dict)
    last_id: int = 0

    def dump(self) -> dict[str, Any]:
        """Return everything as JSON."""
        return {"last_id": self.last_id, "principals": [asdict(item) for item in self.principals.values()]}

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Directory:
        """Make a directory of what `dump` returned."""
        return cls({item["id"]: Principal(**item) for item in state["principals"]}, state["last_id"])

    # ------------------------------------------------------------------------------------------------------ reading
    def find(self, name: str) -> Principal | None:
        """Look a name up exactly as it is written: stored names are lower-case."""
        return next((item for item in self.principals.values() if item.name == name), None)

    def get(self, name: str) -> Principal:
        """Look a name up. Raises `Failure` when it is unknown."""
        if (found := self.find(name)) is None:
            raise Failure("notFound", item=name)
        return found

    def owner(self, address: str) -> Principal | None:
        """Find whose address this is."""
        return next((item for item in self.principals.values() if address in item.emails), None)

    def of_types(self, types: Iterable[str]) -> list[Principal]:
        """List the principals of some types, or of all, by name."""
        wanted = set(types)
        found = [item for item in self.principals.values() if not wanted or item.type in wanted]
        return sorted(found, key=lambda item: item.name.encode())

    def domains(self) -> list[str]:
        """Name the local domains."""
        return [item.name for item in self.of_types(["domain"])]

    def render(self, item: Principal, fields: Iterable[str] = ()) -> dict[str, Any]:
        """Return a principal as JSON: empty means absent."""
        members = self._members(item)
        full: dict[str, Any] = {
            "name": item.name,
            **{name: getattr(item, name) for name in (*_TEXTS, "quota")},
            "secrets": item.secrets or None,
            "emails": item.emails or None,
            **{name: list(self._memberships(item, name)) or None for name in _MEMBERSHIPS},
            **{name: values or None for name, values in item.free.items()},
            "members": members if item.type == "domain" else members or None,
        }
        wanted = FIELDS.intersection(fields) or FIELDS
        shown = {name: value for name, value in full.items() if value is not None and name in wanted}
        return {"id": item.id, "type": item.type, **shown}

    def _memberships(self, item: Principal, name: str) -> Iterator[str]:
        built_in = {number: role for role, number in BUILT_IN.items()}
        for number in sorted(item.member_of):
            if number in built_in:
                if name == "roles":
                    yield built_in[number]
            elif (group := self.principals.get(number)) and group.type in _MEMBERSHIPS[name]:
                yield group.name

    def _members(self, item: Principal) -> list[str] | int | None:
        if item.type == "domain":  # an integer: how many addresses there are
            ending = f"@{item.name}"
            return sum(email.endswith(ending) for other in self.principals.values() for email in other.emails)
        if item.type in ("group", "list", "role"):
            return [other.name for other in self.principals.values() if item.id in other.member_of]
        return None

    def matches(self, item: Principal, words: str) -> bool:
        """Say whether all words stand in the name, the description or the addresses; whole words only."""
        text = " ".join([item.name, item.description or "", *item.emails]).lower()
        have = set(re.split(r"\W+", text))
        return all(word in have for word in re.split(r"\W+", words.lower()) if word)

    def permissions(self, item: Principal) -> frozenset[str]:
        """Return what a principal may do: what its roles grant, and its own exceptions. Without roles nothing."""
        granted: set[str] = set()
        for number in item.member_of:
            granted.update(_GRANTS.get(number, ()))
            role = self.principals.get(number)
            if role is not None and role.type == "role" and role is not item:
                granted |= self.permissions(role)
        granted.update(item.free.get("enabledPermissions", ()))
        return frozenset(granted.difference(item.free.get("disabledPermissions", ())))

    # ------------------------------------------------------------------------------------------------------ writing
    def create(self, body: Any, may: frozenset[str]) -> Principal:
        """Create a principal and return it. Raises `Failure` or `HttpProblem`; ``may`` is what the caller may do."""
        spec = _principal_set(body)
        name = spec.get("name", "").lower()
        if not name:
            raise Failure("fieldMissing", field="name")
        if spec["type"] == "tenant" or spec.get("tenant"):
            raise Failure("unsupported", details="Enterprise feature")
        if self.find(name) is not None:
            raise Failure("fieldAlreadyExists", field="name", value=name)
        new = Principal(self.last_id + 1, spec["type"], name, quota=spec.get("quota") or None)  # 0 is not kept
        for text in _TEXTS:
            setattr(new, text, spec.get(text))
        self._first_secrets(new, spec.get("secrets", []))
        for kind in _MEMBERSHIPS:
            new.member_of += [self._new_membership(kind, item, may) for item in spec.get(kind, [])]
        members = {item: self.get(item) for item in spec.get("members", [])}  # of any type: only a PATCH checks
        new.set_emails([self._free_email(item, new) for item in spec.get("emails", [])])
        new.free = {kind: list(dict.fromkeys(spec[kind])) for kind in _FREE_LISTS if spec.get(kind)}  # as they came
        self.last_id, self.principals[new.id] = new.id, new
        for member in members.values():
            member.member_of.append(new.id)
        return new

    @staticmethod
    def _first_secrets(new: Principal, secrets: Iterable[str]) -> None:
        """Keep the first password only: the others are dropped without a word."""
        for secret in secrets:
            if _is_otp(secret) or _is_app_password(secret) or new.password is None:
                new.add_secret(secret)

    def _new_membership(self, kind: str, name: str, may: frozenset[str]) -> int:
        """Find what a new principal is to be in; one of another type is as good as none."""
        number = self._number(kind, name)
        if number is None or (number in self.principals and self.principals[number].type != _MEMBERSHIPS[kind][0]):
            raise Failure("notFound", item=name)
        self._may_grant(kind, name, number, may)
        return number

    def _number(self, kind: str, name: str) -> int | None:
        if kind == "roles" and name in BUILT_IN:
            return BUILT_IN[name]
        group = self.find(name)
        return group.id if group else None

    def _membership(self, kind: str, name: str, may: frozenset[str], member: str) -> int:
        """Find what a principal of type ``member`` is to be in. Raises `Failure` where it can't be."""
        number = self._number(kind, name)
        if number is None:
            raise Failure("notFound", item=name)
        if expected := _expected(kind, member):
            if number in self.principals and self.principals[number].type not in expected:
                names = ", ".join(kind.capitalize() for kind in expected)
                raise Failure("other", details=f"Invalid {kind} value", reason=f'Principal "{name}" is not a {names}.')
        else:
            reason = f'Principal "{name}" cannot be added as a member.'
            raise Failure("other", details=f"Invalid {kind} value", reason=reason)
        self._may_grant(kind, name, number, may)
        return number

    def _may_grant(self, kind: str, name: str, number: int, may: frozenset[str]) -> None:
        role = self.principals.get(number)
        grants = self.permissions(role) if role else frozenset(_GRANTS[number])
        if kind == "roles" and not grants & ADMIN_PERMISSIONS <= may:
            reason = f'Your account cannot grant the "{name}" role'
            raise Failure("other", details="Invalid role", reason=reason)

    def _free_email(self, email: str, owner: Principal) -> str:
        address = email.lower()
        if (other := self.owner(address)) is not None and other.id != owner.id:
            raise Failure("fieldAlreadyExists", field="emails", value=address)
        name = address.rpartition("@")[2]
        domain = self.find(name)
        if "@" not in address:
            if owner.id in self.principals:
                raise Failure("other", details="Invalid email", reason="Email address is invalid")
        elif domain is None or domain.type != "domain":
            raise Failure("notFound", item=name)
        return address

    def delete(self, item: Principal) -> None:
        """Remove a principal with its memberships; addresses in a removed domain stay behind as orphans."""
        del self.principals[item.id]
        for other in self.principals.values():
            other.member_of = [number for number in other.member_of if number != item.id]

    def patch(self, item: Principal, body: Any, may: frozenset[str]) -> None:
        """Change a principal, all or nothing. Raises `Failure` or `HttpProblem`."""
        if not isinstance(body, list) or not all(_is_update(update) for update in body):
            raise malformed()
        draft = _Draft(self, may)
        try:
            for update in body:
                draft.update(item, update["action"], update["field"], update["value"])
        except Failure:
            draft.undo()
            raise


class _Draft:
    """One PATCH: it changes principals in place and can take that back."""

    def __init__(self, directory: Directory, may: frozenset[str]) -> None:
        self.directory = directory
        self.may = may
        self._before: dict[int, Principal] = {}

    def undo(self) -> None:
        """Take everything back."""
        self.directory.principals.update(self._before)

    def _edit(self, item: Principal) -> Principal:
        """Keep the principal as it was before its first change, at its place in the order."""
        if item.id not in self._before:
            self._before[item.id] = copy.deepcopy(item)
        return item

    def update(self, item: Principal, action: str, name: str, value: Any) -> None:
        """Carry out one item of the list."""
        self._edit(item)
        match action, name, value:
            case "set", "name", str():
                self._rename(item, value.lower())
            case "set", ("description" | "picture" | "locale"), str():
                setattr(item, name, value or None)
            case "set", "quota", (int() | "") if item.type in ("individual", "group"):
                item.quota = None if value == "" else value
            case _, "emails", _:
                self._emails(item, action, value)
            case _, "secrets", (str() | list()):
                self._secrets(item, action, value)
            case _, ("memberOf" | "lists" | "roles"), _:
                self._memberships(item, action, name, value)
            case _, "members", _:
                self._members(item, action, value)
            case _, "externalMembers", _:
                self._external(item, action, value)
            case _, ("enabledPermissions" | "disabledPermissions" | "urls"), _:
                item.free[name] = _changed(item.free.get(name, []), action, name, value)
            case _, "tenant", _:
                raise Failure("unsupported", details="Enterprise feature")
            case _:
                raise _invalid(name, value)

    def _rename(self, item: Principal, name: str) -> None:
        other = self.directory.find(name)
        if other is not None and other is not item:
            raise Failure("fieldAlreadyExists", field="name", value=name)
        item.name = name

    def _emails(self, item: Principal, action: str, value: Any) -> None:
        lower = value.lower() if isinstance(value, str) else value
        new = _changed(item.emails, action, "emails", value if action == "set" else lower)
        added = [email for email in new if email not in item.emails]
        free = {email: self.directory._free_email(email, item) for email in added}  # noqa: SLF001 (one directory)
        item.set_emails([free.get(email, email) for email in new])

    def _external(self, item: Principal, action: str, value: Any) -> None:
        """Change the addresses elsewhere that a list sends to: what comes in is checked and in lower case."""
        if action != "removeItem":
            value = [_external_address(each) for each in value] if isinstance(value, list) else _external_address(value)
        found = _changed(item.free.get("externalMembers", []), action, "externalMembers", value)
        item.free["externalMembers"] = list(dict.fromkeys(found))

    def _secrets(self, item: Principal, action: str, value: str | list[str]) -> None:
        match action, value:
            case "set", _:
                item.password, item.otp, item.app_passwords = None, None, []
                for secret in [value] if isinstance(value, str) else value:
                    item.add_secret(secret)
            case "addItem", str():
                item.add_secret(value)
            case "removeItem", str():
                item.remove_secret(value)
            case _:
                raise _invalid("secrets", value)

    def _memberships(self, item: Principal, action: str, kind: str, value: Any) -> None:
        names = value if isinstance(value, list) else [value]
        if (action == "set") != isinstance(value, list) or not all(isinstance(name, str) for name in names):
            raise _invalid(kind, value)
        if action == "removeItem":
            gone = self.directory.find(names[0])
            number = gone.id if gone else BUILT_IN.get(names[0])
            item.member_of = [other for other in item.member_of if other != number]
            return
        directory = self.directory
        if action == "addItem" and directory._number(kind, names[0]) in item.member_of:  # noqa: SLF001 (one directory)
            return  # of whatever kind it is
        ids = [directory._membership(kind, name, self.may, item.type) for name in names]  # noqa: SLF001 (one directory)
        item.member_of = ids if action == "set" else item.member_of + ids  # `set` wipes the other kinds

    def _members(self, item: Principal, action: str, value: Any) -> None:
        directory = self.directory
        before = [other.name for other in directory.principals.values() if item.id in other.member_of]
        after = [directory.get(name) for name in _changed(before, action, "members", value)]
        types = _MEMBERS.get(item.type, ())
        for member in after:
            if member.name not in before and member.type not in types:
                names = ", ".join(kind.capitalize() for kind in types)
                reason = f'Principal "{member.name}" is not one of {names}.'
                raise Failure("other", details="Invalid members value", reason=reason)
        for other in directory.principals.values():
            if (item.id in other.member_of) != (other in after):
                self._edit(other)
                kept = [number for number in other.member_of if number != item.id]
                other.member_of = [*kept, item.id] if other in after else kept


def _expected(kind: str, member: str) -> tuple[str, ...]:
    """Say of which types something may be that a principal of type ``member`` is put in (validate_member_of)."""
    if kind == "memberOf" and member == "group":
        return ("group",)
    members = {"memberOf": ("individual",), "lists": ("individual", "group"), "roles": ("individual", "tenant", "role")}
    return _MEMBERSHIPS[kind] if member in members[kind] else ()


def _changed(before: list[str], action: str, name: str, value: Any) -> list[str]:
    """Return a list of texts after `set`, `addItem` or `removeItem`."""
    match action, value:
        case "set", list():
            return list(value)
        case "addItem", str():
            return [*before, value] if value not in before else before
        case "removeItem", str():
            return [item for item in before if item != value]
    raise _invalid(name, value)


def _external_address(value: Any) -> Any:
    """Return an address as the server keeps it (sanitize_email); anything but a text is refused elsewhere."""
    if not isinstance(value, str):
        return value
    address = "".join(value.split()).lower()
    domain = r"[\w-]+(\.[\w-]+)+"
    if not re.fullmatch(rf"[^@]+@{domain}", address) or address.rpartition(".")[2] not in suffixes.PUBLIC:
        reason = f'Invalid value "{value}" for externalMembers'
        raise Failure("other", details="Invalid email address", reason=reason)
    return address


def _invalid(name: str, value: Any) -> Failure:
    kinds = {str: "String", int: "Integer", list: "StringList"}
    shown = f"{kinds[type(value)]}({json.dumps(value, ensure_ascii=False)})"
    return Failure("other", details="Invalid parameter", reason=f"Invalid value {shown} for {name}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value.encode()) <= 512


def _short(value: list[Any]) -> list[Any]:
    """Drop texts over 512 bytes from a new principal's list, as the server does without a word."""
    return [item for item in value if _is_text(item)]


def _is_update(item: Any) -> bool:
    match item:
        case {"action": "set" | "addItem" | "removeItem", "field": str(name), "value": value}:
            texts = isinstance(value, list) and all(_is_text(text) for text in value)
            return name in FIELDS and (_is_text(value) or _is_number(value) or texts)
    return False


def _principal_set(body: Any) -> dict[str, Any]:
    """Read the body of a creation; raises `HttpProblem` for anything the server can't parse."""
    if not isinstance(body, dict):
        raise malformed()
    spec: dict[str, Any] = {"type": "individual"}
    for name, given in body.items():
        value = int(given) if name == "quota" and isinstance(given, str) and given.isdigit() else given
        if name in ("id", "usedQuota"):
            continue
        if name in _LISTS and isinstance(value, str | list):
            spec[name] = _short([value] if isinstance(value, str) else value)
            ok = _is_text(value) or _is_texts(value)
        elif name in (*_TEXTS, "tenant") and value is None:
            continue
        else:
            spec[name] = value
            ok = _is_number(value) if name == "quota" else name in FIELDS and name not in _LISTS and _is_text(value)
        if not ok:
            raise malformed()
    spec["type"] = "individual" if spec["type"] == "superuser" else spec["type"]
    if spec["type"] not in TYPES:
        raise malformed()
    return spec
