"""`make bench`: what a plan and an apply cost, beside octoDNS, against the same fake; writes `results.md`."""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import daemon
import growth
import many
import table
from cost import Cost, Run, run
from fakes import Dns, Mail, Remote, Stack
from goals import (
    FIRST_APPLY,
    NO_CHANGE,
    ONE_CHANGE,
    Goal,
    Row,
    dns_goals,
    no_dearer_than,
    requests_up_to,
    wall_under,
    writes,
    writes_up_to,
)
from records import TOKEN, ZONE, samples, write_accounts, write_octodns, write_reconciler

ROOT = Path(__file__).resolve().parents[1]
SIZES = (10, 200, 1000, 10_000)
LATENCIES = (0.0, 0.05)  # seconds
PAGE = 5000  # records; the most that Cloudflare serves at once
ACCOUNTS = 1000
OCTODNS_CREATES = 1000  # the largest first apply it is asked for: it writes record by record
PATIENCE = 5.0  # seconds of latency alone in one run; what takes longer is run once
HEAVY = ("cloudflare", "docker", "httpx", "structlog")
RECONCILER = (sys.executable, "-m", "reconciler")
SPARE = "    spare: {host: localhost, port: 2525, username: me, password: {env: BREVO_SMTP_KEY}}\n"  # nobody answers
INSECURE = "SMTP_INSECURE_TLS: ${SMTP_INSECURE_TLS:-true}"
OCTODNS = (str(Path(sys.executable).with_name("octodns-sync")), "--quiet", "--config-file")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the programs run: a temporary directory, and nothing of the user's environment but the way to Python."""

    path: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Make a child's environment."""
        base = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.path), "PYTHONPATH": str(ROOT)}
        return base | {"RECONCILER_DATA": str(self.path / "data"), "NO_COLOR": "1"} | more

    def run(self, command: Sequence[str], **more: str) -> Run:
        """Run a program as if it never had run here before."""
        shutil.rmtree(self.path / "data", ignore_errors=True)
        return run(command, self.path, self.environment(**more))


class Zone:
    """One zone of some size at the fake, and both programs' directories for it, as it is and with one change."""

    def __init__(self, place: Place, dns: Remote, size: int) -> None:
        self.place, self.dns, self.size = place, dns, size
        self.url: str = dns.call("url")
        dns.call("seed", size)
        for changed in (False, True):
            write_reconciler(self._state(changed=changed), samples(size, changed=changed))
            write_octodns(self._config(changed=changed), samples(size, changed=changed), self.url, PAGE)

    def rows(self, runs: int) -> Iterator[Row]:
        """Measure all tasks at all latencies."""
        self.check()
        for latency in LATENCIES:
            yield self.row(NO_CHANGE, latency, runs)
            yield self.row(ONE_CHANGE, latency, runs)
            yield self.row(FIRST_APPLY, latency, runs)

    def check(self) -> None:
        """See, in runs that do not count, that neither program finds anything to do where nothing is."""
        self.ours(NO_CHANGE, 0.0)
        _, (_, written) = self._octodns(NO_CHANGE, 0.0, "--doit")
        if written:
            sys.exit(f"octoDNS wrote {written} times where nothing had changed: the records are not the same")

    def row(self, task: str, latency: float, runs: int) -> Row:
        """Measure one task; the programs take turns, so that a change of the machine's load meets both."""
        tell(f"{self.size:6,} records, {latency * 1000:2.0f} ms: {task}")
        ours, octodns = [], []
        slow = task == FIRST_APPLY and self.size * latency > PATIENCE
        for number in range(runs):
            ours.append(self.ours(task, latency))
            if (task != FIRST_APPLY or self.size <= OCTODNS_CREATES) and (number == 0 or not slow):
                octodns.append(self.octodns(task, latency))
        goals = dns_goals(task, self.size, latency)
        return Row(task, _cost(ours), _cost(octodns) if octodns else None, self.size, latency, goals=goals)

    def ours(self, task: str, latency: float) -> tuple[Run, tuple[int, int]]:
        """Run the reconciler at a task once."""
        self.dns.call("reset", "empty" if task == FIRST_APPLY else "marked", latency)
        words = ("plan", "--detailed-exitcode") if task == NO_CHANGE else ("apply", "--yes")
        command = (*RECONCILER, *words, "--state", str(self._state(changed=task == ONE_CHANGE)))
        url = f"{self.url}/client/v4"
        done = self.place.run(command, CLOUDFLARE_API_TOKEN=TOKEN, CLOUDFLARE_BASE_URL=url)
        return done, self._counted(task)

    def octodns(self, task: str, latency: float) -> tuple[Run, tuple[int, int]]:
        """Run octoDNS at a task once."""
        return self._octodns(task, latency, *(() if task == NO_CHANGE else ("--doit",)))

    def _octodns(self, task: str, latency: float, *words: str) -> tuple[Run, tuple[int, int]]:
        self.dns.call("reset", "empty" if task == FIRST_APPLY else "plain", latency)
        done = self.place.run((*OCTODNS, str(self._config(changed=task == ONE_CHANGE) / "config.yaml"), *words))
        return done, self._counted(task)

    def _counted(self, task: str) -> tuple[int, int]:
        if not self.dns.call("holds", self.size, changed=task == ONE_CHANGE):
            sys.exit(f"{task}: the zone does not hold the {self.size} records it should")
        counted: tuple[int, int] = self.dns.call("counted")
        return counted

    def _state(self, *, changed: bool) -> Path:
        return self.place.path / f"ours-{self.size}-{changed:d}"

    def _config(self, *, changed: bool) -> Path:
        return self.place.path / f"octodns-{self.size}-{changed:d}"


