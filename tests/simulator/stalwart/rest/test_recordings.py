"""The fake Stalwart 0.15 answers as a real one did, request by request, whatever the names are."""

import base64
import json
import re

import pytest

from reconciler.simulator.stalwart.rest.directory import FIELDS
from reconciler.simulator.stalwart.rest.server import StalwartRest
from reconciler.simulator.wire import Request

RECORDINGS = ("stalwart-0.15.5", "stalwart-0.15.5-more")
PASSWORDS = {"admin": "adminpw", "noreply": "noreply-password", "noroles": "c"}

_FALLBACK = {"authentication.fallback-admin.user": "admin", "authentication.fallback-admin.secret": "adminpw"}
# config.toml as the recorded machines had it when the recording began.
CONFIG = {
    "stalwart-0.15.5": {
        **_FALLBACK,
        "server.listener.http.bind": "127.0.0.1:18080",
        "server.listener.http.protocol": "http",
        "server.listener.imaptls.bind": "127.0.0.1:9930",
        "server.listener.imaptls.protocol": "imap",
        "server.listener.imaptls.tls.implicit": "true",
        "server.listener.smtp.bind": "127.0.0.1:2525",
        "server.listener.smtp.protocol": "smtp",
        "server.listener.submission.bind": "127.0.0.1:5870",
        "server.listener.submission.protocol": "smtp",
        "server.listener.submissions.bind": "127.0.0.1:4650",
        "server.listener.submissions.protocol": "smtp",
        "server.listener.submissions.tls.implicit": "true",
    },
    "stalwart-0.15.5-more": {
        **_FALLBACK,
        "directory.internal.store": "sqlite",
        "directory.internal.type": "internal",
        "server.listener.http.bind": "127.0.0.1:56767",
        "server.listener.http.protocol": "http",
        "server.listener.smtp.bind": "127.0.0.1:33377",
        "server.listener.smtp.protocol": "smtp",
        "server.listener.submission.bind": "127.0.0.1:52531",
        "server.listener.submission.protocol": "smtp",
        "server.listener.submissions.bind": "127.0.0.1:58225",
        "server.listener.submissions.protocol": "smtp",
        "server.listener.submissions.tls.implicit": "true",
        "spam-filter.pyzor.enable": "false",
        **{f"storage.{use}": "sqlite" for use in ("blob", "data", "fts", "lookup")},
        "storage.directory": "internal",
        "store.sqlite.path": "/opt/stalwart/data/db.sqlite3",
        "store.sqlite.type": "sqlite",
        "tracer.log.ansi": "false",
        "tracer.log.enable": "true",
        "tracer.log.level": "info",
        "tracer.log.path": "/opt/stalwart",
        "tracer.log.prefix": "log",
        "tracer.log.rotate": "never",
        "tracer.log.type": "log",
    },
}

# Values that the server chooses: where they are met first. From there on the same one must come back.
_PRIVATE = r"-----BEGIN PRIVATE KEY-----[^\"]+"
CHOSEN = {
    "dkim create again": _PRIVATE,
    "dkim get": r'(?<="data": ")[^"]+',
    "settings signature keys": _PRIVATE,
    "dns records": r"(?<=h=sha256; p=)[^\"]+",
    "jmap session follow": r'(?<="state": ")[^"]+',
}
# What is chosen or only described by the real server and serves no client of ours.
LEFT_OUT = {"jmap session follow": {"accountCapabilities"}, "version": {"code", "permissions"}}
UNORDERED = {"members", "memberOf", "lists", "roles"} & FIELDS

# Every name in the recordings, changed so that the order of names stays what it was.
RENAMED = (
    (r"Mana\.how", "Beech.Example"),
    (r"mana\.how", "beech.example"),
    (r"other\.example", "unheard.example"),
    (r"mana-extra", "more-keys"),
    (r"mana2026", "sel-a"),
    (r"extra2026", "sel-b"),
    (r"rsa2026", "sel-c"),
    (r"Mana(?=\")", "Trees & co"),
    (r"(?<!ra=)(?<!mailto:)postmaster", "desk"),
    (r"PostMaster", "DesK"),
    (r"Postmaster", "Desk"),
    (r"no-reply", "call-us"),
    (r"noreply", "calls"),
    (r"noroles", "callsign"),
    (r"renamed", "signs"),
    (r"dmarc(?=@)", "reports"),
    (r"abuse", "alarm"),
    (r"staff", "family"),
    (r"(?<=[\"/])news(?=[\"@])", "bulletin"),
    (r"reconciler-key", "even-a-key"),
    (r"key-secret", "another secret"),
    (r"alpha", "apple"),
    (r"zeta", "zulu"),
    (r"ghost", "spirit"),
    (r"nonesuch", "nowhere"),
    (r"in-clear", "plain to see"),
    (r"phone", "tablet"),
    (r"listener\.extra", "listener.added"),
    (r"No reply", "Machines only"),
    (r"Sends the app's mail", "Sends what the \u00fcber-app says"),
    (r"172\.18\.0\.0/16", "10.9.0.0/20"),
    (r"203\.0\.113\.9", "198.51.100.77"),
    (r"(?<![A-Za-z0-9+/])aa(b?)(?=[.,\"])", r"qq\1"),
    (r"(?<=[ /\"])vm(?=[.:\"])", "box7"),
)


