"""Passwords: hashing, and verifying every kind of hash that Stalwart itself verifies."""

import base64
import hashlib
import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import bcrypt
import pytest
from argon2 import PasswordHasher
from hypothesis import given, settings
from hypothesis import strategies as st
from passlib.hash import md5_crypt, sha256_crypt, sha512_crypt

from reconciler.plan import Desired, diff
from reconciler.problem import Problem, SecretUnreadable
from reconciler.resources import Account, Live, Observation, Same, Secret, SecretRef
from reconciler.secrets import is_crypt_hash
from reconciler.target import Action, Change, Reason
from reconciler.targets.stalwart import passwords

CLEAR = "pässwörd $x \"'\\"


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def phc_pbkdf2() -> str:
    digest = hashlib.pbkdf2_hmac("sha256", CLEAR.encode(), b"saltsalt", 1000, 32)
    return f"$pbkdf2-sha256$i=1000,l=32${b64(b'saltsalt')}${b64(digest)}"


def phc_scrypt() -> str:
    digest = hashlib.scrypt(CLEAR.encode(), salt=b"saltsalt", n=1024, r=8, p=1, dklen=32)
    return f"$scrypt$ln=10,r=8,p=1${b64(b'saltsalt')}${b64(digest)}"


def ssha(name: str, algorithm: str, salt: bytes) -> str:
    raw = hashlib.new(algorithm, CLEAR.encode() + salt).digest() + salt
    return f"{{{name}}}{base64.b64encode(raw).decode()}"


HASHES = {
    "ours": lambda: passwords.hashed(CLEAR),
    "sha512-crypt": lambda: sha512_crypt.using(rounds=5000).hash(CLEAR),
    "sha256-crypt": lambda: sha256_crypt.using(rounds=1000).hash(CLEAR),
    "md5-crypt": lambda: md5_crypt.hash(CLEAR),
    "bcrypt": lambda: bcrypt.hashpw(CLEAR.encode(), bcrypt.gensalt(4)).decode(),
    "argon2id": lambda: PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(CLEAR),
    "pbkdf2": phc_pbkdf2,
    "scrypt": phc_scrypt,
    "ssha": lambda: ssha("SSHA", "sha1", b"salt"),
    "ssha512": lambda: ssha("SSHA512", "sha512", b"saltsalt"),
    "sha256": lambda: ssha("SHA256", "sha256", b""),
    "md5": lambda: ssha("MD5", "md5", b""),
    "crypt": lambda: "{CRYPT}" + sha512_crypt.using(rounds=1000).hash(CLEAR),
}


@pytest.mark.parametrize("kind", HASHES)
def test_a_clear_value_is_verified_against_its_hash_and_no_other(kind):
    stored = HASHES[kind]()
    assert is_crypt_hash(stored)
    assert passwords.matches(CLEAR, stored) is True
    assert passwords.matches(CLEAR + "x", stored) is False
    assert passwords.matches(stored, stored) is True


def test_a_value_is_hashed_with_another_salt_each_time():
    first, second = passwords.hashed(CLEAR), passwords.hashed(CLEAR)
    assert first != second
    assert first.startswith("$argon2id$v=19$m=4096,t=1,p=1$")
    assert CLEAR not in first


def test_a_hash_is_sent_as_it_is():
    stored = HASHES["argon2id"]()
    assert passwords.hashed(stored) == stored


@pytest.mark.parametrize("text", ["$6$", "$2", "{PLAIN}x", "_abc", "$argon2id$x", "$1 dollar", "{SSHA}", "hunter2"])
def test_a_clear_password_that_begins_like_a_hash_is_hashed(text):
    assert not is_crypt_hash(text)
    assert passwords.matches(text, passwords.hashed(text)) is True


@pytest.mark.parametrize("value", ["", "x" * 513, "a\0b", "a\nb"])
def test_what_can_be_no_password_is_refused_without_showing_it(value):
    with pytest.raises(ValueError) as error:
        passwords.hashed(value)
    assert not value or value not in str(error.value)


