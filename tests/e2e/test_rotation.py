"""Every key of two domains is replaced, by the real commands: killed at every step, and one name server lags.

Whatever happens, at every write that any system sees: mail signed now verifies by what each name server shows, mail
signed in the last seven days still does, and each domain always has a key of each algorithm that signs.
"""

from __future__ import annotations

import datetime as dt
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reconciler.desired.edit import SetKey, edit
from reconciler.desired.load import load
from reconciler.keys import generate, public_half
from reconciler.simulator.wire import Hangup, Reply

from .asking import public_halves
from .signing import Receivers, signers
from .stagefixtures import OUR_ZONES, Done, Snapshot, Stack
from .test_faults import Work, unlike

FIRST, SECOND = OUR_ZONES
DAY = dt.date(2027, 3, 1)  # of the rotation: keys made on it are called ed202703 and rsa202703
OLD = {FIRST: {"mana2026", "rsa2026"}, SECOND: {"ed2026", "rsa2026"}}
NEW = {"ed202703", "rsa202703"}
APPLY = ("apply", "--yes")
# Ends the program without a word before one of its calls that change files, counted from 0.
KILL = """
import os, signal, sys
left = [{number}]
def heard(frame, event, call):
    if event == "c_call" and changes(call.__name__, getattr(call, "__self__", None)):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
def changes(name, owner):
    if getattr(owner, "__name__", "") == "posix":
        return name in ("write", "rename", "replace", "link", "unlink")
    return name == "flush" and isinstance(getattr(owner, "name", None), int) and owner.name > 2
sys.setprofile(heard)
"""


