"""`python -m reconciler` and the program `reconciler`."""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
import types
from typing import Any


class _Deferred(types.ModuleType):
    """In place of a module that others import and hardly ever use: it is imported when something is asked of it."""

    _asked_in_passing = staticmethod(lambda name: name.startswith("__"))  # the import system looks what it is

    def __getattr__(self, name: str) -> Any:
        if self._asked_in_passing(name):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _DeferredPackage(_Deferred):
    """The same for a package, whose path is asked for when a part of it is imported."""

    _asked_in_passing = staticmethod(lambda name: name.startswith("__") and name != "__path__")


class _NoPlugins(_Deferred):
    """Pydantic's search for plugins, which reads the metadata of every installed package, and finds none."""

    get_plugins = tuple[Any, ...]


# Before the imports, which are most of a short run: each of these costs a tenth of it. Few objects here are in cycles,
# and what is left at the end goes with the process.
gc.set_threshold(100_000, 50, 50)
atexit.register(gc.freeze)
sys.modules.setdefault("pydantic.plugin._loader", _NoPlugins("pydantic.plugin._loader"))
sys.modules.setdefault("paramiko", _Deferred("paramiko"))  # docker imports it, and needs it for ssh:// alone
sys.modules.setdefault(
    "asyncio", _DeferredPackage("asyncio")
)  # cloudflare needs it for what awaits, and nothing here does
# The command line of httpx would bring in rich, where that happens to be installed: None says it is not there.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

from reconciler.cli import program  # noqa: E402


def main() -> None:
    """Run the command line and exit with one of the contract's codes."""
    program(prog_name="reconciler")


if __name__ == "__main__":
    main()
