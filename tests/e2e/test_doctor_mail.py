# ruff: noqa: F811 (the fixture `world` is another module's)
"""`doctor --probe` and `doctor --since` on the whole stage: real mails over real sockets, defects planted on the way.

The mail goes to an aiosmtpd server that signs and spoils it, or to the fake Stalwart of either generation; what comes
of it lies in a mailbox that is read over JMAP, with keys that Knot shows.
"""

from __future__ import annotations

import json
import re
import smtplib
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from reconciler.checks.check import Status
from reconciler.doctor import Wish, probe
from reconciler.simulator.stalwart.post import Answer, Signer
from reconciler.simulator.wire import Reply, Request

from .submission import Behaviour
from .test_doctor import KEY, SPF, World, bad, told, world  # noqa: F401 (a fixture)

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
PROBE = Wish(probe="")
RSA = "rsa2026._domainkey TXT"
Change = Callable[[bytes], bytes]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a mail that never comes."""
    monkeypatch.setattr(probe, "PATIENCE", 0.3)
    monkeypatch.setattr(probe, "FAR", 0.3)
    monkeypatch.setattr(probe, "_TRY", 0.3)


# ------------------------------------------------------------------------------------------------------------ the probe
def through(
    world: World,
    *,
    before: Change = lambda raw: raw,
    after: Change = lambda raw: raw,
    signers: Callable[[World], list[Signer]] | None = None,
    results: str = "",
    **behaviour: Any,
) -> None:
    """Let mail go through a server that changes it before and after it signs, and then into the mailbox."""
    post = world.stack.jmap.post
    known = signers or (lambda _: post._signers("mana.how"))

    def deliver(sender: str, recipients: list[str], raw: bytes) -> None:
        raw = before(raw)
        post.receive(sender, recipients, after(b"".join(it.sign(raw) for it in known(world)) + raw), results)

    world.serve(Behaviour(deliver=deliver, **behaviour))


def way(**how: Any) -> Callable[[World], object]:
    return lambda world: through(world, **how)


def swapped(old: bytes, new: bytes) -> Change:
    def change(raw: bytes) -> bytes:
        assert re.search(old, raw, re.MULTILINE), raw
        return re.sub(old, new, raw, count=1, flags=re.MULTILINE)

    return change


def without(name: bytes) -> Change:
    return swapped(rb"^" + name + rb":.*\r\n", b"")


def other_key(world: World) -> list[Signer]:
    """Return the signers, of which that of Ed25519 has a key that nobody knows."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    found = world.stack.jmap.post._signers("mana.how")
    return [Signer(it.domain, it.selector, it.algorithm, pem) if "ed25519" in it.algorithm else it for it in found]


def of_the_provider(world: World) -> list[Signer]:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    import base64

    world_key = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    if not any(line.startswith("s1._domainkey") for line in world.zones["provider.example"]):
        world.zone("", f's1._domainkey TXT "v=DKIM1; k=ed25519; p={world_key}"', "provider.example")
    return [Signer("provider.example", "s1", "ed25519-sha256", pem)]


def provider_signs(world: World) -> None:
    made = of_the_provider(world)  # once: the zone shows this key
    world.zone(SPF)
    through(world, signers=lambda _: made)


def attribute(name: str, value: object) -> Callable[[World], object]:
    return lambda world: setattr(world.stack.jmap.post, name, value)


def another_password(world: World) -> None:
    account = world.stack.principal("postmaster@mana.how")
    credential = next(iter(account["credentials"].values()))
    credential["secret"] = world.stack.principal("noreply@mana.how")["credentials"]["0"]["secret"]


@dataclass(frozen=True)
class Defect:
    plant: Callable[[World], object]
    check: str
    words: str
    status: Status = Status.ERROR
    also: frozenset[str] = frozenset()


def defect(
    plant: Callable[[World], object], check: str, words: str, *also: str, status: Status = Status.ERROR
) -> Defect:
    return Defect(plant, f"probe/{check}", words, status, frozenset(f"probe/{name}" for name in also))


