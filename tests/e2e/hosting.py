"""A hosted repository as its owner sees it: a remote, pull requests, and workflows that are really run, by act.

act runs the committed workflows on this machine, without an image. What GitHub's own machines bring is ours: the fake
of its API, and stand-ins for the two actions that are not ours. Cloudflare is the simulator's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from githubfake import REPOSITORY, GitHub

from reconciler.github import workflows
from reconciler.simulator.cloudflare import Cloudflare
from reconciler.simulator.wire import Server

ZONES = ("mana.how", "mana.test")
READ, WRITE = "canary-read-token-0123456789abcdef01234567", "canary-write-token-0123456789abcdef0123456"
JOB = "ghs_canaryJobToken"
CANARIES = (READ, WRITE, JOB, "canary-signature")
RECONCILER = """\
version: 1
stack: mana
targets:
  stalwart: {url: "https://mail.internal:8443", username: admin, password: {env: STALWART_ADMIN_PASSWORD}}
  cloudflare: {token: {env: CLOUDFLARE_API_TOKEN}}
policy: {max_deletes: 3}
"""
ACCOUNTS = "accounts:\n  noreply@mana.how: {password: {env: NOREPLY_PASSWORD}}\n"
DNS = """\
dns:
  mana.how:
    - {type: A, name: mail, content: 192.0.2.1, ttl: 300}
    - {type: A, name: www, content: 192.0.2.2, ttl: 300}
"""
# Stand-ins. act copies what is checked out here where no ref is named; the real checkout takes one from GitHub. The
# real upload speaks to a service that is not documented.
CHECKOUT = """\
name: checkout
description: Takes a ref from the remote
inputs:
  ref: {description: which, default: ""}
  fetch-depth: {description: how much, default: "1"}
  persist-credentials: {description: whether, default: "true"}
runs:
  using: composite
  steps:
    - shell: bash
      env:
        REF: ${{ inputs.ref }}
      run: |
        git clone --quiet --branch "$REF" "$REMOTE" .
"""
UPLOAD = """\
name: upload
description: Leaves a file at the fake
inputs:
  name: {description: its name}
  path: {description: the file}
  if-no-files-found: {description: what then}
  overwrite: {description: whether, default: "false"}
  retention-days: {description: how long}
runs:
  using: composite
  steps:
    - shell: bash
      env:
        NAME: ${{ inputs.name }}
        FILE: ${{ inputs.path }}
        OVERWRITE: ${{ inputs.overwrite }}
        HEAD: ${{ github.event.pull_request.head.sha }}
        TOKEN: ${{ github.token }}
      run: |
        file=$(find "$FILE" -type f)
        test -e "$file" || exit 0
        query="name=$NAME&run=$RUN&head=$HEAD&overwrite=$OVERWRITE&file=$(basename "$file")"
        python3 -I - "$GITHUB_API_URL/_runtime/artifacts?$query" "$file" <<'PY'
        import os, sys, urllib.request
        head = {"authorization": "Bearer " + os.environ["TOKEN"], "user-agent": "upload"}
        data = open(sys.argv[2], "rb").read()
        urllib.request.urlopen(urllib.request.Request(sys.argv[1], data, head, method="POST"))
        PY
"""
# The install script of the action is run once, for real. What it made serves all others: for them `venv` gives that and
# a Python to which everything is installed already.
PYTHON = """\
#!/bin/sh
if [ "$*" != "-I -m venv --clear $5" ]; then exec {python} "$@"; fi
mkdir -p "$5/bin"
ln -s {prepared}/bin/reconciler "$5/bin/reconciler"
ln -s /bin/true "$5/bin/python"
"""


def install(house: Path, prepared: Path, script: str) -> None:
    """Build this tree's wheel, get what it needs, and install both with the script of the action."""
    root = Path(workflows.__file__).parents[2]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(house), str(root)])
    lock = ["--require-hashes", "-r", str(root / "requirements/run.txt")]
    run([*pip, "download", "--only-binary", ":all:", "--dest", str(house), *lock])
    environ = {**offline(house), "RUNNER_TEMP": str(prepared), "VERSION": workflows.__version__}
    run(["bash", "-e", "-o", "pipefail", "-c", script], env={**plain(), **environ})


