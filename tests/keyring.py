"""Identities of age and the real sops in a home directory of their own; nothing of the machine's own home is seen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pyrage
import pytest


def sops_program() -> str:
    """Find the real sops; a test that needs it is left out where there is none."""
    program = shutil.which("sops")
    if program is None:
        pytest.skip("no real sops on PATH (.ci/run builds it)")
    return program


class Keyring:
    """A home with `keys.txt`, and the directory `state` beside it."""

    def __init__(self, folder: Path) -> None:
        self.home, self.state = folder / "home", folder / "state"
        self.home.mkdir()
        self.state.mkdir()
        self.keys = self.home / ".config/sops/age/keys.txt"
        self.environ = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.home), "LANG": "C.UTF-8"}

    def identity(self) -> pyrage.x25519.Identity:
        return pyrage.x25519.Identity.generate()

    def own(self, *identities: pyrage.x25519.Identity) -> str:
        """Let these be the identities of the user; returns the first one's recipient."""
        chosen = identities or (self.identity(),)
        self.keys.parent.mkdir(parents=True, exist_ok=True)
        self.keys.write_text("# created: today\n" + "".join(f"{item}\n" for item in chosen))
        return str(chosen[0].to_public())

    def disown(self) -> None:
        self.keys.unlink()

    def sops(self, *arguments: str, given: str = "", **environ: str) -> str:
        """Run the real sops as a person would."""
        done = subprocess.run(
            [sops_program(), *arguments],
            env=self.environ | environ,
            input=given,
            cwd=self.state,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def encrypted(self, name: str, content: object, *recipients: str) -> Path:
        """Write a file as sops encrypts it: a map, or a text in the format that its name says."""
        given = content if isinstance(content, str) else json.dumps(content)
        kind = () if isinstance(content, str) else ("--input-type", "json")
        whom = ("--age", ",".join(recipients)) if recipients else ()
        path = self.state / name
        path.write_text(self.sops("encrypt", *whom, *kind, "--filename-override", str(path), given=given))
        return path