WARN = {"status": Status.WARN}
DEFECTS = {
    "nobody may be written to": defect(way(rcpt="550 5.7.1 Relay not allowed."), "accepted", "550 5.7.1 Relay"),
    "refused mail": defect(way(data="554 5.6.0 Message rejected"), "accepted", "554 5.6.0 Message"),
    "busy": defect(way(data="452 4.3.1 Mail system full"), "accepted", "452 4.3.1", **WARN),
    "dropped": defect(lambda world: world.serve(Behaviour()), "arrived", "did not come", **WARN),
    "a paused queue": defect(attribute("held", True), "arrived", "waits in the server's queue", **WARN),
    "spam": defect(attribute("spam", True), "spam", "filed as spam", **WARN),
    "not deleted": defect(attribute("keeps", True), "removed", "is still in", **WARN),
    "unsigned": defect(way(signers=lambda _: []), "dkim", "is not signed"),
    "changed text": defect(way(after=swapped(rb"This mail", b"That mail")), "dkim", "was changed after it was signed"),
    "changed header": defect(
        way(after=swapped(rb"^Subject: ", b"Subject: [EXT] ")), "dkim", "a header was changed on the way"
    ),
    "another key": defect(way(signers=other_key), "dkim", "does not fit the key", **WARN),
    "one key is not published": defect(lambda world: world.zone(KEY), "dkim", "shows no key", **WARN),
    "no key is published": defect(lambda world: [world.zone(KEY), world.zone(RSA)], "dkim", "shows no key"),
    "two keys": defect(
        lambda world: world.zone("", f'{RSA} "v=DKIM1; k=rsa; p="'), "dkim", "2 keys, of which none counts", **WARN
    ),
    "the provider's name": defect(provider_signs, "dmarc", "the provider signs for provider.example"),
    "dmarc=fail": defect(
        way(results="dkim=fail (bad) header.d=mana.how; spf=pass; dmarc=fail header.from=mana.how"),
        "results",
        "found dmarc=fail",
    ),
    "no Message-ID": defect(way(before=without(b"Message-ID")), "message-id", "has no Message-ID"),
    "two @": defect(
        way(before=swapped(rb"^Message-ID: <([^@]*)@", rb"Message-ID: <\1.someone@elsewhere.example@")),
        "message-id",
        "two @",
    ),
    "no Date": defect(way(before=without(b"Date")), "headers", "has no Date"),
    "two Dates": defect(
        way(before=swapped(rb"^Date: ", b"Date: Mon, 30 Nov 2026 01:00:00 +0000\r\nDate: ")), "headers", "2 times"
    ),
    "a Date of last year": defect(
        way(before=swapped(rb"^Date: .*\r", b"Date: Sun, 30 Nov 2025 01:00:00 +0000\r")), "headers", "behind", **WARN
    ),
    "raw 8-bit": defect(
        way(before=swapped(rb"^Subject: ", "Subject: Zurücksetzen ".encode())), "headers", "raw 8-bit text"
    ),
    "a bad encoded word": defect(
        way(before=swapped(rb"^Subject: ", b"Subject: =?utf-8?B?Z!!?= ")), "headers", "encoded word in Subject", **WARN
    ),
    "an unknown character set": defect(
        way(before=swapped(rb"^Subject: ", b"Subject: =?x-none?Q?a?= ")), "headers", "character set", **WARN
    ),
    "HTML alone": defect(
        way(before=swapped(rb"^Content-Type: text/plain", b"Content-Type: text/html")), "headers", "HTML alone", **WARN
    ),
    "bare LF": defect(way(after=swapped(rb"\r\nIt is taken", b"\nIt is taken")), "lines", "LF alone", "dkim"),
    "a long line": defect(
        way(before=swapped(rb"This mail", b"This mail " + b"x" * 1200)), "lines", "characters, and may have 998"
    ),
}


