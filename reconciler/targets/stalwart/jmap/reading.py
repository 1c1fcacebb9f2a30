"""One reading of a server from 0.16: everything that concerns us, as live resources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from reconciler.problem import TargetUnreadable
from reconciler.reconcile import Report, Reveal
from reconciler.resources import Live, Resource, Setting
from reconciler.targets.stalwart.jmap import directory as jmap_directory
from reconciler.targets.stalwart.jmap import settings as jmap_settings
from reconciler.targets.stalwart.jmap import signatures as jmap_signatures
from reconciler.targets.stalwart.jmap.api import Bootstrapping, JmapApi, Kind, Registry, Rejected
from reconciler.targets.stalwart.jmap.directory import Directory, Judge


def read(api: JmapApi, wanted: Iterable[Resource]) -> Registry:
    """Read what concerns us. Raises `TargetUnreadable`, or `Bootstrapping` in that mode."""
    kinds: dict[str, Kind] = {}
    for kind in (*jmap_directory.KINDS, *jmap_signatures.KINDS, *jmap_settings.kinds(wanted)):
        other = kinds.get(kind.name, kind)
        kinds[kind.name] = replace(kind, properties=tuple(dict.fromkeys((*other.properties, *kind.properties))))
    try:
        return api.read(kinds.values())
    except Bootstrapping:
        raise
    except Rejected as error:
        raise TargetUnreadable(api.connection.problem(error.summary, error.hint)) from error


def live_of(
    directory: Directory, wanted: Sequence[Resource], judge: Judge, reveal: Reveal, report: Report
) -> Iterator[Live]:
    """Yield everything that was read as live resources, and report what stands in the way of the wanted ones."""
    yield from directory.live(judge, report)
    yield from jmap_signatures.Signatures(directory.registry, wanted, directory.ids).live(reveal, report)
    yield from jmap_settings.live(directory.registry, wanted, report)


def directory_of(registry: Registry, wanted: Sequence[Resource], domain: str) -> Directory:
    """Return domains and accounts; a declared default domain is the one of bare names before it is in force."""
    declared = (item.value for item in wanted if isinstance(item, Setting) and item.word == "default_domain")
    return Directory(registry, wanted, next(declared, None) or domain)
