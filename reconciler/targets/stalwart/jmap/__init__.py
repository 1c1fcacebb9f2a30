"""Stalwart from 0.16: JMAP."""
