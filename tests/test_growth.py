"""What grows with what is declared, or told by others, grows in a straight line (rows S, T11).

Steps are counted: no clock counts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from reconciler import guards, names, traffic
from reconciler.daemon import notices
from reconciler.dns.records import dkim_record
from reconciler.guards.evidence import Evidence, Policy
from reconciler.keys import public_half
from reconciler.plan import Desired, diff
from reconciler.problem import Problem
from reconciler.report import prose
from reconciler.resources import Live, Observation, SecretRef, Signature
from reconciler.secrets import redaction
from reconciler.target import Change, Reason
from reconciler.targets.stalwart.container import ConfigFile
from reconciler.targets.stalwart.jmap import bootstrap
from reconciler.targets.stalwart.rest.kind import Reading, Stored
from reconciler.targets.stalwart.rest.kinds.signature import Signatures

REF = SecretRef("env", "KEY")


def steps(work: Callable[[], Any]) -> int:
    """Count the lines that are run, each turn of a loop among them."""
    count = 0

    def step(_frame: Any, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def is_straight(work: Callable[[int], Any]) -> bool:
    work(10)  # what is made once is made
    few, many = (steps(lambda size=size: work(size)) for size in (40, 160))
    return many < few * 5  # a square takes sixteen times as many


def _keys(size: int, key: str) -> list[Signature]:
    half = public_half("ed25519", key)
    return [Signature(f"d{number}.mana.how", "s1", "ed25519", half, True, REF) for number in range(size)]


def _stored(wanted: list[Signature], key: str) -> dict[str, str]:
    found = {}
    for item in wanted:
        base = f"signature.ed25519-{item.domain}."
        found |= {f"{base}algorithm": "ed25519-sha256", f"{base}domain": item.domain, f"{base}selector": "s1"}
        found |= {f"{base}private-key": key}
    return found


def test_s_keys_of_0_15_are_read_in_a_straight_line(ed25519: str) -> None:
    def read(size: int) -> list[Live]:
        wanted = _keys(size, ed25519)
        found = list(Signatures().live(Reading([], _stored(wanted, ed25519), wanted, reveal=lambda _: ed25519)))
        assert len(found) == size
        return found

    assert is_straight(read)


def test_s_keys_of_0_15_are_written_in_a_straight_line(ed25519: str) -> None:
    def write(size: int) -> None:
        wanted = _keys(size, ed25519)
        before = Stored(_stored(wanted, ed25519))
        for item in wanted:
            Signatures().edit(
                Change(item.address, ("create",), Reason.MISSING, after=item), before, lambda _: ed25519, ()
            )

    assert is_straight(write)


@pytest.mark.parametrize("there", [True, False])
def test_s_keys_are_guarded_in_a_straight_line(ed25519: str, there: bool) -> None:
    def guard(size: int) -> None:
        wanted = _keys(size, ed25519)
        records = [dkim_record("mana.how", it.domain, "s1", it.algorithm, str(it.public_key)) for it in wanted]
        desired = Desired((*wanted, *records))
        seen = {
            "stalwart": Observation("stalwart", [Live(item) for item in wanted] if there else []),
            "cloudflare": Observation("cloudflare", [Live(item, str(item.name)) for item in records]),
        }
        plan = diff(desired, seen, stack="mana")
        guards.check(Evidence(plan, desired, seen, Policy()))

    assert is_straight(guard)


@pytest.fixture
def ed25519() -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


MANY = 300_000


def _told(summary: str) -> None:
    notices._class(Problem("stack", summary, ""))


def _named(text: str) -> None:
    assert ConfigFile("config.toml", f"{text}\n [ a ]\n b . c = 1\n", {}).line_of("a.b.c").startswith("line 3: ")


@pytest.mark.parametrize(
    ("work", "text"),
    [
        (prose.cell, "\\" * MANY),
        (names.meant, " " * MANY),
        (_told, "a" * MANY),
        (lambda text: list(redaction._forms(text)), "\\" * MANY),
        (lambda text: traffic._value(f"[{text}x]"), '"' * 8000),
        (_named, "[" + " " * MANY),
        (_named, " " * MANY + "#"),
        (_named, "a" + " " * MANY + "b = 1"),
        (bootstrap._PRINTED.findall, "\n" * MANY + " " * MANY),
    ],
)
def test_t11_no_text_of_others_takes_a_square_of_its_length(work: Callable[[str], Any], text: str) -> None:
    """Each took minutes to days: a setting, a secret, an error, a line of a log, a file of the mail server."""
    work(text)
