"""Stores: places for many named secrets, which commands put keys and passwords into and references then name.

Nothing is ever overwritten, nothing secret is on a command line, and no moment leaves half a file, or a secret in
clear where it should be encrypted. The last line end of a value does not count, as everywhere in references.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn, Protocol

from reconciler import files, git
from reconciler.files import CannotRead
from reconciler.problem import Problem, ReconcilerError, Refused
from reconciler.process import Ended
from reconciler.resources import SecretRef
from reconciler.secrets import Secrets, age, unreadable
from reconciler.secrets.sops import OLDEST_WRITING, Sops, in_clear

_HINT = "write file:FOLDER, age:FOLDER or sops:FILE"
_NAME = re.compile(r"[^\W_][^\s/\[\]\"'\\\0]{0,199}")  # a file's name, and a step of sops's path to a key
_YAML = (".yaml", ".yml")
_NO_RULE = "has no creation rules"
_IGNORED_IN_CLEAR = b"*\n!*.age\n!*.sops.*\n"  # what is encrypted may lie beside, for git to keep


class Store(Protocol):
    """A place for named secrets. Every error is a `ReconcilerError`, and none holds a value."""

    where: str

    def reference(self, name: str) -> SecretRef:
        """Return what names the secret in YAML; it need not be there."""

    def get(self, name: str) -> str | None:
        """Return the value, or None where nothing has the name. Raises `SecretUnreadable`."""

    def put(self, name: str, value: str) -> SecretRef:
        """Keep a value under a name, durably. An equal one may be there; another one raises `Refused`."""


def open_store(where: str, directory: Path, environ: Mapping[str, str], recipients: Sequence[str] = ()) -> Store:
    """Return the store at a place; nothing is read or written yet.

    ``where`` is ``file:FOLDER`` (a file of mode 0600 for each secret, which git ignores), ``age:FOLDER`` (an age file
    for each) or ``sops:FILE``; relative to the directory of YAML. ``recipients`` (``age1...``, ``ssh-... AAAA...``)
    can decrypt what is new: without any those of ``.sops.yaml``, else our own identities. Raises `ReconcilerError`.
    """
    kind, _, place = where.partition(":")
    if not place or "\0" in place or "\n" in place or (kind == "sops" and "#" in place):
        raise ReconcilerError(Problem(where or "store", "is no place for secrets", _HINT))
    _check_inside(where, directory, place)
    if kind == "file":
        return _Files(where, place, directory, environ)
    if kind == "age":
        return _Age(where, place, directory, environ, recipients)
    if kind == "sops":
        return _SopsFile(where, place, directory, environ, recipients)
    raise ReconcilerError(Problem(where, "is no place for secrets", _HINT))


def _check_inside(where: str, directory: Path, place: str) -> None:
    """Refuse a relative place outside the repository, where `..` or a link in it may lead; an absolute one is chosen.

    Without a repository it is the folder that the directory lies in.
    """
    top = git.checkout(directory) or directory.resolve().parent
    if not PurePosixPath(place).is_absolute() and not (directory / place).resolve().is_relative_to(top):
        hint = "keep secrets in the repository, or name the place in full: --store file:/FOLDER"
        raise Refused(Problem(where, f"leads out of {top}, so nothing is written there", hint))


def store_of(ref: SecretRef) -> str | None:
    """Return the ``where`` of the store that a reference leads into; None where nothing can be put.

    Nothing is put into a place that the directory names in full: see `open_store`.
    """
    if PurePosixPath(ref.name).is_absolute():
        return None
    if ref.source in {"file", "age"}:
        return f"{ref.source}:{PurePosixPath(ref.name).parent}"
    return f"sops:{ref.name.partition('#')[0]}" if ref.source == "sops" else None


class _Base:
    """What the stores share: the way a secret is put, and what it is read back with."""

    def __init__(self, where: str, place: str, directory: Path, environ: Mapping[str, str]) -> None:
        self.where = where
        self.place = PurePosixPath(place)
        self.directory = directory
        self.environ = environ

    def put(self, name: str, value: str) -> SecretRef:
        """As `Store` says."""
        ref, text = self.reference(name), _checked(name, value)
        try:
            if not self._there(name, text):
                try:
                    self._add(name, text)
                except FileExistsError as error:  # another process was first, or a file is where a folder should be
                    if not self._there(name, text):
                        raise NotADirectoryError(errno.ENOTDIR, "") from error
        except CannotRead as error:
            raise ReconcilerError(Problem(str(ref), error.summary, error.hint)) from None
        except OSError as error:
            why = error.strerror or os.strerror(error.errno or 0)
            hint = "let there be room, and reconciler's user write there, or name another place"
            raise ReconcilerError(Problem(str(ref), f"can't be written: {why}", hint)) from None
        return ref

    def _there(self, name: str, text: str) -> bool:
        """Whether the value is there; another one is refused."""
        there = self.get(name)
        if there is not None and there != text:
            hint = "remove it first if nothing needs it any more, or choose another name"
            raise Refused(Problem(str(self.reference(name)), "holds another value, which is never overwritten", hint))
        return there is not None

    def reference(self, name: str) -> SecretRef:
        """As `Store` says."""
        raise NotImplementedError

    def get(self, name: str) -> str | None:
        """As `Store` says."""
        raise NotImplementedError

    def _add(self, name: str, text: str) -> None:
        """Write what is not there. Raises FileExistsError where it is by now, OSError and `CannotRead`."""
        raise NotImplementedError

    def _refuse(self, summary: str, hint: str) -> NoReturn:
        raise Refused(Problem(self.where, summary, hint))


class _Folder(_Base):
    """A folder with a file for each secret."""

    source, suffix = "", ""

    def reference(self, name: str) -> SecretRef:
        return SecretRef(self.source, str(self.place / f"{_named(name)}{self.suffix}"))

    def path(self, name: str) -> Path:
        """Return the secret's file."""
        return self.directory / self.reference(name).name

    def get(self, name: str) -> str | None:
        there = os.path.lexists(self.path(name))
        return Secrets(self.directory, self.environ)(self.reference(name)) if there else None