@pytest.mark.few(of=lambda name: DEFECTS[name].check)
@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_on_the_way_is_told_by_its_cause(world: World, name: str) -> None:
    planted = DEFECTS[name]
    planted.plant(world)
    found = world.examine("probe", wish=PROBE)
    assert found[planted.check].status is planted.status, {it.check.id: str(it.verdict) for it in found.values()}
    assert planted.words in told(found, planted.check)
    assert found[planted.check].remedy.text
    assert set(bad(found)) <= {planted.check} | planted.also


def test_a_sound_mail_is_read_verified_and_taken_out_again(world: World) -> None:
    box = world.stack.jmap.post.boxes.setdefault("postmaster@mana.how", {})
    world.stack.jmap.post.receive("a@elsewhere.example", ["postmaster@mana.how"], b"Subject: mine\r\n\r\nkeep\r\n")
    kept = dict(box)
    found = world.examine(wish=PROBE)
    assert bad(found) == {}
    assert {name for name, item in found.items() if item.status is Status.UNKNOWN} == set()
    assert "2 signatures" in found["probe/dkim"].verdict.summary + str(found["probe/dkim"].verdict.evidence)
    assert box == kept
    assert [line for line in world.stack.jmap.post.lines if "(message-ingest.ham)" in line][1:]  # it was really sent


@pytest.mark.parametrize(
    ("message_id", "words"),
    [
        ("Message-ID: <1764460800.anna@elsewhere.example@mana.how>\r\n", "two @ stand in it"),
        ("", "has no Message-ID"),
    ],
)
def test_the_last_mail_of_the_service_itself_is_judged_and_stays(world: World, message_id: str, words: str) -> None:
    post = world.stack.jmap.post
    head = f"From: Mana <noreply@mana.how>\r\nDate: Mon, 30 Nov 2026 01:00:00 +0000\r\n{message_id}"
    raw = f"{head}Subject: Passwort zurücksetzen\r\nContent-Type: text/html\r\n\r\n<p>hello</p>\r\n".encode()
    post.receive("noreply@mana.how", ["postmaster@mana.how"], b"From: noreply@mana.how\r\n\r\nolder\r\n")
    (older,) = post.boxes["postmaster@mana.how"].values()
    older.received -= 60
    post.receive("noreply@mana.how", ["postmaster@mana.how"], raw)
    found = world.examine("probe", wish=PROBE)
    assert set(bad(found)) == {"probe/service-mail"}
    said = told(found, "probe/service-mail")
    assert words in said
    assert "Subject holds raw 8-bit text" in said
    assert "HTML alone" in said
    assert "zurück" not in said
    assert len(post.boxes["postmaster@mana.how"]) == 2


def test_the_login_of_a_service_is_made_once_for_the_checks_and_the_mail(world: World) -> None:
    through(world)
    found = world.examine("smtp", "probe", wish=PROBE)
    assert found["smtp/login"].status is found["probe/accepted"].status is Status.OK
    assert world.logins() == 1


def test_a_mailbox_that_refuses_its_password_is_tried_once(world: World) -> None:
    another_password(world)
    refused = list[str]()
    server = world.stack.stage.stalwart_server
    inner = server.fake

    def counting(request: Request) -> Reply:
        reply = inner(request)
        if reply.status == 401:
            refused.append(request.path)
        return reply

    server.fake = counting
    world.open.callback(setattr, server, "fake", inner)
    found = world.examine("probe", wish=PROBE)
    assert found["probe/arrived"].status is Status.UNKNOWN
    assert "refuses the account's declared password" in found["probe/arrived"].verdict.summary
    assert refused == ["/jmap/session"]


def test_t11_what_hops_heap_upon_a_mail_is_not_all_looked_at(world: World) -> None:
    more = b"DKIM-Signature: v=1; a=rsa-sha256; d=else.example; s=x; bh=x; h=from; b=x\r\n"
    through(world, after=lambda raw: more * 60 + raw + b"x" * 998 + b"\r\n" + (b" " * 990 + b"\r\n") * 200)
    found = world.examine("probe", wish=PROBE)
    assert found["probe/arrived"].status is Status.OK
    assert found["probe/removed"].status is Status.OK
    assert len(found["probe/dkim"].verdict.evidence) <= 20


