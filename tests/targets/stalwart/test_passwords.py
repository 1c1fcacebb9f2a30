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
from passlib.hash import bsdi_crypt, md5_crypt, sha1_crypt, sha256_crypt, sha512_crypt
from properties import tries

from reconciler.plan import Desired, diff
from reconciler.problem import Problem, SecretUnreadable
from reconciler.resources import Account, Live, Observation, Same, Secret, SecretRef
from reconciler.secrets import schemes
from reconciler.secrets.schemes import is_crypt_hash
from reconciler.simulator.stalwart.passwords import verify
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


@pytest.mark.parametrize("text", ["$6$", "$2", "{PLAIN}x", "_abc", "{", "{}", "$1 dollar", "{a b}c", "hunter2"])
def test_a_clear_password_that_begins_like_a_hash_is_hashed(text):
    assert not is_crypt_hash(text)
    assert passwords.matches(text, passwords.hashed(text)) is True


@pytest.mark.parametrize("value", ["", "x" * 513, "a\0b", "a\nb"])
def test_what_can_be_no_password_is_refused_without_showing_it(value):
    with pytest.raises(ValueError) as error:
        passwords.hashed(value)
    assert not value or value not in str(error.value)


@pytest.mark.parametrize("stored", ["$6$rounds=999999999$salt$" + "a" * 86, "$scrypt$ln=40,r=8,p=1$a$b"])
def test_a_hash_that_can_not_be_verified_is_not_called_different(stored):
    assert passwords.matches("x", stored) is None


@pytest.mark.parametrize("stored", ["{ARGON2ID}x", "$argon2id$v=19$m=x", "$y$j9T$a$b", "{SHA384}x"])
def test_l12_a_hash_that_no_server_verifies_is_another_password(stored):
    assert passwords.matches("x", stored) is False


@settings(deadline=None, max_examples=tries(20))
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


