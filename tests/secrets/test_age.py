"""Secrets in age files: the identities of sops's places open them, nobody else's, and none is ever shown."""

from __future__ import annotations

import os
import shutil
import subprocess

import pyrage
import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from keyring import Keyring

from reconciler.files import MAX_BYTES, CannotRead
from reconciler.problem import SecretUnreadable
from reconciler.resources import SecretRef
from reconciler.secrets import Secrets, age

CANARY = "c4nary-0f-a-s3cret"
REF = SecretRef("age", "mail.age")


@pytest.fixture
def ring(tmp_path):
    return Keyring(tmp_path)


def seal(ring, *recipients, text=CANARY):
    (ring.state / "mail.age").write_bytes(age.encrypt(text, recipients))


def read(ring, **environ):
    return Secrets(ring.state, ring.environ | environ)(REF)


def refused(ring, **environ):
    with pytest.raises(SecretUnreadable) as caught:
        read(ring, **environ)
    (problem,) = caught.value.problems
    assert problem.where == str(REF)
    assert problem.hint
    assert CANARY not in str(problem)
    assert "AGE-SECRET" not in str(problem)
    assert "PRIVATE KEY" not in str(problem)
    return problem


def ssh_key(key, password=None):
    lock = form.BestAvailableEncryption(password) if password else form.NoEncryption()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, lock)
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    return private, public.decode()


