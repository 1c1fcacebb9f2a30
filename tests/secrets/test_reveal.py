"""Secrets: read when needed, named when unreadable, never shown."""

from __future__ import annotations

import base64
import html
import json
import os
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import keys
from reconciler.files import MAX_BYTES
from reconciler.problem import SecretUnreadable
from reconciler.resources import SecretPart, SecretRef, SecretText
from reconciler.secrets import Secrets
from reconciler.secrets.sops import lookup


def env(name="X"):
    return SecretRef("env", name)


def test_sources(tmp_path):
    (tmp_path / "key.pem").write_text("line one\nline two\n")
    secrets = Secrets(tmp_path, {"X": "value"})
    assert secrets(env()) == "value"
    assert secrets(SecretRef("file", "key.pem")) == "line one\nline two"


def test_a_text_is_rendered_with_its_escapes(tmp_path):
    secrets = Secrets(tmp_path, {"X": "p@ss/word"})
    text = SecretText(("smtp://u:", SecretPart(env(), "url"), "@h ", SecretPart(env())))
    assert secrets(text) == "smtp://u:p%40ss%2Fword@h p@ss/word"


def test_the_text_that_a_password_in_plain_stands_for_is_kept_out_too(tmp_path):
    secrets = Secrets(tmp_path, {"X": "{PLAIN}hunter2-xyz"})
    assert secrets(env()) == "{PLAIN}hunter2-xyz"
    assert "hunter2" not in secrets.redact("it answers: hunter2-xyz")


def test_nothing_is_read_before_it_is_needed(tmp_path):
    secrets = Secrets(tmp_path, {})
    assert secrets.revealed() == {}


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        (env("MISSING"), "MISSING is not set"),
        (env("EMPTY"), "is empty"),
        (env("BYTES"), "is not UTF-8 text"),
        (SecretRef("file", "none"), "No such file"),
        (SecretRef("file", "."), "Is a directory"),
        (SecretRef("file", "pipe"), "not a regular file"),
        (SecretRef("file", "binary"), "not UTF-8"),
        (SecretRef("file", "large"), "too large"),
        (SecretRef("file", "nul"), "NUL"),
        (SecretRef("sops", "none#key"), "No such file"),
        (SecretRef("age", "none"), "No such file"),
        (SecretRef("account", "a@mana.how"), "can't be read by this version"),
    ],
)
def test_an_unreadable_reference_names_itself_the_cause_and_a_remedy(tmp_path, ref, words):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_text("x" * (MAX_BYTES + 1))
    (tmp_path / "nul").write_text("a\0b")
    with pytest.raises(SecretUnreadable) as caught:
        Secrets(tmp_path, {"EMPTY": "", "BYTES": os.fsdecode(b"caf\xe9")})(ref)
    (problem,) = caught.value.problems
    assert problem.where == str(ref)
    assert words in problem.summary
    assert problem.hint


@given(st.text(min_size=4, max_size=40).filter(lambda text: "\0" not in text and text.strip()))
def test_no_form_of_a_value_passes_the_fence(value):
    secrets = Secrets(None, {"X": value})
    secrets(env())
    forms = [value, json.dumps(value)[1:-1], quote(value, safe=""), base64.b64encode(value.encode()).decode()]
    for form in forms:
        assert secrets.redact(f"<{form}>").count(form) == 0 or form in "[redacted {env: X}]"


def test_any_line_of_a_key_is_redacted(tmp_path):
    (tmp_path / "k").write_text("-----BEGIN KEY-----\n" + "QUJDREVGR0hJSktMTU5P\n" * 2 + "-----END KEY-----\n")
    secrets = Secrets(tmp_path, {})
    secrets(SecretRef("file", "k"))
    assert "QUJDREVGR0hJSktMTU5P" not in secrets.redact("error near QUJDREVGR0hJSktMTU5P!")


@pytest.mark.parametrize("word", ["mana", "true", "create", "account", "null"])
def test_a_password_that_is_a_word_or_a_part_of_a_name_breaks_neither(word):
    secrets = Secrets(None, {"X": word}, public=lambda: "stack: mana\naccounts: {noreply@mana.how: {}}")
    secrets(env())
    address = f"{word}/noreply@{word}.how, dns/{word}.how/TXT/_{word}"
    assert secrets.redact(address) == address


def test_a_word_that_only_the_secret_is_goes_where_it_stands_alone():
    secrets = Secrets(None, {"X": "sesame"}, public=lambda: "stack: mana")
    secrets(env())
    assert secrets.redact("535 'sesame' is wrong") == "535 '[redacted {env: X}]' is wrong"
    assert secrets.redact("sesame.example") == "sesame.example"


@pytest.mark.parametrize("value", ["hunter2", "canary-word-of-some-length", "zwei Wörter & mehr"])
def test_what_the_directory_says_in_clear_stays_in_any_form(value):
    """Its absence would tell whoever wrote it that it is a secret, and whose: a guess that is confirmed."""
    forms = [value, base64.b64encode(value.encode()).decode().rstrip("="), quote(value), json.dumps(value)[1:-1]]
    for said in forms:
        secrets = Secrets(None, {"X": value}, public=lambda said=said: f"- {{type: TXT, content: '{said}'}}")
        secrets(env())
        assert secrets.redact(f"| `{said}` |") == f"| `{said}` |"
    other = Secrets(None, {"X": value}, public=lambda: "stack: mana")
    other(env())
    assert all(other.redact(f"`{form}`") == "`[redacted {env: X}]`" for form in forms)


