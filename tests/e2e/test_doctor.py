"""`reconciler doctor` on the whole stage: no false alarm on the healthy one, and each planted defect by its cause.

A defect is planted in the zone, the server, the container, the files or the log; never in the evidence.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dns.rrset
import pytest
from whoami import NameServer

from reconciler.checks import CHECKS
from reconciler.checks.check import Finding, Status, Unread
from reconciler.desired.load import load
from reconciler.desired.public_ip import Line
from reconciler.dns.text import quoted
from reconciler.doctor import Wish, examine, talks
from reconciler.observe import line
from reconciler.plan import Plan
from reconciler.settings import Settings
from reconciler.stack import Stack

from . import jmapstage, submission
from .knot import knot
from .submission import Behaviour

NOTHING = Wish()
LINE = "194.191.241.139"
REVERSE = "241.191.194.in-addr.arpa"
# aiosmtpd leaves the transport of a session in which TLS began to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
BAD = (Status.WARN, Status.ERROR)


@dataclass
class World:
    """The applied example, with a zone and an environment that a test may spoil before it is examined."""

    stack: Any
    folder: Path
    zones: dict[str, list[str]]
    whoami: str = ""
    routes: dict[str, int] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    resolver: str = ""
    open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def mail(self) -> Any:
        return self.stack.container("mana-mail")

    @property
    def notify(self) -> Any:
        return self.stack.container("mana-core-notify")

    @property
    def auth(self) -> Any:
        return self.stack.container("mana-auth")

    def whoami_of(self, address: str) -> str:
        """Let two name servers say that the line has an address."""

        def fill(reply: Any, _transport: str) -> Any:
            reply.answer.append(dns.rrset.from_text(reply.question[0].name, 0, "IN", "A", address))
            return reply

        server = NameServer(fill)
        self.open.callback(server.close)
        return " ".join(f"{name}.test/A@127.0.0.1:{server.port}" for name in ("a", "b"))

    def log(self, line: str) -> None:
        self.mail.logs += f"2026-11-29T10:00:00Z {line}\n".encode()

    def zone(self, old: str, new: str | None = None, zone: str = "mana.how") -> None:
        """Change the one line of a zone that begins with a text, take it out (None), or add one (no old)."""
        lines = self.zones[zone]
        if not old:
            lines.append(str(new))
            return
        (at,) = [number for number, line in enumerate(lines) if line.startswith(old)]
        lines[at : at + 1] = [] if new is None else [new]

    def serve(self, behaviour: Behaviour, **of: Any) -> None:
        """Let the way to the mail server lead to one of a behaviour."""
        files = submission.certificate(self.folder, **of)
        port, self.logins = self.open.enter_context(submission.submission(behaviour, files))
        self.routes["stalwart:587"] = port

    def script(self, talk: Callable[[socket.socket, int], None]) -> None:
        self.routes["stalwart:587"] = self.open.enter_context(submission.scripted(talk))

    def variable(self, container: Any, name: str, value: str | None) -> None:
        """Change a variable of a container as it runs."""
        kept = [item for item in container.config["Env"] if not item.startswith(f"{name}=")]
        container.config["Env"] = kept + ([] if value is None else [f"{name}={value}"])

    def examine(self, *only: str, wish: Wish = NOTHING) -> dict[str, Finding]:
        server = self.open.enter_context(knot(self.folder / "knot", self.zones))
        routes = " ".join(f"{where}=127.0.0.1:{port}" for where, port in self.routes.items())
        given = self.stack.environ().get("RECONCILER_ROUTES", "")
        second = self.env.pop("SECOND", "")
        environ = self.stack.environ(
            RECONCILER_NAMESERVERS=f"{server} {second}".strip(),
            RECONCILER_RESOLVERS=self.resolver or server,
            RECONCILER_WHOAMI=self.whoami,
            RECONCILER_ROUTES=f"{given} {routes}".strip(),
            **self.env,
        )
        environ = {name: value for name, value in environ.items() if value}
        settings = Settings.read(environ, self.stack.example.state, self.stack.data)
        found = examine(Stack(load(settings.state), settings), only, wish=wish)
        return {item.check.id: item for item in found}


def zone_file(records: list[dict[str, Any]], zone: str) -> Iterator[str]:
    """Write what Cloudflare holds as its name servers show it."""
    for item in records:
        name = item["name"].removesuffix(zone).rstrip(".") or "@"
        match item["type"]:
            case "TXT":
                yield f"{name} TXT {quoted(item['content'].strip(chr(34)).replace(chr(34) + ' ' + chr(34), ''))}"
            case "MX":
                yield f"{name} MX {item['priority']} {item['content']}."
            case "CNAME":
                yield f"{name} CNAME {item['content']}."
            case "A" | "AAAA":
                yield f"{name} {item['type']} {item['content']}"


@pytest.fixture
def world(newer_applied: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("reconciler.doctor.talks._AGAIN", 0.3)
    zones = {
        "mana.how": list(zone_file(newer_applied.records(), "mana.how")),
        REVERSE: ["139 PTR mail.mana.how."],
        "reports.example": [],
        "provider.example": ['_spf TXT "v=spf1 ip4:192.0.2.0/24 -all"'],
    }
    made = World(newer_applied, tmp_path, zones)
    with made.open:
        made.whoami = made.whoami_of(LINE)
        made.open.callback(newer_applied.applied.restore, newer_applied)  # what is planted is nobody's fault
        made.mail.config["Image"] = "stalwartlabs/stalwart:v0.16.18"
        yield made


def bad(found: Mapping[str, Finding]) -> dict[str, str]:
    return {name: item.verdict.summary for name, item in found.items() if item.status in BAD}


def test_no_false_alarm_on_the_healthy_stack(world: World) -> None:
    found = world.examine()
    assert bad(found) == {}
    assert {name for name, item in found.items() if item.status is Status.UNKNOWN} == set()


# ------------------------------------------------------------------------------------------------------------- defects
@dataclass(frozen=True)
class Defect:
    """What is planted, which check tells it, and in which words; ``also`` are others that it shows in."""

    plant: Callable[[World], object]
    check: str
    words: str
    also: frozenset[str] = frozenset()


def defect(plant: Callable[[World], object], check: str, words: str, *also: str) -> Defect:
    return Defect(plant, check, words, frozenset(also))


def zone(old: str, new: str | None = None, of: str = "mana.how") -> Callable[[World], object]:
    return lambda world: world.zone(old, new, of)


def served(**of: Any) -> Callable[[World], object]:
    cert = {name: of.pop(name) for name in ("days", "name_of") if name in of}
    return lambda world: world.serve(Behaviour(**of), **{{"name_of": "name"}.get(k, k): v for k, v in cert.items()})


def running(container: str, name: str, value: str | None) -> Callable[[World], object]:
    return lambda world: world.variable(getattr(world, container), name, value)


def started(*services: str, **shell: str) -> Callable[[World], object]:
    """Recreate services by hand, with variables of the shell."""
    return lambda world: world.stack.stage.up(*services, **shell)


def logged(line: str) -> Callable[[World], object]:
    return lambda world: world.log(line)


def banned(address: str, line: str) -> Callable[[World], object]:
    """Let the server have banned an address, and its log say why."""

    def plant(world: World) -> None:
        jmapstage.create(world.stack.stage, "BlockedIp", address=address)
        world.log(f"{line}remoteIp = {address}")

    return plant


def edited(name: str, old: str, new: str) -> Callable[[World], object]:
    return lambda world: world.stack.example.edit(name, old, new)


def does(*steps: Callable[[World], object]) -> Callable[[World], object]:
    return lambda world: [step(world) for step in steps]


def lost_private_half(world: World) -> None:
    """Take a key's file away whose public half is declared, as after a move to another machine without its secrets."""
    (world.stack.example.path / "secrets/mana2026.pem").unlink()


