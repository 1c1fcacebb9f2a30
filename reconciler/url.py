"""What a URL or a host says of the way there: whether a secret may go along it in clear."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

_CONTAINER_NETWORKS = ip_network("172.16.0.0/12")  # Docker's default pool; 10/8 and 192.168/16 are also people's LANs


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself."""
    host = host.lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def may_go_plain(url: str, container: str | None = None) -> bool:
    """Whether a secret may go to a URL: ``https``, or loopback, a container network or the declared container."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if parts.scheme == "https" or is_loopback(host) or host == (container or "").lower():
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return "." not in host  # resolves only as a service's name inside a container network
    return address.version == _CONTAINER_NETWORKS.version and address in _CONTAINER_NETWORKS
