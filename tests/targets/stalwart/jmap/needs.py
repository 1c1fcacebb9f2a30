"""How ``reconciler/targets/stalwart/jmap/needs.json`` is made, from what a Stalwart answers at ``/api/schema``.

``PYTHONPATH=tests python tests/targets/stalwart/jmap/needs.py SCHEMA.json.gz``, into that file. What the target reads
and writes is listed here; that its code asks for nothing else is a test's (``test_schema.py``).
"""

import gzip
import json
import sys
from pathlib import Path

from tables import text

from reconciler.targets.stalwart.schema import Schema

RELEASE = "0.16.18"
OBJECTS = (
    *("Account", "AcmeProvider", "Action", "AllowedIp", "Authentication", "Bootstrap", "Certificate", "Directory"),
    *("DkimSignature", "Domain"),
    *("MailingList", "NetworkListener", "Role", "Security", "SystemSettings"),
)
KEYS = {
    "Account": ["@type", "name", "domainId"],
    "AllowedIp": ["address"],
    "DkimSignature": ["@type", "domainId", "selector"],
    "Domain": ["name"],
    "MailingList": ["name", "domainId"],
    "NetworkListener": ["name"],
    "Role": ["description"],
}
UNIONS = {
    "Account": ["User", "Group"],
    "Action": ["ReloadSettings", "InvalidateCaches"],
    "CertificateManagement": ["Manual"],
    "Credential": ["Password"],
    "Directory": ["Ldap", "Sql", "Oidc"],
    "DkimManagement": ["Manual"],
    "DkimSignature": ["Dkim1Ed25519Sha256", "Dkim1RsaSha256"],
    "DnsManagement": ["Manual"],
    "EncryptionAtRest": ["Disabled"],
    "Permissions": ["Inherit", "Merge", "Replace"],
    "Roles": ["Default"],
    "SecretText": ["Text"],
    "SubAddressing": ["Enabled", "Disabled"],
    "UserRoles": ["User", "Admin", "Custom"],
}
_MAIL = ("name", "domainId", "aliases", "description")
_SEEN = ("roles", "quotas", "permissions", "encryptionAtRest", "locale", "timeZone")
SHAPES = {
    "UserAccount": (*_MAIL, *_SEEN, "credentials", "memberGroupIds"),
    "GroupAccount": (*_MAIL, *(name for name in _SEEN if name != "encryptionAtRest")),
    "AllowedIp": ("address", "reason"),
    "Authentication": ("directoryId",),
    **dict.fromkeys(("LdapDirectory", "SqlDirectory", "OidcDirectory"), ("description",)),
    "Bootstrap": ("serverHostname", "defaultDomain", "requestTlsCertificate", "generateDkimKeys"),
    "CustomRoles": ("roleIds",),
    "Dkim1Signature": ("domainId", "selector", "publicKey", "privateKey", "stage", "createdAt"),
    "Domain": (
        *("name", "aliases", "description", "catchAllAddress", "subAddressing", "dkimManagement", "dnsManagement"),
        *("certificateManagement", "isEnabled", "allowRelaying"),
    ),
    "EmailAlias": ("enabled", "name", "domainId"),
    "MailingList": (*_MAIL, "recipients"),
    "NetworkListener": (
        *("name", "bind", "protocol", "tlsImplicit", "useTls", "maxConnections", "socketBacklog"),
        *("overrideProxyTrustedNetworks", "tlsDisableProtocols", "tlsDisableCipherSuites", "tlsIgnoreClientOrder"),
        *("tlsTimeout", "socketNoDelay", "socketReuseAddress", "socketReusePort", "socketSendBufferSize"),
        *("socketReceiveBufferSize", "socketTtl", "socketTosV4"),
    ),
    "PasswordCredential": ("secret",),
    "PermissionsList": ("enabledPermissions", "disabledPermissions"),
    "Rate": ("count", "period"),
    "Role": ("description",),
    "SecretTextValue": ("secret",),
    "Security": ("authBanRate", "abuseBanRate", "loiterBanRate", "scanBanRate"),
    "SystemSettings": ("defaultHostname", "defaultDomainId"),
}


def derive(document):
    """Return the table of what we need. Raises KeyError for what the release does not have."""
    whole = Schema.served(document).table
    shapes = {name: {key: whole["shapes"][name][key] for key in sorted(keys)} for name, keys in sorted(SHAPES.items())}
    enums = {
        text.partition(":")[2].rstrip("?!~)") for shape in shapes.values() for text in shape.values() if "enum:" in text
    }
    # What an enumeration that we only read takes is no need of ours.
    enums -= {"Locale", "Permission", "TimeZone"}
    return {
        "release": RELEASE,
        "objects": {name: whole["objects"][name] for name in OBJECTS},
        "keys": KEYS,
        "unions": {name: {key: whole["unions"][name][key] for key in keys} for name, keys in sorted(UNIONS.items())},
        "shapes": shapes,
        "enums": {name: whole["enums"][name] for name in sorted(enums)},
    }


def read(path):
    """Read a schema, compressed or not."""
    content = Path(path).read_bytes()
    return json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


if __name__ == "__main__":
    sys.stdout.write(text(derive(read(sys.argv[1]))))
