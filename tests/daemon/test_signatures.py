"""Whose signature lets a commit count: real keys of ssh-keygen and gpg, verified by git."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon.origin import Origin, key, run, signed, taken, told, yaml

from reconciler.daemon.remote import Remote
from reconciler.daemon.store import Signers
from reconciler.problem import ReconcilerError, Severity


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path / "there")


@pytest.fixture
def ada(tmp_path: Path) -> tuple[Path, str]:
    return key(tmp_path, "ada")


@pytest.fixture
def allowed(tmp_path: Path, ada: tuple[Path, str]) -> Signers:
    file = tmp_path / "allowed_signers"
    file.write_text(ada[1])
    return Signers(file)


def commit(origin: Origin, deletes: int, *options: str, subject: str = "a change", **environ: str) -> str:
    (origin.tree / "desired-state").mkdir(exist_ok=True)
    (origin.tree / "desired-state/reconciler.yaml").write_text(yaml(deletes))
    run(origin.tree, "add", "-A")
    run(origin.tree, *options, "commit", "-q", "-m", subject, *(("-S",) if options else ()), **environ)
    origin.push()
    return origin.head


def test_a_commit_that_somebody_signed_whom_we_know_is_taken_and_shows_who(
    origin: Origin, ada: tuple[Path, str], allowed: Signers
) -> None:
    head = commit(origin, 1, *signed(ada[0]))
    checkout = origin.checkout(signers=allowed)
    sourced = checkout.poll()
    assert (taken(sourced), sourced.problems) == (head, ())
    assert sourced.revision
    assert sourced.revision.signer == "ada@example.com"
    again = origin.checkout(signers=allowed).poll().revision
    assert again
    assert (again.commit, again.signer) == (head, "ada@example.com")


def test_where_none_is_asked_for_no_signature_is_looked_at(origin: Origin, ada: tuple[Path, str]) -> None:
    head = commit(origin, 1, *signed(ada[0]))
    revision = origin.checkout().poll().revision
    assert revision
    assert (revision.commit, revision.signer) == (head, "")


@pytest.mark.parametrize("how", ["unsigned", "another key", "another namespace", "after its time", "forged", "damaged"])
def test_no_other_commit_takes_the_place_of_a_signed_one(
    origin: Origin, ada: tuple[Path, str], allowed: Signers, tmp_path: Path, how: str
) -> None:
    good = commit(origin, 1, *signed(ada[0]))
    checkout = origin.checkout(signers=allowed)
    assert taken(checkout.poll()) == good
    assert allowed.ssh
    if how == "another key":
        eve, _ = key(tmp_path, "eve")
        bad = commit(origin, 99, *signed(eve))
    elif how == "another namespace":
        allowed.ssh.write_text(ada[1].replace('"git"', '"file"'))
        bad = commit(origin, 99, *signed(ada[0]))
    elif how == "after its time":
        allowed.ssh.write_text(ada[1].replace("namespaces", 'valid-before="20200101",namespaces'))
        bad = commit(origin, 99, *signed(ada[0]))
    elif how in ("forged", "damaged"):
        commit(origin, 99, *signed(ada[0]))
        command = ["git", "-C", str(origin.tree), "cat-file", "commit", "HEAD"]
        text = subprocess.run(command, check=True, capture_output=True).stdout
        other = (
            text.replace(b"\n\na change", b"\n\nanother change") if how == "forged" else text.replace(b"AAAA", b"AAAB")
        )
        assert other != text
        (tmp_path / "raw").write_bytes(other)
        bad = run(origin.tree, "hash-object", "-t", "commit", "-w", str(tmp_path / "raw"))
        run(origin.tree, "reset", "-q", "--hard", bad)
        origin.push()
    else:
        bad = commit(origin, 99)
    sourced = checkout.poll()
    assert (taken(sourced), sourced.seen) == (good, bad)
    [problem] = sourced.problems
    assert problem.severity is Severity.REFUSED
    assert f"commit {bad[:12]} is signed by nobody whom we know" in problem.summary
    assert f"commit {good[:12]} goes on being healed to" in problem.summary


def test_a_key_whose_time_is_over_signs_no_more_whatever_day_the_commit_names(
    origin: Origin, ada: tuple[Path, str], allowed: Signers
) -> None:
    """Git holds a key's dates against the commit's own, which its author chooses."""
    good = commit(origin, 1, *signed(ada[0]))
    checkout = origin.checkout(signers=allowed)
    assert taken(checkout.poll()) == good
    assert allowed.ssh
    allowed.ssh.write_text(ada[1].replace("namespaces", 'valid-after="20180101",valid-before="20200101",namespaces'))
    commit(origin, 99, *signed(ada[0]), GIT_COMMITTER_DATE="2019-06-01T12:00:00Z")
    sourced = checkout.poll()
    assert taken(sourced) == good
    assert "is signed by nobody whom we know" in told(sourced)
    allowed.ssh.write_text(ada[1].replace("namespaces", 'valid-after="20180101",valid-before="20990101",namespaces'))
    better = commit(origin, 2, *signed(ada[0]))
    assert taken(checkout.poll()) == better


def test_the_newest_commit_alone_has_to_be_signed(origin: Origin, ada: tuple[Path, str], allowed: Signers) -> None:
    commit(origin, 1)
    head = commit(origin, 2, *signed(ada[0]))
    assert taken(origin.checkout(signers=allowed).poll()) == head


def test_a_signer_who_is_struck_off_counts_no_more_after_a_restart(
    origin: Origin, ada: tuple[Path, str], allowed: Signers
) -> None:
    commit(origin, 1, *signed(ada[0]))
    assert origin.checkout(signers=allowed).poll().revision
    assert allowed.ssh
    allowed.ssh.write_text("")
    sourced = origin.checkout(signers=allowed).poll()
    assert sourced.revision is None
    assert "is signed by nobody whom we know" in told(sourced)


def test_what_was_taken_unsigned_does_not_count_once_signatures_are_asked_for(origin: Origin, allowed: Signers) -> None:
    commit(origin, 1)
    assert origin.checkout().poll().revision
    assert origin.checkout(signers=allowed).poll().revision is None


def test_a_list_of_signers_that_is_missing_lets_nothing_through(
    origin: Origin, ada: tuple[Path, str], allowed: Signers
) -> None:
    commit(origin, 1, *signed(ada[0]))
    assert allowed.ssh
    allowed.ssh.unlink()
    sourced = origin.checkout(signers=allowed).poll()
    assert sourced.revision is None
    assert f"{allowed.ssh}: is missing" in told(sourced)


def test_the_list_of_signers_must_not_lie_where_a_push_can_change_it(
    origin: Origin, ada: tuple[Path, str], tmp_path: Path
) -> None:
    origin.commit({"desired-state/reconciler.yaml": yaml(), "allowed_signers": ada[1]})
    revision = origin.checkout().poll().revision
    assert revision
    inside = [revision.directory.path.parent / "allowed_signers", origin.tree / "allowed_signers"]
    (tmp_path / "link").symlink_to(inside[0])
    for file in (*inside, tmp_path / "link"):
        with pytest.raises(ReconcilerError, match="lies in the repository"):
            origin.checkout(signers=Signers(file), repo=str(origin.tree))


@pytest.mark.parametrize("address", ["{bare}", "file://{bare}", "{bare}/"])
def test_nor_in_another_clone_of_it_that_git_keeps_up(
    origin: Origin, tmp_path: Path, ada: tuple[Path, str], address: str
) -> None:
    """Somebody pulls there, and has taken whom to trust from whoever pushed."""
    origin.commit({"desired-state/reconciler.yaml": yaml(), "allowed_signers": ada[1]})
    clone = tmp_path / "clone"
    run(tmp_path, "clone", "-q", str(origin.bare), str(clone))
    run(clone, "remote", "set-url", "origin", address.format(bare=origin.bare))
    with pytest.raises(ReconcilerError, match="lies in the repository"):
        origin.checkout(signers=Signers(clone / "allowed_signers"))
    (tmp_path / "led").symlink_to(clone / "allowed_signers")
    with pytest.raises(ReconcilerError, match="lies in the repository"):
        origin.checkout(signers=Signers(tmp_path / "led"))
    (clone / "own_signers").write_text(ada[1])  # which no commit brings
    origin.checkout(signers=Signers(clone / "own_signers"))
    run(clone, "remote", "set-url", "origin", "https://example.org/of/machines.git")
    origin.checkout(signers=Signers(clone / "allowed_signers"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("git@github.com:me/mana.git", "https://github.com/me/mana", True),
        ("ssh://git@GitHub.com/me/mana.git/", "https://me:token@github.com/me/mana.git", True),
        ("https://github.com/me/mana", "https://github.com/you/mana", False),
        ("/srv/git/mana.git", "/srv/git/mana", True),
        ("git@github.com:me/mana.git", "ssh://git@ssh.github.com:443/me/mana.git", True),
        ("https://git.example.org:3000/me/mana.git", "ssh://git@git.example.org:2222/me/mana", True),
        ("https://git.example.org/me/mana.git", "work:me/mana.git", True),  # a name of ~/.ssh/config
        ("/srv/git/mana.git", "ssh://ada@git.example.org/srv/git/mana.git", True),
        ("ssh://ada@git.example.org:2222/~/mana.git", "ada@git.example.org:mana.git", True),
        ("https://git.example.org/me/mana.git", "https://git.example.org/me/not-mana.git", False),
    ],
)
def test_a_repository_is_known_by_whatever_way_it_is_reached(one: str, other: str, same: bool) -> None:
    assert Remote.read(one, "main").is_of(other) is same


def test_the_repository_says_nothing_of_who_may_sign(origin: Origin, tmp_path: Path, allowed: Signers) -> None:
    """Neither its own list, nor the configuration of whoever runs us, nor a program for it."""
    eve, line = key(tmp_path, "eve")
    (tmp_path / "eves").write_text(line)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.gitconfig").write_text(
        f'[gpg]\n\tprogram = true\n[gpg "ssh"]\n\tallowedSignersFile = {tmp_path}/eves\n\tprogram = true\n'
    )
    origin.commit({".gitconfig": f'[gpg "ssh"]\n\tallowedSignersFile = {tmp_path}/eves\n', "allowed_signers": line})
    commit(origin, 1, *signed(eve))
    sourced = origin.checkout(signers=allowed, HOME=str(tmp_path / "home")).poll()
    assert sourced.revision is None
    assert "is signed by nobody whom we know" in told(sourced)


# ------------------------------------------------------------------------------------------------------------- gpg
class Keyring:
    """A folder with keys of GPG, and an agent of its own while it is used."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(mode=0o700)

    def run(self, *arguments: str, given: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self.place), "--batch", "--quiet", *arguments]
        return subprocess.run(command, input=given, capture_output=True, check=True).stdout

    def make(self, name: str) -> None:
        self.run("--passphrase", "", "--quick-gen-key", f"{name} <{name}@example.com>", "ed25519", "sign", "never")


