"""What of a head counts before it is merged: whose word is whose, and which references are held."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from reconciler.desired.load import Directory
from reconciler.desired.spec import references
from reconciler.desired.unmerged import Candidate, Doubtful, candidate
from reconciler.problem import ReconcilerError
from reconciler.resources import SecretRef

from .test_comparison import DOCUMENT, WORDS, changed, read

COMMITS = ("b" * 40, "a" * 40)
CERTAIN = Doubtful()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("directories")


@pytest.fixture(scope="module")
def base(place: Path) -> Directory:
    return read(place, DOCUMENT)


def proposed(base: Directory, place: Path, document: dict[str, Any], doubtful: Doubtful = CERTAIN) -> Candidate:
    return candidate(base, read(place, document, 3), COMMITS, doubtful)


def held(found: Candidate) -> set[str]:
    return {f"{'.'.join(map(str, path))} {ref}" for path, ref in references(found.directory.spec) if ref.held}


def test_nothing_is_held_where_nothing_is_new(base: Directory, place: Path) -> None:
    found = proposed(base, place, DOCUMENT)
    assert held(found) == set()
    assert found.unmerged is not None
    assert found.unmerged.unused == found.unmerged.unread == ()
    parts = ("accounts", "groups", "lists", "domains", "stalwart", "smtp")
    same = read(place, DOCUMENT, 3).spec
    assert all(getattr(found.directory.spec, name) == getattr(same, name) for name in parts)
    assert found.directory.path == base.path


OWN = ("stack", "targets", "policy", "daemon", "router")


@pytest.mark.parametrize("word", [word for word in WORDS if word.split(".")[0] in OWN])
def test_what_decides_whom_to_trust_is_the_base_s_word_for_word(base: Directory, place: Path, word: str) -> None:
    found = proposed(base, place, changed(*WORDS[word]))
    for name in OWN:
        assert getattr(found.directory.spec, name) == getattr(base.spec, name)
    assert found.unmerged is not None
    assert {item.kind for item in found.unmerged.unused} == {word.partition(".")[0]}


PLACES = {
    "accounts": (("accounts", "till@mana.how", "password"), {"env": "NEW"}),
    "dkim": (("dkim", "mana.how", 0, "private_key"), {"env": "NEW"}),
    "objects": (
        ("stalwart", "objects", "MtaRoute"),
        {"r": {"@type": "Relay", "address": "x.how", "authSecret": {"env": "NEW"}}},
    ),
    "username": (("smtp", "providers", "spare", "username"), {"env": "NEW"}),
    "password": (("smtp", "providers", "spare", "password"), {"env": "NEW"}),
    "api_key": (("smtp", "providers", "brevo", "api_key"), {"env": "NEW"}),
    "variable": (("smtp", "consumers", "web", "env", "TOKEN"), {"env": "NEW"}),
    "link": (("smtp", "links", 0, "value"), {"env": "NEW"}),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("ref", [{"env": "NEW"}, {"env": "CF"}, {"file": "/etc/passwd"}, {"sops": "../x.sops.yaml#k"}])
def test_a_reference_that_the_base_has_not_at_this_place_is_held(
    base: Directory, place: Path, name: str, ref: dict[str, str]
) -> None:
    """Also one that the base has elsewhere: it would be tried as what it is not."""
    path, value = PLACES[name]
    filled = _filled(value, ref)
    found = proposed(base, place, changed(path, filled))
    [(source, text)] = ref.items()
    assert {item.partition(" ")[2] for item in held(found)} == {f"{{{source}: {text}}}"}
    assert found.unmerged is not None
    assert [str(it) for it, _ in found.unmerged.unread] == [f"{{{source}: {text}}}"]
    assert all(place is not None and place.line for _, place in found.unmerged.unread)


def _filled(value: Any, ref: dict[str, str]) -> Any:
    if value == {"env": "NEW"}:
        return ref
    return {key: _filled(item, ref) for key, item in value.items()} if isinstance(value, dict) else value


def test_the_position_in_a_list_is_no_place_of_its_own(base: Directory, place: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    new = {"selector": "zero", "algorithm": "rsa", "stage": "active", "private_key": {"env": "ZERO"}}
    document["dkim"]["mana.how"].insert(0, new)
    assert {item.partition(" ")[2] for item in held(proposed(base, place, document))} == {"{env: ZERO}"}


def test_what_the_head_has_otherwise_is_held_but_where_the_base_s_word_counts(base: Directory, place: Path) -> None:
    """The administrator's password is that of the base, so its file is the base's, too."""
    doubtful = Doubtful(unlike=frozenset({SecretRef("env", "ADMIN_NEW")}))
    assert held(proposed(base, place, DOCUMENT, doubtful)) == {"accounts.admin.password {env: ADMIN_NEW}"}
    nowhere = Doubtful(elsewhere=frozenset({SecretRef("env", "ADMIN_NEW")}))
    names = {item.partition(" ")[0] for item in held(proposed(base, place, DOCUMENT, nowhere))}
    assert names == {"accounts.admin.password", "targets.stalwart.password.0"}


def test_a_login_by_an_account_is_the_base_s_account(place: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["targets"]["stalwart"]["password"] = {"account": "admin"}
    head = copy.deepcopy(document)
    head["accounts"]["admin"]["password"] = {"env": "EVIL"}
    found = proposed(read(place, document), place, head)
    server = found.directory.spec.targets.stalwart
    assert server is not None
    assert server.password == (SecretRef("env", "ADMIN_NEW"),)
    assert held(found) == {"accounts.admin.password {env: EVIL}"}


def test_what_does_not_go_with_the_base_is_told(base: Directory, place: Path) -> None:
    """A new zone needs a token that says so, which counts once it is merged."""
    document = copy.deepcopy(DOCUMENT)
    document["targets"]["cloudflare"][1]["zones"] = ["new.how", "x.how"]
    document["dns"]["new.how"] = [{"type": "A", "name": "@", "content": "192.0.2.1"}]
    with pytest.raises(ReconcilerError, match="merge that first"):
        proposed(base, place, document)


def test_only_names_of_the_base_are_asked_for(base: Directory, place: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["dkim"]["evil.example"] = [{"selector": "x", "algorithm": "ed25519", "private_key": {"env": "KEY"}}]
    assert proposed(base, place, document).zones == {"mana.how", "mana.example"}
