"""`reconciler dkim list` against both generations of the server and two name servers."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(params=["applied", "newer"])
def stack(request: pytest.FixtureRequest) -> Any:
    """The example after its first apply."""
    stack = request.getfixturevalue(request.param)
    stack.expect(0, "apply", "--yes")
    return stack


def agree(done: Any) -> dict[str, str]:
    return {key["selector"]: key["agree"] for key in done.json["keys"]}


def test_what_was_applied_agrees(stack: Any) -> None:
    done = stack.expect(0, "dkim", "list", "--output", "json")
    assert done.json["complete"]
    assert agree(done) == {"mana2026": "yes", "rsa2026": "yes"}
    assert all(item["shows"] for key in done.json["keys"] for item in key["nameservers"])
    assert [key["findings"] for key in done.json["keys"]] == [[], []]


def test_one_name_server_lags_and_the_other_is_away(stack: Any) -> None:
    stack.stage.dns.hold(1)
    entry = (
        "    - {selector: next, algorithm: ed25519, stage: pending, "
        "public_key: 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=}\n"
    )
    stack.edit("dkim.yaml", "  mana.how:\n", f"  mana.how:\n{entry}")
    stack.expect(0, "apply", "--yes")
    done = stack.expect(0, "dkim", "list", "mana.how")
    assert f"is published only at {stack.stage.dns.servers[0]}: {stack.stage.dns.servers[1]}" in done.out
    stack.stage.dns.stop(0)
    done = stack.expect(1, "dkim", "list", "mana.how")
    assert f"{stack.stage.dns.servers[0]} could not be asked" in done.out
    assert "0/2" in done.out
