"""What a stack may look like, put together from parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler.dns.records import record as make_record
from reconciler.importing.draft import Draft
from reconciler.importing.found import Found, Request
from reconciler.resources import Live, Resource
from reconciler.secrets.store import open_store
from reconciler.targets.compose.snapshot import Service
from reconciler.targets.compose.snapshot import Survey as Project
from reconciler.targets.stalwart.survey import Survey


class Parts:
    """Makes what an import finds."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "desired-state"
        self.environ = {"STALWART_ADMIN_PASSWORD": "the-admins-own-word"}

    def record(self, type: str, name: str, content: str | None = None, **more: Any) -> Live:
        live = {field: more.pop(field) for field in ("owner", "fixed") if field in more}
        made = make_record("mana.how", type, name, content, **{"comment": None, **more})
        return Live(made, id=f"{type} {name} {content}", **live)

    def service(self, name: str, running: Mapping[str, str] | None, **configured: str | None) -> Service:
        image = "stalwartlabs/stalwart:latest" if name == "stalwart" else f"{name}:1"
        environments = () if running is None else (dict(running),)
        return Service(name, image, f"c-{name}", frozenset({name}), environments, {**(running or {}), **configured})

    def server(self, *resources: Resource, generation: str = "rest", **more: Any) -> Survey:
        return Survey(generation, tuple(Live(item) for item in resources), **more)

    def found(
        self, *, server: Survey | None = None, zone: list[Live] | None = None, services: list[Service] | None = None
    ) -> Found:
        zones = {"mana.how": zone} if zone is not None else {}
        url = "http://localhost:8443" if server else None
        request = Request(out=self.out, stalwart=url, zones=tuple(zones))
        project = Project("mana", tuple(services)) if services is not None else None
        return Found(request, "mana", server=server, zones=zones, project=project, environ=self.environ)

    def draft(self) -> Draft:
        return Draft(open_store("file:../secrets", self.out, {}))


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def told(draft: Draft) -> str:
    return "\n".join(map(str, draft.notes))
