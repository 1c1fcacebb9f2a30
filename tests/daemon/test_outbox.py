"""Messages arrive at real servers, wait for those that do not answer, and a URL does nothing but send."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller

from reconciler.daemon import outbox
from reconciler.daemon.delivery import Fence
from reconciler.daemon.destinations import Destination, destinations, is_own_mail
from reconciler.daemon.outbox import Letter, Outbox, deliver, try_each
from reconciler.daemon.state import Cause, Cycle, Result, Sourced, State, TargetState
from reconciler.desired.load import load
from reconciler.problem import Problem
from reconciler.settings import Settings
from reconciler.simulator.wire import Fault, Reply, Request, Server
from reconciler.stack import Stack

NOW = datetime(2026, 11, 1, tzinfo=UTC)
TOKEN = "tk-planted-Secret-7Q2x"
LETTER = Letter("failure", "mana: a title", "one line\nand <b>another</b>", "")
DIRECTORY = """\
version: 1
stack: mana
targets: {stalwart: {url: "https://mail.mana.how:8443", username: admin, password: {env: ADMIN}, container: stalwart}}
accounts: {noreply@mana.how: {password: {env: NOREPLY}}}
dns: {mana.how: [{name: "@", type: MX, content: mx.mana.how, priority: 10}]}
stalwart: {hostname: mx.mana.how}
smtp:
  provider: own
  providers:
    own: {host: smtp.mana.how, port: 465, account: noreply@mana.how}
    brevo: {preset: brevo, username: {env: U}, password: {env: P}}
    mailgun: {preset: mailgun, username: {env: U}, password: {env: P}}
  consumers: {app: {provider: mailgun}}
"""


class Service:
    """A service that takes messages, as ntfy and webhooks do."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, dict]] = []
        self.server = Server(self.take)

    def take(self, request: Request) -> Reply:
        self.taken.append((f"{request.method} {request.path}", json.loads(request.body or b"{}")))
        return Reply.of({})

    def url(self, kind: str = "json") -> str:
        return self.server.url.replace("http", kind)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    with service.server:
        yield service


def stack(folder: Path, notices: str = "", **environ: str) -> Stack:
    (folder / "reconciler.yaml").write_text(DIRECTORY + (f"daemon: {{notices: [{notices}]}}\n" if notices else ""))
    settings = Settings.read({"PATH": "/usr/bin", "ADMIN": TOKEN, **environ}, folder, folder / "data")
    return Stack(load(folder), settings)


def state(number: int, *, ill: bool) -> State:
    at = NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    cycle = Cycle(number, Cause.INTERVAL, at, at, 1.0, Result.DONE)
    problem = Problem("https://mail.mana.how", f"refuses {TOKEN}", "correct it") if ill else None
    target = TargetState("stalwart", "held" if ill else "in_sync", "", failures=int(ill), problem=problem)
    return State("mana", at, 300.0, Sourced("/srv"), cycle, targets=(target,))