@pytest.fixture(params=["applied", "newer_applied"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The example and a second domain with a zone of its own: four keys sign."""
    found: Stack = request.getfixturevalue(request.param)
    found.edit("stalwart.yaml", "  hostname: ", f"  default_domain: {FIRST}\n  hostname: ")
    found.write("second.yaml", _second_domain(found))
    found.expect(0, *APPLY)
    found.expect(0, "plan", "--detailed-exitcode")
    yield found
    found.tape.watch = lambda _when: None


def _second_domain(stack: Stack) -> str:
    lines = [f"dns:\n  {SECOND}:\n    - {{type: A, name: mail, content: 192.0.2.7}}\ndkim:\n  {SECOND}:\n"]
    for algorithm, selector in (("ed25519", "ed2026"), ("rsa", "rsa2026")):
        pem = generate(algorithm)
        path = stack.example.path / "secrets" / f"{selector}.{SECOND}.pem"
        path.write_text(pem)
        path.chmod(0o600)
        lines.append(
            f"    - selector: {selector}  # of the second domain\n      algorithm: {algorithm}\n"
            f"      public_key: {public_half(algorithm, pem)}\n      private_key: {{file: ../secrets/{path.name}}}\n"
        )
    return "".join(lines)


class Rotation:
    """A rotation by commands, each of which is killed wherever it can be and given again."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.receivers = Receivers(stack, DAY)
        self.kills = 0
        stack.tape.watch = self.receivers.look
        self.begin(0)

    def begin(self, day: int, *, lagging: bool = False) -> None:
        """Let it be some day of the rotation, with the second name server up to date, or lagging from now on."""
        self._day, self._lagging = day, lagging
        self.receivers.today = DAY + dt.timedelta(days=day)
        self.stack.be(self.receivers.today)
        self.stack.stage.dns.release(1)
        if lagging:
            self.stack.stage.dns.hold(1)

    def step(self, *argv: str) -> None:
        """Give a command: killed at each of its writes and given again it ends where it does undisturbed."""
        before, forgotten = Snapshot.of(self.stack), self.receivers.forgetting()

        def again() -> None:
            before.restore(self.stack)
            forgotten()
            self.begin(self._day, lagging=self._lagging)

        again()
        self.stack.expect(0, *argv)
        final, writes = self.state(), self.stack.writes()
        seen = {str(final)}
        for what, kill in _kills(self.stack, argv, writes):
            again()
            if not kill():
                break
            self.kills += 1
            self.receivers.look(f"{argv} was killed {what}")
            if str(self.state()) not in seen:
                seen.add(str(self.state()))
                self.stack.expect(0, *argv)
                assert unlike(self.state(), final) == {}, f"{argv} was killed {what}"
            self.receivers.all_is_well()
        again()
        self.stack.expect(0, *argv)
        self.receivers.all_is_well()

    def state(self) -> dict[str, Any]:
        """Return what there is, but for the values of keys that no system has seen yet: each run makes its own."""
        texts = {path.name: path.read_text() for path in self.stack.example.state.glob("[!.]*.yaml")}
        if not self.published():
            texts = {name: re.sub(r"(?m)^ +public_key: .*\n", "", text) for name, text in texts.items()}
        names = sorted(path.name for path in (self.stack.example.path / "secrets").iterdir())
        return self.stack.meaning() | {"yaml": texts, "secrets": names}

    def changes_nothing(self, *argv: str, code: int = 0) -> Done:
        """Give a command that has to wait, or is refused: neither a file nor a system changes."""
        before, files = self.stack.everything(), self.state()["yaml"]
        done = self.stack.expect(code, *argv)
        assert (self.stack.everything(), self.state()["yaml"]) == (before, files)
        self.receivers.all_is_well()
        return done

    def by_hand(self, domain: str, **stages: str) -> Callable[[], None]:
        """Write stages as an impatient person would, and return what takes it back."""
        state = self.stack.example.state
        before = {path: path.read_bytes() for path in state.glob("[!.]*.yaml")}
        halves = public_halves(self.stack)
        facts: dict[str, dict[str, Any]] = {
            name: {"stage": stage, "since": self.receivers.today} for name, stage in stages.items()
        }
        for name in facts.keys() & halves.keys() if domain == FIRST else ():
            facts[name]["public_key"] = halves[name]
        edit(load(state), [SetKey(domain, name, item) for name, item in facts.items()]).write()

        def back() -> None:
            for path, content in before.items():
                path.write_bytes(content)

        return back

    # ------------------------------------------------------------------------------------------------ what there is
    def signing(self, domain: str) -> set[str]:
        return {item.selector for item in signers(self.stack) if item.domain == domain}

    def published(self, number: int = 0) -> set[str]:
        """Name the new keys that a name server shows for a domain of ours."""
        shown = self.stack.stage.dns.values
        names = [(selector, f"{selector}._domainkey.{domain}") for selector in NEW for domain in OUR_ZONES]
        return {selector for selector, name in names if shown(name, "TXT")[number]}


def _kills(stack: Stack, argv: tuple[str, ...], writes: list[str]) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Yield all ways to kill a command, in words and as what does it and says whether it came to it."""
    if argv == APPLY:
        for number, what in enumerate(writes):
            for after in (False, True):
                when = f"{'after' if after else 'before'} write {number}: {what}"
                yield when, lambda number=number, after=after: _killed_at_write(stack, number, after=after)
        return
    for number in range(1000):
        yield f"before its change of files {number}", lambda number=number: _killed_at_file(stack, argv, number)


def _killed_at_write(stack: Stack, number: int, *, after: bool) -> bool:
    def act(work: Work) -> Reply:
        if after:
            work()
        running.kill()
        raise Hangup

    stack.tape.at[number] = act
    running = stack.start(*APPLY)
    done = running.wait()
    stack.tape.at.clear()
    assert done.code == -signal.SIGKILL, done.text
    return True


def _killed_at_file(stack: Stack, argv: tuple[str, ...], number: int) -> bool:
    done = stack.run(*argv, bug=KILL.format(number=number))
    assert done.code in (0, -signal.SIGKILL), done.text
    return done.code != 0


@pytest.mark.long
def test_both_keys_of_two_domains_rotate_while_a_name_server_lags(stack: Stack) -> None:
    rotation = Rotation(stack)
    rotation.receivers.all_is_well()

    # New keys: they are published, and one name server does not show them yet.
    for domain in OUR_ZONES:
        rotation.step("dkim", "rotate", domain)
    rotation.begin(0, lagging=True)
    rotation.step(*APPLY)
    assert (rotation.published(0), rotation.published(1)) == (NEW, set())
    for domain in OUR_ZONES:
        assert "stays pending" in rotation.changes_nothing("dkim", "rotate", domain).out
    back = rotation.by_hand(FIRST, mana2026="retiring", rsa2026="retiring", ed202703="active", rsa202703="active")
    refused = rotation.changes_nothing(*APPLY, code=4)
    assert "would sign before" in refused.text
    assert stack.stage.dns.servers[1] in refused.text
    back()
    stack.stage.dns.stop(1)  # that nobody can ask it is no better than that it lags
    for domain in OUR_ZONES:
        assert "stays pending" in stack.expect(1, "dkim", "rotate", domain).text
    stack.stage.dns.start(1)
    assert {domain: rotation.signing(domain) for domain in OUR_ZONES} == OLD

    # Both show them: the new keys take over, and the old ones stay published.
    rotation.begin(1)
    for domain in OUR_ZONES:
        rotation.step("dkim", "rotate", domain)
    rotation.step(*APPLY)
    assert [rotation.signing(domain) for domain in OUR_ZONES] == [NEW, NEW]

    # For a week nothing may go.
    for day in (1, 8):
        rotation.begin(day)
        for domain in OUR_ZONES:
            assert "may still be in a queue" in rotation.changes_nothing("dkim", "rotate", domain).out
        back = rotation.by_hand(SECOND, ed2026="retired")
        assert "needed until" in rotation.changes_nothing(*APPLY, code=4).text
        back()

    # Then the old ones go, and a name server that shows them for longer does no harm.
    rotation.begin(9, lagging=True)
    for domain in OUR_ZONES:
        rotation.step("dkim", "rotate", domain)
    rotation.step(*APPLY)
    assert stack.stage.dns.values(f"mana2026._domainkey.{FIRST}", "TXT")[0] == frozenset()
    stack.expect(0, "plan", "--detailed-exitcode")
    assert [rotation.signing(domain) for domain in OUR_ZONES] == [NEW, NEW]
    kept = {path.name for path in (stack.example.path / "secrets").iterdir()}
    assert {"mana2026.pem", "rsa2026.pem"} <= kept, "a private key is for its owner to delete"
    assert rotation.kills > 20
    assert rotation.receivers.looks > 80
