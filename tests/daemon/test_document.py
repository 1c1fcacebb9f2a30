"""How things stand as one value: what it says of a state, and what it never says."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from daemon import states

from reconciler.daemon.document import Word, document, sentence
from reconciler.daemon.page import render
from reconciler.daemon.state import ProviderState, Result, State
from reconciler.failover import Failover
from reconciler.plan import Plan
from reconciler.problem import Problem
from reconciler.reconcile import Fact
from reconciler.target import Change

NOW = datetime(2026, 11, 28, 12, 1, 0, tzinfo=UTC)


def known(state: State) -> dict[str, Any]:
    return json.loads(json.dumps(document(state, NOW)))


def conditions(state: State) -> dict[str, tuple[str, str]]:
    return {item["type"]: (item["status"], item["reason"]) for item in known(state)["conditions"]}


def test_what_scripts_rely_on_keeps_its_name_and_meaning() -> None:
    found = known(states.drifted())
    assert found["format_version"] == "1.0"
    assert found["stack"] == "mana"
    assert found["revision"] == states.REVISION.commit
    assert found["complete"] is True
    assert found["targets"]["cloudflare"]["state"] == "pending"
    assert found["targets"]["cloudflare"]["pending"] == 1
    assert found["last_apply"]["id"] == "a1b2c3d4"
    assert "written" not in found["last_apply"]
    assert found["lease"] is None
    assert found["problems"] == []


def test_everything_as_desired() -> None:
    found = known(states.calm())
    assert found["state"] == "in_sync"
    assert found["since"] == "2026-11-28T10:00:00Z"
    assert conditions(states.calm()) == {
        "Ready": ("True", "InSync"),
        "Reconciling": ("False", "No"),
        "Stalled": ("False", "No"),
    }
    assert found["source"]["committer"] == "Grace <grace@mana.how>"
    assert found["source"]["age"] == 60.0
    assert {item["state"] for item in found["resources"]} == {"in_sync"}
    assert [item["address"] for item in found["resources"]] == sorted(item.address for item in states.RESOURCES)


def test_since_is_when_the_last_system_came_to_it_or_the_first_left_it() -> None:
    targets = (states.target("stalwart", since="2026-11-28T11:00:00Z"), states.target("cloudflare"))
    assert known(states.calm(targets=targets))["since"] == "2026-11-28T11:00:00Z"
    late = states.target("compose", "unreadable", since="2026-11-28T11:30:00Z")
    early = states.target("stalwart", "unreadable", since="2026-11-28T11:20:00Z")
    assert known(states.calm(targets=(late, early)))["since"] == "2026-11-28T11:20:00Z"


def test_what_is_left_to_do_is_told_field_by_field() -> None:
    found = known(states.drifted())
    rows = {item["address"]: item for item in found["resources"]}
    assert found["state"] == "healing"
    assert rows["dns/mana.how/A/mail"]["state"] == "pending"
    assert rows["dns/mana.how/A/mail"]["change"]["fields"] == ["content: 198.51.100.9 → 192.0.2.1"]
    assert rows["dns/mana.how/A/mail"]["place"] == "mail.yaml:3:1"
    assert found["cycle"]["drift"] == ["dns/mana.how/A/mail"]
    assert found["cycle"]["outcomes"][0]["status"] == "failed"
    assert conditions(states.drifted())["Reconciling"] == ("True", "Healing")


@pytest.mark.parametrize(
    ("state", "word", "ready", "stalled"),
    [
        (states.calm(cycle=None, plan=None, targets=(), facts={}), "starting", "Unknown", "False"),
        (states.calm(plan=None, targets=(), facts={}), "failed", "False", "True"),
        (states.calm(targets=(states.target("stalwart", "refused"),)), "refused", "False", "True"),
        (states.calm(targets=(states.target("stalwart", "lost"),)), "lost", "False", "False"),
        (states.calm(targets=(states.target("stalwart", "unreadable"),)), "unreadable", "False", "False"),
        (states.calm(targets=(states.target("stalwart", "held"),)), "held", "False", "True"),
        (
            states.calm(targets=(states.target("stalwart", "held", retry="2026-11-28T13:00:00Z"),)),
            "held",
            "False",
            "False",
        ),
        (states.calm(contested=states.troubled().contested), "contested", "False", "True"),
        (states.calm(source=states.troubled().source), "stale", "False", "True"),
        (states.calm(plan=Plan("mana", problems=(Problem("dns", "no"),))), "failed", "False", "True"),
        (states.suspended(), "suspended", "True", "False"),
        (states.suspended(states.drifted()), "suspended", "False", "False"),
        (states.troubled(), "refused", "False", "True"),
    ],
)
def test_one_word_and_the_conditions(state: State, word: str, ready: str, stalled: str) -> None:
    assert known(state)["state"] == word
    assert conditions(state)["Ready"][0] == ready
    assert conditions(state)["Stalled"][0] == stalled
    assert sentence(state).endswith(".")


def test_a_breaker_is_told_from_a_pause() -> None:
    broken = states.calm(targets=(states.target("stalwart", "held"),))
    assert conditions(broken)["Ready"] == ("False", "AuthFailed")
    assert "a person acts" in sentence(broken)
    pausing = states.calm(targets=(states.target("stalwart", "held", retry="2026-11-28T13:00:00Z"),))
    assert conditions(pausing)["Ready"] == ("False", "BackingOff")
    assert "2026-11-28T13:00:00Z" in sentence(pausing)


def test_every_problem_stands_once_and_refusals_first() -> None:
    found = known(states.troubled())["problems"]
    assert [item["severity"] for item in found] == ["refused", "error", "error"]
    assert {item["where"] for item in found} == {"dns/mana.how", "dns.yaml:5:12", "stalwart"}


def test_each_resource_has_one_state() -> None:
    rows = {item["address"]: item for item in known(states.troubled())["resources"]}
    assert rows["dns/mana.how/A/mail"]["state"] == "contested"
    assert rows["smtp/mana-notify/SMTP_HOST"]["state"] == "unreadable"
    assert rows["account/noreply@mana.how"]["state"] == "in_sync", "a warning is no trouble"
    assert rows["account/noreply@mana.how"]["untold"] == ["password"]
    assert rows["account/noreply@mana.how"]["problem"]["summary"] == "never logged in"


def test_what_is_not_declared_is_counted_and_not_listed() -> None:
    state = states.calm(facts={**states.facts(states.MAIL), "dns/x/A/y": Fact("dns/x/A/y", unmanaged=True)})
    assert [item["address"] for item in known(state)["resources"]] == ["dns/mana.how/A/mail"]
    assert known(state)["unmanaged"] == 1


def test_no_secret_stands_in_it() -> None:
    change: Change = states.secret_change()
    fact = Fact(change.address, "smtp.yaml:1:1", change.after, change=change)
    state = states.calm(facts={change.address: fact}, plan=Plan("mana", changes=(change,)))
    text = json.dumps(document(state, NOW))
    assert "SMTP_PASSWORD" in text
    assert states.CANARY not in text


def test_a_cycle_that_only_looked_says_so() -> None:
    found = known(replace(states.suspended(), cycle=states.cycle(result=Result.SUSPENDED)))
    assert found["cycle"]["result"] == "suspended"
    assert found["suspended"]["until"] == "2026-11-29T08:00:00Z"


def test_every_word_is_one_that_conditions_know() -> None:
    assert {str(word) for word in Word} >= {"in_sync", "pending", "lost", "refused", "unreadable"}


def test_a_failover_is_told_with_its_reason() -> None:
    failover = Failover("stalwart", "brevo", "2026-11-28T11:00:00Z", "stalwart:587: no mail server answers", "basis")
    provider = ProviderState("stalwart", "brevo", taken=False, why=failover.why, failover=failover)
    found = known(replace(states.calm(), provider=provider))["provider"]
    assert (found["failover"]["to"], found["failover"]["why"], found["taken"]) == ("brevo", failover.why, False)
    assert known(states.calm())["provider"] is None
    shown = render(known(replace(states.calm(), provider=provider)), "", NOW)
    assert "Mail goes through brevo in place of stalwart" in shown
    assert "no mail server answers" in shown
    down = replace(provider, failover=None, obstacles=("<b>record</b> can't be seen",))
    shown = render(known(replace(states.calm(), provider=down)), "", NOW)
    assert "stalwart takes no mail" in shown
    assert "&lt;b&gt;record&lt;/b&gt;" in shown
    assert "takes no mail" not in render(known(states.calm()), "", NOW)
