"""The files that have the daemon run as a service: for systemd, launchd and Compose. Pure."""

from __future__ import annotations

import json
import plistlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

LABEL = "org.reconciler.daemon"
"""How launchd calls the service (launchd.plist(5))."""

_LIMIT = 1800  # seconds without a sign of life before systemd ends it; no cycle counts as hung below 900


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are on this machine: the program, the directory of YAML, the data directory, and whose they are.

    ``group`` is the number of the group that may speak to the Docker Engine.
    """

    program: Path
    state: Path
    data: Path
    user: str
    group: int = 0


_UNIT = """\
# Install it:  sudo cp {name} /etc/systemd/system/ && sudo systemctl daemon-reload
#              sudo systemctl enable --now reconciler
# Look at it:  systemctl status reconciler; journalctl -u reconciler; http://127.0.0.1:9780
[Unit]
Description=reconciler keeps the mail stack as {state} says
Documentation=file://{docs}
Wants=network-online.target
After=network-online.target docker.service

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} daemon --state {state} --data {data}
ExecReload=kill -HUP $MAINPID
User={user}
# The group that may speak to the Docker Engine. It may do there whatever root may: leave the line out without compose.
SupplementaryGroups=docker

# What the directory calls {{credential: NAME}}; the files are read by root and handed over.
#LoadCredential=STALWART_ADMIN_PASSWORD:/etc/reconciler/STALWART_ADMIN_PASSWORD
#LoadCredential=CLOUDFLARE_API_TOKEN:/etc/reconciler/CLOUDFLARE_API_TOKEN
# What it calls {{env: NAME}}: lines of NAME=VALUE, in a file of mode 0600.
EnvironmentFile=-/etc/reconciler/environment

Restart=on-failure
RestartSec=15
SuccessExitStatus=143
# A loop that hangs is ended and begun anew.
WatchdogSec={limit}
TimeoutStopSec=330

# It writes its data and the env file beside the compose file, and nothing else.
ReadWritePaths={data} {project}
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
# What a service has to ask of the kernel; what else is asked is refused, and nobody is ended for it.
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
ProtectProc=invisible
RemoveIPC=yes
UMask=0077

[Install]
WantedBy=multi-user.target
"""

_DOCS = "/usr/share/doc/reconciler"


def systemd(place: Layout) -> Mapping[str, str]:
    """Return the unit, by its file's name (systemd.service(5), systemd.exec(5))."""
    name, home = "reconciler.service", Path("/home") in place.state.parents or Path("/root") in place.state.parents
    text = _UNIT.format(
        name=name,
        docs=_DOCS,
        program=_quoted(place.program),
        state=_quoted(place.state),
        data=_quoted(place.data),
        project=_quoted(place.state.parent),
        user=place.user,
        home="no" if home else "yes",
        limit=_LIMIT,
    )
    return {name: text}


def _quoted(path: Path) -> str:
    """Return a path as a word of a unit: ``%`` begins a specifier, ``$`` a variable."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if any(character.isspace() for character in text) else text


def launchd(place: Layout) -> Mapping[str, str]:
    """Return the property list, by its file's name (launchd.plist(5)). Secrets come out of files: it has none."""
    name, folder = f"{LABEL}.plist", place.data
    command = [str(place.program), "daemon", "--state", str(place.state), "--data", str(place.data), "--log", "json"]
    content = {
        "Label": LABEL,
        "ProgramArguments": command,
        "WorkingDirectory": str(place.state.parent),
        "EnvironmentVariables": {"PATH": "/usr/local/bin:/opt/homebrew/bin:/usr/bin:/bin"},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 15,
        "ProcessType": "Background",
        "Umask": 0o077,
        "ExitTimeOut": 330,
        "StandardErrorPath": str(folder / "daemon.log"),
        "StandardOutPath": str(folder / "daemon.log"),
    }
    text = plistlib.dumps(content, sort_keys=False).decode()
    head, _, rest = text.partition("<plist")
    comment = (
        f"<!-- Install it: cp {name} ~/Library/LaunchAgents/ and\n"
        f"     launchctl bootstrap gui/$(id -u) ~/Library/LaunchAgents/{name}\n"
        f"     Look at it: launchctl print gui/$(id -u)/{LABEL}; http://127.0.0.1:9780\n"
        "     It runs while you are logged in, as Docker Desktop does. Secrets come out of files: {file: PATH},\n"
        "     {sops: PATH#KEY}, {age: PATH}. The log below grows by some 20 MB a year: empty it now and then\n"
        "     (`: > FILE`; launchd goes on writing to the same file). -->\n"
    )
    return {name: f"{head}{comment}<plist{rest}"}


_COMPOSE = """\
# Make the image, in a checkout of reconciler:  docker build -t reconciler --build-arg UID="$(id -u)" .
# Add this to the compose file of the mail stack, then:  docker compose up -d reconciler
# Look at it:  docker compose logs reconciler; docker exec reconciler reconciler status
services:
  reconciler:
    image: reconciler
    container_name: reconciler
    command: [daemon, --log, json]  # to follow a branch: [daemon, --repo, URL, --log, json]
    environment:
      # With --repo: where the directory would lie on this machine, from which paths of targets.compose are seen.
      RECONCILER_STATE: {state}
    volumes:
      # At the same path as outside, which Compose compares; the env file in it is written.
      - {{type: bind, source: {project}, target: {project}}}
      # As good as root on this machine. docs/daemon.md lists what a proxy before it has to let through.
      - {{type: bind, source: /var/run/docker.sock, target: /var/run/docker.sock}}
      - {{type: volume, source: reconciler_data, target: /var/lib/reconciler}}
    group_add: ["{group}"]  # stat -c %g /var/run/docker.sock
    secrets: [STALWART_ADMIN_PASSWORD]  # what the directory calls {{credential: NAME}}
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    init: true
    mem_limit: 1g
    pids_limit: 256
    restart: unless-stopped
    stop_grace_period: 6m
secrets:
  STALWART_ADMIN_PASSWORD: {{file: /etc/reconciler/STALWART_ADMIN_PASSWORD}}
volumes:
  reconciler_data: {{}}
"""


def compose(place: Layout) -> Mapping[str, str]:
    """Return a compose service, by its file's name (https://docs.docker.com/reference/compose-file/services/)."""
    state, project = (json.dumps(str(path).replace("$", "$$")) for path in (place.state, place.state.parent))
    return {"reconciler.compose.yml": _COMPOSE.format(state=state, project=project, group=place.group)}


KINDS: Mapping[str, Callable[[Layout], Mapping[str, str]]] = {
    "systemd": systemd,
    "launchd": launchd,
    "compose": compose,
}
"""What may run it, by the name that a person gives it."""