def _cost(measured: Sequence[tuple[Run, tuple[int, int]]]) -> Cost:
    """Put the runs together; the requests are the most that one of them made."""
    reads = max(counted[0] for _, counted in measured)
    written = max(counted[1] for _, counted in measured)
    return Cost(tuple(done for done, _ in measured), reads, written)


# ------------------------------------------------------------------------------------------------- the whole example
def whole_example(place: Place, runs: int, beside: Path | None) -> Iterator[Row]:
    """Measure the example with all its systems, everything at the larger latency: nothing to change, then a switch."""
    tell("the whole example")
    latency = LATENCIES[-1]
    with Remote(Stack, ROOT / "tests" / "example", place.path / "stack") as stack:
        state = ("--state", str(place.path / "stack" / "desired-state"))
        environment = stack.call("environment")
        place.run((*RECONCILER, "apply", "--yes", *state), **environment)
        plan = (*RECONCILER, "plan", "--detailed-exitcode", *state)
        place.run(plan, **environment)
        measured, counts = [], {}
        for _ in range(runs):
            stack.call("reset", latency)
            done = place.run(plan, **environment)
            counts = stack.call("counted")
            measured.append((done, _total(counts)))
        yield Row(
            "the whole example, no change",
            _cost(measured),
            latency=latency,
            note=", ".join(f"{name} {sum(counted)}" for name, counted in counts.items()),
            goals=(
                Goal("at most 2 to Cloudflare", lambda _: sum(counts["Cloudflare"]) <= 2),
                Goal("at most 3 to Stalwart", lambda _: sum(counts["Stalwart"]) <= 3),
                writes(0),
                wall_under(0.9),
            ),
        )
        yield from quick(place, runs, state)
        yield from looks(place, stack, runs, state)
        yield from switches(place, stack, runs, state, beside)


def switches(place: Place, stack: Remote, runs: int, state: Sequence[str], beside: Path | None) -> Iterator[Row]:
    """Measure a switch to another provider and back, planned and applied; in turn with another checkout, if given."""
    tell("a switch of the example")
    smtp, compose = (place.path / "stack" / name for name in ("desired-state/smtp.yaml", "docker-compose.macmini.yml"))
    text = smtp.read_text().replace("  providers:\n", f"  providers:\n{SPARE}", 1)
    compose.write_text(compose.read_text().replace('SMTP_INSECURE_TLS: "true"', INSECURE))
    environment, checkouts = stack.call("environment"), [ROOT, *([beside] if beside else [])]
    measured: dict[tuple[str, Path], list[tuple[Run, tuple[int, int]]]] = {}
    turns = zip([*checkouts, *reversed(checkouts)] * runs, itertools.cycle(("spare", "stalwart")))
    for root, provider in turns:
        smtp.write_text(text.replace("  provider: stalwart\n", f"  provider: {provider}\n", 1))
        for words in ("plan", "apply --yes"):
            stack.call("reset", LATENCIES[-1])
            done = place.run((*RECONCILER, *words.split(), *state), **{**environment, "PYTHONPATH": str(root)})
            measured.setdefault((words, root), []).append((done, _total(stack.call("counted"))))
    for words in ("plan", "apply --yes"):
        costs = {root: _cost(measured[words, root]) for root in checkouts}
        for root, cost in costs.items():
            task = f"a switch of the example, `{words}`" + ("" if root == ROOT else ", the checkout beside")
            goals = (no_dearer_than(costs[beside]),) if beside and root == ROOT else ()
            yield Row(task, cost, latency=LATENCIES[-1], goals=goals)