# ------------------------------------------------------------------------------------------------- where identities are
@pytest.mark.parametrize("place", ["SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "XDG_CONFIG_HOME", "HOME"])
def test_identities_are_found_where_sops_finds_them(ring, place, tmp_path):
    identity = ring.identity()
    seal(ring, str(identity.to_public()))
    file = tmp_path / "sops/age/keys.txt"
    file.parent.mkdir(parents=True)
    file.write_text(f"# public key: {identity.to_public()}\n\n{identity}\n")
    if place == "HOME":
        ring.own(ring.identity(), identity)
        assert read(ring) == CANARY
    else:
        value = {"SOPS_AGE_KEY": f"{ring.identity()} {identity}", "SOPS_AGE_KEY_FILE": str(file)}
        assert read(ring, **{place: value.get(place, str(tmp_path))}) == CANARY


def test_macos_keeps_them_elsewhere(ring, monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    identity = ring.identity()
    file = ring.home / "Library/Application Support/sops/age/keys.txt"
    file.parent.mkdir(parents=True)
    file.write_text(f"{identity}\n")
    seal(ring, str(identity.to_public()))
    assert read(ring) == CANARY


@pytest.mark.parametrize("place", ["SOPS_AGE_SSH_PRIVATE_KEY_FILE", "id_ed25519", "id_rsa"])
def test_ssh_keys_are_identities(ring, place):
    make = (lambda: rsa.generate_private_key(65537, 2048)) if place == "id_rsa" else ed25519.Ed25519PrivateKey.generate
    private, public = ssh_key(make())
    file = ring.home / ".ssh" / ("mine" if place.isupper() else place)
    file.parent.mkdir()
    file.write_bytes(private)
    seal(ring, public)
    assert read(ring, **({place: str(file)} if place.isupper() else {})) == CANARY


def test_the_machines_own_home_is_not_looked_at(ring, monkeypatch, tmp_path):
    identity = ring.identity()
    (tmp_path / "other").mkdir()
    other = Keyring(tmp_path / "other")
    other.own(identity)
    monkeypatch.setenv("HOME", str(other.home))
    seal(ring, str(identity.to_public()))
    assert "no identity was found" in refused(ring).summary


# --------------------------------------------------------------------------------------------------- whose opens
def test_the_identity_of_somebody_else_opens_nothing(ring):
    own = ring.own()
    seal(ring, str(ring.identity().to_public()))
    problem = refused(ring)
    assert own in problem.summary
    assert str(ring.keys) in problem.summary
    assert "SOPS_AGE_KEY_FILE" in problem.hint


def test_an_ssh_key_of_somebody_else_is_named_by_its_public_half(ring):
    private, public = ssh_key(ed25519.Ed25519PrivateKey.generate())
    (ring.home / ".ssh").mkdir()
    (ring.home / ".ssh/id_ed25519").write_bytes(private)
    seal(ring, str(ring.identity().to_public()))
    assert public in refused(ring).summary


def test_unusable_identities_hinder_no_other_and_are_named(ring):
    own = ring.own()
    locked, _ = ssh_key(ed25519.Ed25519PrivateKey.generate(), b"passphrase")
    (ring.home / ".ssh").mkdir()
    (ring.home / ".ssh/id_ed25519").write_bytes(locked)
    (ring.home / ".ssh/id_rsa").write_text("no key\n")
    bad = {"SOPS_AGE_KEY": "AGE-SECRET-KEY-1BROKEN", "SOPS_AGE_KEY_FILE": str(ring.home / "missing")}
    seal(ring, own)
    assert read(ring, **bad) == CANARY
    seal(ring, str(ring.identity().to_public()))
    summary = refused(ring, **bad).summary
    for words in ("locked with a passphrase", "id_rsa: is no SSH", "SOPS_AGE_KEY: key 1", "No such file"):
        assert words in summary


def test_several_recipients(ring):
    first, second = ring.identity(), ring.identity()
    seal(ring, str(first.to_public()), str(second.to_public()))
    assert read(ring, SOPS_AGE_KEY=str(first)) == read(ring, SOPS_AGE_KEY=str(second)) == CANARY


# -------------------------------------------------------------------------------------------------------- what is wrong
def test_binary_files_are_read_as_armored_ones(ring):
    own = ring.identity()
    ring.own(own)
    (ring.state / "mail.age").write_bytes(pyrage.encrypt(CANARY.encode(), [own.to_public()]))
    assert read(ring) == CANARY


@pytest.mark.parametrize("cut", [60, 200, -1])
@pytest.mark.parametrize("armored", [True, False])
def test_a_damaged_file(ring, armored, cut):
    own = ring.identity()
    ring.own(own)
    whole = pyrage.encrypt(CANARY.encode(), [own.to_public()], armored=armored)
    (ring.state / "mail.age").write_bytes(whole[:cut] if cut > 0 or not armored else whole[:100] + whole[104:])
    assert "damaged" in refused(ring).summary


def test_a_file_in_clear_is_said_loudly(ring):
    ring.own()
    (ring.state / "mail.age").write_text(CANARY)
    assert "NOT ENCRYPTED" in refused(ring).summary


def test_a_file_with_a_passphrase(ring):
    ring.own()
    (ring.state / "mail.age").write_bytes(pyrage.passphrase.encrypt(CANARY.encode(), "x", armored=True))
    assert "passphrase" in refused(ring).summary


def test_what_is_no_small_text_is_no_secret(ring):
    own = ring.identity()
    ring.own(own)
    for content, words in ((b"x" * (MAX_BYTES + 1), "64 KiB"), (b"\xff\xfe", "UTF-8"), (b"", "empty")):
        (ring.state / "mail.age").write_bytes(pyrage.encrypt(content, [own.to_public()]))
        assert words in refused(ring).summary
    (ring.state / "mail.age").write_bytes(b"x" * (age.MAX_BYTES + 1))
    assert "too large" in refused(ring).summary
    (ring.state / "mail.age").unlink()
    os.mkfifo(ring.state / "mail.age")
    assert "not a regular file" in refused(ring).summary


def test_an_identity_never_passes_the_fence(ring):
    own, (ssh, _) = ring.identity(), ssh_key(ed25519.Ed25519PrivateKey.generate())
    ring.own(own)
    (ring.home / ".ssh").mkdir()
    (ring.home / ".ssh/id_ed25519").write_bytes(ssh)
    seal(ring, str(own.to_public()))
    secrets = Secrets(ring.state, ring.environ)
    secrets(REF)
    shown = secrets.redact(f"{own} and {ssh.decode()}")
    assert str(own) not in shown
    assert not any(line in shown for line in ssh.decode().splitlines()[1:-2])
    assert str(own) not in repr(secrets._identities)


@pytest.mark.parametrize("text", ["age1nonsense", "ssh-ed25519 AAAA", "mail@mana.how", ""])
def test_what_is_no_recipient(text):
    with pytest.raises(CannotRead, match="no recipient"):
        age.encrypt("x", [text])


def test_an_identity_in_place_of_a_recipient_is_not_repeated(ring):
    identity = str(ring.identity())
    with pytest.raises(CannotRead) as caught:
        age.encrypt("x", [identity])
    assert identity not in str(caught.value)


# ------------------------------------------------------------------------------------------------ the real program
def program(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no real {name} on PATH (.ci/run builds it)")
    return found


@pytest.mark.parametrize("armor", [["--armor"], []])
def test_what_the_real_age_writes_is_read_and_ours_by_it(ring, armor):
    ring.keys.parent.mkdir(parents=True)
    subprocess.run([program("age-keygen"), "-o", ring.keys], check=True, capture_output=True)
    (own,) = age.identities(ring.environ).found
    command = [program("age"), *armor, "-r", own.public, "-o", ring.state / "mail.age"]
    subprocess.run(command, input=CANARY.encode(), check=True, capture_output=True)
    assert read(ring) == CANARY
    seal(ring, own.public)
    command = [program("age"), "--decrypt", "-i", ring.keys, ring.state / "mail.age"]
    assert subprocess.run(command, check=True, capture_output=True).stdout == f"{CANARY}\n".encode()