# ------------------------------------------------------------------------------------------------- migrated hashes
MIGRATED = {
    "{BLF-CRYPT}": lambda: bcrypt.hashpw(CLEAR.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$"),
    "{SHA512-CRYPT}": HASHES["sha512-crypt"],
    "{SHA256-CRYPT}": HASHES["sha256-crypt"],
    "{MD5-CRYPT}": HASHES["md5-crypt"],
    "{MD5}": HASHES["md5-crypt"],
    "{Argon2id}": HASHES["argon2id"],
    "{PBKDF2}": phc_pbkdf2,
    "{crypt}": HASHES["bcrypt"],
}


@pytest.mark.parametrize("prefix", MIGRATED)
def test_l12_the_name_that_another_program_puts_before_a_hash_is_taken_off(prefix):
    plain = MIGRATED[prefix]()
    assert passwords.hashed(prefix + plain) == plain
    assert passwords.matches(prefix + plain, plain) is True
    assert verify(plain, CLEAR, folds=True)
    assert verify(plain, CLEAR)


@pytest.mark.parametrize("name", ["ssha", "ssha256", "ssha512", "sha", "sha256", "sha512", "md5"])
def test_l12_digests_are_written_as_both_generations_know_them(name):
    algorithm = {"sha": "sha1", "md5": "md5"}.get(
        name.removeprefix("s") if name != "sha" and name.startswith("ss") else name
    )
    algorithm = algorithm or name.removeprefix("s" if name.startswith("ss") else "")
    salt = b"salt" if name.startswith("ss") else b""
    written = ssha(name, algorithm, salt).rstrip("=")
    sent = passwords.hashed(written)
    assert sent.startswith("{" + name.upper() + "}")
    assert verify(sent, CLEAR)
    assert passwords.matches(CLEAR, sent) is True
    assert passwords.matches(written, sent) is True


@pytest.mark.parametrize("prefix", ["{PLAIN}", "{plain}", "{CLEAR}", "{CLEARTEXT}"])
@pytest.mark.parametrize("value", ["x", "$y$j9T$abc$def", "{SHA}x", "_J9..rasmBYk8r9AiWNc"])
def test_l12_a_clear_value_is_unwrapped(prefix, value):
    assert verify(passwords.hashed(prefix + value), value)
    assert not is_crypt_hash(prefix + value)


REFUSED = [
    *(
        "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7",
        "$apr1$8sFt66rZ$2Yv3TcHEv6ZNqFMRtyiMp/",
    ),
    *(
        "$P$B55D6LjfHDkINU5wF.v2BuuzO0/XPk/",
        "$2x$05$" + "a" * 53,
        "$argon2id$x",
        "$6$salt$short",
        "_J9..rasmBYk8r9AiWNc",
    ),
    *(
        "{PLAIN-MD5}5f4dcc3b5aa765d61d8327deb882cf99",
        "{CRAM-MD5}9186d855e11eba527a7a52748a75e0e7",
        "{SCRAM-SHA-256}4096,x,y,z",
    ),
    *(
        "{SHA384}abc",
        "{PBKDF2-SHA256}abc",
        "{SMD5}abc",
        "{SSHA}",
        "{SSHA}short",
        "{PBKDF2}$1$salt$5000$abc",
        "{NTLM}abc",
    ),
    *("!$6$salt$" + "a" * 86, "!!$y$j9T$a$b", "*LK*$1$salt$" + "a" * 22, "*$2y$05$" + "a" * 53, "!{SSHA}short"),
    *(
        "$pbkdf2$i=1000,l=20$c2FsdHNhbHQ$aGFzaGhhc2g",
        "{SHA512}" + "0" * 128,
        "{SSHA512.HEX}00",
        "{PLAIN}",
        "$pbkdf2-sha256$29000$c2FsdA$aGFzaA",
    ),
]


@pytest.mark.parametrize("value", REFUSED)
def test_l12_what_looks_like_a_hash_and_logs_nobody_in_is_an_error_with_the_way_out(value):
    with pytest.raises(ValueError, match=r"\{PLAIN\}") as error:
        passwords.hashed(value)
    assert value == "{PLAIN}" or value not in str(error.value)
    problems = []
    account = Account("a@mana.how", password=SecretRef("env", "P"))
    assert passwords.revealed(account, SecretRef("env", "P"), lambda _: value, problems.append) is None
    assert [problem.scope for problem in problems] == ["account/a@mana.how"]


STORED = {
    "{PLAIN}x": ("x", True),
    "{clear}x": ("x", True),
    "x": ("x", True),
    "{Plain}x": ("x", False),
    "{ssha}x": ("x", False),
    "$y$j9T$a$b": ("x", False),
    "{MD5}$1$salt$qJH7.N4xYta3aEG/dfqo/0": ("x", False),
    "_abc": ("_abc", False),
    "{CRYPT}abJnggxhB/yWI": ("password", None),
    "{x": ("{x", False),
    "$1 dollar": ("$1 dollar", False),
    "!$6$salt$x": ("!$6$salt$x", True),
    "!important": ("!important", True),
}


@pytest.mark.parametrize("stored", STORED)
def test_l12_a_stored_password_means_what_the_server_takes_it_for(stored):
    value, works = STORED[stored]
    if works is not None:
        assert verify(stored, value) is works
    assert passwords.matches("{PLAIN}" + value, stored) is verify(stored, value)


@settings(deadline=None, max_examples=tries(40))
@given(st.sampled_from(["", "$", "_", "{", "{PLAIN}", "{SHA}", "$6$"]), st.text("ab$}{/._", max_size=30))
def test_l12_a_stored_password_is_imported_as_what_it_is(prefix, rest):
    stored = prefix + rest
    known = schemes.stored(stored) if stored else None
    if known is not None and known[0]:
        assert schemes.understood(schemes.importable(stored)) == known


def test_l12_hashes_of_old_crypts_are_verified_and_come_back():
    from passlib.hash import bsdi_crypt, des_crypt

    old, older = bsdi_crypt.hash("x"), "{CRYPT}" + des_crypt.hash("x")
    assert verify(old, "x")
    assert verify(older, "x")
    assert passwords.matches("x", old) is True
    assert passwords.matches("x", older) is True
    assert passwords.hashed(schemes.importable(old)) == old
    assert passwords.matches(schemes.importable(old), old) is True
    assert passwords.hashed(schemes.importable(older)) == older


def test_l12_a_clear_value_that_only_looks_like_a_hash_is_compared_as_it_is_typed():
    assert passwords.matches("{SHA384}x", passwords.hashed("{PLAIN}{SHA384}x")) is True
    assert passwords.matches("{SHA384}x", passwords.hashed("x")) is False


COSTLY = (
    "$2b$31$" + "a" * 53,
    "$argon2id$v=19$m=8000000,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
    "$argon2id$v=19$m=8,t=4000000,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
    "$argon2id$v=19$m=65536,t=9999999999999999999999,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
    "$argon2id$v=19$m=8000000,t=3,p=1$m=1,t=1$aGFzaGhhc2hoYXNo",
    "$sha1$4000000000$salt$" + "a" * 28,
    "$sha1$" + "9" * 5000 + "$salt$" + "a" * 28,
    "_zzzz" + "a" * 15,
    "$scrypt$ln=99999999999,r=8,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
    "$scrypt$ln=14,r=8,p=100000000$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
    "$pbkdf2-sha512$i=2000000000$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
    "$6$rounds=999999999$salt$" + "a" * 86,
)


@pytest.mark.parametrize("stored", COSTLY)
def test_t11_a_server_can_t_hold_us_up_with_a_hash(stored):
    assert passwords.matches("one-of-ours", stored) is None


def test_t11_hashes_of_usual_cost_are_verified():
    for stored in (
        PasswordHasher().hash("one-of-ours"),
        bcrypt.hashpw(b"one-of-ours", bcrypt.gensalt(12)).decode(),
        sha512_crypt.using(rounds=100_000).hash("one-of-ours"),
        sha1_crypt.using(rounds=20_000).hash("one-of-ours"),
        bsdi_crypt.hash("one-of-ours"),
    ):
        assert passwords.matches("one-of-ours", stored) is True
        assert passwords.matches("another", stored) is False
