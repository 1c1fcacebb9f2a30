"""Gathers what became of mail: the server's queue and log, its container's log, and those of the services that send."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from reconciler.checks.check import Unread
from reconciler.doctor.talks import variables_of
from reconciler.plan import Plan
from reconciler.problem import TargetUnreadable, printable
from reconciler.secrets.redaction import SHORTEST
from reconciler.stack import Stack
from reconciler.targets.compose import Compose
from reconciler.targets.stalwart import Stalwart
from reconciler.traffic import Refusal, Traffic, follow, told

if TYPE_CHECKING:
    from reconciler.targets.compose.snapshot import Snapshot

_LINES = 5000  # of one container's log
_WORDS = 200  # characters of a service's line that are shown
_EVER = datetime.min.replace(tzinfo=UTC)


def gather(stack: Stack, plan: Plan | Unread, since: datetime | None) -> Traffic | Unread | None:
    """Read the queue and, with ``since``, every log; None where no mail server takes part."""
    server = stack.targets.get("stalwart")
    if not isinstance(server, Stalwart):
        return None
    queue, lines = server.traffic(stack.secrets, logs=since is not None)
    if since is None:
        return Traffic(follow((), queue, _EVER))
    printed, unread = _printed(stack, since)
    if lines is None and not any("(delivery." in line for line in printed):
        why = (
            "the server writes no log that could be read: give it a tracer of the kind Log (its default) at level info"
        )
        unread = (*unread, why)
    messages = follow((*(lines or ()), *printed), queue, since)
    return _with_services(stack, plan, Traffic(messages, since=since, unread=unread))


def _printed(stack: Stack, since: datetime) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read what the server's container printed, where one of its tracers writes there; and why that can't be read."""
    from reconciler.targets.stalwart.container import Docker, DockerUnreachable

    declared = stack.spec.targets.stalwart
    if declared is None or not declared.container:
        return (), ()
    try:
        text = Docker(declared.container, stack.settings.docker_host).printed(since.timestamp())
    except DockerUnreachable as error:
        return (), (str(error),)
    return tuple(text.splitlines()), ()


def _with_services(stack: Stack, plan: Plan | Unread, traffic: Traffic) -> Traffic:
    """Add what the services that send mail say in their own logs."""
    compose = stack.targets.get("compose")
    senders = sorted({item.service for item in variables_of(stack, plan)})
    if not isinstance(compose, Compose) or not senders or traffic.since is None:
        return traffic
    messages, refusals = traffic.messages, list[Refusal]()
    try:
        with compose.standing(senders) as (snapshot, doors):
            hide = functools.partial(_hidden, stack, tuple(_values(stack, snapshot)))
            for service in senders:
                logs = [
                    doors.engine.log(item.id, _LINES, traffic.since.timestamp(), stamped=True)
                    for item in snapshot.replicas(service)
                ]
                messages, found = told(messages, service, "\n".join(logs).splitlines())
                refusals += (replace(item, words=printable(hide(item.words), _WORDS)) for item in found)
    except TargetUnreadable as error:
        return replace(traffic, unread=(*traffic.unread, f"the logs of the services: {error.problems[0].summary}"))
    ordered = tuple(sorted(refusals, key=lambda item: item.when))
    return replace(traffic, messages=messages, refusals=ordered)


def _values(stack: Stack, snapshot: Snapshot) -> Iterator[str]:
    """Yield what services have in their environment, which a log may repeat; not what the directory says in clear."""
    environments = (item.environment for item in snapshot.details.values())
    values = {*snapshot.env_file.values(), *(text for found in environments for text in found.values())}
    yield from (text for text in values if len(text) >= SHORTEST and text not in stack.directory.text)


def _hidden(stack: Stack, values: Sequence[str], words: str) -> str:
    """Take secrets out of a line before it is cut: those that are known here, and whatever the services have."""
    from reconciler.targets.compose.program import redact

    return redact(stack.secrets.redact(words), values)
