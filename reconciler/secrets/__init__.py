"""From the name of a secret to its value, and places to keep new ones in."""
