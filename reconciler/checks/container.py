"""Whether the mail server's container keeps its data, runs, and can be reached by those who should alone."""

from __future__ import annotations

import ipaddress
import statistics

from reconciler.checks.check import Check, Remedy, Status, Unread, Verdict, error, ok, skip, told, unknown, warn, worst
from reconciler.checks.evidence import Disk, Evidence, ServerContainer

_MAIL_PORTS = {25: "mail from other servers", 465: "mail from clients, TLS", 587: "mail from clients, STARTTLS"}
_FULL, _CLOSE = 0.95, 0.85  # of its memory limit: the kernel ends it any moment, and soon
_MANY = 3  # restarts by the engine itself
_SHOWN = 3  # kills that are named
_DAY = 24  # hours that have to be known before a week is compared with
_TWICE, _HALF = 2.0, 0.5  # of what is usual, and of the limit: below that a rise is no danger
_GONE, _FEW, _PLENTY = 0.01, 0.05, 5 << 30  # shares of a disk; a twentieth of a large one is room enough


def container(evidence: Evidence) -> ServerContainer | Unread | None:
    """Take the container."""
    return evidence.container


def _running(found: ServerContainer) -> Verdict:
    where = f"container {found.name}"
    start = Remedy(f"look at its log, then start it: docker logs {found.name}", f"docker start {found.name}")
    if found.state == "restarting" or (found.state != "running" and found.restarts >= _MANY):
        said = f"{where} ends at each start ({found.restarts} restarts, exit code {found.exit_code})"
        return error(said, cause="the server does not come up", remedy=start)
    if found.state != "running":
        return error(f"{where} is {found.state or 'not running'} (exit code {found.exit_code})", remedy=start)
    if found.health == "unhealthy":
        return error(f"{where} runs, and its health check fails", remedy=start)
    if found.restarts >= _MANY:
        return warn(f"{where} runs, and was restarted by the engine {found.restarts} times")
    return ok(f"{where} runs", found.image)


def _store(found: ServerContainer) -> Verdict:
    return told(found.refused, "the server opens its store")


def _volume(found: ServerContainer) -> Verdict:
    fine = f"what {found.image} keeps lies in volumes"
    return told(found.misplaced, fine)


def _pinned(found: ServerContainer) -> Verdict:
    fine = f"the image {found.image} stays the same when it is pulled again"
    return told(found.unpinned, fine, Status.WARN)


def _way_in(found: ServerContainer) -> Verdict:
    fine = "a server that lost its accounts can be entered again"
    return told(found.closed, fine, Status.WARN)


def _memory(found: ServerContainer) -> Verdict:
    if found.oom_killed or found.kills:
        said = f"container {found.name} was ended by the kernel: it needed more than its memory limit"
        times = [f"{when:%Y-%m-%d %H:%M}Z" for when in found.kills[-_SHOWN:]]
        often = [f"{len(found.kills)} times, as far as the engine remembers"] if len(found.kills) > 1 else []
        return error(said, *_usage(found), *often, *times, remedy=_more(found))
    if not found.limit:
        return skip("the container has no memory limit")
    if not found.memory:
        return unknown("the engine does not tell how much memory it uses")
    share = found.memory / found.limit
    if share >= _CLOSE:
        say = error if share >= _FULL else warn
        return say(f"container {found.name} uses {share:.0%} of its memory limit", *_usage(found), remedy=_more(found))
    return _week(found, share) or ok(f"uses {share:.0%} of its memory limit", *_usage(found))


def _week(found: ServerContainer, share: float) -> Verdict | None:
    """Judge by the hours of the last week in which somebody looked; None where there is nothing to say."""
    most = max(found.hours, default=0)
    if most >= _CLOSE * found.limit:
        said = f"container {found.name} used {most / found.limit:.0%} of its memory limit within the last week"
        return warn(said, *_usage(found), remedy=_more(found))
    usual = statistics.median(found.hours) if len(found.hours) >= _DAY else 0
    if usual and found.memory >= _TWICE * usual and share >= _HALF:
        said = f"container {found.name} uses {found.memory / usual:.1f} times what it usually did in the last week"
        cause = "a queue that grows, a flood of connections, or a leak: its log says more"
        return warn(said, *_usage(found), f"usually {int(usual) >> 20} MiB", cause=cause, remedy=_more(found))
    return None


def _disk(found: ServerContainer) -> Verdict:
    if not found.disks:
        return skip("the file system of its volumes can't be seen from here")
    return worst(map(_left, found.disks), "there is room for more mail")