def looks(place: Place, stack: Remote, runs: int, state: Sequence[str]) -> Iterator[Row]:
    """Measure the commands that only look: at the keys, at a rotation of which nothing is due, at all for an import."""
    environment, compose = stack.call("environment"), place.path / "stack" / "docker-compose.macmini.yml"
    keys, rotate = ("dkim", "list", *state), ("dkim", "rotate", "mana.how", *state)
    imported = (
        *("import", "--stalwart", environment["STALWART_URL"], "--zone", "mana.how", "--compose", str(compose)),
        *("--stack", "mana", "--out", str(place.path / "imported")),
    )
    yield _look("`dkim list` of the example", place, stack, runs, keys)
    yield _look("`import` of the example", place, stack, runs, imported)
    for words in (rotate, ("apply", "--yes", *state), rotate):  # the new keys take over, and the old ones wait a week
        place.run((*RECONCILER, *words), **environment)
    yield _look("`dkim rotate`, nothing due", place, stack, runs, rotate)


def _look(task: str, place: Place, stack: Remote, runs: int, words: Sequence[str], *goals: Goal) -> Row:
    tell(task)
    latency, measured = LATENCIES[-1], []
    for _ in range(runs):
        shutil.rmtree(place.path / "imported", ignore_errors=True)
        stack.call("reset", latency)
        done = place.run((*RECONCILER, *words), **stack.call("environment"))
        measured.append((done, _total(stack.call("counted"))))
    wanted = () if "--probe" in words else (writes(0),)  # it takes its mail out of the mailbox again
    return Row(task, _cost(measured), latency=latency, goals=(*wanted, *goals))


def examined(place: Place, runs: int) -> Iterator[Row]:
    """Measure `doctor` on the healthy example: with Stalwart 0.16, whose volumes lie where its image keeps its data."""
    with Remote(Stack, ROOT / "tests" / "example", place.path / "examined", "jmap") as stack:
        state = ("--state", str(place.path / "examined" / "desired-state"))
        place.run((*RECONCILER, "apply", "--yes", *state), **stack.call("environment"))
        yield _look("`doctor` of the example", place, stack, runs, ("doctor", *state), wall_under(5))
        yield _look("`doctor --probe` of the example", place, stack, runs, ("doctor", "--probe", *state))


# --------------------------------------------------------------------------------------------- the newer mail server
@dataclass(frozen=True, slots=True)
class Task:
    """What is measured on a mail server: the command's words on a directory, and how many accounts there are after."""

    name: str
    state: Path
    accounts: int
    words: tuple[str, ...]
    goals: tuple[Goal, ...]


class MailServer:
    """Stalwart 0.16 with the example, or with many accounts; only this target takes part."""

    def __init__(self, place: Place, mail: Remote) -> None:
        self.place, self.mail = place, mail
        self.environment: dict[str, str] = mail.call("environment")
        example, many = place.path / "mail" / "desired-state", place.path / "accounts"
        write_accounts(many, ACCOUNTS)
        plan, apply = ("plan", "--detailed-exitcode"), ("apply", "--yes")
        self.quiet = Task(NO_CHANGE, example, 3, plan, (requests_up_to(2), writes(0)))
        self.restores = (
            Task("restore of the example", example, 3, apply, (requests_up_to(3),)),
            Task(f"restore of {ACCOUNTS:,} accounts", many, ACCOUNTS + 1, apply, (writes_up_to(2), wall_under(5))),
        )

    def rows(self, runs: int) -> Iterator[Row]:
        """Measure all tasks at all latencies."""
        for latency in LATENCIES:
            tell(f"Stalwart 0.16, {latency * 1000:2.0f} ms")
            self.mail.call("wipe")
            self._run(self.restores[0])  # the first one of all leaves bootstrap mode, too
            for task in (self.quiet, *self.restores):
                yield self.row(task, latency, runs)

    def row(self, task: Task, latency: float, runs: int) -> Row:
        """Measure one task; what needs no login, and the login that an empty store refuses, is told apart."""
        measured, seen = [], {}
        for _ in range(runs):
            if task in self.restores:
                self.mail.call("wipe")
            self.mail.call("reset", latency)
            done = self._run(task)
            seen = self.mail.call("counted")
            measured.append((done, (seen["reads"], seen["writes"])))
            if self.mail.call("accounts") != task.accounts:
                sys.exit(f"{task.name}: the server does not hold the {task.accounts} accounts it should")
        note = f"beside {seen['open']} without login" + f" and {seen['refused']} refused login" * bool(seen["refused"])
        return Row(f"Stalwart 0.16, {task.name}", _cost(measured), latency=latency, note=note, goals=task.goals)

    def _run(self, task: Task) -> Run:
        command = (*RECONCILER, *task.words, "--target", "stalwart", "--state", str(task.state))
        return self.place.run(command, **self.environment)


