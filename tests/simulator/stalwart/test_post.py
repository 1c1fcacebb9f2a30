"""The way of a mail through the fake Stalwart, held to judges that others wrote and to the names of the real events."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dkim
import pytest

from reconciler import keys
from reconciler.simulator.stalwart.jmap import registry
from reconciler.simulator.stalwart.post import Answer, Handed, Post, Signer

SHARED = Path(os.environ.get("RECONCILER_SHARED", Path(__file__).parents[3].parent / "shared"))
RAW = (
    b"From: a@mana.how\r\nTo: b@mana.how\r\nSubject: it \r\n is\r\nMessage-ID: <1@mana.how>\r\n\r\nhello  there\r\n\r\n"
)


def post(generation: str, signers: list[Signer] | None = None) -> Post:
    return Post(
        generation,
        clock=lambda: 1_800_000_000.0,
        hostname=lambda: "mail.mana.how",
        reached=lambda address: {address},
        signers=lambda _: signers or [],
        own=lambda domain: domain == "mana.how",
    )


def handed(*recipients: str, raw: bytes = RAW) -> Handed:
    return Handed("127.0.0.1", "submission", 587, "a@mana.how", "a@mana.how", recipients, raw)


@pytest.mark.parametrize("algorithm", ["rsa", "ed25519"])
def test_what_it_signs_verifies(algorithm: str) -> None:
    pem = keys.generate(algorithm)
    signer = Signer("mana.how", "s1", f"{algorithm}-sha256", pem)
    it = post("jmap", [signer])
    it.take(handed("b@mana.how"))
    (mail,) = it.boxes["b@mana.how"].values()
    record = f"v=DKIM1; k={algorithm}; p={keys.public_half(algorithm, pem)}".encode()
    assert dkim.DKIM(mail.raw).verify(dnsfunc=lambda *_, **__: record)


def walked(it: Post) -> Iterator[str]:
    """Let everything happen that is logged, and yield the events."""
    it.outside |= {"b.example": Answer(550, "5.1.1", "nobody"), "c.example": Answer(451, "4.7.1", "later")}
    it.outside |= {"d.example": Answer(0, "", "Connection refused")}
    it.take(handed("b@mana.how", "a@a.example", "b@b.example", "c@c.example", "d@d.example"))
    it.spam = True
    it.receive("x@elsewhere.example", ["b@mana.how"], RAW)
    for line in it.lines:
        found = re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}Z INFO [^(]+\(([a-z.-]+)\) .+", line)
        assert found, line
        yield found[1]


def test_the_events_of_the_newer_generation_are_those_of_its_schema() -> None:
    path = SHARED / "stalwart/schema-0.16.18.json.gz"
    if not path.exists():
        pytest.skip("the schema of a real server is not here")
    known: Any = json.loads(gzip.decompress(path.read_bytes()))["enums"]["EventType"]
    labels = {item["name"]: item["label"] for item in known}
    it = post("jmap")
    assert set(walked(it)) <= labels.keys()
    for line in it.lines:
        words, _, rest = line.split(" ", 2)[2].partition(" (")
        assert words == labels[rest.partition(")")[0]]


def test_the_queue_is_what_the_schema_says() -> None:
    path = SHARED / "stalwart/schema-0.16.18.json.gz"
    if not path.exists():
        pytest.skip("the schema of a real server is not here")
    fields: Any = json.loads(gzip.decompress(path.read_bytes()))["fields"]
    it = post("jmap")
    list(walked(it))
    items = it.jmap()
    assert items
    for item in items:
        assert item.keys() - {"id"} == fields["x:QueuedMessage"]["properties"].keys()
        for recipient in item["recipients"].values():
            assert recipient.keys() == fields["x:QueuedRecipient"]["properties"].keys()
            assert recipient["status"].keys() - {"@type"} <= fields["x:DeliveryError"]["properties"].keys()


def test_a_bounce_is_queued_under_the_delivery_that_failed() -> None:
    it = post("rest")
    it.outside["b.example"] = Answer(550, "5.1.1", "nobody")
    it.take(handed("b@b.example"))
    (line,) = [line for line in it.lines if "(queue.queue-dsn)" in line]
    first, second = re.findall(r"queueId = (\d+)", line)
    assert first != second
    assert it.queue == {}
    assert [list(box) for box in it.boxes.values()] == [["e2"]]


def test_ids_are_numbers_as_the_server_writes_them() -> None:
    from reconciler.targets.stalwart.jmap.traffic import number

    for value in (0, 1, 31, 32, 7_549_747_200_000_007):
        assert number(registry.encode_id(value)) == value
