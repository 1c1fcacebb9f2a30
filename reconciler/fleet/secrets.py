"""What a stack's cycle finds in its environment: its own secrets, and nothing of the worker's or of other stacks.

    SECRETS/STACK/NAME      what the directory calls {credential: NAME}
    SECRETS/STACK.env       NAME=VALUE lines: what it calls {env: NAME}, and what overrides it

A worker that lacks a stack's secrets belongs to another group than the stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reconciler import files
from reconciler.problem import Problem, ReconcilerError

_PASSED = frozenset(
    {
        *("PATH", "LANG", "LC_ALL", "TMPDIR", "TZ", "USER", "LOGNAME"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("https_proxy", "http_proxy", "all_proxy", "no_proxy"),
        *("RECONCILER_COMPOSE", "RECONCILER_NAMESERVERS", "RECONCILER_RESOLVERS"),
    }
)
_ALLOWED = "RECONCILER_SECRETS"


def environment(given: Mapping[str, str], secrets: Path | None, stack: str) -> Mapping[str, str]:
    """Return the environment of a stack. Raises `ReconcilerError` for a file that can't be read.

    What the worker was given for itself (its database, its tokens, its home with the keys in it) is not passed on: keys
    and an engine of its own a stack gets by ``STACK.env`` (``SOPS_AGE_KEY_FILE``, ``DOCKER_HOST``). A directory may
    name the secrets of its stack and files that lie in it, and nothing else: it may be written by another customer than
    the one whose secrets lie beside. ``RECONCILER_SECRETS`` in ``STACK.env`` says otherwise.
    """
    found = {name: value for name, value in given.items() if name in _PASSED}
    allowed = [f"{source}:." for source in ("file", "age", "sops")]
    variables: dict[str, str] = {}
    if secrets is not None:
        folder, path = secrets.absolute() / stack, secrets.absolute() / f"{stack}.env"
        variables = _variables(path) if path.exists() else {}
        allowed += [f"env:{name}" for name in variables]
        if folder.is_dir():
            found["CREDENTIALS_DIRECTORY"] = str(folder)
            allowed += ["credential:*", *(f"{source}:{folder}" for source in ("file", "age", "sops"))]
    return found | {_ALLOWED: " ".join(allowed)} | variables


def _variables(path: Path) -> dict[str, str]:
    try:
        text = files.decoded(files.read(path), path)
    except files.CannotRead as error:
        raise ReconcilerError(Problem(str(path), error.summary, error.hint)) from None
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not name.strip().isidentifier():
            raise ReconcilerError(Problem(f"{path}:{number}", "is no NAME=VALUE line", "comments begin with #"))
        found[name.strip()] = value
    return found