class _Files(_Folder):
    """Secrets in clear, for our eyes only: git must ignore them."""

    source = "file"

    def _add(self, name: str, text: str) -> None:
        path = self.path(name)
        if path.suffix in _YAML:
            self._refuse(f"{name} would be read as YAML", "choose a name that does not end like that")
        self._prepare(path.parent)
        for each in (path, path.with_name(f".new-{path.name}")):  # the second is how a file begins its life on macOS
            self._check_ignored(each)
        files.create(path, f"{text}\n".encode())

    def _prepare(self, folder: Path) -> None:
        """Make the folder; a new one, or one that was left when it was, keeps all that is in it out of git."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            folder.chmod(0o700)
            with contextlib.suppress(FileExistsError):
                files.create(folder / ".gitignore", _IGNORED_IN_CLEAR)

    def _check_ignored(self, path: Path) -> None:
        """Refuse a path that git would commit."""
        ignored = git.ignores(path, self.environ)
        if ignored:
            return
        why = "git does not say whether it would commit it" if ignored is None else "git would commit it"
        hint = f"write a line with * into {path.parent.resolve() / '.gitignore'}, or use a folder that is not there yet"
        self._refuse(f"secrets would lie there in clear, and {why}", hint)


class _Age(_Folder):
    """Secrets in age files."""

    source, suffix = "age", ".age"

    def __init__(
        self, where: str, place: str, directory: Path, environ: Mapping[str, str], recipients: Sequence[str]
    ) -> None:
        super().__init__(where, place, directory, environ)
        self._recipients = tuple(recipients)

    def _add(self, name: str, text: str) -> None:
        path = self.path(name)
        sealed = age.encrypt(text, self._recipients or _own_recipients(self.environ))
        path.parent.mkdir(parents=True, exist_ok=True)
        files.create(path, sealed)


class _SopsFile(_Base):
    """The keys at the top of one file that sops encrypts."""

    def __init__(
        self, where: str, place: str, directory: Path, environ: Mapping[str, str], recipients: Sequence[str]
    ) -> None:
        super().__init__(where, place, directory, environ)
        self._path = Path(os.path.realpath(directory / place))
        self._recipients = tuple(recipients)
        suffix = self._path.suffix
        if suffix not in {".yaml", ".yml", ".json"}:
            self._refuse("is neither YAML nor JSON", "name a file such as sops:secrets.sops.yaml")
        inside = self._path.is_relative_to(os.path.realpath(directory))
        if suffix in _YAML and inside and not self._path.name.endswith(".sops.yaml") and not self._path.exists():
            hint = "name it like secrets.sops.yaml: only such files are secrets there"
            self._refuse("would be read as desired state", hint)

    def reference(self, name: str) -> SecretRef:
        if name == "sops":
            self._refuse("sops keeps its own data under the key sops", "choose another name")
        return SecretRef("sops", f"{self.place}#{_named(name)}")

    def get(self, name: str) -> str | None:
        ref = self.reference(name)
        if not self._path.exists():
            return None
        try:
            program = Sops(self.environ)
            return program.value(self._path, name) if name in program.keys(self._path) else None
        except CannotRead as error:
            raise unreadable(ref, error.summary, error.hint) from None

    def _add(self, name: str, text: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with files.locked(self._path.parent, again=True):  # whoever edits the directory may hold it
            if self._path.exists():
                files.replace(self._path, self._with(name, text))
            else:
                files.create(self._path, self._new(name, text))

    def _new(self, name: str, text: str) -> bytes:
        """Encrypt a first secret from a pipe: the rules of ``.sops.yaml`` say for whom, else the recipients."""
        given = json.dumps({name: text})
        if self._recipients:
            done = self._encrypt(given, self._recipients)
        else:
            done = self._encrypt(given)
            if _NO_RULE in done.complaint:
                done = self._encrypt(given, _own_recipients(self.environ))
        if done.status:
            hint = "see whether a rule in .sops.yaml is for this file, and whether its recipients are right"
            raise CannotRead(f"sops can't encrypt it (it ended with {done.status})", hint)
        sealed = done.said
        self._check_sealed(sealed, name)
        return sealed

    def _encrypt(self, given: str, recipients: Sequence[str] = ()) -> Ended:
        rules = ("--config", os.devnull) if recipients else ()
        kind = "json" if self._path.suffix == ".json" else "yaml"
        form = ("--input-type", "json", "--output-type", kind, "--filename-override", str(self._path))
        whom = ("--age", ",".join(age.checked(recipients))) if recipients else ()
        # From a pipe by 3.10's own way; --filename-override is in 3.9 too.
        return Sops(self.environ).run(
            *rules, "encrypt", *whom, *form, folder=self._path.parent, given=given, oldest=OLDEST_WRITING
        )

    def _with(self, name: str, text: str) -> bytes:
        """Return the file with one more secret; everything else in it stays. sops writes in place, so to a copy."""
        before = Sops(self.environ).decrypt(self._path)
        if name in before.tree:
            raise FileExistsError
        with files.aside(self._path, before.raw) as copy:
            # The first value is no secret: a rule of the file may leave this key in clear.
            self._set(copy, name, "reconciler")
            self._check_sealed(copy.read_bytes(), name)
            self._set(copy, name, text)
            after = Sops(self.environ).decrypt(copy)
        self._check_sealed(after.raw, name)
        if after.tree != {**before.tree, name: text} or self._path.read_bytes() != before.raw:
            raise CannotRead("the file changed meanwhile, or can't hold this", "try again; see who else writes to it")
        return after.raw

    def _set(self, copy: Path, name: str, text: str) -> None:
        arguments = ("set", "--value-stdin", str(copy), f'["{name}"]')
        given = json.dumps(text)
        done = Sops(self.environ).run(*arguments, folder=self._path.parent, given=given, oldest=OLDEST_WRITING)
        if done.status:
            summary = f"sops can't add it to {self._path} (it ended with {done.status})"
            raise CannotRead(summary, f"run `sops edit {self._path}` to see what it says")

    def _check_sealed(self, content: bytes, name: str) -> None:
        if in_clear(self._path, content, name):
            hint = "correct encrypted_regex and its kin in .sops.yaml or in the file, or choose another file"
            self._refuse(f"a rule of sops would leave {name} in clear", hint)


def unkept(value: str) -> str:
    """Say why no reference could give a value back; empty for one that can be kept."""
    text = files.without_line_end(value)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = 0
    whole = 0 < size < files.MAX_BYTES and "\0" not in text and not text.endswith(("\n", "\r"))
    return "" if whole else "the secret is empty, over 64 KiB, no text, or ends in empty lines"


def _checked(name: str, value: str) -> str:
    """Return what is kept of a value. Raises `ReconcilerError` for what no reference could give back."""
    if why := unkept(value):
        raise ReconcilerError(Problem(name, why, "give the secret as it is"))
    return files.without_line_end(value)


def _named(name: str) -> str:
    if not _NAME.fullmatch(name):
        hint = "use letters, digits and marks other than / [ ] and quotes, beginning with a letter or a digit"
        raise ReconcilerError(Problem(repr(name[:80]), "is no name for a secret", hint))
    return name


def _own_recipients(environ: Mapping[str, str]) -> list[str]:
    """Return the public halves of our identities. Raises `CannotRead` where there is none."""
    own = [identity.public for identity in age.identities(environ).found]
    if not own:
        raise age.no_recipients(environ)
    return own
