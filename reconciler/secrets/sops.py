"""Files that the program ``sops`` (3.9 or later) encrypts: decrypted as a whole, once, when one of its keys is needed.

Exit statuses are those of sops's cmd/sops/codes. What sops writes to standard error is never repeated: it may quote
what it was fed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler import files as smallfiles
from reconciler.files import CannotRead
from reconciler.secrets import age

OLDEST, OLDEST_WRITING = (3, 9), (3, 11)  # 3.9 has `sops decrypt`, 3.11 `sops set --value-stdin`
MAX_BYTES = 1 << 20  # many keys in a file
_TIMEOUT = 60.0  # seconds; 0.05 is usual with age, and a key service answers over the network
_INSTALL = "install sops {}.{} or later and put it on PATH: https://github.com/getsops/sops/releases"
_UNENCRYPTED = "encrypt it (sops encrypt -i FILE), and replace every secret that was ever committed in clear"

# Our own secrets stay outside: sops gets what it finds its keys by. Of these, paths are relative to where we run.
_PASSED = ("PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR", "LANG", "GNUPGHOME")
_PREFIXES = ("SOPS_", "AWS_", "AZURE_", "GOOGLE_", "VAULT_")
_PATHS = ("XDG_CONFIG_HOME", "GNUPGHOME", "SOPS_CONFIG", "SOPS_AGE_KEY_FILE", "SOPS_AGE_SSH_PRIVATE_KEY_FILE")

_MAC = re.compile(rb"""\bmac["']?\s*[:=]\s*["']?ENC\[|\bsops_mac=ENC\[""")
_RECIPIENT = re.compile(
    r"""(?:\b|_)(?:recipient|fp|arn|resource_id|vaultUrl|vault_address)["']?\s*[:=]\s*["']?([^"'\n,]+)"""
)
_CAUSES = {
    51: ("has a MAC that does not fit: it was changed by hand or merged", "restore it from git, or edit it with sops"),
    52: ("has no MAC: its metadata was changed", "restore it from git, or edit it with sops"),
    25: ("is damaged: it can't be decrypted", "restore it from git"),
}


@dataclass(frozen=True, slots=True)
class _File:
    raw: bytes  # as it lies there
    tree: dict[str, Any] = field(repr=False)  # decrypted


class Sops:
    """The program, with the environment that it finds its keys in; each file is decrypted once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._files: dict[Path, _File | CannotRead] = {}

    def value(self, path: Path, key: str) -> str:
        """Return the text at a key: a key at the top of the file, else a path into its maps.

        The steps of a path are separated by ``/`` (``smtp/password``), or by ``.`` where it has none; a list's items
        count from 0. A dotenv file has keys, an ini file ``SECTION.KEY``, any other file is the one key ``data``.
        Raises `CannotRead`, which never quotes a value.
        """
        file = self._once(path)
        found = lookup(file.tree, key)
        if found is None:
            raise _no_such_key(path, key, file.tree)
        if in_clear(path, file.raw, key):
            summary = f"{path}: {key} stands there IN CLEAR: a rule of the file leaves it unencrypted"
            raise CannotRead(summary, "correct the rule in .sops.yaml, encrypt the file anew and replace the secret")
        if not isinstance(found, str):
            what = (
                "holds several values" if isinstance(found, dict | list) else "is a number or a word of YAML, no text"
            )
            raise CannotRead(f"{path}: {key} {what}", "name the key of one text; put a number in quotes")
        return smallfiles.without_line_end(found)

    def keys(self, path: Path) -> Collection[str]:
        """Return the keys at the top of a file. Raises `CannotRead`."""
        return self._once(path).tree.keys()

    def _once(self, path: Path) -> _File:
        if path not in self._files:
            try:
                self._files[path] = self.decrypt(path)
            except CannotRead as error:  # asking again would only cost its time again
                self._files[path] = error
        known = self._files[path]
        if isinstance(known, CannotRead):
            raise known
        return known

    def decrypt(self, path: Path) -> _File:
        """Return all that a file holds. Raises `CannotRead`, and before anything else for a file in clear."""
        raw = smallfiles.read(path, MAX_BYTES)
        if not _MAC.search(raw):
            raise CannotRead(f"{path}: is NOT ENCRYPTED by sops: what stands in it is there in clear", _UNENCRYPTED)
        done = self.run("decrypt", "--output-type", "json", str(path.absolute()), folder=path.absolute().parent)
        if done.returncode:
            raise self._failure(path, raw, done.returncode)
        try:
            tree = json.loads(done.stdout)
        except ValueError:
            tree = None
        if not isinstance(tree, dict):
            raise CannotRead(f"{path}: sops gives no map of keys for it", "let the file hold KEY: VALUE lines")
        return _File(raw, tree)

    def run(
        self, *arguments: str, folder: Path, given: str = "", oldest: tuple[int, int] = OLDEST
    ) -> subprocess.CompletedProcess[str]:
        """Run sops in a folder, which its ``.sops.yaml`` is looked for from; ``given`` is its standard input.

        Raises `CannotRead` where it is missing, too old for this or does not end.
        """
        program = shutil.which("sops", path=self._environ.get("PATH", ""))
        if program is None:
            raise CannotRead("the program sops is not installed, or not on PATH", _INSTALL.format(*OLDEST))
        done = self._call([program, *arguments], folder, given)
        if done.returncode and (version := self._version(program, folder)) < oldest:
            shown = ".".join(map(str, version)) or "of an unknown version"
            raise CannotRead(f"{program} is too old: {shown}", _INSTALL.format(*oldest))
        return done

    def _version(self, program: str, folder: Path) -> tuple[int, ...]:
        """Ask for the version; only where something failed, since every start costs time."""
        said = self._call([program, "--disable-version-check", "--version"], folder).stdout
        numbers = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
        return tuple(map(int, numbers.groups())) if numbers else ()

    def _call(self, command: Sequence[str], folder: Path, given: str = "") -> subprocess.CompletedProcess[str]:
        """Call a program without a terminal to ask on; nothing that it started outlives its time."""
        try:
            with subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env=_environment(self._environ),
                start_new_session=True,
                encoding="utf-8",
                errors="replace",
            ) as process:
                try:
                    said, complaint = process.communicate(given, timeout=_TIMEOUT)
                except BaseException:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    raise
        except subprocess.TimeoutExpired:
            hint = "see whether its key service can be reached, or decrypt the file by hand to see what it waits for"
            raise CannotRead(f"sops did not end within {_TIMEOUT:.0f} s", hint) from None
        except OSError as error:
            raise CannotRead(f"{command[0]} can't be run: {error.strerror}", _INSTALL.format(*OLDEST)) from None
        return subprocess.CompletedProcess(command, process.returncode, said, complaint)

    def _failure(self, path: Path, raw: bytes, status: int) -> CannotRead:
        if status in _CAUSES:
            cause, hint = _CAUSES[status]
            return CannotRead(f"{path}: {cause}", hint)
        if status != 128:  # noqa: PLR2004 - CouldNotRetrieveKey
            hint = f"run `sops decrypt {path}` to see what it says"
            return CannotRead(f"{path}: sops can't decrypt it (it ended with {status})", hint)
        for_whom = ", ".join(dict.fromkeys(_RECIPIENT.findall(raw.decode(errors="replace")))) or "nobody that it names"
        ours = age.identities(self._environ)
        summary = f"{path}: there is no key to decrypt it with; it is encrypted for {for_whom}; {ours}"
        hint = (
            f"provide the private half of one of them in one of {age.places(self._environ)}, or have somebody who can "
            "decrypt it add you (.sops.yaml, then sops updatekeys)"
        )
        return CannotRead(summary, hint)


def lookup(tree: Any, key: str) -> Any:
    """Find a key at the top of a tree, else by the path it is; None where there is nothing."""
    if isinstance(tree, dict) and key in tree:
        return tree[key]
    for step in key.split("/" if "/" in key else "."):
        if isinstance(tree, list) and step.isdecimal() and int(step) < len(tree):
            tree = tree[int(step)]
        elif isinstance(tree, dict) and step in tree:
            tree = tree[step]
        else:
            return None
    return tree


def in_clear(path: Path, raw: bytes, key: str) -> bool:
    """Whether a key of an encrypted YAML or JSON file is not encrypted itself (``encrypted_regex`` and its kin)."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        tree = YAML(typ="safe").load(raw) if path.suffix in {".yaml", ".yml", ".json"} else None
    except YAMLError:
        return False  # several documents in one file, of which sops gives the first
    stored = lookup(tree, key)
    return isinstance(stored, str) and stored != "" and not stored.startswith("ENC[")


def _no_such_key(path: Path, key: str, tree: Mapping[str, Any]) -> CannotRead:
    import difflib

    near = difflib.get_close_matches(key, tree, n=3, cutoff=0.5)
    named = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(tree)[:10]) or 'no key'}"
    return CannotRead(f"{path}: has no key {key} (or nothing at it)", f"{named}; add one with `sops edit {path}`")


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what sops may know of our environment. An old sops takes `decrypt` for a file and would edit it."""
    passed = {name: text for name, text in environ.items() if name in _PASSED or name.startswith(_PREFIXES)}
    here = {name: str(Path(passed[name]).absolute()) for name in _PATHS if passed.get(name)}
    return passed | here | {"SOPS_DISABLE_VERSION_CHECK": "true", "EDITOR": "false", "SOPS_EDITOR": "false"}
