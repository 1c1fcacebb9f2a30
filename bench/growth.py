"""What grows with what is declared: twice as much must cost twice as much, and no more (issue 16, rows S1 to S3)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cost import Cost, Run
from fakes import Mail, Remote
from goals import Goal, Row
from records import STACK, samples, write_reconciler

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
    afresh: bool = False  # on an empty server each time


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
    zones = (f"  zone{number}.example:\n    - {record}\n" for number in range(size))
    (state / "dns.yaml").write_text("dns:\n" + "".join(zones))
    return {}


def _keys(state: Path, size: int) -> Mapping[str, str]:
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    _head(state, "{cloudflare: {token: {env: CLOUDFLARE_API_TOKEN}}}")
    raw = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    public = base64.b64encode(raw).decode()
    entry = f"{{selector: s1, algorithm: ed25519, stage: pending, public_key: {public}}}"
    domains = (f"  domain{number}.example:\n    - {entry}\n" for number in range(size))
    (state / "dkim.yaml").write_text("dkim:\n" + "".join(domains))
    return {}


MAIL = (
    Growth("accounts of own secrets, planned as JSON", 5000, _accounts, ("plan", "--output", "json"), 5.0, afresh=True),
    Growth("accounts of own secrets, first applied", 5000, _accounts, ("apply", "--yes"), afresh=True),
)
ALONE = (
    Growth("records, validated", 10_000, _records, ("validate",)),
    Growth("zones, validated", 200, _zones, ("validate",)),
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


def _grown(growth: Growth, ground: Ground, mail: Remote) -> Iterator[Row]:
    environment: dict[str, str] = mail.call("environment")
    small: float | None = None
    for step in STEPS:
        size = growth.size * step // STEPS[-1] // ground.divisor
        name = f"growth-{growth.name.partition(',')[0].replace(' ', '-')}-{growth.words[0]}-{size}"
        secrets = growth.write(ground.folder / name, size)
        done = []
        for _ in range(ground.runs):
            if growth.afresh:
                mail.call("wipe")
            target = ("--target", "stalwart") if growth in MAIL else ()
            words = (*growth.words, *target, "--state", str(ground.folder / name))
            done.append(ground.measure(words, {**environment, **secrets}))
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
