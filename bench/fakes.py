"""The fakes, each in a process of its own: their CPU time and memory are not those of the measured programs."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from records import MARK, TOKEN, TTL, ZONE, samples, zones_of

if TYPE_CHECKING:
    from reconciler.simulator.wire import Reply, Request, Server

REVERSE = "241.191.194.in-addr.arpa"
READS = ("GET", "HEAD", "OPTIONS")


class Host(Protocol):
    """What runs in a process of its own; its methods are called from the other side."""

    def close(self) -> None:
        """Stop serving."""
        ...


class Dns:
    """The fake Cloudflare with one zone. Two states of it are kept: with our marks, and without them."""

    def __init__(self) -> None:
        from reconciler.simulator.cloudflare import Cloudflare
        from reconciler.simulator.wire import Server

        # The batch limit stays the Free plan's; only the zone may be larger.
        self.fake = Cloudflare([ZONE], quota=20_000)
        self.server = Server(self.fake).start()
        self.states: dict[str, dict[str, Any]] = {"empty": self.fake.dump()}

    def url(self) -> str:
        """Return where it listens."""
        return self.server.url

    def seed(self, size: int) -> None:
        """Make the states ``marked`` and ``plain``, of so many records."""
        for state, comment in (("marked", MARK), ("plain", None)):
            self.fake.load(self.states["empty"])
            for item in samples(size):
                value = f'"{item.value}"' if item.type == "TXT" else item.value
                fields = {"content": value, "priority": item.priority, "ttl": TTL, "comment": comment}
                self.fake.add(ZONE, type=item.type, name=item.name, **fields)
            self.states[state] = self.fake.dump()

    def reset(self, state: str, latency: float) -> None:
        """Go to a state and forget the requests; ``latency`` is in seconds."""
        self.fake.load(self.states[state])
        self.server.latency = latency
        self.server.forget()

    def counted(self) -> tuple[int, int]:
        """Return how many requests read and wrote since the last reset."""
        return _counted([self.server])

    def holds(self, size: int, *, changed: bool) -> bool:
        """Say whether the zone serves exactly the records that the programs were given."""
        served = {
            (item["type"], item["name"], item["content"].strip('"'), item.get("priority"), item["ttl"])
            for item in self.fake.records(ZONE)
        }
        return served == {
            (item.type, f"{item.name}.{ZONE}", item.value, item.priority, TTL)
            for item in samples(size, changed=changed)
        }

    def close(self) -> None:
        """Stop serving."""
        self.server.stop()


class Stack:
    """The whole example on its stage, in a directory of its own, with either generation of Stalwart."""

    def __init__(self, source: Path, target: Path, generation: Literal["rest", "jmap"] = "rest") -> None:
        from reconciler.simulator.example import copy
        from reconciler.simulator.stage import Project, Stage

        self.example = copy(source, target)
        if generation == "jmap":
            self.example.move()
        secrets = self.example.secrets
        self.stage = Stage(
            ["mana.how", REVERSE],
            Project(self.example.compose_file, self.example.env_file),
            token=secrets["CLOUDFLARE_API_TOKEN"],
            admin_password=secrets["STALWART_ADMIN_PASSWORD"] if generation == "rest" else "",
            generation=generation,
        ).start()
        self.stage.cloudflare.add(REVERSE, type="PTR", name=f"139.{REVERSE}", content="mail.mana.how", ttl=300)

    def environment(self) -> dict[str, str]:
        """Return what leads the program to this stage: the name of the mail host tells the line's address, too."""
        servers = self.stage.dns.servers
        whoami = {"RECONCILER_WHOAMI": " ".join(f"mail.mana.how/A@{server}" for server in servers)}
        resolvers = {"RECONCILER_RESOLVERS": " ".join(servers)}
        return {**self.example.secrets, **self.stage.environment, **whoami, **resolvers}

    def reset(self, latency: float) -> None:
        """Forget the requests; ``latency`` is in seconds, everywhere: HTTP, DNS and SMTP."""
        self.stage.dns.delay(latency)
        self.stage.stalwart.delay(latency)
        for server in self.stage.servers:
            server.latency = latency
            server.forget()

    def counted(self) -> dict[str, tuple[int, int]]:
        """Return how many requests read and wrote since the last reset, by system."""
        servers = (self.stage.stalwart_server, self.stage.cloudflare_server, self.stage.docker_server)
        return {
            name: _counted([server]) for name, server in zip(("Stalwart", "Cloudflare", "Docker"), servers, strict=True)
        }

    def lose(self, seconds: float) -> float:
        """Take the mail server's data volume away; it takes so many seconds to start, and is empty then.

        Return when it answers, in seconds since 1970.
        """
        from reconciler.simulator.wire import Fault

        starting = Fault(times=1_000_000, refuse=True)
        self.stage.stalwart_server.faults.append(starting)
        self.stage.recreate_mail_server(lost="" if self.stage.generation == "rest" else "/var/lib/stalwart")
        time.sleep(seconds)
        self.stage.stalwart_server.faults.remove(starting)
        return time.time()

    def close(self) -> None:
        """Stop serving."""
        self.stage.stop()


