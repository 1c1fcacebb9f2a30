"""SPF as receivers evaluate it: the RFC's own examples, and whatever pyspf says of records made at random."""

from __future__ import annotations

import pytest
import spf as pyspf
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler.dns.policies.evaluation import Evaluation, Values, evaluate
from reconciler.dns.publication import Question

# RFC 7208, appendix A: the zone of its examples.
RFC = {
    ("example.com", "MX"): ("10 mail-a.example.com", "20 mail-b.example.com"),
    ("example.com", "A"): ("192.0.2.10", "192.0.2.11"),
    ("amy.example.com", "A"): ("192.0.2.65",),
    ("bob.example.com", "A"): ("192.0.2.66",),
    ("mail-a.example.com", "A"): ("192.0.2.129",),
    ("mail-b.example.com", "A"): ("192.0.2.130",),
    ("example.org", "MX"): ("10 mail-c.example.org",),
    ("mail-c.example.org", "A"): ("192.0.2.140",),
}
PARTS = (
    "ip4:192.0.2.0/28",
    "ip4:192.0.2.9",
    "ip6:2001:db8::/32",
    "a",
    "a/28",
    "a:one.example.com",
    "a:none.example.com",
    "mx",
    "mx:example.org",
    "mx:none.example.com/24",
    "include:inner.example.com",
    "include:loop.example.com",
    "include:void.example.com",
    "exists:%{i}.list.example.com",
    "exists:%{ir}.%{v}.list.example.com",
    "exists:%{l1r-}.%{d2}.list.example.com",
)
WORLD = {
    **RFC,
    ("one.example.com", "A"): ("192.0.2.9",),
    ("192.0.2.9.list.example.com", "A"): ("127.0.0.2",),
    ("9.2.0.192.in-addr.list.example.com", "A"): ("127.0.0.2",),
    ("strong.example.com.list.example.com", "A"): ("127.0.0.2",),
    ("inner.example.com", "TXT"): ("v=spf1 ip4:192.0.2.8/31 ?all",),
    ("loop.example.com", "TXT"): ("v=spf1 include:loop.example.com -all",),
    ("void.example.com", "TXT"): ("v=spf1 a:x1.example.com a:x2.example.com -all",),
    ("next.example.com", "TXT"): ("v=spf1 mx -all",),
    ("next.example.com", "MX"): ("10 one.example.com",),
}


def asked(world: dict[tuple[str, str], tuple[str, ...]], domain: str, address: str, sender: str) -> Evaluation:
    """Evaluate as `doctor` does: what is missing is looked up, until nothing is."""
    known: dict[Question, tuple[str, ...]] = {}
    values: Values = known
    for _ in range(40):
        told = evaluate(domain, address, sender, values)
        if not told.missing:
            return told
        known |= {item: world.get((item.host, item.type), ()) for item in told.missing}
    raise AssertionError(told.missing)


def judge(
    world: dict[tuple[str, str], tuple[str, ...]],
    domain: str,
    address: str,
    sender: str,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Return what pyspf says."""

    def lookup(name: str, kind: str, strict: bool = True, timeout: int = 20) -> list[object]:
        name = name.rstrip(".").lower()
        found = world.get((name, kind), ())
        if kind == "MX":
            pairs = [item.split(" ") for item in found]
            return [((name, kind), (int(number), host)) for number, host in pairs]
        return [((name, kind), (item.encode(),) if kind == "TXT" else item) for item in found]

    monkeypatch.setattr(pyspf, "DNSLookup", lookup)
    query = pyspf.query(i=address, s=sender, h="mail.example.com", timeout=20, querytime=0, strict=True)
    return str(query.check()[0])


@pytest.mark.parametrize(
    ("record", "passes"),
    [
        ("v=spf1 a -all", ("192.0.2.10", "192.0.2.11")),
        ("v=spf1 a:example.org -all", ()),
        ("v=spf1 mx -all", ("192.0.2.129", "192.0.2.130")),
        ("v=spf1 mx:example.org -all", ("192.0.2.140",)),
        ("v=spf1 mx mx:example.org -all", ("192.0.2.129", "192.0.2.130", "192.0.2.140")),
        ("v=spf1 mx/30 mx:example.org/30 -all", ("192.0.2.129", "192.0.2.131", "192.0.2.140", "192.0.2.143")),
        ("v=spf1 ip4:192.0.2.128/28 -all", ("192.0.2.129", "192.0.2.140", "192.0.2.143")),
    ],
)
def test_the_examples_of_rfc_7208_appendix_a(record: str, passes: tuple[str, ...]) -> None:
    world = {**RFC, ("example.com", "TXT"): (record,)}
    addresses = {"192.0.2.1", "192.0.2.10", "192.0.2.65", "192.0.2.129", "192.0.2.140", "192.0.2.143", "203.0.113.9"}
    for address in addresses | set(passes):
        told = asked(world, "example.com", address, "strong-bad@example.com")
        assert (told.result == "pass") == (address in passes), (address, told)


@pytest.mark.parametrize(
    ("texts", "result", "why"),
    [
        ((), "none", ""),
        (("something else",), "none", ""),
        (("v=spf1 -all", "v=spf1 +all"), "permerror", "2 SPF records"),
        (("v=spf1 ip4:192.0.2.300 -all",), "permerror", "192.0.2.300"),
        (("v=spf1 include:none.example.com -all",), "permerror", "leads to no SPF record"),
        (("v=spf1 include:loop.example.com -all",), "permerror", "more than 10 look-ups"),
        (("v=spf1 include:void.example.com a:x3.example.com -all",), "permerror", "find nothing"),
        (("v=spf1 redirect=next.example.com",), "pass", ""),
        (("v=spf1 redirect=none.example.com",), "permerror", "leads to no SPF record"),
    ],
)
def test_what_is_no_record_is_told(texts: tuple[str, ...], result: str, why: str) -> None:
    told = asked({**WORLD, ("example.com", "TXT"): texts}, "example.com", "192.0.2.9", "a@example.com")
    assert told.result == result
    assert why in told.why


@settings(max_examples=tries(200), deadline=None)
@given(
    parts=st.lists(st.tuples(st.sampled_from("+-~?"), st.sampled_from(PARTS)), max_size=5),
    end=st.sampled_from(["", " -all", " ~all", " redirect=next.example.com"]),
    address=st.sampled_from(["192.0.2.9", "192.0.2.10", "192.0.2.129", "203.0.113.9", "2001:db8::9", "2001:db9::9"]),
    sender=st.sampled_from(["a@example.com", "strong-bad@example.com"]),
)
def test_what_pyspf_says(parts: list[tuple[str, str]], end: str, address: str, sender: str) -> None:
    record = "v=spf1" + "".join(f" {sign}{part}" for sign, part in parts) + end
    world = {**WORLD, ("example.com", "TXT"): (record,)}
    with pytest.MonkeyPatch.context() as patched:
        wanted = judge(world, "example.com", address, sender, patched)
    assert asked(world, "example.com", address, sender).result == wanted, record