@pytest.mark.parametrize("source", ["file", "age", "env of Stalwart"])
def test_the_name_that_stands_in_a_secrets_place_acts_nowhere(source):
    name = 'a` ![x](http://evil) <!-- "},{"level":"\\ | @all #1 a@b a#1 \x1b[2J\u202e\n::set-env ' + "y" * 500
    secrets = Secrets(None, {})
    secrets.hide(SecretRef(source, name), "canary-value")
    shown = secrets.redact("<canary-value>")
    said = "a? ??x??http?//evil? ??-- ?????level???? ? ?all ?1 a@b a#1 ??2J????set-env yyyy…"
    assert shown == f"<[redacted {{{source}: {said}}}]>"


def test_a_short_password_with_a_digit_goes_everywhere():
    secrets = Secrets(None, {"X": "hunter2"})
    secrets(env())
    assert "hunter2" not in secrets.redact("xhunter2x smtp://u:hunter2@host")


def test_what_a_server_chose_and_a_part_of_a_secret_are_hidden_too(tmp_path):
    secrets = Secrets(tmp_path, {"X": "admin:r3covery-passw0rd"})
    secrets(env())
    secrets.hide(env(), "r3covery-passw0rd")
    secrets.hide(SecretRef("saved", "admin@mana.how"), "YRqC5r9VaH0VCi0p")
    shown = secrets.redact("r3covery-passw0rd and YRqC5r9VaH0VCi0p")
    assert shown == "[redacted {env: X}] and [redacted {saved: admin@mana.how}]"
    assert secrets.revealed().keys() == {env()}


def test_the_public_half_of_a_key_is_shown_and_nothing_else_of_it(tmp_path):
    pem = keys.private_pem("rsa", keys.generate("rsa"))
    (tmp_path / "key.pem").write_text(pem)
    half = keys.public_half("rsa", pem)
    shared = [line for line in pem.splitlines() if line in half]
    assert shared, "the two forms have the modulus at the same place"
    secrets = Secrets(tmp_path, {})
    secrets(SecretRef("file", "key.pem"))
    assert secrets.redact(half) != half
    secrets.publish(half)
    assert secrets.redact(half) == half
    rest = [line for line in pem.splitlines() if line not in shared and not line.startswith("-----")]
    assert all(line not in secrets.redact(pem) for line in rest)


@given(st.text("ab|$*#@_\\\"'<&: ü/+%\t\xa0\u200b", min_size=8, max_size=30).filter(lambda text: text.strip() == text))
def test_every_form_of_a_value_goes_in_one_pass(value):
    from reconciler.report import prose, values

    secrets = Secrets(None, {"X": value})
    secrets(env())
    forms = {quote_plus(value), value.replace("$", "$$"), html.escape(value, quote=False), prose.cell(value)}
    forms |= {json.dumps(value, ensure_ascii=False)[1:-1], base64.urlsafe_b64encode(value.encode()).decode()}
    seen = values.escape(value)  # as a report shows it, in a table, and in a log's line
    forms |= {seen, prose.cell(seen), json.dumps(seen)[1:-1]}
    for form in forms:
        shown = secrets.redact(f"<{form}>")
        assert form not in shown
        assert "[redacted {env: X}]" in shown


@pytest.mark.parametrize("length", [8, 9, 10, 11, 13, 16, 25])
def test_a_value_behind_another_one_in_base64_goes_too(length):
    """As a server repeats it that was logged in at: by HTTP (RFC 7617) or by SMTP (RFC 4616)."""
    value = "hunter2-of-some-length-and"[:length]
    secrets = Secrets(None, {"X": value})
    secrets(env())
    for user in ("", "a", "ab", "abc", "admin", "noreply@mana.how"):
        for login in (f"{user}:{value}", f"\0{user}\0{value}", f"{user}:{value}\n"):
            shown = secrets.redact(f"Authorization: {base64.b64encode(login.encode()).decode()} x")
            assert "redacted" in shown, (user, login)


def test_values_that_overlap_leave_nothing_of_either(tmp_path):
    secrets = Secrets(tmp_path, {"X": "canary-one-two", "Y": "two-three-canary"})
    secrets(env())
    secrets(env("Y"))
    assert secrets.redact("<canary-one-two-three-canary>") == "<[redacted {env: X}]>"


@pytest.mark.parametrize("name", ["/proc/self/environ", "/proc/self/cmdline", "/proc/self/status", "link"])
def test_t5_what_the_kernel_tells_of_a_process_is_no_secret_in_a_file(tmp_path, name):
    (tmp_path / "link").symlink_to("/proc/self/comm")
    with pytest.raises(SecretUnreadable, match="no file but what the kernel tells"):
        Secrets(tmp_path, {})(SecretRef("file", name))


def test_t11_a_position_in_a_list_of_sops_may_have_any_number_of_digits():
    assert lookup({"a": ["x", "y"]}, "a/1") == "y"
    assert lookup({"a": ["x", "y"]}, "a/" + "1" * 5000) is None
