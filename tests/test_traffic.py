"""Lines of a mail server's log become what happened to each mail; whatever stands in them."""

from __future__ import annotations

import datetime as dt
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import traffic
from reconciler.traffic import Fate, Message, Queued, Recipient, follow, masked, told

LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SPAN = (
    'queueId = 7, queueName = "remote", from = "a@mana.how", to = ["x@b.example", "y@b.example"], size = 9, total = 2'
)


def line(event: str, keys: str, at: str = "2026-11-30T01:00:00Z") -> str:
    return f"{at} INFO Some words of it ({event}) {keys}"


def fates(*lines: str, queue: tuple[Queued, ...] = ()) -> dict[str, Fate]:
    (message,) = follow(lines, queue, LONG_AGO)
    return {item.address: item.fate for item in message.recipients}


def test_each_recipient_has_the_fate_that_its_own_line_tells() -> None:
    found = fates(
        line("queue.authenticated-message-queued", f'listenerId = "submission", remoteIp = 172.18.0.5, {SPAN}'),
        line("delivery.attempt-start", SPAN),
        line(
            "delivery.dsn-success", f'{SPAN}, to = "x@b.example", hostname = "mx.b.example", code = 250, details = "OK"'
        ),
        line("delivery.dsn-perm-fail", f'{SPAN}, to = "y@b.example", hostname = "mx.b.example", details = "gone"'),
        line("delivery.completed", f"{SPAN}, elapsed = 3ms"),
    )
    assert found == {"x@b.example": Fate.SENT, "y@b.example": Fate.BOUNCED}


def test_what_is_told_of_a_domain_or_of_all_is_told_of_each() -> None:
    error = 'domain = "b.example", causedBy = SMTP error (smtp.error) { details = "I/O, error", reason = "refused" }'
    lines = [line("delivery.connect-error", f"{SPAN}, {error}, elapsed = 3ms")]
    lines.append(line("queue.rescheduled", f"{SPAN}, nextRetry = 2026-11-30T01:02:00Z"))
    (message,) = follow(lines, (), LONG_AGO)
    assert {item.fate for item in message.recipients} == {Fate.DEFERRED}
    assert {item.words for item in message.recipients} == {"I/O, error; refused"}
    assert {item.due for item in message.recipients} == {dt.datetime(2026, 11, 30, 1, 2, tzinfo=dt.UTC)}


def test_a_line_that_comes_twice_or_out_of_order_changes_nothing() -> None:
    lines = [
        line("delivery.dsn-success", f'{SPAN}, to = "x@b.example", hostname = "localhost"', "2026-11-30T01:00:02Z"),
        line("delivery.rcpt-to-rejected", f'{SPAN}, to = "x@b.example", code = 451', "2026-11-30T01:00:01Z"),
        line("queue.message-queued", SPAN),
    ]
    assert fates(*lines, *lines) == {"x@b.example": Fate.DELIVERED, "y@b.example": Fate.QUEUED}


def test_of_what_waits_the_queue_knows_best() -> None:
    waiting = Recipient("x@b.example", Fate.DEFERRED, words="451 later", attempts=3)
    queue = (Queued(7, LONG_AGO, "a@mana.how", (waiting,)), Queued(8, LONG_AGO, "", (Recipient("z@c.example"),)))
    first, second = follow([line("queue.message-queued", SPAN)], queue, LONG_AGO)
    assert (first.id, second.recipients[0]) == (8, waiting)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (
            "Unexpected response for RCPT TO:<x@b.example>: Code: 550, Enhanced code: 5.1.1, Message: user unknown",
            "550 5.1.1 user unknown",
        ),
        ("Error for mx.b.example: Connection failed: Connection timed out", "Connection failed: Connection timed out"),
        (r"two\r\nlines", "two lines"),
    ],
)
def test_an_answer_is_cut_out_of_the_words_about_it(words: str, wanted: str) -> None:
    assert traffic.said(words) == wanted


