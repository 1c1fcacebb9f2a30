"""The small directory that ``reconciler init`` writes to start from."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from reconciler.desired.spec import schema

SCHEMA = ".schema.json"

_HEAD = "# yaml-language-server: $schema={schema}\n"

_RECONCILER = """\
# Where the systems are, and how far the reconciler may go with them.
version: 1
stack: {stack}                  # marks what is ours, so no other directory may say it

targets:                        # each is optional
  stalwart:
    url: http://localhost:8080
    username: admin
    password: {{env: STALWART_ADMIN_PASSWORD}}
    # recovery: {{env: STALWART_RECOVERY_ADMIN}}  # from 0.16: user:password, as in the container's environment
    # container: stalwart         # its container, restarted only where a change needs it
  cloudflare:
    token: {{env: CLOUDFLARE_API_TOKEN}}  # needs Zone: Read and DNS: Edit
  # compose:
  #   file: ../docker-compose.yml
  #   env_file: ../.env

policy:
  prune: {{dns: owned}}           # owned: remove our records that are no longer declared; never: report only
  max_deletes: 3                # a plan that deletes more is refused until it is allowed by hand
"""

_ACCOUNTS = """\
# Keyed by e-mail address. A secret is a reference, never the value.
accounts:
  admin:                          # as whom the reconciler logs in; from 0.16 admin@{domain}
    roles: [admin]
    password: {{env: STALWART_ADMIN_PASSWORD}}
  noreply@{domain}:
    description: Sends every transactional mail
    password: {{env: NOREPLY_PASSWORD}}
  postmaster@{domain}:
    description: DMARC reports and bounces
    password: {{env: POSTMASTER_PASSWORD}}
    aliases: [abuse@{domain}]
"""

_DNS = """\
# Keyed by Cloudflare zone; names are relative to it. Records of declared DKIM keys follow by themselves.
dns:
  {domain}:
    # - {{type: A, name: mail, content: YOUR.PUBLIC.IP.ADDRESS}}
    - {{type: MX, name: "@", content: mail.{domain}, priority: 10}}
    - {{type: TXT, name: "@", content: "v=spf1 mx -all"}}
    - {{type: TXT, name: _dmarc, content: "v=DMARC1; p=quarantine; rua=mailto:postmaster@{domain}"}}

# `reconciler dkim generate {domain}` makes a key, stores its private half and writes an entry such as
# dkim:
#   {domain}:
#     - selector: ed202611
#       algorithm: ed25519
#       public_key: ...
#       private_key: {{file: ../secrets/ed202611.{domain}.pem}}
"""

_STALWART = """\
# What a recreated volume would lose, in words that mean the same for every server version.
stalwart:
  hostname: mail.{domain}
  # listeners:                    # 0.16 opens no port 587 by itself
  #   submission: {{bind: "[::]:587", protocol: smtp}}
"""


def own_name(directory: Path, machine: str) -> str:
    """Make a stack's name of the place of its directory, which no other directory has: the mark must tell them apart.

    ``directory`` is whole. The same place gives the same name, so that what bears its mark is found again.
    """
    named = directory.parent if directory.name in ("desired-state", "state") else directory
    label = re.sub(r"[^a-z0-9]+", "-", named.name.lower())[:17].strip("-") or "mail"
    place = f"{machine} {directory}".encode(errors="surrogateescape")
    return f"{label}-{hashlib.sha256(place).hexdigest()[:6]}"


def files(stack: str, domain: str = "example.com") -> dict[str, str]:
    """Return name and content of each file. They are valid as they stand, the schema for editors beside them."""
    written = {
        "reconciler.yaml": _RECONCILER,
        "accounts.yaml": _ACCOUNTS,
        "dns.yaml": _DNS,
        "stalwart.yaml": _STALWART,
    }
    made = {name: (_HEAD + text).format(domain=domain, stack=stack, schema=SCHEMA) for name, text in written.items()}
    return made | {SCHEMA: json.dumps(schema(), indent=1) + "\n"}
