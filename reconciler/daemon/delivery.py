"""Hands one message to one service, in a process of its own: ``python -I -m reconciler.daemon.delivery``.

Apprise has a hundred services, and a URL chooses what they do: it may name a file as a template, an attachment, any
host, any method. Whoever wrote that URL is not asked what it does. From when it is read nothing here starts a program,
opens a file that is not of Python's, follows a redirect, or connects to a machine that the internet does not reach,
unless the URL is the environment's own. What Apprise logs is dropped: it may hold the URL.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import ssl
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any

SCHEMES = frozenset(
    """
    ntfy ntfys gotify gotifys bark barks pover pbul join spush mailto mailtos slack discord tgram matrix matrixs mmost
    mmosts rocket rockets zulip gchat workflow workflows wxteams webex signal signals nctalk nctalks line threema
    pagerduty opsgenie twilio hassio hassios json jsons form forms apprise apprises brevo sendgrid mailgun postmark
    resend https
    """.split()  # noqa: SIM905 (as people read it)
)
"""Services over a network. Not among them are those that talk to a desktop, a system's log or a device, or need a
library or a key's file of their own. ``https`` stands for the addresses that Slack, Discord and others give out."""

_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
_NAT64 = IPv6Network("64:ff9b::/96")
_ERROR = re.compile(r"error=(\d{3})\b")


class _Codes(logging.Handler):
    """Keeps of what is logged the last status that a service answered with, and nothing else."""

    code = ""

    def emit(self, record: logging.LogRecord) -> None:
        found = _ERROR.search(record.getMessage())
        self.code = found[1] if found else self.code


class Fence:
    """Refuses what a URL must not make a service do, by the audit events of Python (PEP 578); ``met`` says what was."""

    def __init__(self, *, internal: bool, proxies: Collection[tuple[str, int]] = ()) -> None:
        """``proxies`` are addresses and ports of the environment's own, which decide themselves whom they reach."""
        self.met = ""
        self._internal, self._proxies = internal, frozenset(proxies)
        libraries = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
        more = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        ours = str(Path(__file__).parents[1])
        self._folders = [Path(path).resolve() for path in (*libraries, *more, ours, "/usr/share/zoneinfo")]
        self._files = {path for path in ssl.get_default_verify_paths() if path}

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Look at one event. Raises PermissionError."""
        if event in _PROGRAMS:
            self._refuse("would start a program")
        if event == "open" and isinstance(args[0], str | bytes) and not self._is_pythons(args[0]):
            self._refuse("would open a file")
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and not self._may_connect(args[1]):
            self._refuse("leads to a machine of this network")

    def _refuse(self, why: str) -> None:
        self.met = why
        raise PermissionError(why)

    def _is_pythons(self, path: str | bytes) -> bool:
        text = path.decode(errors="replace") if isinstance(path, bytes) else path
        found = Path(text).resolve()
        return text in self._files or any(found.is_relative_to(folder) for folder in self._folders)

    def _may_connect(self, place: Any) -> bool:
        if place is None:  # the connection is made already
            return True
        if not isinstance(place, tuple):  # a socket in the file system
            return False
        return self._internal or place[:2] in self._proxies or _is_public(str(place[0]))


def _is_public(address: str) -> bool:
    """Whether the internet reaches an address; a name is none, and could lead anywhere."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        found = _within(found) or found
    return found.is_global and not found.is_multicast and not found.is_reserved


def _within(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that a gateway, or this machine, takes an IPv6 one for (RFC 4291, 3056, 4380, 6052)."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def _proxies() -> Iterator[tuple[str, int]]:
    """Yield addresses and ports of the proxies that the environment names; a host that is reached without is none."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    for name, text in getproxies().items():
        with contextlib.suppress(ValueError, OSError):
            parts = urlsplit(text if "://" in text else f"http://{text}")
            port = parts.port or {"https": 443, "socks5": 1080, "socks5h": 1080}.get(parts.scheme, 80)
            if name != "no" and parts.hostname:
                yield from ((str(found[4][0]), port) for found in socket.getaddrinfo(parts.hostname, port))


def scheme(url: str) -> str:
    """Return what a URL begins with, which is the service."""
    return url.partition("://")[0].lower()


def deliver(order: dict[str, Any], hook: Callable[[Any], None] = sys.addaudithook) -> str:
    """Send a message (``url title body kind internal``). Return why it did not arrive, empty where it did."""
    codes = _Codes()
    logging.getLogger("apprise").addHandler(codes)
    logging.getLogger("apprise").propagate = False
    import apprise

    fence = Fence(internal=bool(order["internal"]), proxies=frozenset(_proxies()))
    hook(fence)
    asset = apprise.AppriseAsset(
        app_id="reconciler",
        app_desc="reconciler",
        image_url_mask="",
        image_url_logo="",
        async_mode=False,
        http_redirects=False,
        pem_autogen=False,
        pgp_autogen=False,
        storage_mode=apprise.PersistentStoreMode.MEMORY,
        allow_templates=False,
    )
    known = scheme(order["url"]) in SCHEMES
    service = apprise.Apprise.instantiate(order["url"], asset=asset) if known else None
    if service is None or service.schema not in SCHEMES:
        return fence.met or "is no address of a service that is known"
    service.redirects = False
    post = apprise.Apprise(asset=asset)
    post.add(service)
    kind = apprise.NotifyType(order["kind"])
    text = apprise.NotifyFormat.TEXT
    if post.notify(body=order["body"], title=order["title"], notify_type=kind, body_format=text):
        return ""
    return fence.met or (f"answers {codes.code}" if codes.code else "can't be reached, or does not take it")


def main() -> None:
    """Read an order from standard input, and say on standard output what became of it."""
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        why = deliver(json.load(sys.stdin))
    except Exception as error:  # noqa: BLE001 (a plugin may raise anything, and its text may hold the URL)
        why = f"makes Apprise fail: {type(error).__name__}"
    out.write(json.dumps({"why": why}))
    out.flush()


if __name__ == "__main__":
    main()