def rename(text):
    for pattern, new in RENAMED:
        text = re.sub(pattern, new, text)
    return text


@pytest.fixture(scope="module")
def recordings(facts):
    folder = facts("stalwart/recordings")
    return {name: (folder / f"{name}.jsonl").read_text() for name in RECORDINGS}


def same(text):
    return text


def authorization(item, change):
    name, auth = item["name"], item["request"]["auth"]
    if name == "use api key as Bearer api_":
        return "Bearer api_" + base64.b64encode(change("reconciler-key:key-secret").encode()).decode()
    if auth is None:
        return None
    password = "not the password" if name == "wrong password" else PASSWORDS[auth]
    return "Basic " + base64.b64encode(f"{change(auth)}:{password}".encode()).decode()


def request_of(item, change):
    sent = item["request"]
    body = sent["body"]
    if body is not None and not isinstance(body, str):
        body = json.dumps(body, separators=(",", ":"))
    header = authorization(item, change)
    path, _, query = sent["path"].partition("?")
    return Request(
        method=sent["method"],
        path=path,
        raw_path=sent["path"],
        query={key: [value] for key, _, value in (pair.partition("=") for pair in query.split("&") if pair)},
        headers={"authorization": header} if header else {},
        body=(body or "").encode(),
        client="127.0.0.1",
    )


def plain(value, left_out=frozenset()):
    """Take out what is left out, and sort what has no order."""
    if isinstance(value, dict):
        kept = {key: plain(inner, left_out) for key, inner in value.items() if key not in left_out}
        return {
            key: sorted(inner) if key in UNORDERED and isinstance(inner, list) else inner for key, inner in kept.items()
        }
    return [plain(item, left_out) for item in value] if isinstance(value, list) else value


def bind(name, recorded, ours, bound):
    """Remember which of our values stands for which of the recorded ones."""
    found, answered = (re.findall(CHOSEN[name], json.dumps(body, sort_keys=True)) for body in (recorded, ours))
    assert len(found) == len(answered), name
    for theirs, mine in zip(found, answered, strict=True):
        assert bound.setdefault(theirs, mine) == mine, f"{name}: another value than before"


def replay(lines, fake, change):
    """Return what differs: (name, recorded answer, our answer)."""
    bound, differences = {}, []
    for item in map(json.loads, change(lines).splitlines()):
        if "text" in item:
            if item["text"] != fake.config_toml:
                differences.append((item["name"], item["text"], fake.config_toml))
            continue
        original = next(line for line in map(json.loads, lines.splitlines()) if change(line["name"]) == item["name"])
        name, recorded = original["name"], item["response"]
        reply = fake(
            request_of(
                {**item, "name": name, "request": {**item["request"], "auth": original["request"]["auth"]}}, change
            )
        )
        ours = json.loads(reply.body) if reply.body else ""
        if name in CHOSEN:
            bind(name, recorded["body"], ours, bound)
        text = json.dumps(recorded["body"])
        for theirs, mine in sorted(bound.items(), key=lambda pair: -len(pair[0])):  # a key file holds the public key
            text = text.replace(theirs, mine)
        expected = (recorded["status"], recorded["content_type"] or "", plain(json.loads(text), LEFT_OUT.get(name, ())))
        answered = (reply.status, reply.content_type, plain(ours, LEFT_OUT.get(name, ())))
        if expected != answered:
            differences.append((name, expected, answered))
    return differences


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("change", [same, rename], ids=["as recorded", "every name changed"])
def test_answers_as_the_real_server_did(recordings, name, change):
    host = change('"vm"').strip('"')
    fake = StalwartRest(config=CONFIG[name], os_hostname=host, spam_host_broken=True)
    assert replay(recordings[name], fake, change) == []


def test_the_renaming_reaches_every_name(recordings):
    text = rename("".join(recordings.values()))
    left = re.findall(r"mana(?!ge)|noreply|no-reply|staff|2026(?=[\"._])|172\.18|noroles|key-secret", text)
    assert left == []


def test_permissions_have_the_real_names(recordings):
    lines = map(json.loads, recordings["stalwart-0.15.5-more"].splitlines())
    item = next(line for line in lines if line["name"] == "version")
    fake = StalwartRest(config=CONFIG["stalwart-0.15.5-more"])
    ours = json.loads(fake(request_of(item, same)).body)["data"]
    assert set(ours["permissions"]) <= set(item["response"]["body"]["data"]["permissions"])
    assert len(ours["code"]) == len(item["response"]["body"]["data"]["code"])
