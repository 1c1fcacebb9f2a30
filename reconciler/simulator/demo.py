"""`make demo`: the main job on the embedded simulator, in a copy of the example, with nothing of the user's touched."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

from reconciler.simulator.example import Example, copy
from reconciler.simulator.stage import Project, Stage

ROOT = Path(__file__).resolve().parents[2]
BREVO = ("smtp-relay.brevo.com", 587, "94cde5002@smtp-brevo.com")
WIDTH = 100


class DemoFailed(Exception):
    """A command of the demo ended otherwise than the demo says."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo on its stage."""

    example: Example
    stage: Stage

    def run(self) -> None:
        """Play all acts."""
        self.first_apply()
        self.lost_volume()
        self.switch()
        self.back()
        self.farewell()

    # ---------------------------------------------------------------------------------------------------- the acts
    def first_apply(self) -> None:
        """Apply the example to empty systems, and prove it."""
        title("1. A mail stack from YAML")
        say("""The directory says how the stack should be. Stalwart is new, Cloudflare's zone is empty, and the
            containers run with an old password.""")
        self.reconciler("validate")
        self.reconciler("plan")
        self.reconciler("apply", "--yes")
        say("The proof is a second plan:")
        self.reconciler("plan", "--detailed-exitcode")

    def lost_volume(self) -> None:
        """Throw the mail volume away and restore everything."""
        title("2. The mail volume is lost, and everything is restored")
        say("""The container was removed and made anew: the volume is mounted at /opt/stalwart-mail, where this
            image keeps nothing. Accounts, DKIM keys and settings are gone.""")
        self.stage.recreate_mail_server()
        self.reconciler("plan")
        self.reconciler("apply", "--yes")
        self.reconciler("plan", "--detailed-exitcode")

    def switch(self) -> None:
        """Switch to Brevo: refused, mended as it says, done."""
        title("3. Switching to Brevo: refused, mended, done")
        say("One line in smtp.yaml:")
        self.provider("stalwart", "brevo")
        self.reconciler("plan", expect=4)
        self.mend()
        self.reconciler("plan")
        self.reconciler("apply", "--yes")
        self.show_environment()

    def back(self) -> None:
        """Switch back to the own server."""
        title("4. And back")
        self.provider("brevo", "stalwart")
        self.reconciler("apply", "--yes")
        self.show_environment()
        self.reconciler("plan", "--detailed-exitcode")
        self.reconciler("history")

    def farewell(self) -> None:
        """Say how to go on with real systems."""
        title("That was the simulator. For your own systems")
        say_lines(
            "1. reconciler init                 # writes desired-state/ to start from; or copy this repository's",
            "2. edit desired-state/*.yaml       # the URL of your Stalwart, your zone, your compose file",
            "3. export the secrets it names     # such as STALWART_ADMIN_PASSWORD and CLOUDFLARE_API_TOKEN",
            "4. reconciler validate && reconciler plan",
            "",
            "A plan writes nothing. README.md says from where to run what.",
        )

    # ------------------------------------------------------------------------------------------------- stage hands
    def reconciler(self, *arguments: str, expect: int = 0) -> None:
        """Run the program as a user would, show what it prints, and hold it to its exit code."""
        prompt(f"reconciler {' '.join(arguments)}")
        sys.stdout.flush()
        done = self._run(*arguments)
        if done.returncode != expect:
            raise DemoFailed(f"reconciler {' '.join(arguments)} ended with {done.returncode}, not {expect}")

    def _run(self, *arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "reconciler", *arguments]
        environment = self._environment()
        return subprocess.run(
            command, cwd=self.example.path, env=environment, text=True, check=False, capture_output=capture
        )

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
        }

    def provider(self, old: str, new: str) -> None:
        """Change the provider in smtp.yaml, and show it as a diff."""
        self.example.edit("desired-state/smtp.yaml", f"  provider: {old}\n", f"  provider: {new}\n")
        say_lines("desired-state/smtp.yaml", f"-  provider: {old}", f"+  provider: {new}", "")

    def mend(self) -> None:
        """Put the text that the refusal printed where it says: `FILE:LINE` is in the message, the text in the hint."""
        plan = json.loads(self._run("plan", "--output", "json", capture=True).stdout)
        problem = next(item for item in plan["problems"] if "docker-compose" in json.dumps(item))
        words = f"{problem['summary']} {problem['hint']}"
        place = re.search(r"docker-compose\.macmini\.yml:(\d+)", words + problem["where"])
        text = re.search(r"`([^`]*)`", words)
        if place is None or text is None:
            raise DemoFailed(f"the refusal names no place or no text: {words}")
        lines = self.example.compose_file.read_text(encoding="utf-8").splitlines(keepends=True)
        index = int(place[1]) - 1
        indent = lines[index][: len(lines[index]) - len(lines[index].lstrip())]
        new = f"{indent}{text[1]}\n"
        say("The text it prints, put where it says:")
        say_lines(f"docker-compose.macmini.yml:{index + 1}", f"-{lines[index].rstrip()}", f"+{new.rstrip()}", "")
        lines[index] = new
        self.example.compose_file.write_text("".join(lines), encoding="utf-8")

    def show_environment(self) -> None:
        """Show what the running container has now."""
        container = self.stage.docker.named("mana-core-notify")
        prompt("docker inspect mana-core-notify   # its environment")
        for name, value in sorted(container.environment.items()):
            if name.startswith("SMTP_"):
                sys.stdout.write(f"  {name}={'(secret)' if name.endswith('PASSWORD') else value}\n")


# ------------------------------------------------------------------------------------------------------------ print
def title(text: str) -> None:
    """Print an act's title."""
    sys.stdout.write(f"\n{text}\n{'=' * len(text)}\n")


def say(text: str) -> None:
    """Print a sentence or two."""
    sys.stdout.write(f"\n{textwrap.fill(' '.join(text.split()), WIDTH)}\n")


def say_lines(*lines: str) -> None:
    """Print lines as they are."""
    sys.stdout.write("".join(f"  {line}".rstrip() + "\n" for line in lines))


def prompt(command: str) -> None:
    """Print a command as it stands in a shell."""
    sys.stdout.write(f"\n$ {command}\n")


def main() -> int:
    """Play the demo in a temporary directory; nothing of it stays, whatever ends it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="reconciler-demo-") as folder:
        example = copy(ROOT / "tests" / "example", Path(folder) / "stack")
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
                Demo(example, stage).run()
        except DemoFailed as failure:
            sys.stderr.write(f"\nThe demo failed: {failure}\n")
            return 1
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # as by `make demo | head`; what is left to print goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
