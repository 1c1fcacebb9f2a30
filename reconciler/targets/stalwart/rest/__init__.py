"""Stalwart up to 0.15: REST."""
