"""The public suffix list, as far as tests need it: both generations refuse addresses below anything else."""

from __future__ import annotations

PUBLIC = frozenset(("at", "ch", "com", "de", "dev", "edu", "eu", "how", "info", "io", "net", "nl", "org", "uk"))
