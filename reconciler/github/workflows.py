"""The files that `reconciler init --github` writes: an action that installs this release, and its workflows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler import __version__

LOCK = Path(__file__).parents[1] / "requirements.txt"
"""What a release runs with, each with its hash; it lies in the wheel."""

ACTION = ".github/actions/reconciler/action.yml"
APPLY = ".github/workflows/reconciler-apply.yml"
APPLIES = ("daemon", "push", "runner")
"""Who applies: the daemon on the server, Actions (Cloudflare alone), a runner on the server."""

# By the commits that these tags named on 2026-11-29, read in the repositories themselves.
CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
UPLOAD = "actions/upload-artifact@bbbca2ddaa5d8feaa63e36b76fdaad77386f024f # v7.0.0"


@dataclass(frozen=True, slots=True)
class Subject:
    """What they are about: ``state`` is the directory from the repository's top, ``apply`` one of `APPLIES`.

    With ``planned`` the daemon plans pull requests, and no workflow does.
    """

    stack: str
    state: str = "desired-state"
    branch: str = "main"
    apply: str = "daemon"
    planned: bool = False


def files(place: Subject) -> Mapping[str, str]:
    """Return path and content of each file, from the repository's top."""
    named = {
        ACTION: "action.yml",
        ".github/workflows/reconciler-plan.yml": "plan.yml",
        APPLY: f"apply-{place.apply}.yml",
        ".github/workflows/reconciler-drift.yml": "drift.yml",
        ".github/dependabot.yml": "dependabot.yml",
    }
    written = {path: _filled(name, place) for path, name in named.items()}
    if not place.planned:
        job = "plan-job-runner.yml" if place.apply == "runner" else "plan-job.yml"  # where the systems are reached
        written[".github/workflows/reconciler-plan.yml"] += _filled(job, place)
    return written


def _filled(name: str, place: Subject) -> str:
    text = (Path(__file__).parent / "files" / name).read_text(encoding="utf-8")
    words = {
        "@VERSION@": __version__,
        "@STACK@": place.stack,
        "@STATE@": place.state,
        "@BRANCH@": place.branch,
        "@APPLY@": place.apply,
        "@CHECKOUT@": CHECKOUT,
        "@UPLOAD@": UPLOAD,
    }
    for word, value in words.items():
        text = text.replace(word, value)
    return text
