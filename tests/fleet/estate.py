"""Many stacks on one machine: their directories in one repository, a mail server's fake each, one Cloudflare for all.

A stack costs a `StalwartRest` in memory and a zone; all of them are behind two HTTP servers, told apart by a path's
first part. What arrives there that writes is on the `tape`, in order.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from daemon.origin import Origin

from reconciler.simulator.cloudflare import Cloudflare, Token
from reconciler.simulator.stalwart.rest.server import StalwartRest
from reconciler.simulator.wire import Reply, Request, Server

TOKEN, ADMIN = "canary-token-of-cloudflare", "canary-password-of-the-admin"
USER = "canary-password-of-a-user"
DIRECTORY = """\
version: 1
stack: {name}
targets:
  cloudflare: {{token: {{env: CLOUDFLARE_API_TOKEN}}}}
  stalwart: {{url: "http://127.0.0.1:8080", username: admin, password: {{env: STALWART_ADMIN_PASSWORD}}}}
domains: {{{name}.example: {{}}}}
accounts:
  post@{name}.example: {{password: {{env: USER_PASSWORD}}}}
dns:
  {name}.example:
    - {{type: A, name: mail, content: {address}}}
"""


@dataclass
class Tape:
    """What was written where, and what is to happen before one of them."""

    writes: list[tuple[str, str]] = field(default_factory=list)
    before: object = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, stack: str, request: Request) -> None:
        if request.method in ("GET", "HEAD", "OPTIONS") or request.path.endswith("/api/oauth"):
            return
        with self.lock:
            self.writes.append((stack, f"{request.method} {request.path}"))
        if self.before is not None:
            self.before(stack, request)

    def of(self, stack: str) -> list[str]:
        return [what for name, what in self.writes if name == stack]


class Estate:
    """``names`` are the stacks. `inventory` writes the file that a fleet goes by."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder, self.names, self.tape = folder, list(names), Tape()
        self.refused: Counter[str] = Counter()  # logins, by stack
        self.cloudflare = Cloudflare([f"{name}.example" for name in self.names], tokens={TOKEN: Token()})
        self.servers = {name: StalwartRest(environment={"STALWART_ADMIN_PASSWORD": ADMIN}) for name in self.names}
        for server in self.servers.values():
            server.wipe()
        self.stalwart = Server(self._mail)
        self.dns = Server(self._dns)
        self.origin = Origin(folder / "git")
        self.commit(dict.fromkeys(self.names, "192.0.2.1"))
        self.secrets = folder / "secrets"
        self.secrets.mkdir(mode=0o700)
        for name in self.names:
            self._write_secrets(name)

    def _write_secrets(self, name: str, **more: str) -> None:
        lines = {
            "CLOUDFLARE_API_TOKEN": TOKEN,
            "STALWART_ADMIN_PASSWORD": ADMIN,
            "USER_PASSWORD": f"{USER}-{name}",
            "STALWART_URL": f"{self.stalwart.url}/{name}",
            "CLOUDFLARE_BASE_URL": f"{self.dns.url}/client/v4",
            **more,
        }
        path = self.secrets / f"{name}.env"
        path.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        path.chmod(0o600)

    def start(self) -> Estate:
        self.stalwart.start()
        self.dns.start()
        return self

    def stop(self) -> None:
        self.stalwart.stop()
        self.dns.stop()
        for server in self.servers.values():
            server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ------------------------------------------------------------------------------------------------------ the wire
    def _mail(self, request: Request) -> Reply:
        _, stack, rest = request.path.split("/", 2)
        within = replace(request, path=f"/{rest}", raw_path=request.raw_path.removeprefix(f"/{stack}"))
        self.tape.note(stack, within)
        reply = self.servers[stack](within)
        self.refused[stack] += reply.status == 401 and "authorization" in request.headers
        return reply

    def _dns(self, request: Request) -> Reply:
        found = re.search(r"([a-z0-9-]+)\.example", request.body.decode(errors="replace"))
        self.tape.note(found[1] if found else "dns", request)
        return self.cloudflare(request)

    # ------------------------------------------------------------------------------------------------------ the git
    def commit(self, addresses: dict[str, str], **files: str | None) -> str:
        """Commit directories with these addresses of their mail hosts."""
        texts = {
            f"stacks/{name}/reconciler.yaml": DIRECTORY.format(name=name, address=address)
            for name, address in addresses.items()
        }
        return self.origin.commit({**texts, **files})

    def inventory(self, text: str = "", stacks: str = "") -> Path:
        """Write the inventory; ``text`` stands at its top, ``stacks`` in place of one empty entry for each."""
        path = self.folder / "fleet.yaml"
        entries = stacks or "".join(f"  {name}:\n" for name in self.names)
        head = f'version: 1\ndefaults: {{repo: {self.origin.bare}, directory: "stacks/{{stack}}"}}\n'
        path.write_text(f"{head}{text}stacks:\n{entries}")
        return path

    # --------------------------------------------------------------------------------------------------- what is there
    def address(self, name: str) -> str:
        """Return what the mail host's record says; empty without one."""
        records = self.cloudflare.records(f"{name}.example")
        return next((item["content"] for item in records if item["type"] == "A"), "")

    def accounts(self, name: str) -> list[str]:
        return [item.name for item in self.servers[name].directory.of_types(["individual"])]

    def wipe(self, name: str) -> None:
        """Lose a mail server's volume."""
        self.servers[name].wipe()
