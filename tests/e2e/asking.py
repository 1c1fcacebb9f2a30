"""What tests of the newer generation ask of the stage: who asked the server for what, and whether all is right."""

from __future__ import annotations

import base64
import smtplib
import ssl
from typing import Any

from reconciler.keys import public_half
from reconciler.simulator.stalwart.passwords import verify
from reconciler.simulator.wire import Request

from . import jmapstage
from .stagefixtures import Done, Stack

NOTIFY = "mana-core-notify"
ADMIN = "admin@mana.how"
PROBE = ("", "/.well-known/oauth-protected-resource")
SIGNING = {("mana.how", "mana2026", "ed25519-sha256"), ("mana.how", "rsa2026", "rsa-sha256")}
RECOVERY = "      STALWART_RECOVERY_ADMIN: ${STALWART_RECOVERY_ADMIN:-}\n"


def settled(stack: Stack, *argv: str) -> Done:
    """Apply, and see that a second plan is empty."""
    done = stack.expect(0, "apply", "--yes", *argv)
    stack.expect(0, "plan", "--detailed-exitcode", *argv)
    return done


def wire(stack: Stack) -> list[tuple[str, str]]:
    """Return who asked Stalwart for what since it was last asked here: a path, or reading or writing at /jmap."""
    found = [_asked(request) for request in stack.stage.stalwart_server.requests]
    stack.stage.stalwart_server.forget()
    return [item for item in found if item[1] != "/healthz/live"]  # asked until it is up again


def _asked(request: Request) -> tuple[str, str]:
    _, _, given = request.headers.get("authorization", "").partition(" ")
    who = base64.b64decode(given).decode().partition(":")[0]
    if request.path != "/jmap":
        return who, request.path
    methods = {method for method, _, _ in request.json()["methodCalls"]}
    if any("Bootstrap" in method for method in methods):
        return who, methods.pop()
    return who, "write" if any(method.endswith("/set") for method in methods) else "read"


def log_in(stack: Stack, name: str, password: str) -> int:
    """Log in at port 587 over STARTTLS as the consumer does, and return the answer's code."""
    routes = dict(item.split("=") for item in stack.stage.environment["RECONCILER_ROUTES"].split())
    host, _, port = routes["stalwart:587"].partition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP(host, int(port), timeout=20) as client:
        client.starttls(context=context)
        try:
            return int(client.login(name, password)[0])
        except smtplib.SMTPAuthenticationError as error:
            return int(error.smtp_code)


def public_halves(stack: Stack) -> dict[str, str]:
    """Return the base64 of the public halves of the keys in the directory."""
    texts = {name: (stack.example.path / "secrets" / f"{name}.pem").read_text() for name in ("mana2026", "rsa2026")}
    return {name: public_half("rsa" if name == "rsa2026" else "ed25519", text) for name, text in texts.items()}


def everything_is_right(stack: Stack) -> None:
    """See that the server is as the example wants it, and in force."""
    server = stack.jmap
    for name in ("noreply", "postmaster"):
        assert log_in(stack, f"{name}@mana.how", stack.environ()[f"{name.upper()}_PASSWORD"]) == 235
        assert log_in(stack, f"{name}@mana.how", "not-the-password") == 535
    admin, postmaster = stack.principal(ADMIN), stack.principal("postmaster@mana.how")
    assert admin["roles"]["@type"] == "Admin"
    assert verify(admin["credentials"]["0"]["secret"], stack.environ()["STALWART_ADMIN_PASSWORD"])
    assert stack.principal("noreply@mana.how")["roles"]["@type"] == "User"
    assert [item["name"] for item in postmaster["aliases"].values()] == ["abuse", "dmarc"]
    assert (postmaster["quotas"], postmaster["description"]) == ({"maxDiskQuota": 1 << 30}, "DMARC reports and bounces")
    assert jmapstage.public_keys(stack.stage) == public_halves(stack)
    assert {item for item in server.signing() if item[0] == "mana.how"} == SIGNING
    [domain] = [item for _, item in server.store.all("Domain") if item["name"] == "mana.how"]
    assert {domain[name]["@type"] for name in jmapstage.MANUAL} == {"Manual"}
    assert (server.hostname, server.core.default_domain, server.core.rates["scan"]) == (
        "mail.mana.how",
        "mana.how",
        None,
    )
    assert "172.18.0.0/16" in {str(network) for network in server.core.allowed}
    assert 587 in server.ports
    assert [item["name"] for _, item in server.store.all("NetworkListener")].count("submission") == 1


def consumer(stack: Stack) -> dict[str, str]:
    found = stack.container(NOTIFY).environment
    return {name: found[name] for name in ("SMTP_HOST", "SMTP_PORT", "SMTP_USER", "SMTP_PASSWORD")}


def as_declared(stack: Stack, user: str = "noreply@mana.how") -> dict[str, str]:
    password = stack.environ()["NOREPLY_PASSWORD"]
    return {"SMTP_HOST": "stalwart", "SMTP_PORT": "587", "SMTP_USER": user, "SMTP_PASSWORD": password}


def pending(stack: Stack) -> int:
    return stack.run("plan", "--detailed-exitcode").code


def problems(stack: Stack, *argv: str) -> list[dict[str, Any]]:
    """Plan, and return what a person is told."""
    return list(stack.run("plan", "--output", "json", *argv).json["problems"])


def unrecoverable(stack: Stack) -> None:
    """Recreate the container without the variable."""
    stack.example.edit("docker-compose.macmini.yml", RECOVERY, "")
    stack.stage.recreate_mail_server()
