"""The systems we keep: observe and apply."""
