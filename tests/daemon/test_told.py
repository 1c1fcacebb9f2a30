"""What the real loop publishes, told: by the document, the page and the metrics."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from daemon.test_loop import MAIL, Watched, watched  # noqa: F401 (a fixture)

from reconciler.daemon.document import document
from reconciler.daemon.metrics import Tally, render
from reconciler.daemon.page import render as page
from reconciler.daemon.state import State


def told(state: State, tally: Tally) -> dict[str, Any]:
    """Return the document of a state, once all forms of it were made."""
    tally.take(state)
    now = datetime.now(UTC)
    found = json.loads(json.dumps(document(state, now)))
    assert found["summary"] in page(found, "").replace("&#39;", "'")
    assert b"reconciler_ready" in render(tally, state, now)
    return found


def test_a_life_of_a_stack(watched: Watched) -> None:  # noqa: F811
    tally, world = Tally(), watched.world
    first = told(watched.cycle(), tally)
    assert (first["state"], first["cycle"]["result"]) == ("in_sync", "done")
    assert {item["state"] for item in first["resources"]} == {"in_sync"}
    world.alter(MAIL, content="198.51.100.7")
    healed = told(watched.cycle(), tally)
    assert (healed["state"], healed["cycle"]["drift"]) == ("in_sync", [MAIL])
    assert healed["healed"][0]["changes"][0]["address"] == MAIL
    assert tally.changes["cloudflare", "update", "drift"] == 1
    world.turn(unread=["cloudflare"])
    unread = told(watched.cycle(), tally)
    assert unread["state"] == "unreadable"
    assert unread["targets"]["cloudflare"]["failures"] == 1
    assert {item["state"] for item in unread["resources"] if item["target"] == "cloudflare"} == {"unreadable"}
    world.turn(fail=[MAIL])
    world.alter(MAIL, content="198.51.100.8")
    watched.loop._paces.forget()
    failed = told(watched.cycle(), tally)
    assert failed["state"] == "healing"
    assert {item["address"]: item["state"] for item in failed["resources"]}[MAIL] == "pending"
    assert tally.cycles["cloudflare", "error"] == 2
    watched.revise("version: 1\nstack: mana\n")
    assert told(watched.cycle(), tally)["resources"] == [], "what nobody declares any more is not told of"