def _left(disk: Disk) -> Verdict:
    share, room = disk.free / disk.size, f"{disk.free >> 20:,} MiB of {disk.size >> 20:,} MiB"
    remedy = Remedy(
        "free space there, or move the volume to a larger disk: a full one ends mail, and may end the store"
    )
    if share < _GONE or disk.files < _GONE:
        what = room if share < _GONE else "room for hardly any file"
        return error(f"the disk of {disk.holds} is full: {what} left", remedy=remedy)
    if share < _FEW and disk.free < _PLENTY:
        return warn(f"the disk of {disk.holds} is nearly full: {room} left", remedy=remedy)
    if disk.files < _FEW:
        return warn(f"the disk of {disk.holds} has names for {disk.files:.0%} more files", remedy=remedy)
    return ok(f"{disk.holds}: {room} left")


def _usage(found: ServerContainer) -> tuple[str, ...]:
    return (f"{found.memory >> 20} MiB of {found.limit >> 20} MiB",) if found.limit and found.memory else ()


def _more(found: ServerContainer) -> Remedy:
    doubled = max(512, 2 * (found.limit >> 20))
    return Remedy(f"write `mem_limit: {doubled}m` for the service in the compose file, and bring it up again")


def _admin(found: ServerContainer) -> Verdict:
    if not found.admin:
        return skip("which port the management API has inside the container is not known")
    places = found.published.get(found.admin, ())
    outside = [place for place in places if not _only_here(place)]
    if not outside:
        return ok("the management API is published for this machine alone, or not at all", *places)
    here = f"127.0.0.1:{outside[0].rpartition(':')[2]}:{found.admin}"
    said = f"the management API (port {found.admin}) is published at {', '.join(outside)}"
    return warn(said, remedy=Remedy(f'write `- "{here}"` under the service\'s `ports:`, and bring it up again'))


def _only_here(place: str) -> bool:
    host = place.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _published(found: ServerContainer) -> Verdict:
    missing = [port for port in _MAIL_PORTS if port not in found.published]
    shut = [port for port in _MAIL_PORTS if port in found.published and all(map(_only_here, found.published[port]))]
    wrong = [f"{port} ({_MAIL_PORTS[port]})" for port in sorted({*missing, *shut})]
    if not wrong:
        return ok("ports 25, 465 and 587 lead to the container", *_bindings(found))
    entries = ", ".join(f'`- "{port}:{port}"`' for port in sorted({*missing, *shut}))
    say = error if 25 in missing + shut else warn  # noqa: PLR2004 (without it no mail from outside comes)
    said = f"nobody outside this machine reaches port{'s' if len(wrong) > 1 else ''} {', '.join(wrong)}"
    return say(said, *_bindings(found), remedy=Remedy(f"write {entries} under the service's `ports:`, and bring it up"))


def _bindings(found: ServerContainer) -> tuple[str, ...]:
    return tuple(f"{port} at {', '.join(places)}" for port, places in sorted(found.published.items()))


CHECKS = (
    Check(
        "container/running",
        "no mail at all, though compose says that it was started",
        "the container is stopped, or ends at each start",
        "look at its log and start it",
        "docs/stalwart-releases.md",
        container,
        _running,
    ),
    Check(
        "container/store-refused",
        "the container is restarted again and again since an image was pulled",
        "the image moved to a release that does not open the store of the one before",
        "pin the release that ran before; never empty the volume",
        "docs/stalwart-releases.md",
        container,
        _store,
    ),
    Check(
        "container/volume-path",
        "each recreation of the container loses accounts, keys and settings",
        "the volume is mounted where this release keeps nothing",
        "mount it where the image keeps its data",
        "docs/stalwart-releases.md",
        container,
        _volume,
    ),
    Check(
        "container/image-pinned",
        "the server is another one after `docker compose pull`",
        "the image's tag means another release from time to time",
        "write the release that runs",
        "docs/stalwart-releases.md",
        container,
        _pinned,
    ),
    Check(
        "container/way-in",
        "after a loss nobody gets in, not even the reconciler",
        "from 0.16 an empty server lets in its recovery administrator alone",
        "set STALWART_RECOVERY_ADMIN for the container",
        "docs/stalwart-releases.md",
        container,
        _way_in,
    ),
    Check(
        "container/memory",
        "the server ends without a word, mostly at night",
        "its memory limit is too small",
        "raise mem_limit",
        "Docker, resource constraints",
        container,
        _memory,
    ),
    Check(
        "container/disk",
        "mail is deferred or lost, and the server does not start again",
        "the disk on which its volume lies is full",
        "free space, or move the volume",
        "docs/doctor.md",
        container,
        _disk,
    ),
    Check(
        "container/admin-port",
        "strangers try passwords at the management API",
        "its port is published for everybody",
        "publish it for 127.0.0.1",
        "docs/security.md",
        container,
        _admin,
    ),
    Check(
        "container/mail-ports",
        "mail from outside does not arrive: connection refused",
        "the compose file does not publish the port",
        "publish 25, 465 and 587",
        "Docker, published ports",
        container,
        _published,
    ),
)
