"""Domains and accounts of Stalwart from 0.16: from its objects to resources. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from reconciler.problem import Problem, Severity
from reconciler.reconcile import Report
from reconciler.resources import (
    UNMANAGED,
    Account,
    Different,
    Domain,
    Live,
    Resource,
    SecretRef,
    Signature,
    Special,
    Verdict,
)
from reconciler.targets.stalwart.jmap.api import Kind, Registry

Raw = Mapping[str, Any]
Judge = Callable[[Account, str], Verdict]
"""From a wanted account and its address to what is known of its password."""

TWO_WRITERS = {"dkimManagement": "keys", "dnsManagement": "DNS records"}

KINDS = (
    # Not its zone file, which the server would compute at each reading.
    Kind("Domain", properties=("name", "aliases", *TWO_WRITERS)),
    Kind(
        "Account",
        properties=(
            *("@type", "name", "domainId", "credentials", "memberGroupIds", "roles", "quotas", "aliases"),
            "description",
        ),
    ),
    Kind("Role", properties=("description",)),
    Kind("SystemSettings", singleton=True, properties=("defaultDomainId",)),
)

MANUAL = {"@type": "Manual"}
ROLES = {"user": "User", "admin": "Admin"}
_DEFAULT_ROLES = {"admin": "system administrator"}  # what the server calls the role that makes an Admin


class Ids:
    """The server's ids by name, and ``#NAME`` for what this run makes."""

    def __init__(self, registry: Registry) -> None:
        self._names = {str(item["id"]): str(item["name"]).lower() for item in registry.get("Domain", ())}
        self._domains = {name: key for key, name in self._names.items()}
        self._roles = {str(it.get("description") or "").lower(): str(it["id"]) for it in registry.get("Role", ())}
        self._groups: dict[str, str] = {}
        for item in registry.get("Account", ()):
            if item.get("@type") == "Group":
                self._groups[self.address(item)] = str(item["id"])
        settings = next(iter(registry.get("SystemSettings", ())), {})
        self.default_domain = self._names.get(str(settings.get("defaultDomainId")), "")

    def make_domain(self, name: str) -> str:
        """Choose the creation id of a domain that this run makes."""
        creation = f"d{len(self._domains)}"
        self._domains[name] = f"#{creation}"
        return creation

    def domain(self, name: str) -> str | None:
        """Return a domain's id; None when there is none and none is made."""
        return self._domains.get(name)

    def the_domain(self, name: str) -> str:
        """Return a domain's id. Raises ValueError when there is none and none is made."""
        if name not in self._domains:
            raise ValueError(f"the server has no domain {name}: declare it, or an account or key below it")
        return self._domains[name]

    def domain_name(self, id: Any) -> str:
        """Return the name of a domain by its id, empty when it is not there."""
        return self._names.get(str(id), "")

    def address(self, item: Raw) -> str:
        """Return the address of an account, a group or an alias: its name is only the local part."""
        return f"{item.get('name')}@{self.domain_name(item.get('domainId'))}".lower()

    def group(self, name: str) -> str:
        """Return a group's id by its address or local part. Raises ValueError when there is none, or several."""
        found = [key for address, key in self._groups.items() if name in (address, address.partition("@")[0])]
        if len(found) != 1:
            raise ValueError(f"the server has {'several groups' if found else 'no group'} {name}")
        return found[0]

    def group_names(self, ids: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
        """Return the groups' addresses, or of one that is known by its local part, that."""
        addresses = {key: address for address, key in self._groups.items()}
        found = (addresses.get(key, key) for key in ids)
        bare = {name for name in known if "@" not in name}
        return tuple(local if (local := item.partition("@")[0]) in bare else item for item in found)

    def groups(self) -> frozenset[str]:
        """Return the addresses of all groups."""
        return frozenset(self._groups)

    def role(self, name: str) -> str:
        """Return a role's id by its description. Raises ValueError when there is none."""
        found = self._roles.get(name) or self._roles.get(_DEFAULT_ROLES.get(name, ""))
        if found is None:
            known = ", ".join(sorted({*ROLES, *self._roles} - set(_DEFAULT_ROLES.values())))
            raise ValueError(f"the server has no role {name}; it has {known}")
        return found

    def role_names(self, ids: Iterable[str]) -> Iterator[str]:
        """Yield what roles are called here."""
        names = {key: description for description, key in self._roles.items()}
        ours = {theirs: own for own, theirs in _DEFAULT_ROLES.items()}
        for key in ids:
            name = names.get(key, key)
            yield ours.get(name, name)


# ----------------------------------------------------------------------------------------------------------- reading
class Directory:
    """Domains and accounts of one registry, matched to those that are wanted.

    ``domain`` is the default domain as far as it is declared; a bare name such as ``admin`` is an address in it.
    """

    def __init__(self, registry: Registry, wanted: Iterable[Resource], domain: str) -> None:
        self.ids = Ids(registry)
        self.domain = domain or self.ids.default_domain
        self.registry = registry
        self._accounts = {
            self.ids.address(item): item for item in registry.get("Account", ()) if item.get("@type") == "User"
        }
        resources = list(wanted)
        self._domains = {item.name: item for item in resources if isinstance(item, Domain)}
        self._own_keys = {item.domain for item in resources if isinstance(item, Signature) and item.private_key}
        self._wanted: dict[str, Account] = {}  # by the address that is live
        self._missing: list[Account] = []
        for account in (item for item in resources if isinstance(item, Account)):
            address = self._live_address(account)
            if address is not None and address not in self._wanted:
                self._wanted[address] = account
            else:
                self._missing.append(account)

    def _live_address(self, account: Account) -> str | None:
        """Say where a wanted account is; a bare name may still be in the domain that was the default one."""
        addresses = [address_of(account, self.domain)]
        if "@" not in account.name:
            addresses.append(f"{account.name}@{self.ids.default_domain}")
        return next((item for item in addresses if item in self._accounts), None)

    def live(self, judge: Judge, report: Report) -> Iterator[Live]:
        """Yield domains and accounts, and report what stands in the way of those that are wanted."""
        for item in self.registry.get("Domain", ()):
            resource = Domain(str(item["name"]), manual=not any(automatic(item)))
            self._check_writers(resource, item, report)
            self._check_aliases(resource, item, report)
            yield Live(resource, id=str(item["id"]), detail=item)
        for address, item in self._accounts.items():
            yield Live(self._account(address, item, judge), id=str(item["id"]), detail=item)
        for account in (*self._wanted.values(), *self._missing):
            for summary, hint in self._objections(account):
                report(Problem(account.address, summary, hint, scope=account.address))

    def _account(self, address: str, item: Raw, judge: Judge) -> Account:
        wanted = self._wanted.get(address)
        known = wanted.groups if wanted and isinstance(wanted.groups, tuple) else ()
        return Account(
            name=wanted.name if wanted else address,
            login=UNMANAGED if wanted else address,  # one logs in with the address
            email=address,
            description=item.get("description") or None,
            roles=self._roles(item.get("roles") or {}),
            aliases=tuple(
                self.ids.address(alias) for alias in (item.get("aliases") or {}).values() if alias.get("enabled", True)
            ),
            groups=self.ids.group_names(item.get("memberGroupIds") or {}, known),
            quota=(item.get("quotas") or {}).get("maxDiskQuota"),
            password=self._verdict(wanted, address, item, judge),
        )

    def _roles(self, roles: Raw) -> tuple[str, ...]:
        if roles.get("@type") == "Custom":
            return tuple(self.ids.role_names(roles.get("roleIds") or {}))
        return (str(roles.get("@type") or "user").lower(),)

    def _verdict(self, wanted: Account | None, address: str, item: Raw, judge: Judge) -> Verdict | Special:
        if wanted is None or not isinstance(wanted.password, SecretRef) or not wanted.enforce_password:
            return UNMANAGED
        return judge(wanted, address) if password_key(item) is not None else Different()

    def _check_writers(self, domain: Domain, item: Raw, report: Report) -> None:
        """Report a wanted domain whose keys or DNS the server manages itself (traps.md 27 and 28).

        It never replaces a key while DNS is not its own (jmap-0.16.md section 3): without keys of ours only a warning.
        """
        wanted = self._domains.get(domain.name)
        found = list(automatic(item))
        if wanted is None or not found or wanted.manual is True:
            return
        what = " and ".join(TWO_WRITERS[name] for name in found)
        alone = found == ["dkimManagement"] and domain.name not in self._own_keys
        summary = f"the server manages its {what} by itself ({', '.join(found)} is Automatic)"
        summary += "" if alone else ": two writers"
        hint = (
            f"write `adopt: [{domain.address}]`, or `--adopt {domain.address}`: apply then sets it to Manual, and the "
            "keys and records stay as they are"
        )
        severity = Severity.WARNING if alone else Severity.ERROR
        report(Problem(domain.address, summary, hint, severity, "" if alone else domain.address))

    def _check_aliases(self, domain: Domain, item: Raw, report: Report) -> None:
        """Report wanted domains that can't be made, as they are other names of this one."""
        for name in sorted(self._domains.keys() & set(map(str.lower, item.get("aliases") or {}))):
            summary = f"is an alias of {domain.name} on the server, and can't be a domain of its own"
            report(Problem(f"domain/{name}", summary, "take the alias away there", scope=f"domain/{name}"))

    def _objections(self, account: Account) -> Iterator[tuple[str, str]]:
        """Say what an account asks for that the server can't give."""
        address = address_of(account, self.domain)
        if "@" not in address:
            yield (
                "from 0.16 every account has an address, and the server has no default domain",
                "declare stalwart.default_domain: its address is then there",
            )
        clash = self._wanted.get(address)
        if clash is not None and clash is not account:
            yield f"{clash.name} is the same account from 0.16: {address}", "declare one of them"
        for item in sorted({address, *aliases_of(account)} & self.ids.groups()):
            yield f"{item} is the address of a group on the server", "take another address, or rename the group"
        for resolve, names in ((self.ids.group, account.groups), (role_id(self.ids), account.roles)):
            for name in names if isinstance(names, tuple) else ():
                try:
                    resolve(name)
                except ValueError as error:
                    yield str(error), "make it on the server: groups and roles are not kept here"


def address_of(account: Account, domain: str) -> str:
    """Return the primary address of a wanted account; a bare name is an address in the default domain."""
    if isinstance(account.email, str):
        return account.email
    return account.name if "@" in account.name or not domain else f"{account.name}@{domain}"


def aliases_of(account: Account) -> tuple[str, ...]:
    """Return the aliases of an account as far as they are managed."""
    return account.aliases if isinstance(account.aliases, tuple) else ()


def role_id(ids: Ids) -> Callable[[str], str]:
    """Return what finds a role; two are not roles of their own but kinds of account."""
    return lambda name: "" if name in ROLES else ids.role(name)


def automatic(item: Raw) -> Iterator[str]:
    """Yield the properties by which the server manages a domain itself."""
    for name in TWO_WRITERS:
        if (item.get(name) or MANUAL).get("@type") != "Manual":
            yield name


def password_key(item: Raw) -> str | None:
    """Name the place of the password among the credentials: app passwords and API keys are the person's own."""
    credentials: Mapping[str, Raw] = item.get("credentials") or {}
    return next((key for key, value in credentials.items() if value.get("@type") == "Password"), None)