@pytest.mark.parametrize(
    "stored", ["$6$rounds=999999999$salt$" + "a" * 86, "{ARGON2ID}x", "$argon2id$v=19$m=x", "$scrypt$ln=40,r=8,p=1$a$b"]
)
def test_a_hash_that_can_not_be_verified_is_not_called_different(stored):
    assert passwords.matches("x", stored) is (None if is_crypt_hash(stored) else False)


@settings(deadline=None, max_examples=20)
@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=100))
def test_any_text_round_trips(value):
    if not is_crypt_hash(value):
        assert passwords.matches(value, passwords.hashed(value)) is True


def test_a_hash_that_openssl_makes_is_verified():
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = ["openssl", "passwd", "-6", "-salt", "saltsaltsaltsalt", "plain text"]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert passwords.matches("plain text", theirs) is True
    assert passwords.matches("plain texts", theirs) is False


def creation(number: int, name: str = "SECRET") -> Change:
    account = Account(f"user{number}@mana.how", password=SecretRef("env", name))
    return Change(account.address, (Action.CREATE,), Reason.MISSING, after=account)


def test_every_account_gets_a_hash_of_its_own_though_the_password_is_the_same():
    changes = [creation(1), creation(2)]
    hashes = passwords.Hashes(changes, lambda _: CLEAR, lambda _: None)
    made = [hashes.of(change.after, change.after.password) for change in changes]
    assert made[0] != made[1]
    assert all(passwords.matches(CLEAR, item) for item in made)
    assert hashes.of(changes[0].after, changes[0].after.password) == made[0]


def test_a_password_that_does_not_change_is_neither_read_nor_hashed():
    account = creation(1).after
    live = replace(account, quota=1, password=Same(account.password))
    seen = Observation("stalwart", live=[Live(live, id="user1")])
    kept = diff(Desired([replace(account, quota=2)]), {"stalwart": seen}, stack="mana").changes
    assert [set(change.fields) for change in kept] == [{"quota"}]
    read: list[Secret] = []
    passwords.Hashes(kept, lambda secret: read.append(secret) or CLEAR, lambda _: None)
    assert read == []


def test_what_can_not_be_hashed_is_told_for_its_account_and_stops_no_other():
    def reveal(secret: Secret) -> str:
        if secret.name == "UNSET":
            raise SecretUnreadable(Problem(str(secret), "is not set"))
        return "a\nb" if secret.name == "BROKEN" else CLEAR

    unset, broken, fine = creation(1, "UNSET"), creation(2, "BROKEN"), creation(3)
    hashes = passwords.Hashes([unset, broken, fine], reveal, lambda _: None)
    assert passwords.matches(CLEAR, hashes.of(fine.after, fine.after.password)) is True
    with pytest.raises(SecretUnreadable):
        hashes.of(unset.after, unset.after.password)
    with pytest.raises(ValueError, match=r"the password \{env: BROKEN\} holds a control character"):
        hashes.of(broken.after, broken.after.password)


def test_work_that_takes_long_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr(passwords, "_QUIET", 0.05)
    said: list[str] = []
    slow = threading.Event()
    threading.Timer(0.2, slow.set).start()
    assert passwords.side_by_side(lambda item: slow.wait(5) and item, [1, 2], "hashing passwords", said.append) == [
        1,
        2,
    ]
    assert said[0] == "hashing passwords: 0 of 2"
    said.clear()
    passwords.side_by_side(str, range(10), "hashing passwords", said.append)
    assert said == []


def test_app_passwords_and_one_time_seeds_are_no_password():
    assert not passwords.is_password("$app$phone$$6$x")
    assert not passwords.is_password("otpauth://totp/x?secret=y")
    assert passwords.is_password("$6$x")


def test_two_threads_may_be_the_first_to_verify_a_crypt_hash():
    """The second one begins while passlib is half loaded, which a plan of two accounts met now and then."""
    program = """
import sys, threading
from reconciler.targets.stalwart import passwords
stored, found = sys.argv[1], []
first = threading.Thread(target=lambda: found.append(passwords.matches("word", stored)))
first.start()
while "passlib.hash" not in sys.modules:
    pass
found.append(passwords.matches("word", stored))
first.join()
print(found)
"""
    stored = sha512_crypt.using(rounds=1000).hash("word")
    command = [sys.executable, "-c", program, stored]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[True, True]", "")
