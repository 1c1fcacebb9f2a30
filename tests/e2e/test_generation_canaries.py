"""No secret appears anywhere, with a Stalwart from 0.16: those of its bootstrap and its recovery among them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from reconciler.simulator.wire import Reply

from . import jmapstage
from .asking import RECOVERY
from .stagefixtures import Stack
from .test_canaries import OUTPUTS, Canaries, forms


def learn(canaries: Canaries, name: str, value: str) -> None:
    """Look for a further value from now on."""
    canaries.values[name] = value
    canaries.needles |= dict.fromkeys(forms(value), name)


@pytest.mark.long
def test_what_goes_well_tells_no_secret(newer: Stack) -> None:
    canaries = Canaries(newer)
    canaries.everywhere("plan")
    assert canaries.run("apply", "--yes", "-v").code == 0
    canaries.run("plan", "--check-passwords", "-v")
    for output in OUTPUTS:
        newer.env["NOREPLY_PASSWORD"] = f"canary-next-for-{output}"
        learn(canaries, f"next {output}", newer.env["NOREPLY_PASSWORD"])
        assert canaries.run("apply", "--yes", "--output", output, "-v").code == 0
    for command in (("status",), ("history",), ("explain", "account/noreply@mana.how")):
        canaries.run(*command, "-v")


@pytest.mark.parametrize("recovery", [True, False])
def test_the_administrators_of_a_bootstrap_are_told_nowhere_but_in_their_file(bare: Stack, recovery: bool) -> None:
    if not recovery:
        bare.example.edit("docker-compose.macmini.yml", RECOVERY, "")
        bare.stage.recreate_mail_server()
        bare.tape.forget()
    dropped = () if recovery else ("STALWART_RECOVERY_ADMIN",)
    canaries = Canaries(bare)
    bare.watch.server_lost = True
    for number, value in enumerate(jmapstage.secrets_of(bare.container("mana-mail").logs.decode())):
        learn(canaries, f"printed {number}", value)
    assert ("printed 0" in canaries.values) is not recovery
    canaries.run("plan", "-v", drop=dropped)
    kept: list[str] = []

    def stop(_: Callable[[], Reply]) -> Reply:
        """Fail to restart the container when the administrator has been answered."""
        [path] = bare.data.glob("stalwart-administrator*")
        kept.append(json.loads(path.read_bytes())["secret"])
        return Reply.of({"message": f"no restart for {kept}"}, 500)

    bare.tape.at[1] = stop
    told = bare.run("apply", "--yes", "-v", "--target", "stalwart", drop=dropped)
    [secret] = kept
    learn(canaries, "one-time administrator", secret)
    assert canaries.found(told.text) == []
    for output in OUTPUTS:
        outcome = bare.run("plan", "--output", output, "-v", "--target", "stalwart", drop=dropped)
        assert canaries.found(outcome.text) == []
    assert canaries.run("apply", "--yes", "-v", drop=dropped).code == 0


def told_to(canaries: Canaries) -> str:
    """Join what the server is sent: passwords raw and encoded, and a private key."""
    stack = canaries.stack
    names = ("STALWART_ADMIN_PASSWORD", "NOREPLY_PASSWORD", "POSTMASTER_PASSWORD")
    values = [*(canaries.values[name] for name in names), (stack.example.path / "secrets/rsa2026.pem").read_text()]
    return " ".join([*values, *(quote(value, safe="") for value in values), *map(json.dumps, values)])


@pytest.mark.long
@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_server_that_echoes_everything_is_not_repeated(newer: Stack, status: int) -> None:
    canaries = Canaries(newer)
    said = told_to(canaries)
    error = {"type": "invalidProperties", "description": said, "properties": [said]}
    answer = {"type": "notRequest", "status": status, "detail": said}
    answer |= {"methodResponses": [["error", error, str(number)] for number in range(16)]}
    for after in (0, 2):  # from the start, and at the write
        newer.fault("stalwart", method="POST", path="/jmap", reply=Reply.of(answer, status), times=10**6, after=after)
        for output in OUTPUTS:
            assert canaries.run("apply", "--yes", "-v", "--output", output).code != 0
        newer.stage.stalwart_server.faults.clear()
    canaries.run("history", "-v")


def test_what_a_set_refuses_tells_no_secret(newer: Stack) -> None:
    """Errors inside a set may quote what was sent."""
    canaries = Canaries(newer)

    def refuse(reply: Reply) -> Reply:
        """Say that what was done was refused, with all that was sent."""
        body, said = json.loads(reply.body), told_to(canaries)
        for method, arguments, _ in body.get("methodResponses", ()):
            if method.endswith("/set"):
                made = {**arguments.pop("created", {}), **arguments.pop("updated", {})}
                error: dict[str, Any] = {"type": "validationFailed", "description": said}
                error |= {"validationErrors": [{"type": "Invalid", "property": "secret", "value": said}]}
                arguments |= {"notCreated": dict.fromkeys(made, error), "notUpdated": dict.fromkeys(made, error)}
        return Reply(reply.status, json.dumps(body).encode(), reply.content_type)

    newer.fault("stalwart", method="POST", path="/jmap", change=refuse, times=10**6)
    for output in OUTPUTS:
        newer.env["NOREPLY_PASSWORD"] = f"canary-refused-with-{output}"
        learn(canaries, "NOREPLY_PASSWORD", newer.env["NOREPLY_PASSWORD"])
        assert canaries.run("apply", "--yes", "-v", "--output", output).code in (1, 6)


def test_a_refused_login_tells_no_secret(newer: Stack) -> None:
    canaries = Canaries(newer)
    newer.env.update(STALWART_ADMIN_PASSWORD="canary-wrong-password", STALWART_RECOVERY_ADMIN="admin:canary-wrong-too")
    learn(canaries, "wrong", "canary-wrong-password")
    learn(canaries, "wrong too", "canary-wrong-too")
    canaries.everywhere("plan")
    canaries.run("apply", "--yes", "-v")