def newer_mail_server(place: Place, runs: int) -> Iterator[Row]:
    """Measure Stalwart from 0.16."""
    with Remote(Mail, ROOT / "tests" / "example", place.path / "mail") as mail:
        yield from MailServer(place, mail).rows(runs)


def of_daemon(place: Place, runs: int) -> Iterator[Row]:
    """Measure the daemon."""
    return daemon.rows(ROOT, place.path, place.environment, runs)


def of_fleet(place: Place) -> Iterator[Row]:
    """Measure a fleet."""
    return many.rows(ROOT, place.path, place.environment)


def of_growth(place: Place, runs: int, divisor: int = 1) -> Iterator[Row]:
    """Measure what grows with what is declared."""
    tell("what grows")
    ground = growth.Ground(place.path, lambda words, more: place.run((*RECONCILER, *words), **more), runs, divisor)
    return growth.rows(ROOT, ground)


def _total(counts: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    reads, written = zip(*counts.values(), strict=True)
    return sum(reads), sum(written)


def quick(place: Place, runs: int, state: Sequence[str]) -> Iterator[Row]:
    """Measure what needs no system: neither the time nor the libraries to reach one."""
    for words in (("--help",), ("validate", *state)):
        tell(words[0])
        loaded = _loaded(place, words)
        measured = [(place.run((*RECONCILER, *words)), (0, 0)) for _ in range(max(runs, 5))]
        text = f"imports none of {', '.join(HEAVY)}"
        goals = (wall_under(0.25), Goal(text, lambda _, loaded=loaded: not loaded & set(HEAVY)))  # type: ignore[misc]
        yield Row(f"`{words[0]}`" + (" of the example" if state[0] in words else ""), _cost(measured), goals=goals)


def _loaded(place: Place, words: Sequence[str]) -> set[str]:
    """Return the packages that a command imports."""
    told = place.run((sys.executable, "-X", "importtime", "-m", "reconciler", *words)).errors
    return set(re.findall(r"(?m)^import time:.*\| +([^.\s]+)", told))


# ------------------------------------------------------------------------------------------------------ the reference
def reference(place: Place, dns: Remote, rows: Sequence[Row], runs: int) -> Iterator[str]:
    """Measure the fake itself, with a plain client that only reads the bytes, and octoDNS as it is configured alone."""
    size = max(row.size for row in rows)
    for latency in LATENCIES:
        tell(f"the fake itself, {latency * 1000:.0f} ms")
        dns.call("reset", "plain", latency)
        url = dns.call("url")
        pages = ", ".join(
            f"{seconds:.2f} s with pages of {per_page:,} (requests: {requests})"
            for per_page in (PAGE, 100)
            for seconds, requests in [_listed(url, per_page)]
        )
        dns.call("reset", "empty", latency)
        number = max(10, int(2 / (latency + 0.005)))
        each = _created(url, number) / number * 1000
        yield (
            f"The fake itself at {latency * 1000:.0f} ms, asked by a plain client: {size:,} records listed in {pages}; "
            f"one record created in {each:.1f} ms; octoDNS creates one in {_octodns_creates(rows, latency):.1f} ms."
        )
        config = place.path / f"octodns-default-{latency}"
        write_octodns(config, samples(size), url, 100)
        done = []
        for _ in range(runs):
            dns.call("reset", "plain", latency)
            done.append((place.run((*OCTODNS, str(config / "config.yaml"))), dns.call("counted")))
        cost = _cost(done)
        yield (
            f"octoDNS with its default pages of 100 at {latency * 1000:.0f} ms, {size:,} records, no change: "
            f"{cost.reads} requests, {cost.wall:.2f} s."
        )


def _octodns_creates(rows: Sequence[Row], latency: float) -> float:
    """Return octoDNS's milliseconds for one record: of its largest first apply, without what reading takes."""
    walls = {(row.task, row.size): row.octodns.wall for row in rows if row.octodns and row.latency == latency}
    size = max(size for task, size in walls if task == FIRST_APPLY)
    return (walls[FIRST_APPLY, size] - walls[NO_CHANGE, size]) / size * 1000


def _ask(url: str) -> Callable[..., bytes]:
    """Return how to ask the fake over one connection."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)

    def ask(method: str, path: str, body: object = None) -> bytes:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        sent = None if body is None else json.dumps(body).encode()
        connection.request(method, f"/client/v4{path}", sent, headers)
        return connection.getresponse().read()

    return ask


def _zone(ask: Callable[..., bytes]) -> str:
    return str(json.loads(ask("GET", f"/zones?name={ZONE}"))["result"][0]["id"])


def _listed(url: str, per_page: int) -> tuple[float, int]:
    """List the zone; return the seconds, and how many requests it took."""
    ask, page, pages = _ask(url), 0, 1
    zone = _zone(ask)
    began = time.perf_counter()
    while page < pages:
        page += 1
        tail = ask("GET", f"/zones/{zone}/dns_records?per_page={per_page}&page={page}")[-300:]
        pages = int(tail.rpartition(b'"total_pages":')[2].split(b"}")[0])
    return time.perf_counter() - began, pages


def _created(url: str, number: int) -> float:
    """Create records one by one; return the seconds."""
    ask = _ask(url)
    path = f"/zones/{_zone(ask)}/dns_records"
    began = time.perf_counter()
    for index in range(number):
        ask("POST", path, {"type": "A", "name": f"host{index}", "content": "192.0.2.1", "ttl": 300})
    return time.perf_counter() - began


# --------------------------------------------------------------------------------------------------------------- main
def tell(text: str) -> None:
    """Show progress."""
    print(text, file=sys.stderr, flush=True)


def estimate(sizes: Sequence[int], runs: int) -> float:
    """Guess how long all takes, in minutes: start-up, work per record, and octoDNS's writes one by one."""
    created = sum(size * (latency + 0.005) for size in sizes if size <= OCTODNS_CREATES for latency in LATENCIES)
    worked = sum(2 * runs * (5 * 0.8 + size * 0.0025) for size in sizes)
    return (created + worked) / 60


def measure(place: Place, sizes: Sequence[int], runs: int, beside: Path | None) -> tuple[list[Row], list[str]]:
    """Measure everything; return the rows and the notes below them."""
    rows = [*whole_example(place, runs, beside), *examined(place, runs)]
    rows += [*newer_mail_server(place, runs), *of_daemon(place, runs), *of_growth(place, runs), *of_fleet(place)]
    with Remote(Dns) as dns:
        Zone(place, dns, 1).check()  # warm: byte code is written, files are in memory
        for size in sizes:
            rows += Zone(place, dns, size).rows(runs)
        return rows, [*reference(place, dns, rows, runs), *many.on_paper(rows)]


def main() -> None:
    """Measure, print the page and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="records of a zone; 10 always")
    parser.add_argument("--runs", type=int, default=3, help="of each task; the median counts")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.md"))
    parser.add_argument("--daemon", action="store_true", help="measure nothing but the daemon")
    parser.add_argument("--example", action="store_true", help="measure nothing but the example")
    parser.add_argument("--growth", type=int, metavar="DIVISOR", help="measure nothing but what grows, so much smaller")
    parser.add_argument("--fleet", type=int, metavar="STACKS", help="measure nothing but a fleet of so many stacks")
    parser.add_argument("--beside", type=Path, help="another checkout: a switch is measured with it, too, in turn")
    options = parser.parse_args()
    sizes = sorted({*options.sizes, SIZES[0]})
    beside = options.beside.resolve() if options.beside else None
    parts = options.daemon or options.example or options.growth or options.fleet
    if options.fleet:
        many.smaller(options.fleet)
    if not parts:
        tell(f"This takes about {estimate(sizes, options.runs):.0f} minutes on an idle machine.")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="reconciler-bench-") as folder:
        place = Place(Path(folder))
        rows: list[Row] = []
        notes: list[str] = []
        if parts:
            rows += of_daemon(place, options.runs) if options.daemon else ()
            rows += whole_example(place, options.runs, beside) if options.example else ()
            rows += of_growth(place, options.runs, options.growth) if options.growth else ()
            rows += of_fleet(place) if options.fleet else ()
            notes += many.on_paper(rows)
        else:
            rows, notes = measure(place, sizes, options.runs, beside)
    page = table.render(ROOT, rows, notes, load)
    options.out.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
