"""A message that others had in hands: what is wrong with it is found in a time that grows with its length alone."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from reconciler.letter import faults

NOW = datetime(2026, 11, 30, tzinfo=UTC)
HEAD = b"From: a@b.example\r\nDate: Mon, 30 Nov 2026 00:00:00 +0000\r\nMessage-ID: <1@b.example>\r\nSubject: "


@pytest.mark.parametrize("piece", [b"=?a", b"=?", b"=?=", b"=?a?b?", b"=?a?b?c=", b"(", b"<a@", b"\r\n ", b"\t"])
def test_t11_a_long_field_costs_no_minutes(piece: bytes) -> None:
    """A generous bound: 60 KB of ``=?a`` took 14 s."""
    began = time.process_time()
    faults(HEAD + piece * (60_000 // len(piece)) + b"\r\n\r\nbody\r\n", NOW)
    assert time.process_time() - began < 4


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (b"=?utf-8?q?caf=C3=A9?=", []),
        (b"=?utf-8?q?a?= =?utf-8?b?YQ==?=", []),
        (b"=?utf-8?q?a?b?=", ["is none that RFC 2047 knows"]),
        (b"=?utf-8?q?caf", ["does not end"]),
        (b"=?utf-8?q?caf =?utf-8?q?a?=", ["does not end"]),
    ],
)
def test_an_encoded_word_is_judged_by_itself(subject: bytes, words: list[str]) -> None:
    found = [item.words for item in faults(HEAD + subject + b"\r\n\r\nbody\r\n", NOW)]
    assert len(found) == len(words)
    assert all(word in item for word, item in zip(words, found, strict=True))
