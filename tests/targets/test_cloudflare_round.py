"""What the directory takes is there after an apply, and seen again: every type, odd names, contents and options."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler.desired.derivation import zone_records
from reconciler.desired.load import load
from reconciler.dns.types import TYPES
from reconciler.plan import Desired, diff, phases
from reconciler.problem import InvalidDirectory
from reconciler.resources import SecretRef
from reconciler.simulator.cloudflare import Cloudflare as Fake
from reconciler.simulator.wire import Server
from reconciler.target import Status
from reconciler.targets.cloudflare import Cloudflare
from reconciler.targets.cloudflare.listing import Access

TOKEN = SecretRef("env", "TOKEN")
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]

_ODD = ["mail", "MAIL", "_dmarc", "_25", "_tcp", "0", "a-b", "-edge-", "bücher", "例え", "xn--bcher-kva", "0/25"]
LABELS = st.one_of(
    st.sampled_from(_ODD),
    st.from_regex(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?", fullmatch=True),
    st.just("l" * 63),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=6),
)
NAMES = st.one_of(
    st.sampled_from(["@", "*", "*.dev", "_imaps._tcp", "mana.how", "x.mana.how"]),
    st.lists(LABELS, min_size=1, max_size=4).map(".".join),
    st.lists(LABELS, min_size=1, max_size=2).map(lambda labels: ".".join(["*", *labels])),
)
HOSTS = st.one_of(st.sampled_from([".", "@", "mail.mana.how", "mail.mana.how.", "Bücher.Example", "_x.example"]), NAMES)
NUMBERS = st.one_of(
    st.integers(0, 4).map(str), st.sampled_from(["-1", "10", "255", "256", "65535", "65536", "1.5", "x"])
)
WORDS = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    st.sampled_from(
        [
            "issue",
            "letsencrypt.org",
            "https://x.example/?a=b c",
            "E2U+sip",
            "!^.*$!sip:i@x.example!",
            'a"b',
            "a\\b",
            "u",
        ]
    ),
)
HEX = st.sampled_from(["ab" * 20, "AB" * 32, "abc", "ab cd", "0" * 64, "zz"])
BASE64 = st.sampled_from(["AQID", "AQIDBA==", "AQ ID", "YWJj", "abc", "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="])
FRACTIONS = st.sampled_from(["0", "59", "59.999", "1.50", "10m", "100", "0.01", "nan", "1e400", "42849672.95"])
PARTS = {
    "target": HOSTS,
    "replacement": HOSTS,
    "tag": st.sampled_from(["issue", "ISSUE", "iodef", "issuewild", "x y"]),
    "lat_direction": st.sampled_from(["N", "s", "x"]),
    "long_direction": st.sampled_from(["E", "w"]),
    "certificate": st.one_of(HEX, BASE64),
    "digest": HEX,
    "fingerprint": HEX,
    "public_key": BASE64,
    "flags": st.one_of(NUMBERS, st.sampled_from(["S", "u", ""])),
    "service": st.sampled_from(["SIP+D2U", "E2U+email", ""]),
    "regex": st.one_of(WORDS, st.just("")),
    **dict.fromkeys(("lat_seconds", "long_seconds", "altitude", "size", "precision_horz", "precision_vert"), FRACTIONS),
}
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=600),
    st.text(st.sampled_from('\\"; \tabc=\u00e4'), min_size=1, max_size=20),
    st.sampled_from(
        ["v=spf1 mx -all", "v=DKIM1; p=abc", "v=DKIM1;k=rsa;  p = AQ ==", '"a" "b"', "x" * 2048, '"', "\\"]
    ),
)
CONTENTS = {
    "A": st.sampled_from(["192.0.2.1", "10.0.0.1", "010.0.0.1", "192.0.2.1."]),
    "AAAA": st.sampled_from(["2001:db8::1", "2001:DB8:0::1", "::ffff:192.0.2.1", "fe80::1%eth0", "fe80::1"]),
    "TXT": TEXTS,
    "OPENPGPKEY": BASE64,
    "MX": st.one_of(HOSTS, HOSTS.map(lambda host: f"10 {host}")),
}


@st.composite
def entries(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """Make an entry as somebody may write it; whether it is valid is the directory's to say."""
    row = TYPES[kind]
    entry: dict[str, Any] = {"type": draw(st.sampled_from([kind, kind.lower()])), "name": draw(NAMES)}
    if row.parts:
        entry["data"] = {
            name: draw(PARTS.get(name, WORDS if name == "value" else NUMBERS))
            for name in row.parts
            if name not in row.optional or draw(st.booleans())
        }
    else:
        entry["content"] = draw(CONTENTS.get(kind, HOSTS))
    if row.prioritised:
        entry["priority"] = draw(st.sampled_from(["0", "10", "65535"]))
    if row.proxiable and draw(st.booleans()):
        entry["proxied"] = "true"
    elif draw(st.booleans()):
        entry["ttl"] = draw(st.sampled_from(["auto", "60", "86400", "61"]))
    if draw(st.booleans()):
        entry["comment"] = draw(st.one_of(st.sampled_from(["  a  ", "x" * 80, "see reconciler"]), WORDS))
    return entry


