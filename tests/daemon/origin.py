"""A bare repository that others push to, a clone to write commits in, and keys that sign them. All by the real git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from reconciler.daemon.checkout import Checkout, Following
from reconciler.daemon.remote import Remote
from reconciler.daemon.state import Sourced
from reconciler.daemon.store import Signers

ENVIRON = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "TOKEN": "canary"}
GITHUB = ("GitHub", "noreply@github.com")
PERSON = ("Ada", "ada@example.com")


def run(where: Path, *arguments: str, **environ: str) -> str:
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": ENVIRON["PATH"]}
    config = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "protocol.file.allow=always")
    command = ["git", "-C", str(where), *config, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env={**quiet, **environ}).stdout.strip()


def yaml(deletes: int = 3, prune: str = "owned", more: str = "") -> str:
    return f"version: 1\nstack: mana\npolicy:\n  max_deletes: {deletes}\n  prune: {{dns: {prune}}}\n{more}"


class Origin:
    """The repository at ``bare``; ``tree`` is where its commits are made, on ``main``."""

    def __init__(self, place: Path, form: str = "sha1") -> None:
        self.place, self.bare, self.tree = place, place / "origin.git", place / "work"
        place.mkdir(parents=True, exist_ok=True)
        run(place, "init", "-q", "--bare", f"--object-format={form}", "-b", "main", str(self.bare))
        run(place, "init", "-q", f"--object-format={form}", "-b", "main", str(self.tree))
        run(self.tree, "remote", "add", "origin", str(self.bare))

    def commit(
        self,
        files: dict[str, str | bytes | None] | None = None,
        subject: str = "a change",
        *options: str,
        push: bool = True,
        committer: tuple[str, str] = PERSON,
    ) -> str:
        """Write files (None removes one), commit all and push. Returns the commit."""
        for name, content in (files or {}).items():
            path = self.tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        run(self.tree, "add", "-A")
        said = {"GIT_COMMITTER_NAME": committer[0], "GIT_COMMITTER_EMAIL": committer[1]}
        run(self.tree, "commit", "-q", "--allow-empty", "-m", subject, *options, **said)
        if push:
            self.push()
        return self.head

    def state(self, deletes: int = 3, prune: str = "owned", more: str = "", *options: str, **facts: str) -> str:
        """Commit the directory of YAML with a policy, and push."""
        return self.commit({"desired-state/reconciler.yaml": yaml(deletes, prune, more)}, "a change", *options, **facts)

    def push(self) -> None:
        run(self.tree, "push", "-q", "--force", "origin", "HEAD:main")

    @property
    def head(self) -> str:
        return run(self.tree, "rev-parse", "HEAD")

    def checkout(
        self,
        data: Path | None = None,
        *,
        repo: str = "",
        path: str = "desired-state",
        accept: str = "",
        project: Path | None = None,
        signers: Signers | None = None,
        **environ: str,
    ) -> Checkout:
        remote = Remote.read(repo or str(self.bare), "main")
        following = Following(remote, path, signers or Signers(), accept, project)
        return Checkout(following, data or self.place / "data", {**ENVIRON, **environ})


def key(place: Path, name: str) -> tuple[Path, str]:
    """Make an SSH key; returns its file and the line that lets it sign, as ``name@example.com``."""
    file = place / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(file)], check=True)
    kind, public, _ = file.with_suffix(".pub").read_text().split()
    return file, f'{name}@example.com namespaces="git" {kind} {public}\n'


def signed(file: Path) -> tuple[str, ...]:
    """Return the options of `git` that sign a commit with a key."""
    return ("-c", "gpg.format=ssh", "-c", f"user.signingKey={file}")


def told(sourced: Sourced) -> str:
    return "\n".join(str(problem) for problem in sourced.problems)


def taken(sourced: Sourced) -> str:
    """Return the commit that counts."""
    return sourced.revision.commit if sourced.revision else ""
