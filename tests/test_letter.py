"""What is wrong with a message, by RFC 5322, RFC 2047 and RFC 8601."""

from __future__ import annotations

import datetime as dt
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.letter import Letter, faults, results

NOW = dt.datetime(2026, 11, 30, 1, tzinfo=dt.UTC)


def written(subject: str = "it", name: str = "Anna", text: str = "hello\n", message_id: str = "<1@a.example>") -> bytes:
    """Let Python's own library write a message."""
    mail = EmailMessage(policy=policy.SMTP)
    mail["From"], mail["To"] = f"{name} <a@a.example>", "b@b.example"
    mail["Subject"], mail["Date"], mail["Message-ID"] = subject, format_datetime(NOW), message_id
    mail.set_content(text, cte="quoted-printable")
    return mail.as_bytes()


TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=200)


@given(TEXT, TEXT)
@example("Zurücksetzen des Passworts für jemanden mit einem sehr langen Namen" * 2, "x" * 2000)
def test_what_a_library_writes_by_the_rfcs_is_well(subject: str, text: str) -> None:
    # Python folds an encoded word to 76 characters where 75 is the limit (RFC 2047, section 2).
    found = [item for item in faults(written(subject, text=f"{text}\n"), NOW) if "has 76" not in item.words]
    assert found == []


RAW = written()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"Message-ID: <1@a.example>\r\n", b"", "no Message-ID"),
        (b"<1@a.example>", b"1@a.example", "not <LEFT@RIGHT>"),
        (b"<1@a.example>", b"<1.b@b.example@a.example>", "two @"),
        (b"<1@a.example>", b"<1@a.example> <2@a.example>", "two @"),
        (b"<1@a.example>", b"<>", "not <LEFT@RIGHT>"),
        (b"Subject:", b"Message-ID: <2@a.example>\r\nSubject:", "Message-ID stands in it 2 times"),
        (b"Subject:", b"Subject: x\r\nSubject:", "Subject stands in it 2 times"),
        (b"From: Anna <a@a.example>\r\n", b"", "no From"),
        (b"From: Anna <a@a.example>", b"From: Anna", "no address"),
        (b"Date: ", b"Date: some day ", "Date is none"),
        (b"30 Nov 2026", b"30 Nov 2027", "days ahead"),
        (b"Subject: it", "Subject: für".encode(), "raw 8-bit"),
        (b"Subject: it", b"Subject: =?utf-8?X?it?=", "none that RFC 2047"),
        (b"Subject: it", b"Subject: =?utf-8?Q?=ZZ?=", "can't be decoded"),
        (b"Subject: it", b"Subject: =?utf-8?B?/w?=", "can't be decoded"),
        (b"Subject: it", b"Subject: =?none?Q?it?=", "character set"),
        (b"Subject: it", b"Subject: =?utf-8?Q?" + b"a" * 80 + b"?=", "may have 75"),
        (b"Subject: it", b"Subject: =?utf-8?Q?it", "does not end"),
        (b"Subject: it", b"no field\r\nSubject: it", "no fields"),
        (b"hello\r\n", b"hello\n", "LF alone"),
        (b"hello", b"hel\rlo", "CR stands alone"),
        (b"hello", b"h" * 999, "and may have 998"),
        (b"hello", b"hel\0lo", "NUL"),
        (b"text/plain", b"text/html", "HTML alone"),
    ],
)
def test_each_fault_is_told(old: bytes, new: bytes, words: str) -> None:
    assert old in RAW
    (found,) = [item.words for item in faults(RAW.replace(old, new), NOW) if words in item.words]
    assert found


def test_comments_and_folds_in_a_message_id_are_allowed() -> None:
    assert faults(RAW.replace(b"<1@a.example>", b"\r\n <1@[192.0.2.1]> (mine)"), NOW) == ()


@given(st.binary(max_size=300))
def test_nothing_that_a_mailbox_holds_raises(raw: bytes) -> None:
    faults(raw, NOW)
    results(Letter.read(raw), "mail.a.example")


def test_only_results_of_our_own_server_count() -> None:
    head = (
        b"Authentication-Results: evil.example; dmarc=pass\r\n"
        b"Authentication-Results: mail.a.example 1;\r\n\tdkim=pass (dkim=fail is no result) header.d=a.example;\r\n"
        b"\tspf=softfail smtp.mailfrom=a.example; dmarc=fail\r\n"
    )
    found = results(Letter.read(head + RAW), "mail.a.example")
    assert found == (("dkim", "pass"), ("spf", "softfail"), ("dmarc", "fail"))
    assert results(Letter.read(head + RAW), "mail.b.example") is None