@pytest.fixture
def github() -> Iterator[Keyring]:
    """A key that stands for GitHub's own, which signs what is merged on its pages."""
    if shutil.which("gpg") is None:
        pytest.skip("gpg is missing (Debian: gpg)")
    place = Path("/tmp") / f"reconciler-gpg-{os.getpid()}"  # an agent's socket has a short name
    shutil.rmtree(place, ignore_errors=True)
    ring = Keyring(place)
    ring.make("web-flow")
    yield ring
    subprocess.run(["gpgconf", "--homedir", str(place), "--kill", "all"], check=False)
    shutil.rmtree(place, ignore_errors=True)


def sign_by(ring: Keyring, name: str) -> tuple[str, ...]:
    program = ring.place / "program"
    program.write_text(f'#!/bin/sh\nexec gpg --homedir {ring.place} --batch "$@"\n')
    program.chmod(0o755)
    return ("-c", "gpg.format=openpgp", "-c", f"gpg.program={program}", "-c", f"user.signingKey={name}@example.com")


def test_a_keyring_of_gpg_counts_beside_keys_of_ssh(
    origin: Origin, github: Keyring, ada: tuple[Path, str], allowed: Signers, tmp_path: Path
) -> None:
    trusted = Keyring(tmp_path / "keyring")
    trusted.run("--import", given=github.run("--export", "web-flow"))
    both = Signers(allowed.ssh, trusted.place)
    merged = commit(origin, 1, *sign_by(github, "web-flow"))
    revision = origin.checkout(signers=both).poll().revision
    assert revision
    assert (revision.commit, revision.signer) == (merged, "web-flow <web-flow@example.com>")
    assert origin.checkout(origin.place / "other", signers=allowed).poll().revision is None  # by keys of SSH alone
    by_ada = commit(origin, 2, *signed(ada[0]))
    assert taken(origin.checkout(signers=both).poll()) == by_ada
    assert origin.checkout(origin.place / "third", signers=Signers(gpg=trusted.place)).poll().revision is None
    github.make("eve")
    commit(origin, 3, *sign_by(github, "eve"))
    sourced = origin.checkout(signers=both).poll()
    assert taken(sourced) == by_ada
    assert "is signed by nobody whom we know" in told(sourced)
