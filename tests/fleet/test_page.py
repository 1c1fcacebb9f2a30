"""The fleet's page, its metrics and its notices: one of each, at however many stacks."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fleet.cluster import PATIENCE
from fleet.estate import TOKEN

from reconciler.fleet import overview
from reconciler.fleet.notices import Notices, destinations
from reconciler.fleet.page import served
from reconciler.problem import ReconcilerError

pytestmark = pytest.mark.xdist_group("fleet")


def get(address, path):
    asked = urllib.request.Request(f"http://{address[0]}:{address[1]}{path}")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=PATIENCE) as answer:
        return answer.read().decode()


@pytest.fixture
def page(hand):
    with served(hand.table, hand.queue, ("127.0.0.1", 0), None, hand.bugs.append) as address:
        yield address
    assert not hand.bugs


def test_the_page_tells_of_all_and_of_each_behind_its_name(hand, page):
    hand.turn("one", "two")
    hand.estate._write_secrets("two", STALWART_URL="http://127.0.0.1:9")
    hand.turn("two")
    hand.table.suspend(["three"], None)
    text = get(page, "/")
    assert "<title>fleet: 1 of 3 as desired</title>" in text
    assert "can&#39;t be read: 1 of 3 (two)" in text
    assert '<a href="/stacks/one">one</a>' in text
    own = get(page, "/stacks/two")
    assert "could not be read" in own
    assert "stacks/two in " in own
    assert own.count("<tr><td>") == 2, "its cycles"
    assert TOKEN not in text + own
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(page, "/stacks/nobody")
    states = json.loads(get(page, "/status.json"))["states"]
    assert states == {"in_sync": 1, "unreadable": 1, "starting": 1}


def test_metrics_have_as_many_series_for_many_stacks_as_for_few(hand, page):
    hand.turn()
    text = get(page, "/metrics")
    assert 'reconciler_fleet_stacks{ring="0",state="in_sync"} 3.0' in text
    assert re.search(r"^reconciler_fleet_stalled 0\.0$", text, re.MULTILINE)
    assert not [name for name in hand.estate.names if f'"{name}"' in text]
    rules = (Path(__file__).parents[2] / "docs" / "alerts.yml").read_text()
    assert set(re.findall(r"reconciler_fleet_\w+", rules)) <= set(
        re.findall(r"^reconciler_fleet_\w+", text, re.MULTILINE)
    )


def test_a_database_that_is_away_is_told_on_the_page_and_not_taken_for_a_healthy_fleet(hand, page):
    hand.pool.timeout = 1.0
    hand.cluster.stop()
    try:
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(page, "/healthz")
        assert caught.value.code == 503
        assert json.load(caught.value) == {"status": "failed", "reason": "the database does not answer"}, "no name"
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(page, "/status.json")
        assert "dbname=" in caught.value.read().decode()
    finally:
        hand.cluster.start()


def test_whoever_asks_whether_it_is_well_learns_no_name_and_takes_no_connection_of_the_worker_s(
    hand, page, monkeypatch
):
    hand.turn("one")
    asked = []
    monkeypatch.setattr("reconciler.fleet.table.Table.whole", lambda _: asked.append(1))
    with ThreadPoolExecutor(20) as many:
        answers = list(many.map(lambda _: get(page, "/healthz"), range(60)))
    assert all(json.loads(answer) == {"status": "ok"} for answer in answers)
    assert len(asked) < 20


# ------------------------------------------------------------------------------------------------------------- notices
@pytest.fixture
def inbox():
    """Somebody who is told: an HTTP server that takes Apprise's JSON."""
    got, state = [], {"refuse": False}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(500 if state["refuse"] else 200)
            self.end_headers()
            if not state["refuse"]:
                got.append(json.loads(body))

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], got, state
    server.shutdown()
    server.server_close()


def summary(hand):
    return overview.summary(hand.table.rows(), hand.table.whole(), hand.table.unseen(), hand.table.rollout())


def test_one_cause_is_told_once_for_all_stacks_and_once_when_it_is_over(hand, inbox):
    port, got, state = inbox
    path = hand.folder / "notices"
    path.write_text(f"# who is told\njson://127.0.0.1:{port}/secret-topic\n")
    tellers = [Notices(hand.table, destinations(path), hand.environ, hand.said.append) for _ in range(2)]

    def tell():
        for teller in tellers:
            teller.tell(summary(hand))
        for teller in tellers:
            if teller._thread:
                teller._thread.join()

    hand.turn()
    hand.estate.cloudflare.tokens.clear()
    hand.turn()
    tell()
    assert got == [], "a moment is no outage"
    hand.sql("UPDATE fleet_stacks SET since = since - interval '1 hour'")
    state["refuse"] = True
    tell()
    assert [problem.summary for problem in hand.said] == ["a notice did not arrive: answers 500"]
    assert "secret-topic" not in str(hand.said)
    state["refuse"] = False
    hand.sql("UPDATE fleet_notices SET tried = tried - interval '1 hour'")
    tell()
    tell()
    (told,) = got
    assert told["title"].startswith("fleet: cloudflare: can't be read: 3 of 3 stacks (one, three, two)")
    hand.sql("UPDATE fleet_notices SET told = told - interval '2 hours', tried = told - interval '2 hours'")
    tell()
    assert got[1]["title"].startswith("fleet: still: cloudflare")
    hand.sql("UPDATE fleet_stacks SET troubles = '[]'")
    tell()
    tell()
    assert [item["title"].split(":")[1].strip() for item in got] == ["cloudflare", "still", "well again"]


@pytest.mark.parametrize("moved", ["- interval '1 hour'", "+ interval '1 hour'"])
def test_what_a_worker_took_the_turn_to_tell_and_did_not_is_told_by_another(hand, moved):
    """It was killed meanwhile, or the answer that it has the turn was lost; also where the clock went back."""
    wrong = [("stalwart", "fails", "can't be read")]
    assert hand.table.to_tell(wrong) == [(*wrong[0], False)]
    assert hand.table.to_tell(wrong) == [], "it has a minute"
    hand.sql(f"UPDATE fleet_notices SET tried = tried {moved}")
    assert hand.table.to_tell(wrong) == [(*wrong[0], False)]
    hand.table.told([item[:2] for item in wrong])
    hand.sql(f"UPDATE fleet_notices SET tried = tried {moved}")
    assert hand.table.to_tell(wrong) == []
    assert hand.table.over([]) == [("stalwart", "can't be read")]


def test_an_address_that_is_none_is_told_by_its_line(hand):
    path = hand.folder / "notices"
    path.write_text("file:///etc/passwd\n")
    with pytest.raises(ReconcilerError, match=r"notices:1: is no address that notices can be sent to"):
        destinations(path)