def eventually(true: Callable[[], object], seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


# --------------------------------------------------------------------------------------------------------- it arrives
def test_a_test_says_for_each_whether_it_arrived(service: Service, tmp_path: Path) -> None:
    urls = {"NTFY": f"{service.url('ntfy')}/{TOKEN}", "HOOK": f"{service.url()}/{TOKEN}", "NONE": "syslog://"}
    named = "{env: NTFY}, {env: HOOK}, {env: NONE}, {env: MISSING}"
    told = try_each(stack(tmp_path, named, **urls), {"PATH": "/usr/bin"})
    assert [(item.name, item.why == "") for item in told] == [
        ("{env: NTFY}", True),
        ("{env: HOOK}", True),
        ("{env: NONE}", False),
        ("{env: MISSING}", False),
    ]
    (ntfy, hook) = service.taken
    assert ntfy[1]["topic"] == TOKEN
    assert hook[0] == f"POST /{TOKEN}"
    assert hook[1]["title"] == "mana: stack: this is a test: notices arrive here"
    assert TOKEN not in repr(told)


def test_a_mail_arrives_at_a_real_smtp_server() -> None:
    class Box:
        mails: list[str]

        async def handle_DATA(self, _server, _session, envelope) -> str:
            self.mails = [envelope.content.decode()]
            return "250 OK"

    box = Box()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        url = f"mailto://127.0.0.1:{port}?from=daemon@example.org&to=me@example.org&mode=insecure"
        assert deliver(Destination("{env: MAIL}", url, internal=True), LETTER, {}) == ""
    finally:
        controller.stop()
    (mail,) = box.mails
    assert "mana: a title" in mail
    assert "To: me@example.org" in mail
    assert "<b>" not in mail or "text/plain" in mail


# ------------------------------------------------------------------------------------------------------------ it waits
def test_what_can_not_be_sent_waits_and_goes_as_one_message(service: Service, tmp_path: Path) -> None:
    now = NOW
    deaf = Service()
    made = stack(tmp_path, "{env: A}, {env: B}", A=f"{service.url()}/a", B=f"{deaf.url()}/{TOKEN}")

    def told(number: int, *, ill: bool) -> Outbox:
        box = Outbox(tmp_path / "data", "mana", {}, lambda: now)  # a restart each time
        box.tell(made, state(number, ill=ill))
        eventually(lambda: box._thread is None)
        box.close()
        return box

    deaf.server._server.server_close()
    box = told(1, ill=True)
    (problem,) = box.problems
    assert problem.where == "{env: B}"
    assert "can't be reached" in problem.summary
    assert [item[1]["title"] for item in service.taken] == ["mana: stalwart: is left alone until a person acts"]
    assert "refuses [redacted {env: ADMIN}]" in service.taken[0][1]["message"]
    assert len(told(2, ill=True).problems) == 1  # nothing new, and not yet tried again
    told(3, ill=False)
    assert [item[1]["type"] for item in service.taken] == ["failure", "success"]
    assert TOKEN not in (tmp_path / "data" / "notices-mana.json").read_text()
    now += timedelta(minutes=2)
    made = stack(tmp_path, "{env: A}, {env: B}", A=f"{service.url()}/a", B=f"{service.url()}/b")
    assert told(4, ill=False).problems == ()
    path, sent = service.taken[2]
    assert (path, sent["type"]) == ("POST /b", "failure")
    assert sent["title"] == "mana: well again: stalwart: is left alone until a person acts (and 1 before)"
    assert "refuses [redacted {env: ADMIN}]" in sent["message"]
    told(5, ill=False)
    assert len(service.taken) == 3


def test_one_that_hangs_holds_up_nobody_and_is_given_up(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_LIMIT", 20.0)
    service.server.faults.append(Fault(path="/slow", delay=60.0))
    made = stack(tmp_path, "{env: SLOW}, {env: FAST}", SLOW=f"{service.url()}/slow", FAST=f"{service.url()}/fast")
    box = Outbox(tmp_path / "data", "mana", {})
    began = time.monotonic()
    box.tell(made, state(1, ill=True))
    assert time.monotonic() - began < 5.0
    eventually(lambda: box._thread is None)
    assert [item[0] for item in service.taken] == ["POST /fast"]
    assert [problem.where for problem in box.problems] == ["{env: SLOW}"]
    box.close()
    assert "notices" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    "damage", ["", "{", '{"version": 9}', '{"version":1,"known":{"alerts":{"a":{}}},"queues":{}}', "[]"]
)
def test_what_is_damaged_is_begun_anew(service: Service, tmp_path: Path, damage: str) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "notices-mana.json").write_text(damage)
    box = Outbox(tmp_path / "data", "mana", {})
    box.tell(stack(tmp_path, "{env: MISSING}"), state(1, ill=True))
    kept = json.loads((tmp_path / "data" / "notices-mana.json").read_text())
    assert len(kept["queues"]["{env: MISSING}"]["letters"]) == 1
    assert [problem.where for problem in box.problems] == ["{env: MISSING}"]