def offline(house: Path) -> dict[str, str]:
    """Return what has pip take packages from a folder alone."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(house)}


def plain() -> dict[str, str]:
    """Return an environment without anything of this machine's."""
    return {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}


def run(command: list[str], **given: Any) -> str:
    """Run a program that has to succeed."""
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600, **given)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@dataclass
class Ran:
    """What one event did: whether every job succeeded, and all that was printed."""

    code: int
    log: str

    def __post_init__(self) -> None:
        for canary in CANARIES:
            assert canary not in self.log


@dataclass
class Hosted:
    """A repository with its workflows, in a folder; ``apply`` is who applies."""

    folder: Path
    house: Path
    prepared: Path
    github: GitHub
    apply: str = "push"
    cloudflare: Cloudflare = field(init=False)
    runs: int = 0

    def __post_init__(self) -> None:
        from reconciler.simulator.cloudflare import Token

        self.cloudflare = Cloudflare(ZONES, tokens={WRITE: Token(), READ: Token(dns="read")})
        self.server = Server(self.cloudflare)
        self.work, self.remote, self.tools = (self.folder / name for name in ("work", "remote.git", "tools"))
        self.tools.mkdir()
        program = self.tools / "python3"
        program.write_text(PYTHON.format(prepared=self.prepared, python=shutil.which("python3")))
        program.chmod(0o755)
        if self.apply == "runner":  # the server's own, as its administrator installed it
            (self.tools / "reconciler").symlink_to(self.prepared / "bin/reconciler")
        for name, text in (("checkout", CHECKOUT), ("upload", UPLOAD)):
            (self.folder / name).mkdir()
            (self.folder / name / "action.yml").write_text(text)
        run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(self.remote)])
        run(["git", "init", "--quiet", "--initial-branch=main", str(self.work)])
        self.git("remote", "add", "origin", f"https://github.com/{REPOSITORY}")
        self.git("remote", "add", "remote", str(self.remote))
        files = {"reconciler.yaml": RECONCILER, "accounts.yaml": ACCOUNTS, "dns.yaml": DNS}
        written = {f"desired-state/{name}": text for name, text in files.items()}
        self.first = self.commit({**written, **workflows.files(workflows.Subject("mana", apply=self.apply))}, "first")
        self.github.push(self.pushed())

    # --------------------------------------------------------------------------------------------------------- git
    def git(self, *arguments: str) -> str:
        names = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false")
        environ = {**plain(), "HOME": str(self.folder)}
        return run(["git", *names, "-C", str(self.work), *arguments], env=environ).strip()

    def commit(self, files: Mapping[str, str], message: str) -> str:
        """Commit files onto what is checked out."""
        for name, text in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", message)
        return self.git("rev-parse", "HEAD")

    def directly(self, files: Mapping[str, str]) -> str:
        """Commit files to main and push them, without a pull request."""
        self.git("checkout", "--quiet", "main")
        made = self.commit(files, "without a pull request")
        self.github.push(self.pushed())
        return made

    def branch(self, name: str, files: Mapping[str, str]) -> str:
        """Commit files onto a branch, a new one off main."""
        known = self.git("branch", "--list", name)
        self.git("checkout", "--quiet", *([name] if known else ["-b", name, "main"]))
        return self.commit(files, f"change {name}")

    def merge(self, number: int, name: str) -> str:
        """Merge a pull request and push main."""
        self.git("checkout", "--quiet", "main")
        self.git("merge", "--quiet", "--no-ff", "-m", f"merge {name}", name)
        tip = self.pushed()
        self.github.merge(number, tip)
        return tip

    def pushed(self) -> str:
        """Push main."""
        self.git("push", "--quiet", "remote", "main")
        return self.git("rev-parse", "main")

    # -------------------------------------------------------------------------------------------------------- events
    def pull_request(
        self, number: int, name: str, *, fork: bool = False, action: str = "opened", again: bool = False
    ) -> Ran:
        """Run what a pull request starts: on its merge with main, as GitHub makes it.

        ``again`` says that it is a job of the past: GitHub knows of a newer head.
        """
        head = self.git("rev-parse", name)
        if again:
            pass
        elif number in self.github.pulls:
            self.github.pulls[number]["head"]["sha"] = head
        else:
            self.github.open(number, head)
        self.git("checkout", "--quiet", "--detach", "main")
        self.git("merge", "--quiet", "--no-ff", "-m", f"Merge {head} into main", head)
        whose = "mallory/mail" if fork else REPOSITORY
        pull = {
            "number": number,
            "head": {"sha": head, "ref": name, "repo": {"full_name": whose}},
            "base": {"sha": self.git("rev-parse", "main"), "ref": "main", "repo": {"full_name": REPOSITORY}},
            "user": {"login": "mallory" if fork else "ann"},
            "title": "$(touch /tmp/x) ::set-output name=x::y",
        }
        event = {"action": action, "number": number, "pull_request": pull}
        secrets = {} if fork or self.apply == "runner" else {"CLOUDFLARE_READ_TOKEN": READ}
        return self.event("pull_request", "reconciler-plan.yml", event, secrets)

    def push(self, commit: str = "main") -> Ran:
        """Run what a push to main starts; ``commit`` is the one it was for, which may be past."""
        self.git("checkout", "--quiet", "--detach", commit)
        event = {"ref": "refs/heads/main", "after": self.git("rev-parse", commit)}
        secrets = {} if self.apply == "runner" else {"CLOUDFLARE_API_TOKEN": WRITE}
        return self.event("push", "reconciler-apply.yml", event, secrets)

    def schedule(self) -> Ran:
        """Run what the clock starts."""
        self.git("checkout", "--quiet", "main")
        event = {"schedule": "23 5 * * *", "ref": "refs/heads/main"}
        return self.event("schedule", "reconciler-drift.yml", event, {"CLOUDFLARE_READ_TOKEN": READ})

    def command(self, kind: str, workflow: str, event: Mapping[str, Any], secrets: Mapping[str, str]) -> list[str]:
        """Return how act is called."""
        self.runs += 1
        file = self.folder / f"event-{self.runs}.json"
        file.write_text(json.dumps({"repository": {"full_name": REPOSITORY, "default_branch": "main"}, **event}))
        variables = {
            "GITHUB_API_URL": self.github.server.url,
            "CLOUDFLARE_BASE_URL": f"{self.server.url}/client/v4",
            "REMOTE": str(self.remote),
            "RUN": str(self.runs),
            "RECONCILER_DATA": str(self.folder / "data"),
            **offline(self.house),
            **({"CLOUDFLARE_API_TOKEN": WRITE} if self.apply == "runner" else {}),  # in the runner's own environment
        }
        stand_ins = ((workflows.CHECKOUT, "checkout"), (workflows.UPLOAD, "upload"))
        return [
            *("act", kind, "--workflows", f".github/workflows/{workflow}", "--eventpath", str(file)),
            *("--platform", "ubuntu-latest=-self-hosted", "--platform", "self-hosted=-self-hosted"),
            *("--platform", "linux=-self-hosted"),
            *("--actor", "ann", "--defaultbranch", "main"),
            *(word for name, value in variables.items() for word in ("--env", f"{name}={value}")),
            *(word for name, value in {"GITHUB_TOKEN": JOB, **secrets}.items() for word in ("-s", f"{name}={value}")),
            *(
                word
                for used, place in stand_ins
                for word in ("--local-repository", f"{used.partition(' ')[0]}={self.folder / place}")
            ),
        ]

    def event(self, kind: str, workflow: str, event: Mapping[str, Any], secrets: Mapping[str, str]) -> Ran:
        """Run a workflow for an event."""
        command = self.command(kind, workflow, event, secrets)
        ended = subprocess.run(
            command,
            check=False,
            cwd=self.work,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Ran(ended.returncode, ended.stdout + ended.stderr)

    @property
    def environ(self) -> dict[str, str]:
        """What act is started with: a home of its own, and the stand-in for `python3 -m venv`."""
        home = self.folder / "home"
        places = {"HOME": home, "XDG_CACHE_HOME": home / "cache", "XDG_CONFIG_HOME": home / "config"}
        found = plain()
        return {**found, "PATH": f"{self.tools}:{found['PATH']}", **{name: str(at) for name, at in places.items()}}

    # -------------------------------------------------------------------------------------------------------- what is
    def records(self) -> dict[str, tuple[str, int]]:
        """Return content and TTL of each record by its name."""
        every = (item for zone in ZONES for item in self.cloudflare.records(zone))
        return {item["name"]: (item["content"], item["ttl"]) for item in every}
