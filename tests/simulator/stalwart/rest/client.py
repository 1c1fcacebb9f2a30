"""A client of the fake Stalwart 0.15, without a socket in between."""

import base64
import json
from urllib.parse import parse_qs, unquote

from reconciler.simulator.stalwart.rest.server import StalwartRest
from reconciler.simulator.wire import Request

PASSWORD = "correct horse"
DOMAIN = {"type": "domain", "name": "example.org"}
HASH = (
    "$6$saltsaltsaltsalt$DP7RKwIAffNVkse07h81vGJPWDF76gNeAC4uPJCCkFWHLPik.W93LLqJrcFH.34lltMy/1Fnyp4XpnITscBtA."  # "a"
)


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def make(**options):
    return StalwartRest(environment={"STALWART_ADMIN_PASSWORD": PASSWORD}, **options)


ADMIN = basic("admin", PASSWORD)


def ask(fake, method, path, body=None, *, auth=ADMIN, client="127.0.0.1"):
    """Send one request and return status and body."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    bare, _, query = path.partition("?")
    headers = {"authorization": auth} if auth else {}
    reply = fake(Request(method, unquote(bare), path, parse_qs(query, keep_blank_values=True), headers, raw, client))
    return reply.status, json.loads(reply.body) if reply.body else None


def get(fake, path, **options):
    status, body = ask(fake, "GET", path, **options)
    assert status == 200, body
    return body["data"]


def change(fake, method, path, body=None, **options):
    status, answer = ask(fake, method, path, body, **options)
    assert (status, "error" in answer) == (200, False), answer
    return answer["data"]


def store(fake, *pairs):
    operation = {"type": "insert", "prefix": None, "values": [list(pair) for pair in pairs], "assert_empty": False}
    return change(fake, "POST", "/api/settings", [operation])