def test_a_disk_that_can_not_be_written_is_a_problem_and_no_end(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    box = Outbox(tmp_path / "data", "mana", {})
    box.tell(stack(tmp_path, "{env: MISSING}"), state(1, ill=True))
    assert any("can't be written" in problem.summary for problem in box.problems)


# -------------------------------------------------------------------------------------------------- what a URL may not
@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("{json}/x", "leads to a machine of this network"),
        ("json://localhost:{port}/x", "leads to a machine of this network"),
        ("json://[::ffff:127.0.0.1]:{port}/x", ""),
        ("mailto://127.0.0.1:{port}?from=a@b.org&to=c@d.org&mode=insecure", "leads to a machine of this network"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ?template=/etc/passwd", "would open a file"),
        ("discord://123456789012345678/abcdefghijklmnopqrstuvwxyz?template=/etc/passwd", ""),
    ],
)
def test_a_url_of_a_file_reaches_no_machine_and_no_file_of_ours(service: Service, url: str, why: str) -> None:
    written = url.replace("{json}", service.url()).replace("{port}", str(service.server.port))
    said = deliver(Destination("{file: notice}", written, internal=False), LETTER, {})
    assert said
    assert why in said
    assert service.taken == []


@pytest.mark.parametrize("proxies", [{"NO_PROXY": "localhost"}, {"HTTPS_PROXY": "http://192.0.2.1:1"}])
def test_a_proxy_for_others_opens_no_machine_of_ours_to_a_url_of_a_file(service: Service, proxies: dict) -> None:
    place = Destination("{file: notice}", f"{service.url()}/x", internal=False)
    said = deliver(place, LETTER, {**proxies, "RECONCILER_PASS_ENV": "notice:*_PROXY"})
    assert said == "leads to a machine of this network"
    assert service.taken == []


def test_a_proxy_of_ours_is_asked_for_what_it_is_named_for(service: Service) -> None:
    place = Destination("{file: notice}", "json://example.org/x", internal=False)
    environ = {"HTTP_PROXY": f"http://localhost:{service.server.port}", "RECONCILER_PASS_ENV": "notice:*_PROXY"}
    assert deliver(place, LETTER, environ) == ""
    assert len(service.taken) == 1


def test_a_redirect_is_not_followed(service: Service) -> None:
    elsewhere = Reply(302, headers={"Location": f"{service.server.url}/elsewhere"})
    service.server.faults.append(Fault(path="/hook", reply=elsewhere))
    said = deliver(Destination("{env: X}", f"{service.url()}/hook?redirect=yes", internal=True), LETTER, {})
    assert said == "answers 302"
    assert service.taken == []


@pytest.mark.parametrize(
    "url",
    [
        *("syslog://", "dbus://", "macosx://", "gnome://", "windows://", "blink1://", "mqtt://127.0.0.1/x"),
        *("file:///etc/passwd", "fcm://p/?keyfile=/x", "python://x", "rsyslog://127.0.0.1", "postgres://u:p@db/x"),
        *(TOKEN, "", "json"),
    ],
)
def test_services_of_this_machine_are_none_and_the_error_does_not_say_the_url(url: str, tmp_path: Path) -> None:
    made = stack(tmp_path, "{env: X}", X=url)
    found, problems = destinations(made.spec, made.secrets)
    assert found == ()
    assert problems
    assert not url or url not in str(problems)


def test_only_the_environments_own_urls_may_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("json://10.0.0.1/x")
    made = stack(tmp_path, "{env: X}, {file: hook}", X="json://10.0.0.1/x")
    assert [item.internal for item in destinations(made.spec, made.secrets)[0]] == [True, False]
    fenced = stack(tmp_path, "{env: X}, {file: hook}", X="json://10.0.0.1/x", RECONCILER_SECRETS="env:X")
    found, problems = destinations(fenced.spec, fenced.secrets)
    assert [item.name for item in found] == ["{env: X}"]
    assert "not allowed here" in problems[0].summary


