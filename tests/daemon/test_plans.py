"""Pull requests that the daemon plans: by the real git, GitHub faked at the wire, and systems in memory."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from daemon.origin import ENVIRON, Origin, run
from githubfake import REPOSITORY, GitHub, Token
from systems import Connected, World

from reconciler import journal
from reconciler.daemon import loop as loops
from reconciler.daemon import plans as planning
from reconciler.daemon.approvals import approve
from reconciler.daemon.board import Bell, Board
from reconciler.daemon.loop import Loop
from reconciler.daemon.plans import Plans
from reconciler.daemon.state import Cause, Result, Sourced, State
from reconciler.settings import Settings
from reconciler.simulator.wire import Fault, Reply

TOKEN, CANARY = "ghp_canaryDaemonToken", "canary-Zk93-word"
SECRETS = {"TOKEN": "canary-cloudflare-77", "ADMIN": "canary-admin-78", "FOREIGN": CANARY, "GITHUB": TOKEN}
RECONCILER = f"""\
version: 1
stack: mana
targets:
  cloudflare: {{token: {{env: TOKEN}}}}
  stalwart: {{url: "http://127.0.0.1:8080", username: admin, password: {{env: ADMIN}}}}
daemon: {{plans: true, github: {{repository: {REPOSITORY}, token: {{env: GITHUB}}}}}}
policy: {{max_deletes: 3}}
"""
BY_PLAN = RECONCILER.replace("max_deletes: 3", "max_deletes: 3, approval: plan")
DNS = """\
dns:
  mana.how:
    - {type: A, name: mail, content: 192.0.2.1}
    - {type: A, name: www, content: 192.0.2.2}
"""
SLOW = DNS.replace("192.0.2.2", "192.0.2.2, ttl: 600")
WWW, MAIL = "dns/mana.how/A/www", "dns/mana.how/A/mail"


class House:
    """A repository at GitHub, a daemon that follows it, and the systems that it keeps."""

    def __init__(self, place: Path, github: GitHub) -> None:
        self.github, self.world, self.origin = github, World(), Origin(place)
        self.now = datetime(2026, 11, 29, tzinfo=UTC)
        self.place, self.unexpected, self.rung = place, list[BaseException](), list[int]()
        self.commit(RECONCILER, DNS)
        self.environ = {**ENVIRON, **SECRETS}
        self.start()

    def start(self) -> None:
        """Start the daemon, or start it again."""
        settings = Settings.read(self.environ, self.place / "nothing", self.place / "data")
        self.checkout = self.origin.checkout(**SECRETS)
        board = Board(State("", journal.now(), 300.0, Sourced("here")))
        heads = self.checkout.heads
        self.loop = Loop(self.checkout, lambda: settings, board, Bell(), interval=300.0, came=heads.came)
        self.plans = self.planner()

    def planner(self) -> Plans:
        made = Plans(
            self.checkout.heads,
            self.place / "data",
            "mana",
            url=self.github.server.url,
            ring=lambda: self.rung.append(1),
            unexpected=self.unexpected.append,
            clock=lambda: self.now,
        )
        made._thread = made  # type: ignore[assignment] # the tests look when they like
        return made

    def cycle(self, cause: Cause = Cause.INTERVAL) -> State:
        state = self.loop.cycle(cause)
        assert self.loop._kept
        self.plans.tell(self.loop._kept[0], state)
        return state

    def look(self, later: timedelta = timedelta(minutes=1)) -> None:
        self.now += later
        assert self.plans._base
        self.plans.look(self.plans._base)

    def commit(self, reconciler: str = "", dns: str = "", **more: str | None) -> str:
        """Push to main."""
        given = {"reconciler": reconciler, "dns": dns}
        files = {f"desired-state/{name}.yaml": text for name, text in given.items() if text}
        made = self.origin.commit({**files, **{f"desired-state/{name}.yaml": text for name, text in more.items()}})
        self.github.push(made)
        return made

    def propose(self, number: int, *, fork: bool = False, **files: str | bytes | None) -> str:
        """Push a branch off main, or onto it, and open a pull request, or push to it."""
        name = f"topic-{number}"
        known = run(self.origin.tree, "branch", "--list", name)
        run(self.origin.tree, "checkout", "-q", *([name] if known else ["-b", name, "main"]))
        written = {(f"desired-state/{path}.yaml" if "." not in path else path): text for path, text in files.items()}
        head = self.origin.commit(written, push=False)
        run(self.origin.tree, "push", "-q", "--force", "origin", f"HEAD:refs/pull/{number}/head")
        run(self.origin.tree, "checkout", "-q", "main")
        if number in self.github.pulls:
            self.github.pulls[number]["head"]["sha"] = head
            self.github.known.add(head)
        else:
            self.github.open(number, head, fork=fork)
        return head

    def merge(self, number: int, *options: str) -> str:
        """Merge a pull request on GitHub's pages."""
        options = options or ("--no-ff",)
        run(self.origin.tree, "merge", "-q", *options, "-m", "merged", f"topic-{number}")
        if "--squash" in options:
            run(self.origin.tree, "commit", "-q", "-m", "squashed")
        self.origin.push()
        self.github.merge(number, self.origin.head)
        return self.origin.head

    def comment(self, number: int) -> str:
        [found] = self.github.of(number)
        for canary in (CANARY, TOKEN, *SECRETS.values()):
            assert canary not in found
        return found

    def ttl(self, address: str = WWW) -> object:
        return next(item.resource.ttl for item in self.world.live if item.resource.address == address)

    def kept(self) -> str:
        text = (self.place / "data/pulls-mana.json").read_text()
        assert not any(canary in text for canary in SECRETS.values())
        return text


