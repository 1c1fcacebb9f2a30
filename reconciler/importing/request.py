"""What a user asks to import, from where and to where; what is missing is told before anything is asked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.dns.names import host
from reconciler.problem import Problem, ReconcilerError
from reconciler.resources import SecretRef
from reconciler.secrets.store import open_store

ADMINISTRATOR = SecretRef("env", "STALWART_ADMIN_PASSWORD")
TOKEN = SecretRef("env", "CLOUDFLARE_API_TOKEN")
RECOVERY = SecretRef("env", "STALWART_RECOVERY_ADMIN")


@dataclass(frozen=True, slots=True)
class Request:
    """The systems to import, each optional, and the directory to write.

    ``store`` is where secrets go, as `reconciler.secrets.store.open_store` has it: relative to the directory.
    """

    out: Path
    stalwart: str | None = None
    username: str = "admin"
    container: str | None = None
    allow_plain_http: bool = False
    zones: Sequence[str] = ()
    compose: Path | None = None
    env_file: Path | None = None
    project: str | None = None
    stack: str | None = None
    store: str = "file:../secrets"
    recipients: Sequence[str] = ()

    def check(self, environ: Mapping[str, str]) -> None:
        """Raise `ReconcilerError` with all that stands in the way, before anything is asked."""
        problems = [*self._incomplete(), *self._unset(environ), *self._taken()]
        if problems:
            raise ReconcilerError(*problems)
        open_store(self.store, self.out, environ, self.recipients)

    def _incomplete(self) -> Iterator[Problem]:
        if not (self.stalwart or self.zones or self.compose):
            hint = "name at least one: --stalwart URL, --zone ZONE, --compose FILE"
            yield Problem("command line", "there is nothing to import from", hint)
        if self.compose is not None and not self.compose.is_file():
            yield Problem(str(self.compose), "the compose file does not exist", "correct --compose")
        for zone in self.zones:
            try:
                host(zone)
            except ValueError as error:
                yield Problem("--zone", str(error), "write it like example.com")
        if self.stack is not None and not re.fullmatch(r"[a-z0-9-]{1,24}", self.stack):
            yield Problem("--stack", "is no stack's name", "1 to 24 of a-z, 0-9 and -")

    def _unset(self, environ: Mapping[str, str]) -> Iterator[Problem]:
        needed = {ADMINISTRATOR: self.stalwart, TOKEN: self.zones}
        for ref, wanted in needed.items():
            if wanted and not environ.get(ref.name):
                what = "--stalwart" if ref == ADMINISTRATOR else "--zone"
                yield Problem(ref.name, f"is not set, and {what} needs it", f"export {ref.name} where reconciler runs")

    def _taken(self) -> Iterator[Problem]:
        """Refuse what can't be replaced in one step; an empty directory can."""
        if os.path.lexists(self.out) and not self.out.is_dir():
            yield Problem(str(self.out), "is no directory", "name another one with --out")
        elif self.out.is_dir() and (names := sorted(path.name for path in self.out.iterdir())):
            what = "there is a directory of YAML already" if _yaml(self.out) else f"is not empty ({names[0]})"
            yield Problem(str(self.out), f"{what}, so nothing was written", "name another one with --out")


def _yaml(directory: Path) -> bool:
    return any(directory.rglob("*.y*ml"))


def stack_name(*candidates: str) -> str:
    """Make a stack's name of the first candidate that holds one."""
    for text in candidates:
        name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:24].strip("-")
        if name:
            return name
    return "mail"
