"""A copy of the example to play with: in a directory of its own, with keys and secrets of its own."""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

SECRETS = (
    "STALWART_ADMIN_PASSWORD",
    "NOREPLY_PASSWORD",
    "POSTMASTER_PASSWORD",
    "MANA_SERVICE_KEY",
    "BREVO_SMTP_KEY",
    "BREVO_API_KEY",
    "CLOUDFLARE_API_TOKEN",
)
COMPOSE, ENV = "docker-compose.macmini.yml", ".env.macmini"
MISPLACED, MENDED = (f"      - stalwart_data:/opt/{place}\n" for place in ("stalwart-mail", "stalwart"))
"""Where the example mounts its volume, and where images 0.12 to 0.15 keep their data, in the plan's words."""
MOVED = (  # in the compose file for 0.16: what stands there, and what is written instead, in the plan's words
    ("    image: stalwartlabs/stalwart:latest\n", "    image: stalwartlabs/stalwart:v0.16.18\n"),
    (
        MISPLACED,
        "      - stalwart_etc:/etc/stalwart\n      - stalwart_data_new:/var/lib/stalwart\n",
    ),
    (
        "    environment:\n      - ",
        "    environment:\n      - STALWART_RECOVERY_ADMIN=${STALWART_RECOVERY_ADMIN}\n      - ",
    ),
    ("\nvolumes:\n", "\nvolumes:\n  stalwart_etc:\n  stalwart_data_new:\n"),
)


@dataclass(frozen=True, slots=True)
class Example:
    """The copy: its directory, and the environment with a value for every secret it refers to."""

    path: Path
    secrets: dict[str, str]

    @property
    def state(self) -> Path:
        """The directory of YAML."""
        return self.path / "desired-state"

    @property
    def compose_file(self) -> Path:
        """The compose file, beside the directory."""
        return self.path / COMPOSE

    @property
    def env_file(self) -> Path:
        """The env file, beside the compose file."""
        return self.path / ENV

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a file as a person would; raises ValueError where the text does not stand there once."""
        path = self.path / name
        text = path.read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise ValueError(f"{name}: {old!r} stands there {text.count(old)} times")
        path.write_text(text.replace(old, new), encoding="utf-8")

    def move(self) -> None:
        """Declare the mail server's container for 0.16: image, volumes, and a recovery administrator of our own."""
        if MENDED in self.compose_file.read_text(encoding="utf-8"):
            self.edit(COMPOSE, MENDED, MISPLACED)
        for old, new in MOVED:
            self.edit(COMPOSE, old, new)
        value = self.secrets["STALWART_RECOVERY_ADMIN"] = f"admin:{_password()}"
        with self.env_file.open("a", encoding="utf-8") as file:
            file.write(f"STALWART_RECOVERY_ADMIN={value}\n")


def _password() -> str:
    """Make a password that no server takes for a hash, and no program for an option."""
    return secrets.token_urlsafe(24).lstrip("-_")


def source() -> Path:
    """Return where the example is: in a wheel within the package, else among the tests."""
    package = Path(__file__).parents[1]
    packed = package / "example"
    return packed if packed.is_dir() else package.parent / "tests" / "example"


def copy(source: Path, target: Path) -> Example:
    """Copy the example (the directory of YAML, the compose file and the env file) and make its keys and secrets.

    Raises FileExistsError where a part of it is there already.
    """
    target.mkdir(parents=True, exist_ok=True)
    for part in (*(path.name for path in source.iterdir()), "secrets"):
        if os.path.lexists(target / part):
            raise FileExistsError(part)
    shutil.copytree(source, target, dirs_exist_ok=True)
    example = Example(target, {name: _password() for name in SECRETS})
    folder = target / "secrets"
    folder.mkdir(mode=0o700)
    public = _write_keys(folder)
    dkim = example.state / "dkim.yaml"
    dkim.write_text(re.sub(r"(?m)^(\s*public_key:).*$", rf"\1 {public}", dkim.read_text(encoding="utf-8")))
    for name in ("STALWART_ADMIN_PASSWORD", "MANA_SERVICE_KEY"):
        text = example.env_file.read_text(encoding="utf-8")
        example.env_file.write_text(re.sub(rf"(?m)^{name}=.*$", f"{name}={example.secrets[name]}", text))
    example.env_file.chmod(0o600)
    return example


def _write_keys(folder: Path) -> str:
    """Write both private keys and return the public half of the Ed25519 one."""
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    first, second = ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)
    for name, key in (("mana2026", first), ("rsa2026", second)):
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with open(folder / f"{name}.pem", "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(pem)
    return base64.b64encode(first.public_key().public_bytes_raw()).decode()
