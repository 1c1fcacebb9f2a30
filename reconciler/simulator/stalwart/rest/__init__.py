"""Stalwart 0.15: management over REST, settings as flat keys."""
