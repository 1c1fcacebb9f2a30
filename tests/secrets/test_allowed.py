"""``RECONCILER_SECRETS``: what it does not name is not read, whatever the path looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.problem import ReconcilerError, SecretUnreadable
from reconciler.resources import SecretRef
from reconciler.secrets import Secrets


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A directory beside a folder of secrets, with other people's files around, and links among them."""
    state = tmp_path / "repository" / "desired-state"
    state.mkdir(parents=True)
    for path in ("repository/secrets/mine", "repository/secrets/deep/er", "repository/secrets-of-others/x", "shadow"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"value of {path}")
    (state / "link").symlink_to(tmp_path / "shadow")
    (tmp_path / "repository/secrets/link").symlink_to(tmp_path / "shadow")
    (tmp_path / "repository/secrets/folder").symlink_to(tmp_path)
    (tmp_path / "repository/also").symlink_to(tmp_path / "repository/secrets")
    return state


def read(state: Path, allowed: str | None, source: str, name: str) -> str:
    environ = {"ALLOWED": "one", "ALLOWED_TOO": "two", "OTHER": "three"}
    environ |= {} if allowed is None else {"RECONCILER_SECRETS": allowed}
    secrets = Secrets(state, environ, place=lambda ref: f"accounts.yaml:7 ({ref.source})")
    try:
        return secrets(SecretRef(source, name))
    except SecretUnreadable as error:
        [problem] = error.problems
        assert problem.where == f"accounts.yaml:7 ({source})"
        assert problem.summary == f"{{{source}: {name}}} is not allowed here"
        assert "RECONCILER_SECRETS" in problem.hint
        return "not allowed"


def test_t5_unset_means_all(state: Path) -> None:
    assert read(state, None, "env", "OTHER") == "three"
    assert read(state, None, "file", "link") == "value of shadow"


@pytest.mark.parametrize("allowed", ["", " ", "env:ALLOWED", "file:../secrets/", "sops:../", "age:/"])
def test_t5_what_is_not_named_is_not_read(state: Path, allowed: str) -> None:
    assert read(state, allowed, "env", "OTHER") == "not allowed"
    assert read(state, allowed, "env", "allowed") == "not allowed"
    assert read(state, allowed, "file", "../../shadow") == "not allowed"


@pytest.mark.parametrize("allowed", ["env:ALLOWED*", "env:ALLOWED,env:ALLOWED_TOO", "file:x env:ALLOWED  env:*_TOO"])
def test_t5_variables_are_named_by_patterns_between_commas_or_blanks(state: Path, allowed: str) -> None:
    assert read(state, allowed, "env", "ALLOWED") == "one"
    assert read(state, allowed, "env", "ALLOWED_TOO") == "two"
    assert read(state, allowed, "env", "OTHER") == "not allowed"


@pytest.mark.parametrize(
    "allowed", ["file:../secrets/", "file:../secrets", "file:../secret?/", "file:{root}/repository/secrets/"]
)
def test_t5_a_folder_is_what_lies_in_it_in_the_end(state: Path, allowed: str) -> None:
    root = state.parent.parent
    allowed = allowed.format(root=root)
    may = ["../secrets/mine", "../secrets/deep/er", "../secrets/../secrets/mine", "../also/mine", "./../secrets/./mine"]
    may += [f"{root}/repository/secrets/mine"]
    may_not = [
        "../secrets/link",
        "../secrets/folder/shadow",
        "../secrets/../../shadow",
        "link",
        "../secrets-of-others/x",
    ]
    may_not += [f"{root}/shadow", "../Secrets/mine", "../secrets/deep/../../../shadow"]
    assert {name: read(state, allowed, "file", name) != "not allowed" for name in (*may, *may_not)} == {
        **dict.fromkeys(may, True),
        **dict.fromkeys(may_not, False),
    }


def test_t5_a_link_in_the_place_of_an_allowed_folder_opens_nothing(state: Path) -> None:
    """A pull request can put one there; what it leads to was not meant."""
    (state.parent / "vault").symlink_to(state.parent.parent)
    assert read(state, "file:../vault/", "file", "../vault/shadow") == "not allowed"
    assert read(state, "file:../missing/", "file", "../vault/shadow") == "not allowed"


def test_t5_of_a_file_of_sops_single_keys_may_be_named(state: Path) -> None:
    refused = [read(state, "sops:../secrets/mail.yaml#smtp_*", "sops", f"../secrets/mail.yaml#{key}") for key in ("x",)]
    assert refused == ["not allowed"]
    environ = {"RECONCILER_SECRETS": "sops:../secrets/mail.yaml#smtp_*"}
    with pytest.raises(SecretUnreadable) as caught:
        Secrets(state, environ)(SecretRef("sops", "../secrets/mail.yaml#smtp_key"))
    assert "not allowed" not in str(caught.value.problems[0])


@pytest.mark.parametrize("allowed", ["ALLOWED", "env:", "vault:x", "env:A;file:B/ nonsense"])
def test_t5_what_is_no_pattern_is_an_error_that_says_how_to_write_one(state: Path, allowed: str) -> None:
    with pytest.raises(ReconcilerError) as caught:
        read(state, allowed, "env", "ALLOWED")
    assert "env:NAME" in caught.value.problems[0].hint
