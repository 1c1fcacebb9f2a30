"""A plan for people (text, Markdown) and for programs (JSON)."""
