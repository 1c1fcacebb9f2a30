"""A fake server over real HTTP, and the way from desired resources to an empty second plan."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from reconciler.plan import Desired, Plan, diff
from reconciler.problem import Problem, SecretUnreadable
from reconciler.resources import (
    Account,
    AllowedIp,
    Domain,
    Listener,
    Observation,
    Resource,
    SecretRef,
    Setting,
    Signature,
)
from reconciler.simulator.stalwart.jmap.server import StalwartJmap as NewFake
from reconciler.simulator.stalwart.rest.server import StalwartRest as Fake
from reconciler.simulator.wire import Server
from reconciler.target import Outcome
from reconciler.targets.stalwart import Stalwart
from reconciler.targets.stalwart.jmap.bootstrap import Setup
from reconciler.targets.stalwart.passwords import hashed

ADMIN = "adm1n-passw0rd"
NO_TLS = False  # to read the authorities, whom nobody is asked about, takes 30 ms a call


def ref(name: str) -> SecretRef:
    return SecretRef("env", name)


@dataclass
class World:
    """One fake server, the target that drives it, and the secrets it may reveal."""

    fake: Any
    server: Server
    secrets: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    revealed: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connect()

    def connect(self, **options: Any) -> Stalwart:
        defaults = {"url": self.server.url, "username": "admin", "passwords": [ref("ADMIN")]}
        self.target = Stalwart(**(defaults | self.options | options), progress=self.said.append)
        return self.target

    def reveal(self, secret: SecretRef) -> str:
        self.revealed.append(secret.name)
        if secret.name not in self.secrets:
            raise SecretUnreadable(Problem(str(secret), "is not set", f"set the variable {secret.name}"))
        return self.secrets[secret.name]

    def observe(self, wanted: Sequence[Resource] = ()) -> Observation:
        return self.target.observe(wanted, self.reveal)

    def plan(self, wanted: Sequence[Resource], **more: Any) -> Plan:
        return diff(Desired(tuple(wanted), **more), {"stalwart": self.observe(wanted)}, stack="mana")

    def apply(self, wanted: Sequence[Resource], **more: Any) -> dict[str, Outcome]:
        """Plan and apply; outcomes by address, one for each change."""
        plan = self.plan(wanted, **more)
        assert plan.complete, plan.problems
        outcomes = list(self.target.apply(plan.changes, self.reveal))
        assert sorted(item.change.address for item in outcomes) == sorted(item.address for item in plan.changes)
        return {item.change.address: item for item in outcomes}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server as a person would who manages it by hand."""
        import httpx

        auth = ("admin", self.secrets["ADMIN"])
        answer = httpx.request(method, f"{self.server.url}{path}", json=body, auth=auth, verify=NO_TLS)
        return answer.json()

    def principal(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/api/principal/{name}")["data"]
        return found

    def make(self, **body: Any) -> None:
        """Make a principal as somebody else would."""
        assert "data" in self.call("POST", "/api/principal", body)

    def store(self, values: Mapping[str, str]) -> None:
        """Store settings as somebody else would."""
        operation = {"type": "insert", "prefix": None, "values": list(values.items()), "assert_empty": False}
        assert "data" in self.call("POST", "/api/settings", [operation])


class NewWorld(World):
    """The same for a server from 0.16, which a person manages over JMAP through the recovery administrator."""

    def call(self, method: str, arguments: Any = None, /, **more: Any) -> Any:
        """Make one call, such as ``call("Account/get", ids=None)``, and return what it answers."""
        import httpx

        body = {"using": ["urn:stalwart:jmap"], "methodCalls": [[f"x:{method}", (arguments or {}) | more, "0"]]}
        auth = tuple(self.secrets["RECOVERY"].split(":"))
        answer = httpx.post(f"{self.server.url}/jmap", json=body, auth=auth, verify=NO_TLS)
        return answer.json()["methodResponses"][0][1]

    def objects(self, kind: str) -> list[dict[str, Any]]:
        """Read all objects of a kind, or the singleton."""
        found: list[dict[str, Any]] = self.call(f"{kind}/get", ids=None)["list"]
        return found or list(self.call(f"{kind}/get", ids=["singleton"])["list"])

    def create(self, kind: str, **body: Any) -> str:
        """Create an object as somebody else would, and return its id."""
        answer = self.call(f"{kind}/set", create={"x": body})
        assert "created" in answer, answer
        return str(answer["created"]["x"]["id"])

    def update(self, kind: str, key: str, **body: Any) -> None:
        """Change an object as somebody else would."""
        answer = self.call(f"{kind}/set", update={key: body})
        assert "updated" in answer, answer

    def requests(self) -> list[Any]:
        """Return the calls of every request to the API so far, one list each, and forget them."""
        found = [item.json()["methodCalls"] for item in self.server.requests if item.path == "/jmap"]
        self.server.requests.clear()
        return found


@pytest.fixture
def new_fake() -> Iterator[NewFake]:
    with NewFake(environment={"STALWART_RECOVERY_ADMIN": "admin:rec0very secret"}, configured=True) as fake:
        yield fake


@pytest.fixture
def newer(new_fake: NewFake, keys: Mapping[str, str]) -> Iterator[NewWorld]:
    """A server from 0.16 behind an empty store."""
    with Server(new_fake) as server:
        secrets = {"ADMIN": ADMIN, "NOREPLY": "n0reply secret", "POSTMASTER": hashed("p0stmaster secret"), **keys}
        secrets["RECOVERY"] = "admin:rec0very secret"
        options = {"recovery": ref("RECOVERY"), "setup": Setup("mail.mana.how", "mana.how")}
        yield NewWorld(new_fake, server, secrets, options)
        assert not server.crashes


@pytest.fixture
def newly_wanted(wanted: Sequence[Resource]) -> list[Resource]:
    """The example as it is for 0.16: everybody has an address, and there are no settings by key."""
    kept = (item for item in wanted if not item.address.startswith("stalwart/settings/"))
    return [replace(item, email="admin@mana.how") if item.address == "account/admin" else item for item in kept]


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake(environment={"STALWART_ADMIN_PASSWORD": ADMIN}) as fake:
        yield fake


@pytest.fixture
def world(fake: Fake, keys: Mapping[str, str]) -> Iterator[World]:
    with Server(fake) as server:
        secrets = {"ADMIN": ADMIN, "NOREPLY": "n0reply secret", "POSTMASTER": hashed("p0stmaster secret"), **keys}
        yield World(fake, server, secrets)
        assert not server.crashes


@pytest.fixture(scope="session")
def keys() -> dict[str, str]:
    """Private keys as people hand them in: PKCS#8."""

    def pem(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> str:
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    return {
        "ED": pem(ed25519.Ed25519PrivateKey.generate()),
        "ED2": pem(ed25519.Ed25519PrivateKey.generate()),
        "RSA": pem(rsa.generate_private_key(65537, 2048)),
    }


@pytest.fixture
def wanted(keys: Mapping[str, str]) -> list[Resource]:
    """The example: a domain, three accounts, two keys, and every word."""
    from reconciler.keys import public_half

    return [
        Domain("mana.how"),
        Account("admin", "admin", None, "System administrator", ("admin",), password=ref("ADMIN")),
        Account("noreply@mana.how", "noreply", "noreply@mana.how", None, ("user",), password=ref("NOREPLY")),
        Account(
            "postmaster@mana.how",
            "postmaster",
            "postmaster@mana.how",
            None,
            ("user",),
            ("abuse@mana.how", "dmarc@mana.how"),
            quota=1 << 30,
            password=ref("POSTMASTER"),
        ),
        Signature("mana.how", "mana2026", "ed25519", public_half("ed25519", keys["ED"]), private_key=ref("ED")),
        Signature("mana.how", "rsa2026", "rsa", public_half("rsa", keys["RSA"]), private_key=ref("RSA")),
        Setting("hostname", "mail.mana.how"),
        Setting("default_domain", "mana.how"),
        Setting("auto_ban/scan", "off"),
        Setting("settings/queue.limiter.inbound.ip.rate", "50/1s"),
        AllowedIp("172.18.0.0/16"),
        Listener("submission", ("[::]:587",), "smtp"),
    ]
