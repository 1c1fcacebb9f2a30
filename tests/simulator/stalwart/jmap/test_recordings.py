"""The fake Stalwart 0.16 answers as a real one did, request by request, whatever the names are."""

import base64
import json
import re

import pytest

from reconciler.simulator.stalwart.jmap.server import StalwartJmap
from reconciler.simulator.wire import Request

RECORDINGS = (
    "stalwart-0.16.18-bootstrap",
    "stalwart-0.16.18-empty-data",
    "stalwart-0.16.18",
    "stalwart-0.16.18-more",
)
START = 1795339500.0  # within the day of the recordings: the server's own selectors carry the date
# Seconds before a request, where it is not one: a domain's own keys are made a moment after it.
WAITED = {
    "domain list": 0.0,
    "dkim create with supplied ed25519 key (Text)": 4.0,
    "keys that the server made by itself": 3.0,
}

# What the recordings don't tell: the password behind each login. One hash in them is of a password nobody wrote down.
ADMIN = "recovery-secret"
UNKNOWN_HASH = re.compile(r"\$6\$saltsaltsaltsalt\$[^\"\\]+")
KNOWN_HASH = (
    "$6$abcdefgh12345678$A4jM7ZM7K2qGO9bEPokfJnxrlB3NUfQ10OQoaZP7LXEzLsUQi.rqgXryUJy1xn7JvpBV3iQJ5VJs46ALPGpOA/"
)
PASSWORDS = {
    ("stalwart-0.16.18", "noreply@mana.how"): "noreply-Passw0rd-xyz",
    ("stalwart-0.16.18", "noreply"): "noreply-Passw0rd-xyz",
    ("stalwart-0.16.18", "postmaster@mana.how"): "postmaster-Passw0rd-xyz",
    ("stalwart-0.16.18-more", "noreply@mana.how"): "noreply-password",
}
WRONG = {"wrong password", "login wrong", "bad credentials"}
CHANGED = {"login with the new password": "new-Passw0rd-noreply-1"}

# Values that the server chooses. Where one comes back, ours must come back too.
CHOSEN = re.compile(
    r"\bjpx[a-z0-9]{9}\b"  # an id that holds the time it was made at
    r"|\bbvq[a-z0-9]{4}\b"  # the id of an action: the time in seconds
    r'|(?<="sessionState": ")[0-9a-f]{8}|(?<="state": ")[0-9a-f]{8}'
    r'|(?<="applicationServerKey": ")[^"]+'
    r'|(?<="secret": ")[A-Za-z0-9]{16}(?=")'  # the new administrator's password
    r'|(?<="publicKey": ")[^"]+(?=", "report": true, "selector": "v1-)'  # of a key of the server's own
    r"|(?<=v=STSv1; id=)\d+|(?<=v=UAAC1; a=sha256; d=)[^\\]+"  # hashes of policies
)
TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
LEFT_OUT = {"accountCapabilities", "permissions"}  # long lists that serve no client of ours

# Every name in the recordings, changed so that the order of names stays what it was.
RENAMED = (
    (r"mana\.how", "oak.test"),
    (r"auto\.example\.org", "birch.example.net"),
    (r"(?<!\"defaultDomain\": \")example\.org", "pine.example.net"),  # that one is the server's own word
    (r"mana2026", "oak-a"),
    (r"rsa2026", "pin-b"),
    (r"(?<=\")Mana(?=\")", "Trees & co"),
    (r"(?<!mailto:)postmaster(?!-Passw0rd)", "desk"),
    (r"(?<!Passw0rd-)noreply", "calls"),
    (r"staff", "crew"),
    (r"alpha", "apple"),
    (r"zeta", "zulu"),
    (r"robot", "machine"),
    (r"weak", "frail"),
    (r"user(?=\d)", "person"),
    (r"bulk(?=\d)", "many"),
    (r"compose network", "the \u00fcber-network"),
    (r"No reply", "Machines only"),
    (r"Sends the app's mail", "Sends what the app says"),
    (r"(?<=\")submission(?=\")", "handover"),
    (r"172\.18\.0\.0/16", "10.9.0.0/20"),
    (r"172\.18\.0\.1/16", "10.9.0.1/20"),
    (r"203\.0\.113\.9", "198.51.100.77"),
    (r":587\b", ":1587"),
    (r"(?<=[ /\"])vm(?=[/.:\"])", "box7"),
)


def same(text):
    return text


def rename(text):
    for pattern, new in RENAMED:
        text = re.sub(pattern, new, text)
    return text


@pytest.fixture(scope="module")
def recordings(facts):
    folder = facts("stalwart/recordings")
    return {name: UNKNOWN_HASH.sub(KNOWN_HASH, (folder / f"{name}.jsonl").read_text()) for name in RECORDINGS}


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


def send(fake, path, body=None, *, method="POST", auth=None, content_type="application/json"):
    headers = {"content-type": content_type} if body is not None else {}
    if auth:
        headers["authorization"] = "Basic " + base64.b64encode(auth.encode()).decode()
    text = body if isinstance(body, str) else json.dumps(body, separators=(",", ":")) if body is not None else ""
    return fake(Request(method, path, path, {}, headers, text.encode(), "127.0.0.1"))