class Place:
    """A fake, a target for it, and a directory, for many examples."""

    def __init__(self, folder: Any) -> None:
        self.folder, self.fake = folder, Fake(["mana.how"])
        self.server = Server(self.fake).start()

    def valid(self, written: list[dict[str, Any]]) -> list[Any] | None:
        """Return the records of a directory, or None where it is invalid."""
        head = "version: 1\nstack: mana\ntargets: {cloudflare: {token: {env: TOKEN}}}\n"
        (self.folder / "a.yaml").write_text(f"{head}dns: {json.dumps({'mana.how': written})}\n", encoding="utf-8")
        try:
            return list(zone_records(load(self.folder).spec))
        except InvalidDirectory:
            return None

    def converges(self, *steps: list[Any]) -> None:
        """Apply one after another, and see it all again; take it away, and see nothing."""
        url = f"{self.server.url}/client/v4"
        target = Cloudflare(stack="mana", zones=["mana.how"], tokens=[Access(TOKEN)], base_url=url)

        def plan(wanted: list[Any]) -> Any:
            seen = target.observe([], lambda _: "token")
            return diff(Desired(wanted), {"cloudflare": seen}, stack="mana")

        try:
            for wanted in (*steps, []):
                now = plan(wanted)
                assert now.problems == ()
                for phase in phases(now.changes):
                    for outcome in target.apply(phase, lambda _: "token"):
                        assert outcome.status is Status.DONE, outcome.problem
                again = plan(wanted)
                assert (again.changes, again.adopted, again.problems, again.unmanaged) == ((), (), (), ())
                assert len(self.fake.records("mana.how")) == len(wanted)
        finally:
            target.close()
            self.fake.load({"serial": 0, "zones": {"mana.how": []}})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Place(tmp_path_factory.mktemp("state"))
    yield made
    made.server.stop()
    assert made.server.crashes == []


@pytest.mark.parametrize("kind", sorted(TYPES))
@given(data=st.data())
@settings(
    max_examples=tries(40), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
def test_l9_what_validates_is_there_and_seen_again(place: Place, kind: str, data: st.DataObject) -> None:
    entry = data.draw(entries(kind))
    delegation = [{"type": "NS", "name": entry["name"], "content": "ns.example.net"}] if kind == "DS" else []
    records = place.valid([entry, *delegation])
    if records is not None:
        place.converges(records)


@given(data=st.data())
@settings(
    max_examples=tries(40), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
def test_l9_what_follows_at_the_same_names_is_there_and_nothing_else(place: Place, data: st.DataObject) -> None:
    steps = []
    for _ in range(3):
        step: list[dict[str, Any]] = []
        for kind in data.draw(st.lists(st.sampled_from(sorted(TYPES)), max_size=6)):
            entry = data.draw(entries(kind)) | {"name": data.draw(st.sampled_from(["@", "a", "*"]))}
            if kind != "DS" and place.valid([*step, entry]) is not None:
                step.append(entry)
        steps.append(place.valid(step) or [])
    place.converges(*steps)
