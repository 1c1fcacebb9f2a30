"""How Stalwart 0.15 maps the addresses that mail comes in for: ``session.rcpt.`` and three names of rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_VARIABLES = ("address", "email", "rcpt", "true", "false")  # of sub-addressing and catch-all
_REWRITE = (*_VARIABLES, "rcpt_domain", "sender", "sender_domain", "remote_ip", "listener", "authenticated_as")

Rule = bool | tuple[tuple[str, str], ...]
"""On or off, or what to try in turn: (condition, value), the last condition empty."""


@dataclass(frozen=True, slots=True)
class Recipients:
    """The rules in force, for all domains alike. The rewriting comes first."""

    rewrite: Rule
    sub_addressing: Rule
    catch_all: Rule

    def addresses(self, address: str) -> list[str]:
        """Return the addresses to look for in turn; ``@DOMAIN`` is the one of who gets all the rest."""
        address = _evaluate(self.rewrite, address) or address
        local, _, domain = address.rpartition("@")
        plain = f"{local.partition('+')[0]}@{domain}" if self.sub_addressing is True else None
        rest = f"@{domain}" if self.catch_all is True else _evaluate(self.catch_all, address)
        tries = [plain or _evaluate(self.sub_addressing, address) or address, rest]
        return [each for each in tries if each]


def read(keys: Mapping[str, str], errors: dict[str, dict[str, str]]) -> Recipients:
    """Read the rules from the settings; what can't be read goes to ``errors``, by key."""
    return Recipients(
        rewrite=_rule(keys, "session.rcpt.rewrite", errors, default="false", variables=_REWRITE),
        sub_addressing=_rule(keys, "session.rcpt.sub-addressing", errors),
        catch_all=_rule(keys, "session.rcpt.catch-all", errors),
    )


def _rule(
    keys: Mapping[str, str],
    key: str,
    errors: dict[str, dict[str, str]],
    *,
    default: str = "true",
    variables: tuple[str, ...] = _VARIABLES,
) -> Rule:
    parts = {name.removeprefix(f"{key}."): rule for name, rule in keys.items() if name.startswith(f"{key}.")}
    if key in keys or not parts:
        value = keys.get(key, default)
        if value not in ("true", "false"):
            errors[key] = {"type": "parse", "error": f'Invalid value for address mapping "{value}"'}
        return value == "true"
    for name, rule in parts.items():
        for word in re.findall(r"(?<![\w$])[a-z_]+\b(?!\()", re.sub(r"'[^']*'", "", rule)):
            if word not in variables:
                errors[f"{key}.{name}"] = {"type": "parse", "error": f'Invalid variable or constant "{word}"'}
    numbers = sorted({name.partition(".")[0] for name in parts}, key=int)
    return tuple(
        (parts.get(f"{number}.if", ""), parts.get(f"{number}.then", parts.get(f"{number}.else", "false")))
        for number in numbers
    )


def _evaluate(rule: Rule, address: str) -> str | None:
    """Return the address that a rule makes of one; of expressions only ``matches('..', rcpt)`` and sums of texts."""
    for condition, value in rule if isinstance(rule, tuple) else ():
        wanted = re.fullmatch(r"matches\('(.*)', (?:rcpt|address|email)\)", condition)
        found = re.search(wanted[1], address) if wanted else None
        if condition and found is None:
            continue
        terms = [_term(term, address, found) for term in value.split(" + ")]
        return None if None in terms else "".join(term for term in terms if term is not None)
    return None


def _term(term: str, address: str, found: re.Match[str] | None) -> str | None:
    if term in ("rcpt", "address", "email"):
        return address
    if term.startswith("$") and found is not None:
        return str(found[int(term[1:])])
    return term[1:-1] if term.startswith("'") else None
