"""A client of the fake Stalwart 0.16, without a socket in between."""

import base64
import json

from reconciler.simulator.stalwart.jmap.server import StalwartJmap
from reconciler.simulator.wire import Request

ADMIN = "admin:recovery"
PASSWORD = "four-sensible-words-here"
MANUAL = {"dkimManagement": {"@type": "Manual"}}


def server(**options):
    return StalwartJmap(environment={"STALWART_RECOVERY_ADMIN": ADMIN}, **options)


def send(fake, method, path, body=b"", *, auth=ADMIN, client="127.0.0.1"):
    headers = {"authorization": "Basic " + base64.b64encode(auth.encode()).decode()} if auth else {}
    return fake(Request(method, path, path, {}, headers, body, client))


def request(fake, *calls, **options):
    numbered = [[name, given, str(at)] for at, (name, given) in enumerate(calls)]
    return send(fake, "POST", "/jmap", json.dumps({"using": [], "methodCalls": numbered}).encode(), **options)


def call(fake, *calls, **options):
    """Return the answers' arguments; those of an error have a type."""
    reply = request(fake, *calls, **options)
    assert reply.status == 200, reply.body
    return [item[1] for item in json.loads(reply.body)["methodResponses"]]


def one(fake, name, given, **options):
    return call(fake, (name, given), **options)[0]


def create(fake, of, /, **values):
    """Make an object and return its id."""
    answer = one(fake, f"x:{of}/set", {"create": {"it": values}})
    return answer["created"]["it"]["id"]


def refused(fake, of, /, **values):
    return one(fake, f"x:{of}/set", {"create": {"it": values}})["notCreated"]["it"]


def change(fake, of, key, /, **values):
    return one(fake, f"x:{of}/set", {"update": {key: values}})


def read(fake, name, key="singleton"):
    return one(fake, f"x:{name}/get", {"ids": [key]})["list"][0]


def run(fake, action):
    return one(fake, "x:Action/set", {"create": {"it": {"@type": action}}})