def test_no_mail_is_sent_without_the_word_for_it(world: World) -> None:
    found = world.examine()
    assert {item.status for name, item in found.items() if name.startswith("probe/")} == {Status.SKIP}
    assert world.stack.jmap.post.lines == []


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (Answer(), Status.UNKNOWN, "the server says: sent by mx.elsewhere.example"),
        (Answer(550, "5.7.26", "Unauthenticated email is not accepted"), Status.ERROR, "SPF, DKIM or DMARC"),
        (Answer(451, "4.7.1", "Greylisted, please try again later"), Status.WARN, "puts off mail"),
        (Answer(0, "", "Connection timed out"), Status.WARN, "can't be reached"),
    ],
)
def test_a_mailbox_elsewhere_is_judged_by_what_the_server_tells(
    world: World,
    answer: Answer,
    status: Status,
    words: str,
) -> None:
    world.stack.jmap.post.outside["elsewhere.example"] = answer
    found = world.examine("probe", wish=Wish(probe="someone@elsewhere.example"))
    assert found["probe/arrived"].status is status
    assert words in told(found, "probe/arrived")


@pytest.mark.parametrize("stage", ["applied", "newer_applied"])
def test_the_command_probes_a_server_of_either_generation(stage: str, request: Any) -> None:
    stack = request.getfixturevalue(stage)
    done = stack.expect(0, "doctor", "--probe", "--only", "probe")
    assert done.out.endswith("All is well: 9 checks.\n")
    done = stack.expect(0, "doctor", "--probe", "postmaster@mana.how", "--only", "probe", "--output", "json")
    statuses = {item["id"]: item["status"] for item in done.json["checks"]}
    assert (statuses["probe/dkim"], statuses["probe/removed"]) == ("ok", "ok")
    assert all(not box for box in stack.stage.stalwart.post.boxes.values())


def test_a_provider_gets_its_mail_with_the_credentials_of_the_service(applied: Any) -> None:
    applied.edit("smtp.yaml", "  provider: stalwart\n", "  provider: brevo\n")
    done = applied.run("doctor", "--probe", "--only", "probe", "--output", "json")
    found = {item["id"]: item for item in done.json["checks"]}
    assert "smtp-relay.brevo.com:587 took the mail" in str(found["probe/accepted"])
    assert found["probe/arrived"]["status"] == "ok"
    assert "spf=pass" in str(found["probe/results"])
    assert found["probe/dkim"]["status"] == "error"  # the fake relay does not sign


@pytest.mark.parametrize("address", ["nobody", "a@b", "a b@c.example", "@c.example"])
def test_what_is_no_address_is_told_before_anything_is_sent(newer_applied: Any, address: str) -> None:
    done = newer_applied.expect(1, "doctor", "--probe", address, "--only", "probe")
    assert "is no e-mail address" in done.err
    assert newer_applied.jmap.post.lines == []


def test_options_that_contradict_each_other_are_told(newer_applied: Any) -> None:
    assert "--only leaves out" in newer_applied.expect(1, "doctor", "--probe", "--only", "dns").err
    assert "--only leaves out" in newer_applied.expect(1, "doctor", "--since", "5m", "--only", "dns").err
    assert "is no time" in newer_applied.expect(1, "doctor", "--since", "yesterday").err


# --------------------------------------------------------------------------------------------------------------- since
def send(stack: Any, *recipients: str, sender: str = "noreply@mana.how") -> str:
    """Hand a mail in at the server as a service does, and return the id that it answers."""
    user = "noreply" if stack.generation == "rest" else "noreply@mana.how"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", stack.stage._submission()[587]) as session:
        session.starttls(context=context)
        session.login(user, stack.secrets["NOREPLY_PASSWORD"])
        session.mail(sender)
        for recipient in recipients:
            session.rcpt(recipient)
        mail = f"From: {sender}\r\nMessage-ID: <{time.time_ns()}@mana.how>\r\nSubject: it\r\n\r\nhello\r\n"
        _, said = session.data(mail)
    return said.decode().rpartition("id ")[2].rstrip(".")


