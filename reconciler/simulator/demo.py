"""`make demo`: the main job on the embedded simulator, in a copy of the example, with nothing of the user's touched.

The loss of a volume and its restore are shown at length, all else by the lines that matter; `make demo ACT=...` plays
one act at length.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import os
import re
import signal
import smtplib
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.simulator.example import COMPOSE, ENV, MENDED, MISPLACED, MOVED, Example, copy, source
from reconciler.simulator.screen import INDENT, Aside, Ended, Screen, gist, prompt, say, say_lines, show_edit, title
from reconciler.simulator.stage import Project, Stage

ROOT = Path(__file__).resolve().parents[2]
BREVO = ("smtp-relay.brevo.com", 587, "94cde5002@smtp-brevo.com")
IMPORT = (
    *("import", "--stalwart", "http://localhost:8443", "--zone", "mana.how"),
    *("--compose", COMPOSE, "--stack", "mana"),
)
PROGRAM = (sys.executable, "-m", "reconciler")


class DemoFailed(Exception):
    """A command of the demo ended otherwise than the demo says."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo on its stage."""

    example: Example
    stage: Stage
    screen: Screen = field(default_factory=Screen)
    days: dict[str, str] = field(default_factory=dict)
    """RECONCILER_TODAY, where an act plays on a later day."""

    def brief(self) -> None:
        """Play all acts: one at length, the others by what matters of them."""
        for act in ACTS:
            if act.at_length:
                title(act.title)
                act.play(self)
                say("Beside that, each at length by `make demo ACT=...`:")
            else:
                sys.stdout.write(f"\n{act.name:{INDENT}}{act.title}\n")
                sys.stdout.flush()
                gist(self._aside(act), act.gist)
        self.farewell()

    def at_length(self, chosen: Act) -> None:
        """Play one act, after those whose end it begins with."""
        for act in ACTS:
            if act.name in chosen.after:
                self._aside(act)
        title(chosen.title)
        chosen.play(self)

    def whole(self) -> None:
        """Play all acts at length."""
        for act in ACTS:
            title(act.title)
            act.play(self)
        self.farewell()

    def _aside(self, act: Act) -> str:
        """Play an act where nobody looks, and return what would have been seen; a failure shows it."""
        with Aside() as seen:
            act.play(self)
        return seen.getvalue()

    # ---------------------------------------------------------------------------------------------------- the acts
    def first_apply(self) -> None:
        """Apply the example to empty systems, and prove it."""
        say("""The directory says how the stack should be. Stalwart is new, Cloudflare's zone is empty, and the
            containers run with an old password.""")
        self.reconciler("validate")
        self.reconciler("plan")
        self.reconciler("apply", "--yes")
        say("A line that has no effect any more, removed as it says; then the proof, a second plan:")
        self.example.edit(ENV, "SMTP_PASSWORD=example-old-password\n", "")
        say_lines(ENV, "-SMTP_PASSWORD=(secret)")
        self.reconciler("plan", "--detailed-exitcode")

    def lost_volume(self) -> None:
        """Throw the mail volume away and restore everything."""
        say("""The container was removed and made anew: the volume is mounted at /opt/stalwart-mail, where this
            image keeps nothing. Accounts, DKIM keys and settings are gone.""")
        self.stage.recreate_mail_server()
        hints = " ".join(item["hint"] for item in self._problems("--target", "stalwart"))
        if f"`{MENDED.strip()}`" not in hints:
            raise DemoFailed(f"the plan does not tell to write {MENDED.strip()}: {hints}")
        say("What a plan says to write, so that it does not happen again:")
        self.edit(COMPOSE, MISPLACED, MENDED)
        self.compose("docker compose up -d stalwart", lambda: self.stage.up("stalwart"))
        self.reconciler("apply", "--yes")

    def switch(self) -> None:
        """Switch to Brevo and back: refused, mended as it says, done."""
        say("One line in smtp.yaml:")
        self.provider("stalwart", "brevo")
        self.reconciler("plan", expect=4)
        self.mend()
        self.reconciler("apply", "--yes")
        self.show_environment()
        say("And back:")
        self.provider("brevo", "stalwart")
        self.reconciler("apply", "--yes")
        self.show_environment()

    def diagnosis(self) -> None:
        """Plant two defects by hand, and let the doctor find and mend them."""
        say("""Two things were done by hand: mana-auth was started with an old key, so mana-notify answers 401, and at
            Cloudflare a DKIM key was emptied.""")
        self.compose(
            "MANA_SERVICE_KEY=(an old one) docker compose up -d mana-auth",
            lambda: self.stage.up("mana-auth", MANA_SERVICE_KEY="an-old-key"),
        )
        key = next(
            it for it in self.stage.cloudflare.records("mana.how") if it["name"].startswith("mana2026._domainkey")
        )
        self.stage.cloudflare.edit("mana.how", key["id"], content='"v=DKIM1; k=ed25519; p="')
        rooms = ("--only", "services", "--only", "dns/dkim")
        self.reconciler("doctor", *rooms, expect=7)
        self.reconciler("doctor", *rooms, "--fix", "--yes")

    def rotation(self) -> None:
        """Replace both DKIM keys, while one of two name servers lags."""
        say("`dkim rotate` writes into dkim.yaml what is due next; `apply` does it.")
        self.reconciler("dkim", "list")
        self.reconciler("dkim", "rotate", "mana.how")
        say("Cloudflare takes the records at once, but one of its two name servers lags:")
        self.stage.dns.hold(1)
        self.reconciler("apply", "--yes")
        self.reconciler("dkim", "rotate", "mana.how")
        say("It has caught up:")
        self.stage.dns.release(1)
        self.reconciler("dkim", "rotate", "mana.how")
        self.reconciler("apply", "--yes")
        say("When no queue holds mail any more that the old keys signed:")
        later = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=8)  # seven full ones lie between
        self.days.update(RECONCILER_TODAY=later.isoformat(), RECONCILER_DRY_RUN="no")
        self.reconciler("dkim", "rotate", "mana.how")
        self.reconciler("apply", "--yes")
        self.reconciler("dkim", "list")
        self.days.clear()

    def adoption(self) -> None:
        """Write a second directory from what is live, and see that it asks for nothing."""
        say("""As if there were no directory yet: everything is read, nothing is changed, and the secrets go into files
            that git ignores, or encrypted into git.""")
        self.reconciler(*IMPORT, "--out", "adopted/desired-state")
        self.reconciler("plan", "--state", "adopted/desired-state", "--detailed-exitcode")

    def moved_tag(self) -> None:
        """Move to 0.16, which starts with nothing, and bring everything back on it."""
        say("""The new image keeps its data elsewhere, finds nothing there, and starts in bootstrap mode.""")
        self.compose("docker compose pull && docker compose up -d", self.stage.upgrade)
        self.reconciler("plan", "--target", "stalwart")
        self.move()
        self.compose("docker compose up -d", self.stage.up)
        self.reconciler("apply", "--yes")
        self.reconciler("plan", "--detailed-exitcode")
        self.log_in("noreply@mana.how", self.example.secrets["NOREPLY_PASSWORD"])

    def lost_data(self) -> None:
        """Throw the data away behind config.json, and get in as the recovery administrator."""
        say("""config.json is still there: the server starts as usual, with no account that could log in.""")
        self.compose(
            "docker compose rm -sf stalwart && docker volume rm mana-stack_stalwart_data_new && docker compose up -d",
            lambda: self.stage.recreate_mail_server(lost="/var/lib/stalwart"),
        )
        self.reconciler("apply", "--yes", "--target", "stalwart")
        self.log_in("noreply@mana.how", self.example.secrets["NOREPLY_PASSWORD"])
        self.reconciler("history")

    def watched(self) -> None:
        """Let the daemon heal a loss."""
        say("The daemon on the server: it looks every five minutes, and is woken by the engine when a container goes.")
        command = ("daemon", "--log", "console")
        prompt(" ".join(["reconciler", *command]))
        with self.screen.watching([*PROGRAM, *command], self.example.path, self._environment()) as until:
            until("cause=start")
            self.compose(
                "docker compose rm -sf stalwart && docker volume rm mana-stack_stalwart_data_new"
                " && docker compose up -d   # in another window",
                lambda: self.stage.recreate_mail_server(lost="/var/lib/stalwart"),
            )
            until("result=done")
        self.log_in("noreply@mana.how", self.example.secrets["NOREPLY_PASSWORD"])

    def farewell(self) -> None:
        """Say how to go on with real systems."""
        title("That was the simulator. For your own systems")
        say_lines(
            "1. reconciler import ...           # writes desired-state/ from what is live; or, from nothing: init",
            "2. read desired-state/*.yaml       # after init: the URL of your Stalwart, your zone, your compose file",
            "3. export the secrets it names     # such as STALWART_ADMIN_PASSWORD and CLOUDFLARE_API_TOKEN",
            "4. reconciler validate && reconciler plan",
            "",
            "A plan writes nothing. docs/getting-started.md says from where to run what.",
        )

    # ------------------------------------------------------------------------------------------------- stage hands
    def reconciler(self, *arguments: str, expect: int = 0) -> None:
        """Run the program as a user would, show what it prints, and hold it to its exit code."""
        prompt(" ".join([*(f"{name}={day}" for name, day in self.days.items()), "reconciler", *arguments]))
        code = self.screen.run([*PROGRAM, *arguments], self.example.path, self._environment())
        if code != expect:
            raise DemoFailed(f"reconciler {' '.join(arguments)} ended with {code}, not {expect}")

    def _problems(self, *arguments: str) -> list[dict[str, str]]:
        """Return what a plan finds amiss."""
        command = [*PROGRAM, "plan", "--output", "json", *arguments]
        done = subprocess.run(
            command, cwd=self.example.path, env=self._environment(), text=True, check=False, stdout=subprocess.PIPE
        )
        found: list[dict[str, str]] = json.loads(done.stdout)["problems"]
        return found

    def _environment(self) -> dict[str, str]:
        """Give the program nothing of the user's environment but the way to Python, and colours if there are any."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.example.path),
            "PYTHONPATH": str(ROOT),
            "SSL_CERT_FILE": str(self.example.path / "relay.pem"),
            **{name: os.environ[name] for name in ("TERM", "NO_COLOR") if name in os.environ},
            **self.example.secrets,
            **self.stage.environment,
            **self.days,
        }

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a file as a person would, and show it as a diff."""
        before = (self.example.path / name).read_text(encoding="utf-8")
        self.example.edit(name, old, new)
        show_edit(name, before, (self.example.path / name).read_text(encoding="utf-8"))

    def provider(self, old: str, new: str) -> None:
        """Change the provider in smtp.yaml."""
        self.edit("desired-state/smtp.yaml", f"  provider: {old}\n", f"  provider: {new}\n")

    def mend(self) -> None:
        """Put the text that the refusal printed where it says: `FILE:LINE` is in the message, the text in the hint."""
        problem = next(item for item in self._problems() if "docker-compose" in json.dumps(item))
        words = f"{problem['where']} {problem['summary']} {problem['hint']}"
        place = re.search(rf"{re.escape(COMPOSE)}:(\d+)", words)
        text = re.search(r"`([^`]*)`", words)
        if place is None or text is None:
            raise DemoFailed(f"the refusal names no place or no text: {words}")
        line = self.example.compose_file.read_text(encoding="utf-8").splitlines(keepends=True)[int(place[1]) - 1]
        indent = line[: len(line) - len(line.lstrip())]
        say("The text it prints, put where it says:")
        self.edit(COMPOSE, line, f"{indent}{text[1]}\n")

    def move(self) -> None:
        """Write what the plan prints for 0.16: the image, the volumes and the recovery administrator."""
        hints = " ".join(item["hint"] for item in self._problems("--target", "stalwart"))
        told = set(re.findall(r"`([^`]*)`", hints))
        before = self.example.compose_file.read_text(encoding="utf-8")
        lines = {line.strip() for _, new in MOVED for line in new.splitlines()}
        missing = {line for line in lines - told if line not in before}
        if missing:
            raise DemoFailed(f"the plan does not tell to write {missing}: {hints}")
        self.example.move()
        say("The texts it prints, put where it says, and a password of our own for the recovery administrator:")
        show_edit(COMPOSE, before, self.example.compose_file.read_text(encoding="utf-8"))
        say_lines("", ENV, "+STALWART_RECOVERY_ADMIN=admin:(secret)")
        prompt("export STALWART_RECOVERY_ADMIN=admin:(secret)   # for the reconciler, too")

    def compose(self, command: str, done: Callable[[], None]) -> None:
        """Let the stage do what a command of Compose does."""
        prompt(command)
        sys.stdout.flush()
        done()

    def log_in(self, name: str, password: str) -> None:
        """Log in where mail is handed in, as a mail program does."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the stage signs its own
        with smtplib.SMTP("127.0.0.1", self.stage.stalwart.ports[587]) as client:
            client.starttls(context=context)
            code, text = client.login(name, password)
        say(f"A login on port 587 as {name}: {code} {text.decode()}")

    def show_environment(self) -> None:
        """Show what the running container has now."""
        container = self.stage.docker.named("mana-core-notify")
        prompt("docker inspect mana-core-notify   # its environment")
        for name, value in sorted(container.environment.items()):
            if name.startswith("SMTP_"):
                sys.stdout.write(f"  {name}={'(secret)' if name.endswith('PASSWORD') else value}\n")


@dataclass(frozen=True, slots=True)
class Act:
    """One act: the word it is asked for by, what it shows, and the lines of it that matter, as regular expressions."""

    name: str
    title: str
    play: Callable[[Demo], None]
    gist: tuple[str, ...] = ()
    after: tuple[str, ...] = ("apply",)
    """The acts whose end it begins with."""
    at_length: bool = False
    """Whether it is shown whole in any case."""


_DONE = r"\d+ changes were made"
_EMPTY = "A second plan is empty"
_IN = "A login .* 235 "

ACTS = (
    Act("apply", "A mail stack from YAML, on systems that are empty", Demo.first_apply, (_DONE, _EMPTY), after=()),
    Act("lost", "The mail volume is lost, and everything is restored", Demo.lost_volume, at_length=True),
    Act(
        "switch",
        "One line switches the mail to Brevo, and back: refused, mended as it says, done",
        Demo.switch,
        ("✗ smtp/.* refused", r"SMTP_HOST=smtp-relay", r"SMTP_HOST=stalwart"),
    ),
    Act(
        "doctor",
        "No mail arrives: the doctor finds two causes, and mends them",
        Demo.diagnosis,
        ("✗ services/key", "✗ dns/dkim", "All is well"),
    ),
    Act(
        "rotate",
        "The DKIM keys rotate, and no message fails, though one of two name servers lags",
        Demo.rotation,
        ("ed25519: .* stays pending", "keys: server and DNS agree"),
    ),
    Act(
        "import",
        "A directory is written from a server that already runs, and asks for nothing",
        Demo.adoption,
        ("accounts.yaml", "Nothing to do"),
    ),
    Act(
        "upgrade",
        "`:latest` moves to 0.16: a container that runs, and no mail",
        Demo.moved_tag,
        ("! Stalwart .* is in bootstrap mode", _DONE, _IN),
    ),
    Act(
        "recovery",
        "Its data volume is lost, and the recovery administrator gets in",
        Demo.lost_data,
        ("entered as its recovery administrator", _DONE, _IN),
        after=("apply", "upgrade"),
    ),
    Act(
        "daemon",
        "The same, while nobody watches",
        Demo.watched,
        ("cycle cause=engine", _IN),
        after=("apply", "upgrade"),
    ),
)


def main() -> int:
    """Play the demo, or the act that is named, in a temporary directory; nothing of it stays, whatever ends it."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    plays: dict[str, Callable[[Demo], None]] = {"": Demo.brief, "all": Demo.whole}
    plays |= {act.name: functools.partial(Demo.at_length, chosen=act) for act in ACTS}
    if wanted not in plays:
        sys.stderr.write(f"There is no act {wanted!r}. There are: {', '.join(name for name in plays if name)}\n")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="reconciler-demo-") as folder:
        example = copy(source(), Path(folder) / "stack")
        project = Project(example.compose_file, example.env_file)
        stage = Stage(
            ["mana.how"],
            project,
            token=example.secrets["CLOUDFLARE_API_TOKEN"],
            admin_password=example.secrets["STALWART_ADMIN_PASSWORD"],
        )
        host, port, username = BREVO
        stage.relay(host, port, username, example.secrets["BREVO_SMTP_KEY"])
        stage.trust(example.path / "relay.pem", host)
        try:
            with stage:
                plays[wanted](Demo(example, stage))
        except (DemoFailed, Ended) as failure:
            sys.stderr.write(f"\nThe demo failed: {failure}\n")
            return 1
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # as by `make demo | head`; what is left to print goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
