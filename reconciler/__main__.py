"""`python -m reconciler` and the program `reconciler`."""

from __future__ import annotations

import gc
import os
import sys

# Before the imports, which are most of a short run: each of these costs a tenth of it. Few objects here are in cycles,
# and looking for pydantic's plugins reads the metadata of every installed package.
gc.set_threshold(100_000, 50, 50)
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
# The command line of httpx would bring in rich, where that happens to be installed: None says it is not there.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

from reconciler.cli import program  # noqa: E402


def main() -> None:
    """Run the command line and exit with one of the contract's codes."""
    program(prog_name="reconciler")


if __name__ == "__main__":
    main()