@pytest.fixture
def github() -> Iterator[GitHub]:
    fake = GitHub({TOKEN: Token("mana-bot", frozenset({"statuses", "pull_requests"}))})
    with fake.server:
        yield fake
    assert fake.server.crashes == []


@pytest.fixture
def house(tmp_path: Path, github: GitHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    made = House(tmp_path, github)
    monkeypatch.setattr(Connected, "world", made.world)
    monkeypatch.setattr(Connected, "revision", property(lambda self: self._given or ""), raising=False)
    monkeypatch.setattr(loops, "Stack", Connected)
    monkeypatch.setattr(planning, "Stack", Connected)
    assert made.cycle(Cause.START).cycle.result is Result.DONE
    yield made
    assert made.unexpected == []


# ------------------------------------------------------------------------------------------------------ what is shown
def test_a_pull_request_is_planned_once_and_shown_as_one_comment(house: House) -> None:
    head = house.propose(7, dns=SLOW)
    house.look()
    told = house.comment(7)
    assert told.startswith("<!-- reconciler:plan:mana -->\n")
    assert "1 change" in told
    assert f"https://127.0.0.1/{REPOSITORY}/blob/{head}/desired-state/dns.yaml#L4" in told.replace(
        house.github.server.url, "https://127.0.0.1"
    )
    assert f"of {head}" in told
    asked = len(house.github.server.requests)
    house.look()
    house.cycle()
    house.look()
    assert [item.method for item in house.github.server.requests[asked:]] == ["GET", "GET"]
    assert house.ttl() != 600
    newer = house.propose(7, dns=SLOW.replace("600", "900"))
    house.look()
    assert newer in house.comment(7)
    assert "900" in house.comment(7)


def test_what_changes_nothing_of_the_directory_gets_no_comment(house: House) -> None:
    house.propose(7, **{"README.md": "hello\n"})
    house.look()
    assert house.github.of(7) == []
    house.propose(7, dns=SLOW)
    house.look()
    house.propose(7, dns=DNS)
    house.look()
    assert "nothing to do" in house.comment(7)


def test_a_fork_s_pull_request_is_not_looked_at(house: House) -> None:
    house.propose(7, fork=True, dns=SLOW)
    house.look()
    assert house.github.of(7) == []
    assert not list((house.place / "data/source").glob("*/pulls/*"))


def test_a_pull_request_to_another_branch_is_none_of_ours(house: House) -> None:
    house.propose(7, dns=SLOW)
    house.github.pulls[7]["base"]["ref"] = "other"
    house.look()
    assert house.github.of(7) == []


def test_what_main_got_meanwhile_is_not_undone_in_the_plan(house: House) -> None:
    house.propose(7, dns=SLOW)
    house.commit(more="dns:\n  mana.test:\n    - {type: A, name: new, content: 192.0.2.9}\n")
    house.cycle(Cause.REVISION)
    house.look()
    told = house.comment(7)
    assert WWW in told
    assert "mana.test" not in told
    assert "delete" not in told


def test_a_head_that_conflicts_is_told_so_and_planned_once_it_does_not(house: House) -> None:
    house.propose(7, dns=SLOW)
    house.commit(dns=DNS.replace("192.0.2.2", "192.0.2.2, ttl: 900"))
    house.cycle(Cause.REVISION)
    house.look()
    told = house.comment(7)
    assert "conflicts with main" in told
    assert '"approvable": false' in told
    run(house.origin.tree, "checkout", "-q", "topic-7")
    run(house.origin.tree, "merge", "-q", "-X", "ours", "-m", "up to date", "main")
    house.propose(7, dns=SLOW)
    house.look()
    assert WWW in house.comment(7)


def test_it_is_planned_again_when_main_moves_and_seldom_when_what_is_live_changes(house: House) -> None:
    house.propose(7, dns=SLOW)
    house.look()
    first = house.comment(7)
    house.commit(more="dns:\n  mana.test:\n    - {type: A, name: new, content: 192.0.2.9}\n")
    house.cycle(Cause.REVISION)
    house.look()
    second = house.comment(7)
    assert first != second
    house.world.turn(fail=[WWW])  # it can't be healed, so it stays as somebody made it
    house.world.alter(WWW, content="198.51.100.7")
    house.cycle()
    house.look()
    assert house.comment(7) == second  # not at once
    house.look(timedelta(minutes=10))
    assert "198.51.100.7" in house.comment(7)


# --------------------------------------------------------------------------------------------------------- it is data
HOSTILE: dict[str, dict[str, str | bytes]] = {
    "a tag": {"evil": "accounts: !!python/object/apply:os.system ['touch ran']\n"},
    "nested": {"evil": "[" * 100_000},
    "large": {"evil": "#" * (1 << 20) + "#\n"},
    "no text": {"evil": b"\xff\xfe"},
    "a mention": {"evil": "accounts: {'@everyone <img src=x> [x](http://evil)': 3}\n"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_told_and_keeps_no_other_from_its_plan(house: House, name: str) -> None:
    house.propose(7, **HOSTILE[name])
    house.propose(8, dns=SLOW)
    house.look()
    assert "nothing could be planned" in house.comment(7)
    assert "evil.yaml" in house.comment(7)
    assert "@everyone" not in house.comment(7).replace("`", "'").partition("evil")[0]
    assert WWW in house.comment(8)
    assert not list(house.place.rglob("ran"))
    assert house.cycle().cycle.result is Result.NOTHING


def test_a_pull_request_chooses_no_system_no_policy_and_no_secret(house: House) -> None:
    evil = (
        RECONCILER.replace("http://127.0.0.1:8080", "https://evil.example")
        .replace("max_deletes: 3", "max_deletes: 99")
        .replace("stack: mana", "stack: other")
        .replace("repository: octo/mail", "repository: mallory/mail")
    )
    accounts = "accounts:\n  new@mana.how: {password: {env: FOREIGN}}\n"
    house.propose(7, reconciler=evil, dns=DNS.replace("- {type: A, name: www", "# {type: A, name: www"), more=accounts)
    house.look()
    told = house.comment(7)
    assert "not read before the merge" in told
    for word in ("targets.stalwart", "policy", "daemon", "stack"):
        assert f"{word}" in told.partition("not used before the merge")[2]
    assert "Secrets go to `https://evil.example" not in told
    assert all("mallory" not in item.path for item in house.github.server.requests)
    assert [item.resource.address for item in house.world.live if item.resource.address == WWW] == [WWW]


GUESSES = {
    "in clear": "- {type: TXT, name: x, content: GUESS}",
    "with escapes": '- {type: TXT, name: x, content: "\\x63\\u0061REST"}',
    "in pieces": '- {type: TXT, name: x, content: \'"ca" "REST"\'}',
    "in capitals": "- {type: TXT, name: CAREST, content: v}",
    "in base64": "- {type: TXT, name: x, content: BASE64}",
    "in a comment": "- {type: A, name: x, content: 192.0.2.9, comment: 'CA REST'}",
    "in what is invalid": '- {type: TXT, name: x, "\\x63\\x61REST": v}',
}


@pytest.mark.parametrize("way", [*GUESSES, "as a file's name"])
def test_a_pull_request_that_guesses_a_secret_is_not_told_whether_it_is_one(house: House, way: str) -> None:
    """What it writes itself is shown as it is: a gap in its place would confirm the guess, and name the secret."""
    told = []
    for number, guess in enumerate((SECRETS["ADMIN"], "canary-never-99"), 7):
        row = GUESSES.get(way, GUESSES["in clear"]).replace("GUESS", guess)
        row = row.replace("CA REST", guess).replace("CAREST", guess.upper()).replace("REST", guess.removeprefix("ca"))
        row = row.replace("BASE64", base64.b64encode(guess.encode()).decode())
        if way in GUESSES:
            house.propose(number, dns=f"{DNS}    {row}\n")
        else:
            house.propose(number, **{f"desired-state/{guess}.yaml": f"dns:\n  mana.zone:\n    {row}\n"})
        house.look()
        [said] = house.github.of(number)
        assert "redacted" not in said
        known = [
            guess,
            guess.upper(),
            base64.b64encode(guess.encode()).decode(),
            house.github.pulls[number]["head"]["sha"],
        ]
        for item in known:
            said = said.replace(item, "…").replace(item[:12], "…")
        told.append(re.sub(r"[0-9a-f]{12,}|^<!-- reconciler:facts.*", "…", said, flags=re.MULTILINE))
    assert told[0] == told[1]


def test_one_that_can_not_be_looked_at_is_tried_again_and_keeps_no_other_from_its_plan(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.propose(7, dns=SLOW)
    house.propose(8, dns=SLOW.replace("600", "900"))
    run(house.origin.bare, "update-ref", "-d", "refs/pull/7/head")
    house.look()
    assert house.github.of(7) == []
    assert "900" in house.comment(8)
    [problem] = house.plans.problems
    assert "pull request 7 can't be planned" in problem.summary
    run(house.origin.bare, "update-ref", "refs/pull/7/head", house.github.pulls[7]["head"]["sha"])
    house.look(timedelta(minutes=3))
    assert "600" in house.comment(7)
    assert house.plans.problems == ()

    def bug(*_: object) -> None:
        raise ZeroDivisionError(CANARY)

    with monkeypatch.context() as patched:
        patched.setattr(planning, "make_plan", bug)
        house.propose(7, dns=SLOW.replace("600", "700"))
        house.look()
        assert CANARY not in str(house.plans.problems)
    assert [type(item) for item in house.unexpected] == [ZeroDivisionError]
    house.unexpected.clear()
    house.look(timedelta(minutes=3))
    assert "700" in house.comment(7)


def test_a_system_that_is_away_is_in_the_comment_and_the_plan_made_again(house: House) -> None:
    house.propose(7, dns=SLOW)
    house.world.turn(unread=["cloudflare"])
    house.look()
    assert "**Not complete:**" in house.comment(7)
    house.world.turn()
    house.look(timedelta(seconds=30))
    assert "**Not complete:**" in house.comment(7)
    house.look(timedelta(minutes=2))
    assert WWW in house.comment(7)
    assert "**Not complete:**" not in house.comment(7)


# ------------------------------------------------------------------------------------------------------------- GitHub
def test_limits_are_heeded(house: House) -> None:
    house.propose(7, dns=SLOW)
    house.github.remaining, house.github.reset = 0, time.time() + 1800
    house.look()
    asked = len(house.github.server.requests)
    assert "limit of requests" in house.plans.problems[0].summary
    for _ in range(3):
        house.cycle()
    assert not planning.backlog.is_due(house.plans._memory.kept.next, house.now + timedelta(minutes=29))
    assert len(house.github.server.requests) == asked
    house.github.remaining, house.github.reset = 5000, 0.0
    house.look(timedelta(minutes=31))
    assert WWW in house.comment(7)


def test_a_comment_that_is_refused_is_no_matter_of_the_others(house: House) -> None:
    house.propose(7, dns=SLOW)
    house.propose(8, dns=SLOW)
    del house.github.issues[7]
    house.look()
    assert WWW in house.comment(8)
    assert "pull request 7 can't be planned" in house.plans.problems[0].summary


def test_one_at_which_github_fails_each_time_keeps_no_other_from_its_plan(house: House) -> None:
    house.propose(7, dns=SLOW)
    house.propose(8, dns=SLOW)
    house.github.server.faults = [Fault(path=r"/issues/7/", times=1000, reply=Reply.of({"message": "oops"}, 502))]
    house.look()
    assert house.github.of(8) == []
    house.look(timedelta(minutes=2))
    assert WWW in house.comment(8)
    assert house.github.of(7) == []


def test_a_restart_posts_nothing_twice_and_what_is_damaged_is_posted_anew(house: House) -> None:
    house.propose(7, dns=SLOW)
    house.look()
    house.start()
    house.cycle(Cause.START)
    house.look()
    assert len(house.github.of(7)) == 1
    for damage in (
        "{",
        "[]",
        '{"v": 2}',
        '{"v": 1, "pulls": {"7": {}}, "merged": [], "tries": 0, "next": "", "why": ""}',
    ):
        (house.place / "data/pulls-mana.json").write_text(damage)
        house.start()
        house.cycle(Cause.START)
        house.look()
        assert WWW in house.comment(7)
    house.kept()


def test_what_is_closed_is_forgotten(house: House) -> None:
    house.propose(7, dns=SLOW)
    house.look()
    [store] = (house.place / "data/source").glob("*/pulls/*")
    house.github.close(7)
    house.look()
    assert not store.exists()
    assert json.loads(house.kept())["pulls"] == {}
    assert json.loads(house.kept())["merged"] == []


def test_somebody_else_s_comment_with_our_mark_is_left_alone(house: House) -> None:
    head = house.propose(7, dns=SLOW)
    theirs = house.github.say(7, "mallory", f"<!-- reconciler:plan:mana -->\nall is well of {head}")
    house.look()
    assert theirs["body"].endswith(f"all is well of {head}")
    assert [item["user"]["login"] for item in house.github.comments] == ["mallory", "mana-bot"]


@pytest.mark.parametrize("missing", ["github", "repository"])
def test_what_it_needs_is_said(house: House, missing: str) -> None:
    if missing == "github":
        house.commit(RECONCILER.partition("daemon:")[0] + "daemon: {plans: true}\n")
    else:
        house.plans = Plans(None, house.place / "data", "mana")
    house.cycle(Cause.REVISION)
    [problem] = house.plans.problems
    assert problem.where == "daemon.plans"
    assert missing in problem.summary
    assert house.plans._base is None


def test_nothing_is_planned_where_the_directory_does_not_ask_for_it(house: House) -> None:
    house.commit(RECONCILER.replace("plans: true, ", ""))
    house.propose(7, dns=SLOW)
    house.cycle(Cause.REVISION)
    assert (house.plans._base, house.plans.problems) == (None, ())


def test_the_thread_looks_by_itself_and_ends(house: House) -> None:
    house.propose(7, dns=SLOW)
    house.plans._thread = None
    house.cycle()
    until = time.monotonic() + 60
    while not house.github.of(7):
        assert time.monotonic() < until
        time.sleep(0.05)
    house.plans.close()
    house.plans._thread.join(30)  # type: ignore[attr-defined]
    assert not house.plans._thread.is_alive()  # type: ignore[attr-defined]


def test_a_fault_that_nobody_thought_of_does_not_end_the_thread(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.github.server.faults = [Fault(times=1, reply=Reply(200, b'[{"head": 3}, 7]'))]
    house.look()
    assert "not what GitHub documents" in house.plans.problems[0].summary
    house.look(timedelta(minutes=3))
    assert house.plans.problems == ()


# ----------------------------------------------------------------------------------------------------------- approval
@pytest.fixture
def agreed(house: House) -> House:
    house.commit(BY_PLAN)
    assert house.cycle(Cause.REVISION).cycle.result is Result.NOTHING
    return house


def held(state: State) -> list[str]:
    assert state.plan
    return [item.where for item in state.plan.held]


MERGES: dict[str, tuple[str, ...]] = {"merge": ("--no-ff",), "fast-forward": ("--ff-only",), "squash": ("--squash",)}


@pytest.mark.parametrize(("way", "restart"), [*((way, False) for way in MERGES), ("merge", True)])
def test_what_was_posted_is_applied_when_it_is_merged(agreed: House, way: str, restart: bool) -> None:
    agreed.propose(7, dns=SLOW)
    agreed.look()
    if restart:
        agreed.start()
    agreed.merge(7, *MERGES[way])
    state = agreed.cycle(Cause.REVISION)
    assert (held(state), agreed.ttl()) == ([], 600)
    assert agreed.cycle().cycle.result is Result.NOTHING


def test_two_merges_at_once_are_both_what_was_shown(agreed: House) -> None:
    agreed.propose(7, dns=SLOW)
    agreed.propose(8, more="dns:\n  mana.test:\n    - {type: A, name: new, content: 192.0.2.9}\n")
    agreed.look()
    for number in (7, 8):
        agreed.merge(number)
    assert held(agreed.cycle(Cause.REVISION)) == []
    assert agreed.ttl() == 600
    assert "dns/mana.test/A/new" in agreed.world.addresses


@pytest.mark.parametrize("restart", [False, True])
def test_what_was_never_shown_is_held(agreed: House, restart: bool) -> None:
    agreed.commit(dns=SLOW)
    if restart:
        agreed.start()
    state = agreed.cycle(Cause.REVISION)
    assert (held(state), agreed.ttl() == 600) == ([WWW], False)


def test_a_later_push_that_was_not_planned_voids_the_plan(agreed: House) -> None:
    agreed.propose(7, dns=SLOW)
    agreed.look()
    agreed.propose(7, more="dns:\n  mana.test:\n    - {type: A, name: new, content: 192.0.2.9}\n")
    agreed.merge(7)
    assert held(agreed.cycle(Cause.REVISION)) == [WWW, "dns/mana.test/A/new"]


@pytest.mark.parametrize("way", ["merge", "squash"])
def test_main_moves_meanwhile_and_what_was_shown_is_applied_all_the_same(agreed: House, way: str) -> None:
    """After a squash GitHub alone knows which head it was: it says so a moment later."""
    agreed.propose(7, dns=SLOW)
    agreed.look()
    agreed.commit(more="dns:\n  mana.test:\n    - {type: A, name: new, content: 192.0.2.9}\n")
    agreed.merge(7, *MERGES[way])
    state = agreed.cycle(Cause.REVISION)
    if way == "squash":
        assert held(state) == [WWW, "dns/mana.test/A/new"]
        agreed.look()
        assert agreed.rung
        state = agreed.cycle(Cause.REVISION)
    assert held(state) == ["dns/mana.test/A/new"]
    assert agreed.ttl() == 600


def test_a_change_whose_before_is_another_by_now_is_held_and_says_why(agreed: House) -> None:
    agreed.propose(7, dns=SLOW)
    agreed.look()
    agreed.world.turn(fail=[WWW])
    agreed.world.alter(WWW, content="198.51.100.7")
    agreed.merge(7)
    state = agreed.cycle(Cause.REVISION)
    assert state.plan
    [problem] = state.plan.held
    assert "is not what was approved" in problem.summary
    agreed.world.turn()
    assert held(agreed.cycle(Cause.REQUEST)) == []
    assert agreed.ttl() == 600


def test_a_plan_of_the_past_does_not_approve_the_same_once_more(agreed: House) -> None:
    agreed.propose(7, dns=SLOW)
    agreed.look()
    agreed.merge(7)
    agreed.cycle(Cause.REVISION)
    agreed.look()
    agreed.commit(dns=DNS)
    state = agreed.cycle(Cause.REVISION)
    assert held(state) == [WWW]
    assert state.plan
    approve(agreed.place / "data", "mana", [state.plan.held[0].hint.split()[-1]], "a person")
    assert held(agreed.cycle()) == []
    agreed.commit(dns=SLOW + "# by hand\n")
    assert held(agreed.cycle(Cause.REVISION)) == [WWW]
    agreed.commit(dns=SLOW)
    assert held(agreed.cycle(Cause.REVISION)) == [WWW]


def test_what_nobody_could_read_as_a_whole_approves_nothing(agreed: House) -> None:
    many = "".join(f"    - {{type: TXT, name: t{number}, content: {'x' * 200}{number}}}\n" for number in range(600))
    agreed.propose(7, dns=DNS + many)
    agreed.look()
    assert "can't be approved" in agreed.comment(7)
    agreed.merge(7)
    assert len(held(agreed.cycle(Cause.REVISION))) == 600


def test_a_pull_request_that_approves_by_merge_does_not_approve_itself(agreed: House) -> None:
    agreed.propose(7, reconciler=RECONCILER, dns=SLOW)
    agreed.merge(7)
    assert held(agreed.cycle(Cause.REVISION)) == [WWW]