def followed(stack: Any, *more: str, code: int = 0) -> Any:
    return stack.expect(code, "doctor", "--since", "5m", "--only", "mail", "--output", "json", *more).json


@pytest.fixture(params=["applied", "newer_applied"])
def either(request: Any) -> Any:
    return request.getfixturevalue(request.param)


ANSWERS = {
    "SPF": (Answer(550, "5.7.26", "This mail has been blocked: DKIM = did not pass"), "bounced", "SPF, DKIM or DMARC"),
    "PTR": (Answer(550, "5.7.25", "The IP address has no PTR record"), "bounced", "has no name (PTR)"),
    "block list": (Answer(554, "5.7.1", "blocked using zen.spamhaus.org"), "bounced", "on a block list"),
    "nobody": (Answer(550, "5.1.1", "The email account does not exist"), "bounced", "no such mailbox"),
    "full": (Answer(452, "4.2.2", "The mailbox is full"), "deferred", "mailbox is full"),
    "greylist": (Answer(451, "4.7.1", "Greylisted, try again later"), "deferred", "new to it"),
    "rate": (Answer(421, "4.7.28", "unusual rate of mail"), "deferred", "takes no more for now"),
    "away": (Answer(0, "", "Connection refused"), "deferred", "can't be reached"),
}
OURS = {"SPF", "PTR", "block list"}


@pytest.mark.few("name", of=lambda name: (ANSWERS[name][1], name in OURS))
@pytest.mark.parametrize("name", ANSWERS)
def test_each_mail_is_a_line_with_its_fate_and_why(either: Any, name: str) -> None:
    answer, fate, why = ANSWERS[name]
    either.stage.stalwart.post.outside["elsewhere.example"] = answer
    first = send(either, "anna.secret@elsewhere.example")
    second = send(either, "postmaster@mana.how")
    found = followed(either, code=7 if name in OURS else 0)
    mails = {item["id"]: item for item in found["mail"] if not item["bounce"]}
    assert (mails[first]["status"], mails[second]["status"]) == (fate, "delivered")
    assert why in mails[first]["cause"]
    assert mails[first]["remedy"]
    assert answer.text in mails[first]["words"]
    assert bool(mails[first]["again"]) == (fate == "deferred")
    checks = {item["id"]: item for item in found["checks"]}
    assert checks[f"mail/{fate}"]["status"] == ("error" if name in OURS else "warn")
    # Whom somebody wrote to is masked everywhere; what the directory holds is not.
    assert "anna.secret" not in json.dumps(found)
    assert mails[first]["to"] == "a...@elsewhere.example"
    assert mails[second]["to"] == "postmaster@mana.how"
    bounces = [item for item in found["mail"] if item["bounce"]]
    assert [item["to"] for item in bounces] == (["noreply@mana.how"] if fate == "bounced" else [])


def test_recipients_of_one_mail_have_fates_of_their_own(either: Any) -> None:
    post = either.stage.stalwart.post
    post.outside |= {"a@elsewhere.example": Answer(550, "5.1.1", "No such user"), "b@elsewhere.example": Answer()}
    number = send(either, "a@elsewhere.example", "b@elsewhere.example", "postmaster@mana.how")
    mails = [item for item in followed(either, "-v")["mail"] if item["id"] == number]
    assert {item["to"]: item["status"] for item in mails} == {
        "a@elsewhere.example": "bounced",
        "b@elsewhere.example": "sent",
        "postmaster@mana.how": "delivered",
    }


def test_a_mail_that_was_taken_before_is_followed_from_the_line_that_comes_after(either: Any) -> None:
    number = send(either, "postmaster@mana.how")
    post = either.stage.stalwart.post
    post.lines[0] = re.sub(r"^\S+", "2026-01-01T00:00:00Z", post.lines[0])
    (mail,) = followed(either)["mail"]
    assert (mail["id"], mail["status"]) == (number, "delivered")


