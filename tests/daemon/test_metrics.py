"""Metrics: what is counted, and that the real promtool takes them, and the alert rules that go by them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from daemon import states
from daemon.test_web import running
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from reconciler import http, url
from reconciler.daemon.board import Board
from reconciler.daemon.metrics import Tally, render
from reconciler.daemon.state import ProviderState, Result, State
from reconciler.failover import Failover
from reconciler.problem import Problem, Severity
from reconciler.resources import Live
from reconciler.simulator.wire import Reply, Server
from reconciler.target import Action, Change, Outcome, Reason, Status

NOW = datetime(2026, 11, 28, 12, 1, 0, tzinfo=UTC)
RULES = Path(__file__).parents[2] / "docs" / "alerts.yml"
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="there is no promtool (Debian: prometheus)")


def samples(tally: Tally, state: State) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(render(tally, state, NOW).decode())
    return {(item.name, frozenset(item.labels.items())): item.value for family in families for item in family.samples}


def value(found: dict[Any, float], name: str, **labels: str) -> float:
    return found[f"reconciler_{name}", frozenset(labels.items())]


def published(*ended: State) -> tuple[Tally, State]:
    tally = Tally()
    board = Board(states.calm(cycle=None), tally.take)
    for state in ended:
        board.publish(state)  # what is published within a cycle is not counted twice
        board.publish(state, ended=True)
    return tally, board.state


def done(*changes: Change, **fields: Any) -> State:
    outcomes = tuple(Outcome(change, Status.DONE) for change in changes)
    return states.calm(cycle=states.cycle(result=Result.DONE, outcomes=outcomes, **fields))


def created(resource: Any, reason: Reason = Reason.MISSING) -> Change:
    return Change(resource.address, (Action.CREATE,), reason, None, resource)


def test_cycles_are_counted_by_target_and_how_they_went() -> None:
    found = samples(*published(states.calm(), states.calm(), states.drifted(), done(created(states.ACCOUNT))))
    assert value(found, "reconcile_total", provider="stalwart", result="noop") == 3
    assert value(found, "reconcile_total", provider="stalwart", result="success") == 1
    assert value(found, "reconcile_total", provider="cloudflare", result="error") == 1
    assert value(found, "reconcile_total", provider="compose", result="error") == 0
    assert value(found, "reconcile_duration_seconds_count", provider="all", phase="cycle") == 4
    assert value(found, "reconcile_duration_seconds_sum", provider="all", phase="cycle") == pytest.approx(1.6)
    assert value(found, "reconcile_duration_seconds_bucket", provider="all", phase="cycle", le="0.25") == 0
    assert value(found, "reconcile_duration_seconds_bucket", provider="all", phase="cycle", le="0.5") == 4


def test_who_only_looks_is_skipped() -> None:
    found = samples(*published(states.calm(cycle=states.cycle(result=Result.BUSY))))
    assert value(found, "reconcile_total", provider="stalwart", result="skipped") == 1
    assert value(found, "lease_held") == 0


def test_changes_are_counted_by_why_they_were_made() -> None:
    changed = states.update(replace(states.MAIL, ttl=60), states.MAIL)
    restored = created(states.ACCOUNT, Reason.LOST)
    found = samples(
        *published(
            done(changed, drift=frozenset({changed.address})),
            done(created(states.KEY)),
            done(restored, created(states.MAIL), lost=frozenset({"stalwart"})),
        )
    )
    applied = "changes_applied_total"
    assert value(found, applied, provider="cloudflare", action="update", cause="drift") == 1
    assert value(found, applied, provider="stalwart", action="create", cause="git") == 1
    assert value(found, applied, provider="stalwart", action="create", cause="restore") == 1
    assert value(found, applied, provider="cloudflare", action="create", cause="git") == 1
    assert value(found, "volume_restores_total") == 1


def test_a_blocked_deletion_counts_once_however_long_it_is_blocked() -> None:
    gone = Change(states.MAIL.address, (Action.DELETE,), Reason.NOT_IN_DESIRED, Live(states.MAIL, owner="mana"))
    no = Problem("dns/mana.how", "too many", "", Severity.REFUSED, "dns/mana.how")
    calm = states.calm()
    refused = replace(
        calm,
        plan=replace(calm.plan, changes=(gone,), problems=(no,)),
        targets=(states.target("cloudflare", "refused", pending=1),),
    )
    assert value(samples(*published(calm)), "deletes_blocked_total") == 0
    assert value(samples(*published(refused, refused)), "deletes_blocked_total") == 1
    assert value(samples(*published(refused, calm, refused)), "deletes_blocked_total") == 2


def test_how_things_stand() -> None:
    found = samples(*published(states.drifted()))
    assert value(found, "ready") == 0
    assert value(found, "drift_objects", provider="cloudflare", kind="dns") == 1
    assert value(found, "drift_objects", provider="stalwart", kind="account") == 0
    assert value(found, "managed_objects", provider="cloudflare", kind="dns") == 2
    assert value(found, "source_age_seconds") == 60
    assert value(found, "source_info", commit=states.REVISION.commit, verified="false") == 1
    assert value(found, "last_reconcile_timestamp_seconds") == NOW.timestamp() - 59
    assert value(found, "last_success_timestamp_seconds", provider="stalwart") == NOW.timestamp() - 59
    found = samples(*published(states.troubled()))
    assert value(found, "consecutive_failures", provider="compose") == 3
    assert value(found, "contested_fields") == 1
    assert value(found, "source_failed") == 1
    assert value(samples(*published(states.suspended())), "suspended") == 1


def test_a_failover_is_told_while_it_lasts_and_counted_once() -> None:
    over = provider(taken=False, failover=Failover("home", "relay", "2026-11-28T11:00:00Z", "it is closed", "x"))
    well, again = provider(taken=True), replace(over, failover=replace(over.failover, since="2026-11-28T12:00:00Z"))  # type: ignore[type-var]
    states_of = {
        name: [states.calm(provider=item) for item in items]
        for name, items in {"over": (well, over, over), "back": (over, well, again, well)}.items()
    }
    found = samples(*published(*states_of["over"]))
    assert value(found, "provider_takes_mail", smtp="home") == 0
    assert value(found, "provider_failed_over", smtp="home", to="relay") == 1
    assert value(found, "provider_failovers_total") == 1
    found = samples(*published(*states_of["back"]))
    assert value(found, "provider_takes_mail", smtp="home") == 1
    assert value(found, "provider_failed_over", smtp="home", to="relay") == 0
    assert value(found, "provider_failovers_total") == 2


def test_of_a_provider_of_which_nothing_is_known_nothing_is_claimed() -> None:
    names = {name for name, _ in samples(*published(states.calm(provider=provider(taken=None))))}
    assert "reconciler_provider_failed_over" in names
    assert "reconciler_provider_takes_mail" not in names
    assert not {name for name, _ in samples(*published(states.calm())) if "provider_failed_over" in name}


def provider(*, taken: bool | None, failover: Failover | None = None) -> ProviderState:
    return ProviderState("home", "relay", taken, failover=failover)


def test_there_are_no_more_series_for_a_large_stack_than_for_a_small_one() -> None:
    def series(number: int) -> int:
        many = [states.record(f"host-{index}") for index in range(number)]
        facts = states.facts(*many)
        return len(samples(*published(done(*map(created, many)), states.calm(facts=facts))))

    assert series(1) == series(500)


def test_requests_are_counted_by_whom_they_went_to_and_what_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "spent", {})
    with running(states.calm()) as daemon:
        address = url.parse("http://{}:{}".format(*daemon.server.address))
        with http.client(address, http.Bounds(1 << 20, 10.0), name="stalwart") as client:
            http.exchange(client, "GET", "/healthz")
            http.exchange(client, "GET", "/nothing")
    with http.client(address, http.Bounds(1 << 20, 10.0), name="stalwart") as client, pytest.raises(http.Unsent):
        http.exchange(client, "GET", "/healthz")
    found = samples(*published(states.calm()))
    for code in ("200", "404", "none"):
        assert value(found, "api_requests_total", provider="stalwart", code=code) == 1
    assert value(found, "api_request_duration_seconds_count", provider="stalwart") == 3
    assert value(found, "api_request_duration_seconds_sum", provider="stalwart") > 0


@pytest.mark.parametrize(
    ("header", "said", "found"),
    [
        ("x-ratelimit-remaining", "1187", 1187),
        ("x-sib-ratelimit-remaining", "0", 0),
        ("x-ratelimit-remaining", "many", None),
        ("x-ratelimit-remaining", "-1", None),
        ("x-ratelimit-remaining", "1" * 400, None),
        ("x-other", "5", None),
    ],
)
def test_what_a_system_says_that_it_takes_is_told(
    header: str, said: str, found: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "allowed", {})
    reply = Reply.of({}, 200, **{header: said})
    with (
        Server(lambda _: reply) as server,
        http.client(url.parse(server.url), http.Bounds(1 << 20, 10.0), name="cloudflare") as client,
    ):
        http.exchange(client, "GET", "/")
    told = samples(*published(states.calm()))
    key = ("reconciler_api_rate_limit_remaining", frozenset({("provider", "cloudflare")}))
    assert told.get(key) == found


@needs_promtool
def test_promtool_takes_what_the_daemon_serves() -> None:
    with running(states.calm()) as daemon:
        daemon.board.publish(states.troubled(), ended=True)
        answer = daemon.ask("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=answer.body, capture_output=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@needs_promtool
def test_promtool_takes_the_alert_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", RULES], capture_output=True, check=False, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_that_a_rule_goes_by_is_served() -> None:
    served = {name for name, _ in samples(*published(states.calm(provider=provider(taken=True))))}
    rules = YAML(typ="safe").load(RULES)["groups"][0]["rules"]
    named = set(re.findall(r"\breconciler_\w+", " ".join(rule["expr"] for rule in rules)))
    assert len(named) >= 10
    assert named <= served


CALM = {
    "build_info": "1x200",
    "interval_seconds": "300x200",
    "suspended": "0x200",
    "contested_fields": "0x200",
    "source_failed": "0x200",
    "source_age_seconds": "20x200",
    "deletes_blocked_total": "0x200",
    "volume_restores_total": "0x200",
    'drift_objects{provider="cloudflare",kind="dns"}': "0x200",
    "fleet_interval_seconds": "300x1600",
    "fleet_overdue_seconds": "0x1600",
    "fleet_oldest_seconds": "200x1600",
    "fleet_stalled": "0x1600",
    "fleet_problems": "0x1600",
    "fleet_suspended": "0x1600",
    'fleet_stacks{ring="0",state="in_sync"}': "9x1600",
    'fleet_stacks{ring="0",state="unreadable"}': "0x1600",
    "last_reconcile_timestamp_seconds": "0+60x200",  # the clock of these tests begins at 0, a sample a minute
    'last_success_timestamp_seconds{provider="cloudflare"}': "0+60x200",
}


@needs_promtool
@pytest.mark.parametrize(
    ("changed", "minute", "alert"),
    [
        ({}, 199, ""),
        ({"last_reconcile_timestamp_seconds": "0x200"}, 16, "ReconcilerSilent"),
        ({"last_reconcile_timestamp_seconds": "0x200"}, 14, ""),
        ({"build_info": "1x10 stale"}, 30, "ReconcilerDown"),
        ({'last_success_timestamp_seconds{provider="cloudflare"}': "0x200"}, 30, "ReconcilerTargetNotAsDesired"),
        ({'last_success_timestamp_seconds{provider="cloudflare"}': "0x200", "suspended": "1x200"}, 30, ""),
        ({'drift_objects{provider="cloudflare",kind="dns"}': "2x200"}, 16, "ReconcilerDriftUnresolved"),
        ({'drift_objects{provider="cloudflare",kind="dns"}': "2x10 0x100"}, 16, ""),
        ({"deletes_blocked_total": "0x10 1x100"}, 15, "ReconcilerDeletesBlocked"),
        ({"source_failed": "1x200"}, 16, "ReconcilerSourceFailed"),
        ({"source_age_seconds": "0+60x200"}, 70, "ReconcilerSourceOld"),
        ({"volume_restores_total": "0x10 1x100"}, 15, "ReconcilerVolumeRestored"),
        ({"contested_fields": "1x200"}, 1, "ReconcilerContested"),
        ({"fleet_overdue_seconds": "901x1600"}, 6, "ReconcilerFleetWaits"),
        ({"fleet_overdue_seconds": "901x1600", "fleet_interval_seconds": "600x1600"}, 6, ""),
        ({"fleet_oldest_seconds": "7201x1600"}, 1, "ReconcilerFleetStackForgotten"),
        ({"fleet_oldest_seconds": "7201x1600", "fleet_interval_seconds": "3600x1600"}, 1, ""),
        ({"fleet_stalled": "2x1600"}, 16, "ReconcilerFleetPersonNeeded"),
        ({"fleet_problems": "1x1600"}, 16, "ReconcilerFleetProblem"),
        ({"fleet_suspended": "1x180"}, 180, ""),
        ({'fleet_stacks{ring="0",state="unreadable"}': "1x1600"}, 31, "ReconcilerFleetNotAsDesired"),
        ({'fleet_stacks{ring="0",state="suspended"}': "1x1600"}, 31, ""),
        ({'provider_failed_over{smtp="home",to="relay"}': "0x10 1x100"}, 9, ""),
        ({'provider_failed_over{smtp="home",to="relay"}': "0x10 1x100"}, 12, "ReconcilerFailedOver"),
        ({'provider_takes_mail{smtp="home"}': "1x10 0x100"}, 35, ""),
        ({'provider_takes_mail{smtp="home"}': "1x10 0x100"}, 42, "ReconcilerProviderTakesNoMail"),
    ],
)
def test_an_alert_fires_when_it_should(changed: dict[str, str], minute: int, alert: str, tmp_path: Path) -> None:
    assert fired(CALM | changed, minute, tmp_path / "test.json") == ({alert} - {""})


def fired(series: dict[str, str], minute: int, file: Path) -> set[str]:
    """Ask promtool which alerts fire: a test that expects none fails, and names those that do."""
    names = [rule["alert"] for group in YAML(typ="safe").load(RULES)["groups"] for rule in group["rules"]]
    rows = [{"series": _labelled(name), "values": values} for name, values in series.items()]
    asked = [{"eval_time": f"{minute}m", "alertname": name} for name in names]
    test = {"interval": "1m", "input_series": rows, "alert_rule_test": asked}
    file.write_text(json.dumps({"rule_files": [str(RULES)], "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, check=False, text=True, timeout=60)
    found = set(re.findall(r"alertname:\s*(\w+), time:", done.stdout + done.stderr))
    assert bool(found) == (done.returncode != 0), done.stdout + done.stderr
    return found


def _labelled(name: str) -> str:
    base, _, labels = name.partition("{")
    own = 'instance="server",job="reconciler"'
    return f"reconciler_{base}{{{own},{labels}" if labels else f"reconciler_{base}{{{own}}}"