@pytest.mark.parametrize(
    ("answer", "cause", "ours"),
    [
        ("550 5.7.26 Unauthenticated email from mana.how is not accepted", "SPF, DKIM or DMARC", True),
        ("550-5.7.1 [1.2.3.4] The IP you're using is not authorized. DMARC", "SPF, DKIM or DMARC", True),
        ("550 5.7.515 Access denied, sending domain does not meet the required authentication", "SPF, DKIM", True),
        ("550 5.7.25 The IP address does not have a PTR record", "no name (PTR)", True),
        ("554 5.7.1 Service unavailable; Client host blocked using zen.spamhaus.org", "block list", True),
        ("550-5.7.1 Messages missing a valid Message-ID header are not accepted", "form for wrong", True),
        ("550 5.1.1 The email account that you tried to reach does not exist", "no such mailbox", False),
        ("452 4.2.2 The recipient's inbox is out of storage space: over quota", "mailbox is full", False),
        ("552 5.3.4 Message size exceeds fixed limit", "larger", False),
        ("450 4.7.1 Greylisted, please try again", "new to it", False),
        ("421 4.7.28 Gmail has detected an unusual rate of mail", "no more for now", False),
        ("DNS lookup failed: record not found", "can't be found", False),
        ("TLS error: invalid peer certificate", "no TLS", False),
        ("Connection failed: Connection timed out", "can't be reached", False),
        ("550 5.7.0 rejected due to local policy", "by its own rules", True),
        ("599 hm", "not say why", True),
    ],
)
def test_what_receivers_answer_is_put_into_words(answer: str, cause: str, *, ours: bool) -> None:
    found = traffic.reason(answer)
    assert cause in found.cause
    assert found.ours is ours
    assert found.remedy


def test_a_services_log_is_read_for_its_own_mail_and_what_it_could_not_hand_in() -> None:
    message = Message(255, LONG_AGO, "a@mana.how", (Recipient("x@b.example"),), message_id="1@mana.how")
    stamp = "2026-11-30T01:00:00.123456789Z "
    cases = {
        "queued as ff": (True, False),
        "queued as ffff": (False, False),
        "sent <1@mana.how>": (True, False),
        "mail to X@b.example is out": (True, False),
        "smtp not configured, skipping email": (False, True),
        "failed to send email: 535 5.7.8": (False, True),
        "failed to load template": (False, False),
        "error: database is away": (False, False),
    }
    for text, (named, refused) in cases.items():
        (found,), refusals = told([message], "app", [stamp + text])
        assert (bool(found.services), bool(refusals)) == (named, refused), text


@given(st.lists(st.text()), st.lists(st.from_regex(traffic._LINE.pattern + r".{0,80}", fullmatch=True)))
def test_no_line_raises(some: list[str], alike: list[str]) -> None:
    found = follow([*some, *alike], (), LONG_AGO)
    told(found, "app", [*some, *alike])


@given(st.lists(st.text('ab=," []{}\\', max_size=60), min_size=1))
def test_no_keys_raise(pieces: list[str]) -> None:
    follow([line("delivery.dsn-perm-fail", f"{SPAN}, {piece}") for piece in pieces], (), LONG_AGO)


def test_a_hostile_line_is_read_in_no_time() -> None:
    began = time.perf_counter()
    follow([line("queue.rescheduled", ', a = "' * 100_000), line("x.y", "a" * 1_000_000)], (), LONG_AGO)
    masked("a" * 200_000)
    assert time.perf_counter() - began < 20  # a quadratic one takes minutes


LOCAL = st.from_regex(r"[a-z][a-z0-9._+-]{1,20}", fullmatch=True)


@given(LOCAL, st.sampled_from(["b.example", "mail.b.example"]), st.text("<>(),; :'\"[]\n", max_size=3))
def test_masked_shows_the_domain_and_nobodys_name(local: str, domain: str, around: str) -> None:
    text = masked(f"550 {around}{local}@{domain}{around} x")
    assert f"{local}@" not in text
    assert f"{local[:1]}...@{domain}" in text
    assert masked(f"to {local}@{domain}", [f"{local}@{domain}"]) == f"to {local}@{domain}"
