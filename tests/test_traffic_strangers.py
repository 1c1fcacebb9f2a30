"""What became of mail, out of logs in which strangers have a say: their texts claim nothing, cost little, hide nothing.

Stalwart writes a quote inside of a text as it is (``crates/trc/src/serializers/text.rs`` of v0.15.5 and v0.16.18).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from reconciler.traffic import Fate, Message, follow, masked, told

EVER = datetime.min.replace(tzinfo=UTC)
AT = "2026-11-30T03:00:00Z"


def queued(number: int, to: str, *, login: bool = True, sender: str = "noreply@mana.how") -> str:
    name = "queue.queue-message-authenticated" if login else "queue.queue-message"
    return f'{AT} INFO Queued ({name}) listenerId = "smtp", queueId = {number}, from = "{sender}", to = ["{to}"]'


def delivery(number: int, to: str, event: str, details: str) -> str:
    span = f'queueId = {number}, from = "noreply@mana.how", to = ["{to}"]'
    return f'{AT} INFO Delivery ({event}) {span}, to = "{to}", hostname = "mx.example.org", details = "{details}"'


def ingested(number: int, message_id: str) -> str:
    return (
        f'{AT} INFO Ingested (message-ingest.ham) queueId = {number}, to = ["me@mana.how"], messageId = "{message_id}"'
    )


def test_t14_an_answer_of_a_strangers_server_does_not_pose_as_keys_of_the_log() -> None:
    answer = '550 5.1.1 no", queueId = 9, to = "ceo@corp.example", domain = "corp.example'
    lines = [queued(5, "a@else.example"), delivery(5, "a@else.example", "delivery.dsn-perm-fail", answer)]
    (message,) = follow(lines, (), EVER)
    (item,) = message.recipients
    assert (message.id, item.address, item.fate) == (5, "a@else.example", Fate.BOUNCED)
    assert "550 5.1.1 no" in item.words


def test_a_text_has_quotes_commas_and_braces_of_its_own() -> None:
    answer = 'say "hi", or not { x }: see [a], b'
    lines = [queued(5, "a@else.example"), delivery(5, "a@else.example", "delivery.dsn-perm-fail", answer)]
    assert follow(lines, (), EVER)[0].recipients[0].words == answer


@pytest.mark.parametrize("name", ["error", "o", "", "noreply@mana.how", "@", "smtp error"])
def test_t14_who_writes_a_message_id_does_not_hide_what_a_service_could_not_send(name: str) -> None:
    messages = follow([queued(1 << 60, "me@mana.how", login=False), ingested(1 << 60, name)], (), EVER)
    assert messages[0].message_id == name
    line = f"{AT} smtp error: mail from noreply@mana.how to me@mana.how refused: 535 5.7.8 no"
    marked, refusals = told(messages, "notify", [line, f"{AT} sent to me@mana.how"])
    assert [item.service for item in refusals] == ["notify"]
    assert marked[0].services == ()


@pytest.mark.parametrize(
    "line",
    [
        "250 2.0.0 Message queued with id 5f.",
        'messageId: "<17@mana.how>"',
        '{"id":"\\u003c17@mana.how\\u003e"}',
        "msgid=17@mana.how",
        "sent to Me@mana.how.",
    ],
)
def test_a_service_names_its_own_mail(line: str) -> None:
    messages = follow([queued(0x5F, "me@mana.how"), ingested(0x5F, "17@mana.how")], (), EVER)
    assert told(messages, "notify", [f"{AT} {line}"])[0][0].services == ("notify",)


def seconds(work: object) -> float:
    began = time.process_time()
    work()  # type: ignore[operator]
    return time.process_time() - began


def test_t11_long_lines_and_many_mails_of_strangers_cost_little() -> None:
    """Generous bounds: each took minutes where the time grew with the square."""
    messages = [Message(number, datetime.now(UTC), "a@b.example", ()) for number in range(1 << 60, (1 << 60) + 4000)]
    assert seconds(lambda: told(messages, "notify", [f"{AT} smtp error {'a' * 3000}"] * 2000)) < 10
    bad = [queued(5, "a@else.example") + ', k = "x' * 20_000, queued(6, "b@else.example") + ", k = a { b" * 20_000]
    assert seconds(lambda: follow(bad * 20, (), EVER)) < 10
    assert seconds(lambda: [masked("a" * 100_000), masked('"' * 100_000), masked("a@" * 50_000)]) < 10


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("to anna@müller.de.", "to a...@müller.de."),
        ("anna.secret@localhost", "a...@localhost"),
        ("anna@[192.0.2.1]", "a...@[192.0.2.1]"),
        ('"anna.secret"@else.example', '"...@else.example'),
        ("<anna@else.example>, postmaster@mana.how", "<a...@else.example>, postmaster@mana.how"),
    ],
)
def test_whom_somebody_wrote_to_is_masked_in_whatever_form(text: str, shown: str) -> None:
    assert masked(text, {"postmaster@mana.how"}) == shown