# -------------------------------------------------------------------------------------- not through what it tells of
OWN = [
    "mailtos://u:p@mx.mana.how",
    "mailtos://u:p@mana.how",
    "mailto://u:p@gmail.com?smtp=smtp.mana.how",
    "mailto://u:p@example.org?smtp=STALWART",
    "mailto://u:p@example.org?smtp=smtp.mailgun.org&to=me@example.org",
    "mailto://u:p@gmail.com/me@mana.how",
    "mailto://u:p@gmail.com?to=me@mana.how,you@MANA.how",
]
OTHERS = [
    "mailto://u:p@gmail.com",
    "mailto://u:p@mana.org?smtp=smtp-relay.brevo.com&to=me@example.org",
    "mailto://u:p@gmail.com?to=me@mana.how,me@example.org",
    "ntfy://mana.how/topic",
]


@pytest.mark.parametrize("url", [*OWN, *OTHERS])
def test_mail_by_its_own_server_is_no_way_to_tell_alone(url: str, tmp_path: Path) -> None:
    made = stack(tmp_path, "{env: X}", X=url)
    assert is_own_mail(made.spec, url) == (url in OWN)
    found, problems = destinations(made.spec, made.secrets)
    assert (found == ()) == (url in OWN)
    if url in OWN:
        assert "leads through the very mail server" in str(problems)
        beside = stack(tmp_path, "{env: X}, {env: Y}", X=url, Y="ntfys://ntfy.sh/topic")
        assert len(destinations(beside.spec, beside.secrets)[0]) == 2


def test_letters_that_wait_too_long_are_counted() -> None:
    queue = outbox.Queue().with_more([replace(LETTER, title=str(number)) for number in range(70)])
    assert (len(queue.letters), queue.dropped) == (50, 20)
    letter = outbox._together(queue)
    assert letter.title == "69 (and 69 before)"
    assert letter.body.startswith("60 earlier ones are left out.")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *((it, True) for it in ("1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1")),
        *((it, False) for it in ("10.0.0.1", "172.17.0.1", "169.254.169.254", "127.0.0.1", "0.0.0.0", "224.0.0.1")),
        *((it, True) for it in ("64:ff9b::101:101", "2002:101:101::1")),
        *((it, False) for it in ("64:ff9b::a00:1", "64:ff9b::7f00:1", "2002:7f00:1::1", "::127.0.0.1", "::a00:1")),
        *((it, False) for it in ("100.64.0.1", "::1", "fd00::1", "fe80::1%eth0", "::ffff:10.0.0.1")),
        *((it, False) for it in ("localhost", "example.org", "")),
    ],
)
def test_what_the_internet_reaches(address: str, public: bool) -> None:
    for internal in (False, True):
        fence = Fence(internal=internal)
        try:
            fence("socket.connect", (None, (address, 80)))
        except PermissionError:
            assert not public
            assert not internal
        else:
            assert public or internal


@pytest.mark.parametrize("internal", [True, False])
def test_no_program_no_socket_of_this_machine_and_no_file(internal: bool, tmp_path: Path) -> None:
    events = [("subprocess.Popen", ("sh", [], None, None)), ("os.posix_spawn", ("sh", [], {})), ("os.fork", ())]
    events += [("socket.connect", (None, "/var/run/docker.sock")), ("socket.connect", (None, b"\0reconciler"))]
    events += [("open", (str(tmp_path / "x"), "r", 0)), ("open", (b"/etc/passwd", "r", 0)), ("open", ("x", "w", 0))]
    for event, given in events:
        with pytest.raises(PermissionError):
            Fence(internal=internal)(event, given)
    for path in (json.__file__, pytest.__file__, 3):
        Fence(internal=internal)("open", (path, "r", 0))
