"""The story of a fleet: two hundred stacks, and everything that goes wrong in one night."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import ExitStack

import pytest
from fleet.cluster import wait_for
from fleet.hand import Hand

pytestmark = [pytest.mark.xdist_group("fleet"), pytest.mark.long]

STACKS, LOST = int(os.environ.get("RECONCILER_FLEET_STORY", "200")), 20
NAMES = [f"s{number:03}" for number in range(STACKS)]
HEAD = """\
interval: 1m
poll: 1s
lease: 10s
requests: 6000
rings: [{healthy: 3s}, {healthy: 3s, failures: 2}, {}]
shared: {repo: REPO}
"""


def ring(number):
    return 0 if number < 10 else 1 if number < 60 else 2


def entries():
    """Ten canaries, fifty that follow, and the rest; the twenty that lose their volume share an account."""
    account = [
        ", account: acme" if number >= STACKS - LOST else f", account: a{number % 20}" for number in range(STACKS)
    ]
    return "".join(f"  {name}: {{ring: {ring(number)}{account[number]}}}\n" for number, name in enumerate(NAMES))


def test_two_hundred_stacks_in_one_night(cluster, tmp_path):
    with ExitStack() as exits:
        hand = Hand(exits, cluster, tmp_path, NAMES, HEAD)
        estate = hand.estate
        good = estate.origin.commit({"shared/policy.yaml": "policy: {max_deletes: 7}\n"})
        hand.inventory(entries(), HEAD.replace("REPO", str(estate.origin.bare)))
        started = time.monotonic()
        workers = [hand.start("--log", "json", "--at-once", "6", data=f"machine-{name}") for name in "ab"]

        def told():
            states = Counter(row.state for row in hand.table.rows())
            return f"{states}\n{hand.table.rollout()}\n" + "".join(worker.text[-2000:] for worker in workers)

        def all_well():
            return all(row.state == "in_sync" and row.tried == good for row in hand.table.rows())

        wait_for(all_well, 600, told)
        print(f"first applies: {time.monotonic() - started:.0f} s")
        assert {estate.address(name) for name in NAMES} == {"192.0.2.1"}

        # A push to one is applied; in how many seconds the bench says.
        estate.commit({NAMES[-30]: "198.51.100.150"})
        began = time.monotonic()
        wait_for(lambda: estate.address(NAMES[-30]) == "198.51.100.150", 120, told)
        print(f"push to one: {time.monotonic() - began:.1f} s")

        # A bad shared change stops in ring 0.
        bad = estate.origin.commit({"shared/policy.yaml": "policy: {max_deletes: lots}\n"})
        wait_for(lambda: hand.table.rollout()[0].stopped, 120, told)
        assert "made" in hand.table.rollout()[0].stopped
        assert {row.tried for row in hand.table.rows() if row.ring > 0} == {good}
        assert all(row.shared == good for row in hand.table.rows()), "even there what was good goes on"

        # Twenty servers lose their volume at once, while their account is throttled; a worker and the database die.
        writes = len(estate.tape.writes)
        hand.sql("UPDATE fleet_accounts SET next = clock_timestamp() + interval '3 s' WHERE account = 'acme'")
        lost = NAMES[-LOST:]
        for name in lost:
            estate.wipe(name)
        hand.table.due(lost, "restore")
        wait_for(lambda: sum(bool(estate.accounts(name)) for name in lost) >= 3, 120, told)
        workers[0].signal(signal.SIGKILL)
        cluster.stop()
        time.sleep(1)
        cluster.start()
        workers.append(hand.start("--log", "json", "--at-once", "6", data="machine-a"))
        wait_for(lambda: all(estate.accounts(name) for name in lost), 240, told)
        wait_for(lambda: all(row.worker is None for row in hand.table.rows(lost)), 60, told)

        # It is mended, and goes through all rings.
        mended = estate.origin.commit({"shared/policy.yaml": "policy: {max_deletes: 9}\n"})
        wait_for(lambda: all(r.state == "in_sync" and r.shared == mended for r in hand.table.rows()), 400, told)
        assert bad != mended

        # In the end every stack's plan is empty, and nothing was written twice.
        restored = Counter(estate.tape.writes[writes:])
        assert {name for name, _ in restored} == set(lost)
        for name in lost:
            created = sum(number for (stack, what), number in restored.items() if stack == name and "principal" in what)
            assert created == 2, f"{name}: a domain and an account, once each: {restored}"
        first = Counter(estate.tape.writes[:writes])
        for name in NAMES:
            assert first[name, "POST /api/principal"] == 2, name
        for worker in workers[1:]:
            assert worker.end() == 143, worker.text[-2000:]
        estate.tape.writes.clear()
        hand.turn(*NAMES, data="another-machine")
        assert estate.tape.writes == []
        assert {(row.state, row.pending) for row in hand.table.rows()} == {("in_sync", 0)}
