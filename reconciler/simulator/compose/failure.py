"""How the stand-in for `docker compose` ends when it can't do what it is asked."""

from __future__ import annotations


class Failure(Exception):
    """What ends the program with status 1; its argument is the message."""