def closed_port(world: World) -> None:
    """Lead to a port that is taken, so that nobody else gets it, and at which nobody listens."""
    taken = world.open.enter_context(socket.socket())
    taken.bind(("127.0.0.1", 0))
    world.routes["stalwart:587"] = taken.getsockname()[1]


def ended_at_once(world: World) -> None:
    world.script(lambda connection, _: None)


def ended_once(world: World) -> None:
    """Close the first connection as a rate limit does, and serve the others."""
    world.serve(Behaviour())
    real = world.routes["stalwart:587"]

    def talk(connection: socket.socket, number: int) -> None:
        if not number:
            return
        with socket.create_connection(("127.0.0.1", real)) as other:

            def pump(source: socket.socket, target: socket.socket) -> None:
                with contextlib.suppress(OSError):
                    while data := source.recv(65536):
                        target.sendall(data)
                    target.shutdown(socket.SHUT_WR)

            back = threading.Thread(target=pump, args=(other, connection), daemon=True)
            back.start()
            pump(connection, other)
            back.join(5)

    world.script(talk)


def greets_554(world: World) -> None:
    world.script(lambda connection, _: connection.sendall(b"554 5.7.1 no service for you\r\n"))


def published(port: str, **binding: str) -> Callable[[World], object]:
    def plant(world: World) -> None:
        bindings = world.mail.host["PortBindings"]
        if not binding:
            del bindings[port]
        else:
            bindings[port] = [{**bindings[port][0], **binding}]

    return plant