def test_what_waits_for_long_is_told_without_being_asked(either: Any) -> None:
    post = either.stage.stalwart.post
    post.outside["elsewhere.example"] = Answer(0, "", "Connection timed out")
    send(either, "anna@elsewhere.example")
    (item,) = post.queue.values()
    item.created -= 5 * 3600
    done = either.expect(0, "doctor", "--only", "mail")
    assert "1 mail waits in the queue, for up to 5 h" in done.out
    assert "blocks port 25: relay through a provider" in done.out
    assert "anna" not in done.text
    assert "Mail since" not in done.out


def test_the_log_of_a_service_says_what_it_could_not_hand_in_and_which_mail_was_its_own(either: Any) -> None:
    number, now = send(either, "postmaster@mana.how"), time.time()
    notify = either.container("mana-core-notify")
    notify.say("INFO GET /health 200 failed=0", now)
    notify.say(f'{{"level":"info","msg":"email sent","response":"250 2.0.0 Message queued with id {number}."}}', now)
    notify.say("ERROR failed to send email to anna@elsewhere.example: 535 5.7.8 Authentication failed", now)
    notify.say("ERROR failed to send email: 535 5.7.8, long ago", now - 3600)
    found = followed(either, code=7)
    (mail,) = found["mail"]
    assert mail["services"] == ["mana-notify"]
    (refused,) = found["refused"]
    assert (refused["service"], "535 5.7.8" in refused["words"]) == ("mana-notify", True)
    assert "anna@" not in json.dumps(found)
    assert {item["id"] for item in found["checks"] if item["status"] == "error"} == {"mail/handed-in"}
    done = either.expect(7, "doctor", "--since", "5m", "--only", "mail")
    assert re.search(r"^✗ [\d:]{8} not handed in by mana-notify: ERROR failed", done.out, re.MULTILINE)


def test_a_password_in_a_services_log_is_not_shown(either: Any) -> None:
    notify, secret = either.container("mana-core-notify"), either.secrets["NOREPLY_PASSWORD"]
    notify.say(f"ERROR smtp login failed for noreply with {secret}", time.time())
    done = either.expect(7, "doctor", "--since", "5m")
    assert "smtp login failed" in done.out
    assert secret not in done.text


def test_t2_no_value_of_a_services_environment_is_shown_out_of_its_log(either: Any) -> None:
    """It is no secret of the directory, which so knows nothing of it."""
    notify, secret = either.container("mana-core-notify"), "planted-key-of-another-service"
    notify.config["Env"].append(f"STRIPE_KEY={secret}")
    try:
        notify.say(f"ERROR smtp login failed after {'x' * 150} with {secret}", time.time())
        done = either.expect(7, "doctor", "--since", "5m")
    finally:
        notify.config["Env"].pop()
    assert "smtp login failed" in done.out
    assert secret[:7] not in done.text


def test_a_server_that_logs_to_its_console_alone_is_followed_there(applied: Any) -> None:
    number, post = send(applied, "postmaster@mana.how"), applied.rest.post
    for line in post.lines:
        applied.container("mana-mail").say(f"\x1b[37m{line[:20]}\x1b[0m{line[20:]}", time.time())
    lines, running = list(post.lines), applied.rest._running
    running["tracer.log.type"] = "console"
    try:
        (mail,) = followed(applied)["mail"]
        assert (mail["id"], mail["status"]) == (number, "delivered")
        applied.container("mana-mail").logs = b""
        found = followed(applied)
    finally:
        running["tracer.log.type"] = "log"
    assert lines
    assert "writes no log that could be read" in found["unread"][0]
    assert {item["status"] for item in found["checks"] if item["id"] in ("mail/bounced", "mail/deferred")} == {
        "unknown"
    }


def test_a_log_of_thousands_of_lines_is_read_in_pages(newer_applied: Any) -> None:
    post = newer_applied.jmap.post
    numbers = {send(newer_applied, "postmaster@mana.how") for _ in range(2)}
    post.lines[:0] = [post.lines[0].replace("queueId = ", "queueId = 9")] * 1200
    found = {item["id"] for item in followed(newer_applied)["mail"]}
    assert numbers <= found
