"""Stalwart, either generation."""