class Mail:
    """The example on its stage with Stalwart 0.16, each of whose answers is counted by what it was about."""

    def __init__(self, source: Path, target: Path) -> None:
        from reconciler.simulator.example import copy
        from reconciler.simulator.stage import Project, Stage

        self.example = copy(source, target)
        self.example.move()
        project = Project(self.example.compose_file, self.example.env_file)
        self.stage = Stage(["mana.how"], project, generation="jmap").start()
        self.server = self.stage.stalwart_server
        self.server.fake = self._watched(self.server.fake)
        self.seen: Counter[str] = Counter()

    def _watched(self, fake: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
        def answer(request: Request) -> Reply:
            reply = fake(request)
            if "authorization" not in request.headers:
                self.seen["open"] += 1
            elif reply.status == 401:
                self.seen["refused"] += 1
            else:
                self.seen["writes" if b'/set"' in request.body else "reads"] += 1
            return reply

        return answer

    def environment(self) -> dict[str, str]:
        """Return what leads the program to this stage."""
        return {**self.example.secrets, **self.stage.environment}

    def wipe(self) -> None:
        """Take the data volume away behind config.json."""
        self.stage.recreate_mail_server(lost="/var/lib/stalwart")

    def reset(self, latency: float) -> None:
        """Forget the requests; ``latency`` is in seconds."""
        self.server.latency = latency
        self.seen.clear()

    def counted(self) -> dict[str, int]:
        """Return how many requests since the last reset were ``open`` to all, ``refused``, ``reads`` and ``writes``."""
        return {name: self.seen[name] for name in ("open", "refused", "reads", "writes")}

    def accounts(self) -> int:
        """Return how many accounts there are."""
        return len(self.stage.stalwart.dump()["store"]["objects"]["Account"])

    def close(self) -> None:
        """Stop serving."""
        self.stage.stop()


class Estate:
    """Many zones at the fake Cloudflare, and Stalwart 0.15 without a container: where keys cost most."""

    def __init__(self, zones: int, password: str) -> None:
        from reconciler.simulator.stage import Stage

        self.stage = Stage(zones_of(zones), token=TOKEN, admin_password=password).start()
        self.empty = self.stage.cloudflare.dump()

    def environment(self) -> dict[str, str]:
        """Return what leads the program to this stage."""
        return {**self.stage.environment, "CLOUDFLARE_API_TOKEN": TOKEN}

    def wipe(self) -> None:
        """Take everything away."""
        self.stage.cloudflare.load(self.empty)
        self.stage.stalwart.wipe()

    def close(self) -> None:
        """Stop serving."""
        self.stage.stop()


def _counted(servers: Iterable[Server]) -> tuple[int, int]:
    found = [_reads(request) for server in servers for request in server.requests]
    return sum(found), len(found) - sum(found)


def _reads(request: Request) -> bool:
    """Whether a request changes nothing; to JMAP all are POST, and a method that ends in `/set` is one that writes."""
    return request.method in READS or (request.path.startswith("/jmap") and b'/set"' not in request.body)


class Remote:
    """A host in another process: `call` calls its methods."""

    def __init__(self, host: type[Host], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, host, arguments), daemon=True)
        self._process.start()
        there.close()
        self._pipe.recv()

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Call a method there; raises EOFError where the process has died, which has then said why."""
        self._pipe.send((name, arguments, named))
        return self._pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(10)


def _serve(pipe: Connection, make: type[Host], arguments: tuple[Any, ...]) -> None:
    host = make(*arguments)
    try:
        pipe.send(None)
        while True:
            name, given, named = pipe.recv()
            pipe.send(getattr(host, name)(*given, **named))
    except EOFError:
        pass
    finally:
        host.close()
