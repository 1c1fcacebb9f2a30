"""A server that somebody else filled gives names as it likes: an import writes YAML that says them, or leaves them."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest

from reconciler.desired.load import load
from reconciler.desired.spec import Spec
from reconciler.simulator.stalwart.jmap.registry import encode_id
from reconciler.simulator.stalwart.rest.directory import ADMIN_PERMISSIONS

from . import jmapstage
from .stagefixtures import Stack, Watch
from .test_hostile_texts import EVIL, tame

NAMES = (
    *("removed", "x-anchor", "true", "null", "~", "1e3", "0x1F", "0o17", "12:30:45", "2026-01-01", ".inf", "=", "<<"),
    *("-", "- a", "? a", "a: b", "a #b", "&a", "*a", "!a", "%a", "@a", "`a", "{a}", "[a]", "'a", '"a', "|", ">"),
    *("../../etc/passwd", "/etc/passwd", "..", ".", "con", "a/b", "a\\b", "a\nb", "a\rb", "a\tb", "a\0b", "\x1b[2Ja"),
    *("\u202eevil", "a\u200bb", "\ufeffa", "a\u2028b", "a\u0085b", "\ud7ff", "Ａ", "ﬃ", "é", "e\u0301", "İ", "ß"),
    *("a" * 64, "a" * 300, "a" * 70_000, "", " ", " a ", "${HOME}", "$(id)", "%{env:HOME}%", "{{a}}", "__proto__"),
    *("admin", "ADMIN", "noreply", "NoReply", "-rf", "--help", "dkim", "x" * 200 + ".yaml", "reconciler", EVIL),
)
DOMAINS = (
    *(
        "removed",
        "x-lan",
        "true",
        "null",
        "1e3",
        "127.0.0.1",
        "xn--",
        "xn--a",
        "xn--mnchen-3ya.example",
        "münchen.example",
    ),
    *("MANA.HOW", "mana.how.", "mana。how", "ｍana.how", "a..b", ".a", "-a.example", "a_b.example", "*.example"),
    *("a\nb.example", "a\u202eb.example", "a/b.example", "a@b.example", "a" * 64 + ".example", "a." * 200 + "example"),
    *("localhost", "com", "[::1]", "a b.example", "ex\u00adample.com", "faß.example", "fass.example", EVIL),
)


def _add(stack: Stack, kind: str, **body: Any) -> None:
    """Put an object into the store as it is: another server, or another release, may have let it in."""
    store = jmapstage.server(stack.stage).store
    store.objects[kind][encode_id(5000 + sum(map(len, store.objects.values())))] = copy.deepcopy(body)


def _like(stack: Stack, kind: str, **facts: Any) -> dict[str, Any]:
    store = jmapstage.server(stack.stage).store
    found = next(item for item in store.objects[kind].values() if facts.items() <= item.items())
    return copy.deepcopy(found)


def _imported(stack: Stack) -> Spec:
    """Import, and see that nothing that was written is taken otherwise, and that nothing hides in what is printed."""
    stack.watch = Watch(stack)
    place = stack.example.path
    there = set(place.rglob("*"))
    done = stack.run(
        *("import", "--stalwart", "http://localhost:8443", "--zone", "mana.how"),
        *("--compose", "docker-compose.macmini.yml", "--stack", "mana", "--out", "imported"),
    )
    assert done.code == 0, done.text
    tame(done.text, "text")
    places = {path.parent for path in set(place.rglob("*")) - there if path.is_file()}
    assert places <= {place / "imported", place / "secrets"}
    for path in (place / "imported").iterdir():
        tame(path.read_text(), "yaml")
    plan = stack.run("plan", "--state", "imported", "--data", ".imported", "--output", "json")
    assert plan.json["changes"] == []
    tame(plan.text, "json")
    return load(place / "imported").spec


def test_whatever_things_are_called_an_import_reads_what_it_wrote(newer_applied: Stack) -> None:
    stack = newer_applied
    domain = _like(stack, "Domain", name="mana.how")
    user = _like(stack, "Account", name="noreply")
    group = _like(stack, "Account", name="crew")
    news = _like(stack, "MailingList", name="friends")
    role = _like(stack, "Role", description="strangers")
    listener = _like(stack, "NetworkListener", name="strange")
    for name in DOMAINS:
        _add(stack, "Domain", **{**domain, "name": name, "description": name, "aliases": {name: True}})
    for name in NAMES:
        _add(stack, "Account", **{**user, "name": name, "description": name, "aliases": {}})
        _add(stack, "Account", **{**group, "name": f"g{name}", "description": name})
        _add(stack, "MailingList", **{**news, "name": f"l{name}", "description": name, "recipients": {name: True}})
        _add(stack, "Role", **{**role, "description": name})
    _add(stack, "Account", **{**user, "name": "half", "description": "a\0b", "aliases": {}})
    for name in ("x-listener", "y"):
        _add(stack, "NetworkListener", **{**listener, "name": name})
    spec = _imported(stack)
    wanted = {"removed", "x-anchor", "true", "null", "1e3", "2026-01-01", "../../etc/passwd", "-rf", "half"}
    assert {f"{name}@mana.how" for name in wanted} <= spec.accounts.keys()
    assert spec.accounts["half@mana.how"].description is None, "it alone is left out"
    assert spec.accounts["true@mana.how"].description == "true"
    assert wanted - {"half"} <= spec.stalwart.objects["Role"].keys()
    assert "x-lan" not in spec.domains, "nobody would read it"
    assert "y" in spec.stalwart.listeners
    assert {"removed", "true", "1e3"} <= spec.domains.keys()


def test_whatever_principals_are_called_an_import_reads_what_it_wrote(applied: Stack) -> None:
    stack = applied
    for name in NAMES:
        for kind, form in {"individual": "{}", "group": "g{}", "list": "l{}"}.items():
            body = {"type": kind, "name": form.format(name), "emails": [f"{form.format(name)}@mana.how"]}
            with contextlib.suppress(Exception):  # what the server itself refuses
                stack.rest.directory.create({**body, "description": name}, ADMIN_PERMISSIONS)
    spec = _imported(stack)
    wanted = {"removed", "true", "null", "1e3", "2026-01-01"}
    assert {f"{name}@mana.how" for name in wanted} <= spec.accounts.keys()
    assert spec.accounts["true@mana.how"].description == "true"


@pytest.mark.parametrize("number", [0, 900])
def test_l8_of_two_accounts_of_one_address_none_is_touched(newer_applied: Stack, number: int) -> None:
    """A server that tells capitals apart, or lies: which one is listed last must not decide."""
    stack = newer_applied
    objects = jmapstage.server(stack.stage).store.objects
    domain, user = _like(stack, "Domain", name="mana.how"), _like(stack, "Account", name="noreply")
    free = next(key for key in map(encode_id, range(number, number + 99)) if key not in objects["Domain"])
    objects["Domain"][free] = {**domain, "name": "MANA.HOW"}
    twin = next(key for key in map(encode_id, range(number, number + 99)) if key not in objects["Account"])
    objects["Account"][twin] = {**user, "domainId": free, "description": "somebody else"}
    stack.watch = Watch(stack)
    done = stack.run("apply", "--yes", "--target", "stalwart", "--output", "json")
    assert "the server has 2 accounts of that address" in done.text, done.text
    assert objects["Account"][twin]["description"] == "somebody else"
    assert stack.writes() == []