def admin_everywhere(world: World) -> None:
    port = world.stack.stage.environment["STALWART_URL"].rpartition(":")[2]
    published("8080/tcp", HostIp="0.0.0.0", HostPort=port)(world)


def other_network(world: World) -> None:
    for mount in world.mail.mounts:
        if mount["Destination"] == "/var/lib/stalwart":
            mount["Destination"] = "/opt/stalwart"


def stopped(container: str) -> Callable[[World], object]:
    def plant(world: World) -> None:
        getattr(world, container).running = False
        getattr(world, container).exit_code = 137

    return plant


def moved_away(world: World) -> None:
    """The zone's second name server never got the last change."""
    other = {**world.zones, "mana.how": [line for line in world.zones["mana.how"] if not line.startswith("_dmarc")]}
    second = world.open.enter_context(knot(world.folder / "second", other))
    world.env["SECOND"] = second


def stale_resolver(world: World) -> None:
    old = {**world.zones, "mana.how": [line.replace("quarantine", "none") for line in world.zones["mana.how"]]}
    world.resolver = world.open.enter_context(knot(world.folder / "resolver", old))


def dead_name_server(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        world.env["SECOND"] = f"127.0.0.1:{taken.getsockname()[1]}"


def shared_line(world: World) -> None:
    world.whoami = world.whoami_of("100.64.3.4")


def loses_abuse(world: World) -> None:
    account = world.stack.principal("postmaster@mana.how")
    account["aliases"] = {}


def record_changed(world: World) -> None:
    item = next(it for it in world.stack.records() if it["type"] == "MX")
    world.stack.stage.cloudflare.records("mana.how")
    item["priority"] = 77


def dead_server(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        world.env["STALWART_URL"] = f"http://127.0.0.1:{taken.getsockname()[1]}"


SPF = '@ TXT "v=spf1'
KEY = "mana2026._domainkey TXT"
DMARC = "_dmarc TXT"
OTHER_KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
INCLUDES = " ".join(f"include:s{number}.provider.example" for number in range(11))

DEFECTS = {
    # mail to us
    "no MX": defect(
        zone("@ MX"), "dns/mx", "has no MX", "dns/published", "dns/resolvers", "dns/spf-lookups", "dns/spf-authorises"
    ),
    "null MX": defect(zone("@ MX", "@ MX 0 ."), "dns/mx", "takes no mail", "dns/published", "dns/spf-authorises"),
    "MX elsewhere": defect(
        zone("@ MX", "@ MX 10 mx.provider.example."),
        "dns/mx",
        "leads to mx.provider.example",
        "dns/published",
        "dns/mx-target",
        "dns/spf-lookups",
        "dns/spf-authorises",
    ),
    "Email Routing": defect(
        zone("@ MX", "@ MX 10 route1.mx.cloudflare.net."), "dns/email-routing", "Email Routing", "dns/published"
    ),
    "MX to an alias": defect(
        does(zone("mail A", "mail CNAME host.mana.how."), zone("", f"host A {LINE}")),
        "dns/mx-target",
        "alias of host.mana.how",
    ),
    "MX without an address": defect(
        zone("mail A"),
        "dns/mx-target",
        "has no address",
        "dns/address",
        "dns/ptr",
        "dns/spf-authorises",
        "dns/spf-lookups",
    ),
    "MX behind the proxy": defect(
        zone("mail A", "mail A 104.16.1.1"),
        "dns/proxied",
        "takes no mail",
        "dns/address",
        "dns/ptr",
        "dns/spf-authorises",
        "dns/spf-proxied",
    ),
    # our address
    "another address": defect(
        zone("mail A", "mail A 198.51.100.9"), "dns/address", f"this line has {LINE}", "dns/ptr", "dns/spf-authorises"
    ),
    "CGNAT": defect(shared_line, "dns/address", "nobody outside can reach"),
    "no PTR": defect(zone("139 PTR", None, REVERSE), "dns/ptr", "has no name"),
    "generic PTR": defect(
        zone("139 PTR", "139 PTR dsl-139.provider.example.", REVERSE), "dns/ptr", "does not lead back to it"
    ),
    "another PTR": defect(
        does(zone("139 PTR", "139 PTR other.mana.how.", REVERSE), zone("", f"other A {LINE}")),
        "dns/ptr",
        "is called other.mana.how",
    ),
    # DKIM
    "no key": defect(zone(KEY), "dns/dkim", "is not published"),
    "another key": defect(
        zone(KEY, f'{KEY} "v=DKIM1; k=ed25519; p={OTHER_KEY}"'), "dns/dkim", "another than the server signs"
    ),
    "revoked key": defect(zone(KEY, f'{KEY} "v=DKIM1; k=ed25519; p="'), "dns/dkim", "revoked"),
    "two keys": defect(zone("", f'{KEY} "v=DKIM1; k=ed25519; p={OTHER_KEY}"'), "dns/dkim", "2 keys"),
    "no key at all": defect(zone(KEY, f'{KEY} "hello"'), "dns/dkim", "is no key"),
    "a private half that is gone": defect(
        lost_private_half, "plan/keys", "a server that loses this key can't get it back"
    ),
    "Ed25519 alone": defect(
        edited(
            "desired-state/dkim.yaml",
            "    - selector: rsa2026\n      algorithm: rsa\n      private_key: {file: ../secrets/rsa2026.pem}\n",
            "",
        ),
        "dns/dkim-algorithms",
        "Ed25519 alone",
        "plan/as-declared",
        "plan/refused",
    ),
    # DMARC
    "no DMARC": defect(zone(DMARC), "dns/dmarc", "no DMARC policy", "dns/published"),
    "two DMARC": defect(zone("", '_dmarc TXT "v=DMARC1; p=reject"'), "dns/dmarc", "2 DMARC policies"),
    "a typo in DMARC": defect(
        zone(DMARC, '_dmarc TXT "v=DMARC1; p=qurantine; rua=mailto:postmaster@mana.how"'),
        "dns/dmarc",
        "qurantine",
        "dns/published",
        "dns/dmarc-policy",
    ),
    "DMARC p=none": defect(
        zone(DMARC, '_dmarc TXT "v=DMARC1; p=none; rua=mailto:postmaster@mana.how"'),
        "dns/dmarc-policy",
        "p=none",
        "dns/published",
    ),
    "DMARC as a test": defect(
        zone(DMARC, '_dmarc TXT "v=DMARC1; p=reject; t=y; rua=mailto:postmaster@mana.how"'),
        "dns/dmarc-policy",
        "t=y",
        "dns/published",
    ),
    "no reports": defect(
        zone(DMARC, '_dmarc TXT "v=DMARC1; p=reject"'), "dns/dmarc-reports", "nobody gets", "dns/published"
    ),
    "reports to nobody": defect(
        zone(DMARC, '_dmarc TXT "v=DMARC1; p=reject; rua=mailto:nobody@mana.how"'),
        "dns/dmarc-reports",
        "does not exist",
        "dns/published",
    ),
    "reports elsewhere": defect(
        zone(DMARC, '_dmarc TXT "v=DMARC1; p=reject; rua=mailto:x@reports.example"'),
        "dns/dmarc-reports",
        "has not agreed",
        "dns/published",
    ),
    # SPF
    "no SPF": defect(zone(SPF), "dns/spf", "no SPF record", "dns/published"),
    "two SPF": defect(zone("", '@ TXT "v=spf1 -all"'), "dns/spf", "2 SPF records", "dns/spf-lookups"),
    "SPF typo": defect(
        zone(SPF, '@ TXT "v=spf1 ip4:192.0.2.300 mx -all"'),
        "dns/spf",
        "192.0.2.300",
        "dns/published",
        "dns/spf-lookups",
    ),
    "SPF in quotes": defect(zone(SPF, r'@ TXT "\"v=spf1 mx -all\""'), "dns/spf", "is no SPF record", "dns/published"),
    "SPF look-ups": defect(
        does(
            zone(SPF, f'@ TXT "v=spf1 {INCLUDES} mx -all"'),
            lambda world: [
                world.zone("", f's{n} TXT "v=spf1 ip4:192.0.2.{n} -all"', "provider.example") for n in range(11)
            ],
        ),
        "dns/spf-lookups",
        "takes 12 look-ups",
        "dns/published",
        "dns/spf",
    ),
    "SPF void look-ups": defect(
        zone(SPF, '@ TXT "v=spf1 a:n1.mana.how a:n2.mana.how a:n3.mana.how mx -all"'),
        "dns/spf-lookups",
        "find nothing",
        "dns/published",
    ),
    "SPF include of nothing": defect(
        zone(SPF, '@ TXT "v=spf1 include:provider.example mx -all"'),
        "dns/spf-lookups",
        "leads to no SPF record",
        "dns/published",
    ),
    "SPF without us": defect(
        zone(SPF, '@ TXT "v=spf1 include:_spf.provider.example -all"'),
        "dns/spf-authorises",
        "may not send",
        "dns/published",
    ),
    "SPF names the proxy": defect(zone("", "@ A 104.16.1.1"), "dns/spf-proxied", "names Cloudflare's proxy"),
    # name servers
    "a stale resolver": defect(stale_resolver, "dns/resolvers", "still shows another"),
    "a name server is silent": defect(dead_name_server, "dns/name-servers", "did not answer"),
    "name servers differ": defect(moved_away, "dns/agreement", "differ", "dns/published"),
    # SMTP
    "closed port": defect(closed_port, "smtp/reachable", "nobody answers"),
    "554": defect(greets_554, "smtp/reachable", "554"),
    "banned": defect(ended_at_once, "smtp/banned", "has banned the address"),
    "rate limit": defect(ended_once, "smtp/banned", "rate limit"),
    "no STARTTLS": defect(served(tls=False), "smtp/starttls", "offers no STARTTLS", "smtp/auth"),
    "no AUTH": defect(served(offers=False), "smtp/auth", "nobody can log in"),
    "535": defect(served(auth="535 5.7.8 Authentication credentials invalid."), "smtp/login", "535"),
    "454": defect(served(auth="454 4.7.0 Temporary authentication failure"), "smtp/login", "454"),
    "no role": defect(
        served(auth="550 5.7.1 Your account is not authorized to use this service."), "smtp/login", "lacks the role"
    ),
    "From of somebody else": defect(
        served(mail="501 5.5.4 You are not allowed to send from this address."), "smtp/sender", "501"
    ),
    "an ended certificate": defect(served(days=-3), "smtp/certificate", "ended on"),
    "a certificate that ends": defect(served(days=5), "smtp/certificate", "ends on"),
    "an untrusted certificate": defect(
        edited(
            "desired-state/smtp.yaml",
            "verify_tls: false         # the certificate is self-signed inside the compose network",
            "verify_tls: true",
        ),
        "smtp/certificate",
        "not trusted",
        "plan/as-declared",
        "services/environment",
        "services/literal",
        "plan/refused",
        "plan/readable",
    ),
    "a name of a container": defect(served(name="3f2a1bc9"), "smtp/name", "calls itself 3f2a1bc9"),
    "a scan ban": defect(
        does(
            banned("172.18.0.5", "WARN Banned due to scan (security.scan-ban) "),
            logged('WARN Banned (security.scan-ban) remoteIp = 172.18.0.5, reason = "Invalid SMTP command"'),
        ),
        "smtp/bans",
        "spoke TLS at once",
    ),
    "a password ban": defect(
        banned("172.18.0.5", "WARN Banned due to authentication errors (security.authentication-ban) "),
        "smtp/bans",
        "wrong password",
    ),
    "a loiter ban": defect(banned("172.18.0.6", "WARN Banned (security.loiter-ban) "), "smtp/bans", "said nothing"),
    "an abuse ban": defect(
        banned("172.18.0.6", "WARN Banned (security.abuse-ban) "), "smtp/bans", "unknown recipients"
    ),
    # the container
    "stopped": defect(stopped("mail"), "container/running", "exit code 137", "container/mail-ports", "smtp/reachable"),
    "a volume elsewhere": defect(other_network, "container/volume-path", "/var/lib/stalwart"),
    "latest": defect(
        lambda world: world.mail.config.update(Image="stalwartlabs/stalwart:latest"),
        "container/image-pinned",
        "not pinned",
    ),
    "no way in": defect(running("mail", "STALWART_RECOVERY_ADMIN", None), "container/way-in", "lets nobody in"),
    "nearly full": defect(
        lambda world: [
            world.mail.host.update(Memory=256 << 20),
            setattr(world.mail, "memory", int(0.97 * (256 << 20))),
        ],
        "container/memory",
        "97%",
    ),
    "out of memory": defect(
        lambda world: setattr(world.mail, "oom_killed", True), "container/memory", "ended by the kernel"
    ),
    "admin port": defect(admin_everywhere, "container/admin-port", "management API"),
    "port 25 not published": defect(published("25/tcp"), "container/mail-ports", "25 (mail from other servers)"),
    "port 465 at loopback": defect(published("465/tcp", HostIp="127.0.0.1"), "container/mail-ports", "465"),
    # the services
    "a service is stopped": defect(
        stopped("notify"), "services/running", "mana-notify does not run", "plan/as-declared", "services/environment"
    ),
    "another server in the container": defect(
        started("mana-notify", SMTP_HOST="old.example"),
        "services/environment",
        "SMTP_HOST",
        "plan/as-declared",
        "services/stale",
    ),
    "a literal": defect(
        edited("docker-compose.macmini.yml", "SMTP_PORT: ${SMTP_PORT:-587}", "SMTP_PORT: 25"),
        "services/literal",
        "holds a literal",
        "plan/as-declared",
        "services/environment",
        "services/stale",
        "plan/refused",
    ),
    "401": defect(
        started("mana-auth", MANA_SERVICE_KEY="another"),
        "services/key",
        "differ in the running containers",
        "plan/as-declared",
        "services/environment",
        "services/stale",
    ),
    "smtp not configured": defect(
        started("mana-notify", SMTP_PASSWORD=""),
        "services/empty",
        "has no value for SMTP_PASSWORD",
        "plan/as-declared",
        "services/environment",
        "services/stale",
    ),
    "quotes in a value": defect(
        started("mana-notify", SMTP_USER='"noreply@mana.how"'),
        "services/padded",
        "SMTP_USER",
        "plan/as-declared",
        "services/environment",
        "services/stale",
    ),
    "dev-service-key": defect(
        started("mana-auth", "mana-notify", MANA_SERVICE_KEY="dev-service-key"),
        "services/known-secret",
        "that everybody can read",
        "plan/as-declared",
        "services/environment",
        "services/stale",
    ),
    "older than its file": defect(
        edited("docker-compose.macmini.yml", "      PORT: 3013\n", "      PORT: 3014\n"), "services/stale", "PORT"
    ),
    # the systems
    "the server is away": defect(
        dead_server, "plan/readable", "can't be reached", "dns/postmaster", "dns/dmarc-reports"
    ),
}


def told(found: Mapping[str, Finding], name: str) -> str:
    item = found[name]
    return " ".join((item.verdict.summary, *item.verdict.evidence, item.cause))


def test_nobody_on_the_internet_is_asked_where_name_servers_are_given(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Any]()
    monkeypatch.setattr(line.Inquiry, "__call__", lambda self: asked.append(self) or Line(why="asked"))
    world.whoami = ""
    found = world.examine("dns")
    assert not asked
    for name in ("dns/address", "dns/ptr", "dns/spf-authorises"):
        assert found[name].status is Status.SKIP, found[name].verdict


def test_an_address_that_nobody_tells_has_a_remedy(world: World) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        world.whoami = f"me.example/A@127.0.0.1:{silent.getsockname()[1]}"
        item = world.examine("dns/ptr")["dns/ptr"]
    assert item.status is Status.UNKNOWN
    assert "RECONCILER_ROUTER" in item.remedy.text


def test_where_no_login_is_known_for_want_of_a_system_that_system_is_named(world: World) -> None:
    settings = Settings.read(world.stack.environ(), world.stack.example.state, world.stack.data)
    stack = Stack(load(settings.state), settings)
    dark = Plan("mana", unread=frozenset({"stalwart"}))
    found = talks.gather(stack, dark)
    assert isinstance(found, Unread)
    assert found.why == "how services log in is not known: stalwart could not be read"
    assert talks.gather(stack, Plan("mana")) is None


def test_variables_that_differ_are_told_in_words(world: World) -> None:
    world.variable(world.notify, "SMTP_PASSWORD", "another one")
    found = world.examine("plan", "services/environment")
    words = told(found, "plan/as-declared") + told(found, "services/environment")
    assert "SMTP_PASSWORD: another" in words
    assert "secret_differs" not in words
    assert "running, configured" not in words


@pytest.mark.few(of=lambda name: DEFECTS[name].check)
@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_told_by_its_cause(world: World, name: str) -> None:
    planted = DEFECTS[name]
    planted.plant(world)
    found = world.examine()
    assert planted.check in bad(found), {item.check.id: str(item.verdict) for item in found.values()}
    assert planted.words in told(found, planted.check)
    assert found[planted.check].remedy.text
    assert set(bad(found)) <= {planted.check} | planted.also


BESIDE = {
    name: item for name, item in DEFECTS.items() if name not in ("stopped", "the server is away", "Ed25519 alone")
}


def others(name: str) -> tuple[str, str]:
    """Choose two defects of other rooms, others for each defect."""
    own, at = DEFECTS[name].check.partition("/")[0], list(DEFECTS).index(name)
    rooms = [room for room in ("dns", "smtp", "container", "services") if room != own][-2:]
    by_room = {room: [it for it in BESIDE if BESIDE[it].check.startswith(f"{room}/")] for room in rooms}
    first, second = (names[at % len(names)] for names in by_room.values())
    return first, second


@pytest.mark.long
@pytest.mark.parametrize("name", BESIDE)
def test_a_planted_defect_is_told_beside_two_others(world: World, name: str) -> None:
    planted = [DEFECTS[item] for item in (name, *others(name))]
    # A service that is made anew has its ports published anew: what is done to them comes behind.
    for item in sorted(planted, key=lambda item: not item.check.startswith("services/")):
        item.plant(world)
    found = world.examine()
    for item in planted:
        assert item.check in bad(found), item.check
        assert item.words in told(found, item.check)


def test_a_refused_login_is_tried_once_and_not_again(world: World) -> None:
    world.serve(Behaviour(auth="535 5.7.8 Authentication credentials invalid."))
    found = world.examine("smtp")
    assert found["smtp/login"].status is Status.ERROR
    assert world.logins() == 1


@pytest.mark.parametrize("before", [180, 196])
def test_t2_a_password_that_a_server_quotes_is_not_shown_by_half(world: World, before: int) -> None:
    secret = world.stack.secrets["NOREPLY_PASSWORD"]
    world.serve(Behaviour(auth=f"535 5.7.8 {'x' * (before - 10)} {secret} is no password"))
    shown = told(world.examine("smtp"), "smtp/login")
    assert "535 5.7.8" in shown
    assert secret[:3] not in shown.partition("535 5.7.8")[2]


def test_a_from_that_smtp_can_not_say_spoils_no_conversation(world: World) -> None:
    world.stack.edit("smtp.yaml", '"Mana <noreply@mana.how>"', '"Müller <noreply@müller.example>"')
    found = world.examine("smtp")
    assert found["smtp/login"].status is Status.OK
    assert not any("bug" in str(item.verdict) for item in found.values())


def test_the_command_ends_with_7_and_its_json_is_the_contracts(newer_applied: Any) -> None:
    newer_applied.container("mana-core-notify").running = False
    done = newer_applied.expect(7, "doctor", "--only", "services", "--output", "json")
    entries = {item["id"]: item for item in done.json["checks"]}
    assert done.json["format_version"] == "1.0"
    assert set(entries) == {item.id for item in CHECKS if item.room == "services"}
    assert entries["services/running"]["status"] == "error"
    newer_applied.container("mana-core-notify").running = True
    assert newer_applied.run("doctor", "--only", "services/running").code == 0


def test_fix_applies_what_mends_it_and_looks_again(newer_applied: Any) -> None:
    key = next(item for item in newer_applied.records() if item["name"].startswith("mana2026._domainkey"))
    newer_applied.stage.cloudflare.edit("mana.how", key["id"], content='"v=DKIM1; k=ed25519; p="')
    assert newer_applied.run("doctor", "--only", "dns/dkim").code == 7
    done = newer_applied.expect(0, "doctor", "--only", "dns/dkim", "--fix", "--yes")
    assert "All is well" in done.out
    assert newer_applied.run("plan", "--detailed-exitcode").code == 0
