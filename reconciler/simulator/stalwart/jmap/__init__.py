"""Stalwart from 0.16: management over JMAP, typed objects in a registry."""
