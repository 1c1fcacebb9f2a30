"""Ways in: secrets that everybody knows, services with too much of a key, networks that are never banned."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.guards.evidence import Evidence, refuse, warn
from reconciler.problem import Problem
from reconciler.resources import Account, AllowedIp

# SHA-256 of secrets that everybody can read: defaults in public code, and the first words anybody tries.
PUBLIC_SECRETS = frozenset(
    {
        "791207901d3024fbf4d8fcace01198e66a6594fac3c4fcf2345554dc1e42d6e2",
        "057ba03d6c44104863dc7361fe4578965d1887360f90a0895882e58a6248fc86",
        "e2186dbdb1bb4193608605e84f33208765b5693b55edd4f730a719a100eeea6f",
        "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
        "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918",
        "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
        "8d969eef6ecad3c29a3a629280e686cf0c3f5d5a86aff3ca12020c923adc6c92",
        "ef797c8118f02dfb649607dd5d3f8c7623048c9c063d532cc95c5ed7a898a64f",
        "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
        "1c8bfe8f801d79745c4631d09fff36c82aa37fc4cce4fc946683d7b336b63032",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "8d62793654e05588c70f1d45214b4b5b864f3487fc43640be976294fe36d728b",
        "63a8b6180e13691f924d77e0a617d4d54f3f5e59c5fb2ddf967b4a4540b28a1c",
        "c032f1b2c07148d5c19afa6c6dcaef998abf76f863089c04eab52133c0ee0815",
        "8f0e2f76e22b43e2855189877e7dc1e1e7d98c226c95db247cd1d547928334a9",
        "19513fdc9da4fb72a4a05eb66917548d3c90ff94d5419e1f2363eea89dfee1dd",
        "37a8eec1ce19687d132fe29051dca629d164e2c4958ba141d5f4133a33f0688f",
        "2737fc4b9a3f09d8fd3c8e6f8beefc9acd99d18842096c112fd5d871ac71fac2",
        "65e84be33532fb784c48129675f9eff3a682b27168c0ea744b2cf58ee02337c5",
        "f75778f7425be4db0369d09af37a6c2b9a83dea0e53e7bd57412e4b060e607f7",
    }
)


def administrator_as_consumer(evidence: Evidence) -> Iterator[Problem]:
    """A service that sends mail must not hold the key to the whole server."""
    admins = [
        item
        for item in evidence.desired.resources
        if isinstance(item, Account) and isinstance(item.roles, tuple) and "admin" in item.roles
    ]
    for admin in admins:
        for service in evidence.consumers(admin):
            scope = f"smtp/{service}"
            hint = "give it an account of its own with `roles: [user]`"
            yield refuse(scope, f"logs in with the administrator {admin.name}", hint, scope)


def known_secret(evidence: Evidence) -> Iterator[Problem]:
    """A secret that stands in public code, or that anybody tries first, protects nothing."""
    for item in evidence.desired.resources:
        for ref in item.secrets:
            if ref in evidence.public:
                hint = f"choose a new secret for {ref} and apply again"
                yield refuse(item.address, f"the secret {ref} is publicly known", hint, item.target)


def everyone_allowed(evidence: Evidence) -> Iterator[Problem]:
    """Allowing the whole Internet switches the ban off for everybody."""
    for item in evidence.desired.resources:
        if isinstance(item, AllowedIp) and item.network.endswith("/0"):
            yield warn(item.address, "allows every address: nobody is ever banned", "name your own networks")
