"""Stalwart as its clients see it, in both generations."""
