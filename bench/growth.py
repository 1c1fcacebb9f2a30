"""What grows with what is declared: twice as much must cost twice as much, and no more (issue 16, rows S1 to S3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cost import Cost, Run
from fakes import Estate, Mail, Remote
from goals import Goal, Row
from records import STACK, samples, write_reconciler, zones_of

STEPS = (1, 5)  # a fifth and all: a straight line costs five times as much, and a square twenty-five times
BEND = 1.4  # how far from a straight line still counts as one; what every start costs makes it flatter
Measure = Callable[[Sequence[str], Mapping[str, str]], Run]


@dataclass(frozen=True, slots=True)
class Growth:
    """One row: what is declared ``size`` times by ``write``, and the command's words; within ``limit`` seconds."""

    name: str
    size: int
    write: Callable[[Path, int], Mapping[str, str]]
    words: tuple[str, ...]
    limit: float | None = None
    afresh: bool = False  # on empty systems each time
    before: tuple[str, ...] = ()  # what is run once on empty systems, and not measured


def _head(state: Path, targets: str) -> None:
    state.mkdir(parents=True)
    (state / "reconciler.yaml").write_text(f"version: 1\nstack: {STACK}\ntargets: {targets}\n")


def _accounts(state: Path, size: int) -> Mapping[str, str]:
    """Write accounts with a secret of their own each; return the secrets."""
    server = (
        '{url: "http://localhost", username: admin, password: {env: STALWART_ADMIN_PASSWORD}, '
        "recovery: {env: STALWART_RECOVERY_ADMIN}, container: mana-mail}"
    )
    _head(state, f"{{stalwart: {server}}}")
    lines = [f"  user{number}@mana.how: {{password: {{env: SECRET_{number}}}}}\n" for number in range(size)]
    admin = "  admin: {roles: [admin], password: {env: STALWART_ADMIN_PASSWORD}}\n"
    (state / "accounts.yaml").write_text("".join(["accounts:\n", admin, *lines]))
    return {f"SECRET_{number}": f"a-secret-of-{number}-alone" for number in range(size)}


def _records(state: Path, size: int) -> Mapping[str, str]:
    write_reconciler(state, samples(size))
    return {}


def _zones(state: Path, size: int) -> Mapping[str, str]:
    _head(state, "{cloudflare: {token: {env: CLOUDFLARE_API_TOKEN}}}")
    record = '{type: MX, name: "@", content: mail.example.net, priority: 10}'
    lines = (f"  {zone}:\n    - {record}\n" for zone in zones_of(size))
    (state / "dns.yaml").write_text("dns:\n" + "".join(lines))
    return {}


def _keys(state: Path, size: int) -> Mapping[str, str]:
    """Write keys of a domain and a private key of their own each, some in each zone; return the private keys."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    server = '{url: "http://localhost", username: admin, password: {env: STALWART_ADMIN_PASSWORD}}'
    _head(state, f"{{stalwart: {server}, cloudflare: {{token: {{env: CLOUDFLARE_API_TOKEN}}}}}}")
    zones = zones_of(ZONES)
    (state / "dns.yaml").write_text("dns:\n" + "".join(f"  {zone}: []\n" for zone in zones))
    with (state / "dkim.yaml").open("w") as file:
        file.write("dkim:\n")
        for number in range(size):
            entry = f"{{selector: s1, algorithm: ed25519, private_key: {{env: KEY_{number}}}}}"
            file.write(f"  d{number}.{zones[number % ZONES]}:\n    - {entry}\n")
    plain = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    made = {f"KEY_{number}": Ed25519PrivateKey.generate().private_bytes(*plain).decode() for number in range(size)}
    return {"STALWART_ADMIN_PASSWORD": PASSWORD, **made}


ZONES = 200
PASSWORD = "an-administrator-of-the-fake"
APPLY = ("apply", "--yes")
PLAN, JSON = ("plan", "--target", "stalwart"), ("--output", "json")
MAIL = (
    Growth("accounts of own secrets, planned as JSON", 5000, _accounts, (*PLAN, *JSON), 5.0, afresh=True),
    Growth("accounts of own secrets, first applied", 5000, _accounts, (*APPLY, "--target", "stalwart"), afresh=True),
)
ESTATE = (
    Growth("zones, planned afresh", ZONES, _zones, ("plan",), afresh=True),
    Growth("zones, planned again", ZONES, _zones, ("plan", "--detailed-exitcode"), before=APPLY),
    Growth("keys, planned afresh", 1000, _keys, ("plan",), afresh=True),
    Growth("keys, first applied", 1000, _keys, APPLY, afresh=True),
    Growth("keys, planned again", 1000, _keys, ("plan", "--detailed-exitcode"), before=APPLY),
)
ALONE = (
    Growth("records, validated", 10_000, _records, ("validate",)),
    Growth("zones, validated", ZONES, _zones, ("validate",)),
    Growth("keys, validated", 1000, _keys, ("validate",)),
)


@dataclass(frozen=True, slots=True)
class Ground:
    """Where and how often it is measured. ``divisor`` makes all smaller, for a first look."""

    folder: Path
    measure: Measure
    runs: int
    divisor: int = 1


def rows(root: Path, ground: Ground) -> Iterator[Row]:
    """Measure each at a fifth of its size and at all of it."""
    with Remote(Mail, root / "tests" / "example", ground.folder / "growing") as mail:
        for growth in (*MAIL, *ALONE):
            yield from _grown(growth, ground, mail)
    with Remote(Estate, ZONES, PASSWORD) as estate:
        for growth in ESTATE:
            yield from _grown(growth, ground, estate)


def _grown(growth: Growth, ground: Ground, fakes: Remote) -> Iterator[Row]:
    environment: dict[str, str] = fakes.call("environment")
    small: float | None = None
    for step in STEPS:
        size = growth.size * step // STEPS[-1] // ground.divisor
        name = f"growth-{growth.name.replace(',', '').replace(' ', '-')}-{size}"
        secrets = growth.write(ground.folder / name, size)
        done = []
        state = ("--state", str(ground.folder / name))
        if growth.before:
            fakes.call("wipe")
            ground.measure((*growth.before, *state), {**environment, **secrets})
        for _ in range(ground.runs):
            if growth.afresh:
                fakes.call("wipe")
            done.append(ground.measure((*growth.words, *state), {**environment, **secrets}))
        cost = Cost(tuple(done))
        goals = tuple(_goals(growth, small, whole=step == STEPS[-1]))
        small = cost.cpu if small is None else small
        yield Row(f"{size:,} {growth.name}", cost, size=size, goals=goals)


def _goals(growth: Growth, small: float | None, *, whole: bool) -> Iterator[Goal]:
    if small is not None:
        straight = small * STEPS[-1] / STEPS[0] * BEND
        yield Goal(f"a straight line: CPU up to {straight:.2f} s", lambda row: row.ours.cpu <= straight)
    if growth.limit is not None and whole:
        limit = growth.limit
        yield Goal(f"CPU under {limit:.0f} s", lambda row: row.ours.cpu < limit)
