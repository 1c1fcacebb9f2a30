"""``{credential: NAME}``: a file that systemd, or Compose's ``secrets:``, has put into one folder for us."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from reconciler.desired.load import load
from reconciler.problem import InvalidDirectory, SecretUnreadable
from reconciler.resources import SecretRef
from reconciler.secrets import Secrets

TOKEN = SecretRef("credential", "cloudflare.token")


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / TOKEN.name).write_text("s3cret-of-ours\n")
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def test_it_is_read_hidden_and_read_anew_when_it_changes(tmp_path: Path, environ: Mapping[str, str]) -> None:
    secrets = Secrets(tmp_path, environ)
    assert not secrets.stale
    assert secrets(TOKEN) == "s3cret-of-ours"
    assert secrets.redact("it was s3cret-of-ours") == "it was [redacted {credential: cloudflare.token}]"
    assert not secrets.stale
    (tmp_path / "credentials" / TOKEN.name).write_text("another one")
    assert secrets.stale


@pytest.mark.parametrize(
    ("environ", "name", "said"),
    [
        ({}, "x", "CREDENTIALS_DIRECTORY names no folder"),
        ({"CREDENTIALS_DIRECTORY": "relative"}, "x", "CREDENTIALS_DIRECTORY names no folder"),
        ({"CREDENTIALS_DIRECTORY": "{folder}"}, "missing", "credentials/missing: No such file"),
        ({"CREDENTIALS_DIRECTORY": "{folder}"}, "empty", "is empty"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, environ: Mapping[str, str], name: str, said: str) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "empty").touch()
    there = {key: value.format(folder=folder) for key, value in environ.items()}
    with pytest.raises(SecretUnreadable) as caught:
        Secrets(tmp_path, there)(SecretRef("credential", name))
    [problem] = caught.value.problems
    assert problem.where == f"{{credential: {name}}}"
    assert said in problem.summary
    assert problem.hint


@pytest.mark.parametrize(
    ("allowed", "may"),
    [("credential:cloudflare.*", True), ("credential:*", True), ("credential:other env:* file:/", False), ("", False)],
)
def test_t5_patterns_name_it(tmp_path: Path, environ: Mapping[str, str], allowed: str, *, may: bool) -> None:
    secrets = Secrets(tmp_path, {**environ, "RECONCILER_SECRETS": allowed})
    if may:
        assert secrets(TOKEN) == "s3cret-of-ours"
        return
    with pytest.raises(SecretUnreadable) as caught:
        secrets(TOKEN)
    assert "not allowed here" in caught.value.problems[0].summary


@pytest.mark.parametrize("name", ["../shadow", "a/b", "..", ".", ".hidden", "''", "'a b'", "'a:b'", '"a\\0"'])
def test_a_name_leads_to_no_other_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "reconciler.yaml").write_text(
        "version: 1\nstack: one\ntargets:\n  cloudflare:\n    token: {credential: NAME}\n".replace("NAME", name)
    )
    with pytest.raises(InvalidDirectory) as caught:
        load(tmp_path)
    assert "credential takes the plain name of a file" in caught.value.problems[0].summary


def test_the_directory_takes_it(tmp_path: Path) -> None:
    (tmp_path / "reconciler.yaml").write_text(
        "version: 1\nstack: one\ntargets:\n  cloudflare:\n    token: {credential: cloudflare.token}\n"
    )
    assert load(tmp_path).spec.targets.cloudflare[0].token == TOKEN