def server(name, recordings, change):
    """Start a server in the state in which the recorded one was at first."""
    clock = Clock()
    bootstraps = name in ("stalwart-0.16.18-bootstrap", "stalwart-0.16.18")
    fake = StalwartJmap(
        environment={"STALWART_RECOVERY_ADMIN": f"admin:{ADMIN}"},
        configured=not bootstraps,
        os_hostname=change('"vm"').strip('"'),
        no_dns=True,
        clock=clock,
    )
    if name == "stalwart-0.16.18":  # it goes on where another one stops
        lines = map(json.loads, change(recordings["stalwart-0.16.18-bootstrap"]).splitlines())
        body = next(line["request"]["body"] for line in lines if line["name"] == "bootstrap set")
        assert send(fake, "/jmap", body, auth=f"admin:{ADMIN}").status == 200
        fake.restart()
    return fake, clock


def authorization(recording, item, change):
    auth = item["request"].get("auth")
    if auth is None:
        return None
    password = ADMIN if auth == "admin" else CHANGED.get(item["name"], PASSWORDS.get((recording, auth)))
    return f"{change(auth)}:{'not the password' if item['name'] in WRONG else password}"


def plain(value):
    """Take out what is left out."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in LEFT_OUT}
    return [plain(item) for item in value] if isinstance(value, list) else value


def text_of(body):
    return TIME.sub("TIME", json.dumps(plain(body), sort_keys=True, ensure_ascii=False))


def bind(recorded, ours, bound):
    """Put our values for the recorded ones into the recorded answer, as far as it agrees with ours."""
    pattern, last = "", 0
    for match in CHOSEN.finditer(recorded):
        pattern += re.escape(recorded[last : match.start()]) + '([^"\\\\]+)'
        last = match.end()
    found = re.fullmatch(pattern + re.escape(recorded[last:]), ours)
    if found is not None:
        for match, mine in zip(CHOSEN.finditer(recorded), found.groups(), strict=True):
            bound.setdefault(match[0], mine)
    return replaced(recorded, bound)


def replaced(text, bound):
    return CHOSEN.sub(lambda match: bound.get(match[0], match[0]), text)


def replay(name, recordings, change):
    """Return what differs: (name, recorded answer, our answer)."""
    fake, clock = server(name, recordings, change)
    bound, differences = {}, []
    lines = recordings[name].splitlines()
    for original, line in zip(map(json.loads, lines), map(change, lines), strict=True):
        clock.now += WAITED.get(original["name"], 1.0)
        item = json.loads(line)
        sent, recorded = item["request"], item["response"]
        body = sent.get("body")
        if isinstance(body, dict):
            body = json.loads(replaced(json.dumps(body), bound))
        content_type = "text/plain" if original["name"] == "wrong content type" else "application/json"
        auth = authorization(name, original, change)
        reply = send(fake, sent["path"], body, method=sent["method"], auth=auth, content_type=content_type)
        ours = text_of(json.loads(reply.body) if reply.body else "")
        expected = (recorded["status"], recorded["content_type"] or "", bind(text_of(recorded["body"]), ours, bound))
        answered = (reply.status, reply.content_type, ours)
        for field, header in (("www_authenticate", "WWW_Authenticate"), ("location", "Location")):
            if field in recorded:
                expected += (recorded[field],)
                answered += (reply.headers.get(header),)
        if expected != answered:
            differences.append((original["name"], expected, answered))
    assert len(set(bound.values())) == len(bound)  # two values that differed there differ here
    return differences


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("change", [same, rename], ids=["as recorded", "every name changed"])
def test_answers_as_the_real_server_did(recordings, name, change):
    assert replay(name, recordings, change) == []


def test_the_renaming_reaches_every_name(recordings):
    text = rename("".join(recordings.values()))
    left = re.findall(
        r"mana(?!ge)\w*|(?<!Passw0rd-)noreply(?!-Passw0rd)|staff|\w+2026(?=[\"._])|172\.18|203\.0\.113|example\.org(?!\")",
        text,
    )
    assert left == []


def test_permissions_have_the_real_names(recordings):
    lines = [json.loads(line) for text in recordings.values() for line in text.splitlines()]
    found = [line["response"]["body"]["permissions"] for line in lines if line["request"]["path"] == "/api/account"]
    admin, user = sorted(found, key=len, reverse=True)
    fake = StalwartJmap(environment={"STALWART_RECOVERY_ADMIN": f"admin:{ADMIN}"})
    ours = json.loads(send(fake, "/api/account", method="GET", auth=f"admin:{ADMIN}").body)["permissions"]
    assert set(ours) - {"sysBootstrapGet", "sysBootstrapUpdate"} <= set(admin)
    roles = {role["description"]: set(role["enabledPermissions"]) for _, role in fake.store.all("Role")}
    # What looks others up is granted only where Sharing allows it.
    directory = {name for name in roles["User"] if re.match("jmapPrincipal(Changes|Get|Query)", name)}
    assert roles["User"] - directory == set(user)
