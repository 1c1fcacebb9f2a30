"""`python -m reconciler` and the program `reconciler`."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import gc
import importlib
import inspect
import re
import sys
import types
from collections.abc import Callable
from typing import Any


class _Deferred(types.ModuleType):
    """In place of a module that others import and hardly ever use: it is imported when something is asked of it.

    ``known`` is what is asked of it each time.
    """

    def __init__(self, name: str, **known: object) -> None:
        super().__init__(name)
        vars(self).update(known)

    def __getattr__(self, name: str) -> Any:
        # The import system looks what it is in passing, and for a package's path when a part of it is imported.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        return getattr(self._load(), name)

    def _load(self) -> types.ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


class _Map:
    """A map's description without its items, which type checkers alone read. To call it makes a plain map."""

    def __init_subclass__(cls, **_: object) -> None:
        """Take what a map's description may say."""

    def __new__(cls, *items: Any, **more: Any) -> Any:
        """Make what a described map is: a dict."""
        return dict(*items, **more)


class _Described(_Deferred):
    """In place of a module of maps' descriptions (`typing.TypedDict`), each item of which is compiled otherwise."""

    def _load(self) -> types.ModuleType:
        home = importlib.import_module("typing_extensions" if sys.version_info < (3, 12) else "typing")
        kept = home.TypedDict
        home.TypedDict = _Map  # type: ignore[attr-defined]
        try:
            return super()._load()
        finally:
            home.TypedDict = kept  # type: ignore[attr-defined]


def _on_demand(make: Callable[..., Any]) -> Callable[..., Any]:
    """Have a method of a dataclass made when it is first called: most of some thousand are not, in a run.

    ``make`` is `dataclasses._create_fn` of Python 3.11 and 3.12, which compiles the text of each method by itself.
    """

    @functools.wraps(make)
    def promise(name: str, *arguments: Any, **options: Any) -> Any:
        made: Any = None

        def method(*given: Any, **named: Any) -> Any:
            nonlocal made
            if made is None:
                made = make(name, *arguments, **options)
                made.__qualname__ = method.__qualname__
            for owner in type(given[0]).__mro__:
                if vars(owner).get(name) is method:
                    type.__setattr__(owner, name, made)
            return made(*given, **named)

        method.__name__ = name
        return method

    return promise


class _Pattern:
    """A regular expression that is compiled when something is first asked of it."""

    __class__ = property(lambda _: re.Pattern)  # who looks whether it is a pattern takes it for one

    def __init__(self, compiled: Callable[[], re.Pattern[Any]]) -> None:
        self._compiled = compiled

    def __getattr__(self, name: str) -> Any:
        compiled = self._compiled()
        if not name.startswith("__"):
            setattr(self, name, getattr(compiled, name))
        return getattr(compiled, name)

    def __reduce__(self) -> Any:
        return re.compile, (self.pattern, self.flags)

    def __repr__(self) -> str:
        return repr(self._compiled())

    def __eq__(self, other: object) -> bool:
        return self._compiled() == (other._compiled() if type(other) is _Pattern else other)

    def __hash__(self) -> int:
        return hash(self._compiled())


def _when_used(make: Callable[..., re.Pattern[Any]]) -> Callable[..., Any]:
    """Have the constants of modules and classes compiled when they are first used: of some 200 a run uses fifty.

    ``make`` is `re.compile`. What a function asks for is compiled at once: it waits for the error of a wrong one.
    """

    @functools.wraps(make)
    def promise(pattern: Any, flags: int = 0) -> Any:
        if sys._getframe(1).f_code.co_flags & inspect.CO_OPTIMIZED:  # noqa: SLF001 (within a function)
            return make(pattern, flags)
        return _Pattern(functools.cache(functools.partial(make, pattern, flags)))

    return promise


# Before the imports, which are most of a short run: each of these costs a tenth of it. Few objects here are in cycles,
# and what is left at the end goes with the process.
gc.set_threshold(100_000, 50, 50)
atexit.register(gc.freeze)
for _module in (
    # Pydantic's search for plugins, which reads the metadata of every installed package, and finds none.
    _Deferred("pydantic.plugin._loader", __path__=None, get_plugins=tuple),
    _Described("pydantic_core.core_schema", __path__=None),
    _Deferred("paramiko"),  # docker imports it where it is there, for an ssh:// of its own
    _Deferred("anyio"),  # as httpcore and cloudflare do
    _Deferred("asyncio"),  # cloudflare needs it for what awaits, and nothing here does
    _Deferred("distro"),  # cloudflare would tell what distribution this is
    _Deferred("cloudflare.types"),  # its models, of which its generic calls need none but that of an error
    _Deferred("cloudflare.types.shared.error_data", __path__=None, ErrorData=Any),
):
    sys.modules.setdefault(_module.__name__, _module)
# The command line of httpx would bring in rich, where that happens to be installed: None says it is not there.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
# HTTP/2, which nothing here asks for, would come with any package that happens to bring h2.
sys.modules.setdefault("h2", None)  # type: ignore[arg-type]
re.compile = _when_used(re.compile)
if sys.version_info < (3, 13) and hasattr(dataclasses, "_create_fn"):  # later ones compile a class's methods at once
    dataclasses._create_fn = _on_demand(dataclasses._create_fn)  # noqa: SLF001

from reconciler.cli import program  # noqa: E402


def main() -> None:
    """Run the command line and exit with one of the contract's codes."""
    program(prog_name="reconciler")


if __name__ == "__main__":
    main()
