"""`python -m reconciler` and the program `reconciler`."""

from __future__ import annotations

from reconciler.cli import program


def main() -> None:
    """Run the command line and exit with one of the contract's codes."""
    program(prog_name="reconciler")


if __name__ == "__main__":
    main()
