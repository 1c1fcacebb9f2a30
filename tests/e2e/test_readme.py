"""The outputs in the documentation are real: each scene is played on the stage and compared, but for what differs.

`RECONCILER_WRITE_README=1 pytest tests/e2e/test_readme.py` writes them anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from reconciler.simulator.cloudflare import NAME_SERVERS
from reconciler.simulator.demo import BREVO
from reconciler.simulator.example import COMPOSE, MENDED, MISPLACED, Example, copy
from reconciler.simulator.stage import VERSIONS, Stage

from .stagefixtures import NOBODY, FastProject, Zygote

pytestmark = pytest.mark.xdist_group("readme")  # the play is played once

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
IMPORT = (
    *("import", "--stalwart", "http://localhost:8443", "--zone", "mana.how"),
    *("--compose", "docker-compose.macmini.yml", "--stack", "mana", "--out", "imported/desired-state"),
)
LOCAL_ENGINE = "unix:///var/run/docker.sock"
SCENE = re.compile(r"<!-- scene: (\w+) -->\n```console\n(.*?)```\n", re.DOTALL)


class Play:
    """The example on its stage, and what its commands print."""

    def __init__(self, example: Example, stage: Stage, zygote: Zygote) -> None:
        self.example, self.stage, self.zygote = example, stage, zygote

    def run(self, *arguments: str) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.example.path),
            "SSL_CERT_FILE": str(self.example.path / "relay.pem"),
            **self.example.secrets,
            **self.stage.environment,
            "RECONCILER_TODAY": "2026-11-22",
            "RECONCILER_DRY_RUN": "no",
            "RECONCILER_WHOAMI": NOBODY,
        }
        text = self.zygote.run(arguments, self.example.path, environment).out
        for here, real in self.addresses():
            text = text.replace(here, real)
        return f"$ reconciler {' '.join(arguments)}\n{text}"

    def addresses(self) -> list[tuple[str, str]]:
        """Where the stage's systems are reached, each with the real system's address."""
        environment = self.stage.environment
        routes = (route.split("=") for route in environment["RECONCILER_ROUTES"].split())
        return [
            *zip(self.stage.dns.servers, NAME_SERVERS, strict=True),
            (environment["STALWART_URL"], "http://localhost:8443"),
            (environment["CLOUDFLARE_BASE_URL"].removesuffix("/client/v4"), "https://api.cloudflare.com"),
            (environment["DOCKER_HOST"], LOCAL_ENGINE),
            *((here, real) for real, here in routes),
        ]

    def scenes(self) -> dict[str, str]:
        self.run("apply", "--yes")
        self.stage.recreate_mail_server()
        scenes = {"lost": self.run("plan")}
        self.pinned(MISPLACED, MENDED)
        self.run("apply", "--yes")
        scenes["imported"] = self.run(*IMPORT)
        scenes["doctor"] = self.doctor()
        self.example.edit("desired-state/smtp.yaml", "  provider: stalwart\n", "  provider: brevo\n")
        scenes["refused"] = self.run("plan")
        literal = 'SMTP_INSECURE_TLS: "true"     # a literal: .env.macmini cannot change it'
        self.example.edit("docker-compose.macmini.yml", literal, "SMTP_INSECURE_TLS: ${SMTP_INSECURE_TLS:-true}")
        scenes["switched"] = self.run("apply", "--yes")
        scenes["rotated"] = self.rotation()
        self.pinned(MENDED, MISPLACED)
        self.stage.upgrade()
        scenes["moved"] = self.run("plan", "--target", "stalwart")
        return {name: plain(text) for name, text in scenes.items()}

    def pinned(self, old: str, new: str) -> None:
        """Mount the volume elsewhere and pin the image, as the plan says, or take both back."""
        image = "    image: stalwartlabs/stalwart:{}\n"
        tags = ("latest", f"{VERSIONS['rest']}")
        self.example.edit(COMPOSE, old, new)
        self.example.edit(COMPOSE, *map(image.format, tags if new == MENDED else tags[::-1]))
        self.stage.up()

    def doctor(self) -> str:
        """Plant two defects, ask, and take them away again."""
        self.stage.up("mana-auth", MANA_SERVICE_KEY="an-old-key")
        records = self.stage.cloudflare.records("mana.how")
        key = next(item for item in records if item["name"].startswith("mana2026._domainkey"))
        self.stage.cloudflare.edit("mana.how", key["id"], content='"v=DKIM1; k=ed25519; p="')
        said = self.run("doctor", "--only", "services", "--only", "dns/dkim")
        self.stage.up("mana-auth")
        self.stage.cloudflare.edit("mana.how", key["id"], content=key["content"])
        return said

    def rotation(self) -> str:
        """Rotate while a name server lags, and when it has caught up; the keys of the other scenes stay."""
        file = self.example.state / "dkim.yaml"
        before = file.read_text(encoding="utf-8")
        self.stage.dns.hold(1)
        self.run("dkim", "rotate", "mana.how")
        self.run("apply", "--yes", "--target", "cloudflare")
        waits = self.run("dkim", "rotate", "mana.how")
        self.stage.dns.release(1)
        takes_over = self.run("dkim", "rotate", "mana.how")
        file.write_text(before, encoding="utf-8")
        return f"{waits}\n{takes_over}"


def when(found: re.Match[str]) -> str:
    return f"2026-11-22{found[1][0]}12:00{':00' if found[2] else ''}"


def plain(text: str) -> str:
    """Take out what differs every time, and the variables that point at the stage."""
    text = re.sub(r"(?m)^(?:  )?set by the environment: .*\n", "", text)
    text = re.sub(rf"(?m)^  secrets go to {LOCAL_ENGINE}: .*\n", "", text)  # an engine on this machine is no receiver
    receivers = r"(?:  secrets go to .*\n)+"  # sorted by host
    text = re.sub(receivers, lambda lines: "".join(sorted(lines[0].splitlines(keepends=True))), text)
    text = re.sub(r"key …[A-Za-z0-9+/=]{16}", "key …R3PJitX2xsZh5sF=", text)
    text = text.replace("rsa, key …R3PJitX2xsZh5sF=", "rsa, key …65AHVtpvgwIDAQAB")
    text = re.sub(r"(?m)  \d+\.\d s$", "  6.1 s", text)
    text = re.sub(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d)(:\d\d)?", when, text)
    return re.sub(r"(?<=Apply )[0-9a-f]{8}\b", "5ca15d1f", text)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, zygote: Zygote) -> dict[str, str]:
    example = copy(ROOT / "tests" / "example", tmp_path_factory.mktemp("readme") / "stack")
    stage = Stage(
        ["mana.how"],
        FastProject(example.compose_file, example.env_file, str(zygote.client)),
        token=example.secrets["CLOUDFLARE_API_TOKEN"],
        admin_password=example.secrets["STALWART_ADMIN_PASSWORD"],
    )
    stage.relay(*BREVO, example.secrets["BREVO_SMTP_KEY"])
    stage.trust(example.path / "relay.pem", BREVO[0])
    zygote.forget()
    with stage:
        played = Play(example, stage, zygote).scenes()
    if os.environ.get("RECONCILER_WRITE_README"):
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            text = SCENE.sub(lambda it: f"<!-- scene: {it[1]} -->\n```console\n{played[it[1]]}```\n", text)
            page.write_text(text, encoding="utf-8")
    return played


@pytest.mark.parametrize("name", ["lost", "refused", "switched", "rotated", "imported", "moved", "doctor"])
def test_the_documentation_shows_what_the_program_prints(scenes, name):
    shown = dict(scene for page in PAGES for scene in SCENE.findall(page.read_text(encoding="utf-8")))
    assert shown[name].splitlines() == scenes[name].splitlines()
