"""Files that the program ``sops`` (3.9 or later) encrypts: decrypted as a whole, once, when one of its keys is needed.

Exit statuses are those of sops's cmd/sops/codes. What sops writes to standard error is never repeated: it may quote
what it was fed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from reconciler import files, process
from reconciler.desired.yaml import scan, shallow
from reconciler.files import CannotRead
from reconciler.process import SOPS, CannotRun, Ended
from reconciler.secrets import age
from reconciler.url import NoUrl, parse

OLDEST, OLDEST_WRITING = (3, 9), (3, 11)  # 3.9 has `sops decrypt`, 3.11 `sops set --value-stdin`
MAX_BYTES = 1 << 20  # many keys in a file
_TIMEOUT = 60.0  # seconds; 0.05 is usual with age, and a key service answers over the network
_INSTALL = "install sops {}.{} or later and put it on PATH: https://github.com/getsops/sops/releases"
_UNENCRYPTED = "encrypt it (sops encrypt -i FILE), and replace every secret that was ever committed in clear"

# Paths that are relative to where we run.
_SSH_KEY = "SOPS_AGE_SSH_PRIVATE_KEY_FILE"
_PATHS = ("XDG_CONFIG_HOME", "GNUPGHOME", "SOPS_CONFIG", "SOPS_AGE_KEY_FILE", _SSH_KEY)

_MAC = re.compile(rb"""\bmac["']?\s*[:=]\s*["']?ENC\[|\bsops_mac=ENC\[""")
_RECIPIENT = re.compile(
    r"""(?:\b|_)(?:recipient|fp|arn|resource_id|vault_?[uU]rl|vault_address|key_id)["']?\s*[:=]\s*["']?([^"'\n,]+)"""
)
_PGP = re.compile(rb"-----BEGIN PGP MESSAGE-----")
_SERVICE = re.compile(rb"\b(gcp_kms|kms|azure_kv|hc_vault|hckms)\b")
_VARIABLES = {
    "kms": "AWS_*",
    "gcp_kms": "GOOGLE_*",
    "azure_kv": "AZURE_*",
    "hc_vault": "VAULT_*",
    "hckms": "HUAWEICLOUD_*",
}
_URLS = frozenset({"vaulturl", "vault_url", "vault_address"})
_ADDRESSES = frozenset({"arn", "resource_id", "key_id", *_URLS})  # in small letters, see `_addresses`
_NAMES = "|".join(sorted(_ADDRESSES))
_PAIR_WITH_SERVICE = re.compile(  # wherever it stands: dotenv and ini put the way to it before the name
    rf"""(?:\b|_)({_NAMES})["']?[ \t]*[:=]\s*["']?([^"'\s,&*>|][^"'\s,]*)""", re.IGNORECASE
)
_LINES = (".env", ".ini")  # by what a name ends in sops goes, too; all else is YAML, or JSON, which is a part of it
_WHOLE = re.compile(r"""[^\s"'&*|>!]\S*""")  # a value that a line alone says
_SIGN = re.compile(r"[=:]")
_PLACE_IN_LINES = re.compile(rf"(?:.*_)?({_NAMES})", re.DOTALL)
_ARN = re.compile(r"arn:[\w-]+:kms:([\w-]+):[\w:/-]*")
_DEEPEST = 512  # levels
_SHOWN = 300  # characters of an address
_DIGITS = 9  # of a position in a list
_NO_KEY = 128  # CouldNotRetrieveKey
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
        return files.without_line_end(found)

    def services(self, path: Path) -> Collection[str]:
        """Return the addresses of key services that a file names, as `services`; none of a file that can't be read."""
        try:
            return services(files.read(path, MAX_BYTES))
        except CannotRead:
            return ()

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
        raw = files.read(path, MAX_BYTES)
        if not _MAC.search(raw):
            raise CannotRead(f"{path}: is NOT ENCRYPTED by sops: what stands in it is there in clear", _UNENCRYPTED)
        if not _is_read_alike(path, raw):
            hint = "let sops write it anew: sops decrypt -i FILE, and sops encrypt -i FILE once nothing odd is in it"
            what = "no lines" if path.name.endswith(_LINES) else "no YAML"
            raise CannotRead(f"{path}: is {what} that all programs read alike, or is nested without end", hint)
        if odd := _odd(path, raw):
            raise CannotRead(f"{path}: names a key service by {odd}, which is no address", "write https://HOST there")
        done = self._decrypted(path.absolute())
        if done.status:
            raise self._failure(path, raw, done.status)
        try:
            tree = json.loads(done.said)
        except (ValueError, RecursionError):
            tree = None
        if not isinstance(tree, dict):
            raise CannotRead(f"{path}: sops gives no map of keys for it", "let the file hold KEY: VALUE lines")
        return _File(raw, tree)

    def _decrypted(self, path: Path) -> Ended:
        """Let sops decrypt a file with each of the user's SSH keys in turn, of which it takes one at a time."""
        arguments = ("decrypt", "--output-type", "json", str(path))
        done = self.run(*arguments, folder=path.parent)
        for key in list(age.ssh_keys(self._environ))[1:]:
            if done.status != _NO_KEY or self._environ.get(_SSH_KEY):
                break
            done = Sops({**self._environ, _SSH_KEY: str(key)}).run(*arguments, folder=path.parent)
        return done

    def run(self, *arguments: str, folder: Path, given: str = "", oldest: tuple[int, int] = OLDEST) -> Ended:
        """Run sops in a folder, which its ``.sops.yaml`` is looked for from; ``given`` is its standard input.

        Raises `CannotRead` where it is missing, too old for this or does not end.
        """
        done = self._call(arguments, folder, given)
        if done.status and (version := self._version(folder)) < oldest:
            shown = ".".join(map(str, version)) or "of an unknown version"
            raise CannotRead(f"the program sops is too old: {shown}", _INSTALL.format(*oldest))
        return done

    def _version(self, folder: Path) -> tuple[int, ...]:
        """Ask for the version; only where something failed, since every start costs time."""
        said = self._call(["--disable-version-check", "--version"], folder).output
        numbers = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
        return tuple(map(int, numbers.groups())) if numbers else ()

    def _call(self, arguments: Sequence[str], folder: Path, given: str = "") -> Ended:
        """Call the program without a terminal to ask on; nothing that it started outlives its time."""
        try:
            return process.run(
                SOPS, ["sops", *arguments], _found_here(self._environ), folder, given=given, limit=_TIMEOUT
            )
        except CannotRun as error:
            hint = "see whether its key service can be reached, or decrypt the file by hand to see what it waits for"
            hint = _INSTALL.format(*OLDEST) if error.missing else hint
            raise CannotRead(f"the program sops {error.why}", hint) from None

    def _failure(self, path: Path, raw: bytes, status: int) -> CannotRead:
        if status in _CAUSES:
            cause, hint = _CAUSES[status]
            return CannotRead(f"{path}: {cause}", hint)
        if status != _NO_KEY:
            hint = f"run `sops decrypt {path}` to see what it says"
            return CannotRead(f"{path}: sops can't decrypt it (it ended with {status})", hint)
        for_whom = ", ".join(dict.fromkeys(_RECIPIENT.findall(raw.decode(errors="replace")))) or "nobody that it names"
        ours = age.identities(self._environ)
        summary = f"{path}: there is no key to decrypt it with; it is encrypted for {for_whom}; {ours}"
        hint = (
            f"provide the private half of one of them in one of {age.places(self._environ)}, or have somebody who can "
            "decrypt it add you (.sops.yaml, then sops updatekeys)"
        )
        if _PGP.search(raw):
            hint += f"; a PGP key is looked for in {_found_here(self._environ).get('GNUPGHOME') or 'GNUPGHOME'}"
        if services := sorted(set(_SERVICE.findall(raw))):
            named = " ".join(f"sops:{_VARIABLES[item.decode()]}" for item in services)
            hint += f"; a key service is not asked until {process.PASS} says so ({named} sops:HOME)"
        return CannotRead(summary, hint)


def services(raw: bytes) -> frozenset[str]:
    """Return the addresses of the key services that an encrypted file names: sops sends them the file's data key.

    A name too many does no harm, so whatever looks like one is taken for one: in the text as it is written, and, of a
    file of YAML or JSON, as the parser understands it.
    """
    named = set(_PAIR_WITH_SERVICE.findall(raw.decode(errors="replace")))
    named.update((name, text) for name, text in _in_lines(raw) if _WHOLE.fullmatch(text))
    with suppress(*_unreadable()):
        named.update(_pairs(_first(raw)))
    return frozenset(_service(name, text) for name, text in _addresses(named))


def _addresses(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield those under a name of a key service's address, in small letters, whose text is not encrypted.

    sops tells no case apart; Go's JSON takes `ſ` for an s, too.
    """
    for name, text in pairs:
        folded = name.casefold()
        if folded in _ADDRESSES and not text.startswith("ENC["):
            yield folded, text


def _is_read_alike(path: Path, raw: bytes) -> bool:
    """Whether we know what a file names and leaves in clear: what sops alone can read could hide both.

    YAML without a tag at a text, which could make another text of it; of ini no quoted name and no line that goes on.
    """
    if path.name.endswith(_LINES):
        lines = raw.decode(errors="replace").split("\n") if path.name.endswith(".ini") else ()
        return not any(line.rstrip().endswith("\\") or line.lstrip().startswith(("`", '"')) for line in lines)
    try:
        return all(getattr(event, "value", None) is None or event.tag is None for event in _first(raw))
    except _unreadable():
        return False


def _odd(path: Path, raw: bytes) -> str:
    """Return what an encrypted file has for the address of a key service and is none, or leads elsewhere than it looks.

    Empty where there is nothing like it.
    """
    pairs = _in_lines(raw) if path.name.endswith(_LINES) else _pairs(_first(raw))
    for name, text in _addresses(pairs):
        if not text:
            continue
        if name == "arn" and not _ARN.fullmatch(text):
            return "an ARN"
        if name in _URLS:
            try:
                parse(text)
            except NoUrl:
                return "a URL"
    return ""


def _in_lines(raw: bytes) -> Iterator[tuple[str, str]]:
    """Yield what a dotenv or an ini file has under the names of addresses, each line by itself and as a whole."""
    for line in raw.decode(errors="replace").split("\n"):
        key, *rest = _SIGN.split(line, maxsplit=1)
        if rest and (name := _PLACE_IN_LINES.fullmatch(key.strip().casefold())):
            yield name[1], rest[0].strip()


def _first(raw: bytes) -> Iterator[Any]:
    """Yield the parser's events for the first document of a file, which is the one that sops gives."""
    from ruamel.yaml import events

    return takewhile(lambda event: not isinstance(event, events.DocumentEndEvent), shallow(scan(raw), _DEEPEST))


def _unreadable() -> tuple[type[Exception], ...]:
    """Return what a parser raises for what is no YAML, or none that we read."""
    from ruamel.yaml.error import YAMLError

    return YAMLError, ValueError, AssertionError, RecursionError


def _pairs(stream: Iterator[Any]) -> Iterator[tuple[str, str]]:
    """Yield each key of a document's maps that has a text, with that text.

    No tree is made, in which anchors and merges would stand for more than any memory holds: what they lead to is
    yielded where it stands.
    """
    from ruamel.yaml import events

    anchors = dict[str, str]()
    keys: list[str | None] = [None]  # of each map that we are in the key whose value comes next; None where a key does
    for event in stream:
        if isinstance(event, events.CollectionEndEvent):
            keys.pop()
        if not isinstance(event, events.NodeEvent):
            continue
        text = anchors.get(event.anchor) if isinstance(event, events.AliasEvent) else getattr(event, "value", None)
        if event.anchor and text is not None:
            anchors[event.anchor] = text
        key, keys[-1] = keys[-1], (text or "") if keys[-1] is None else None
        if key is not None and text is not None:
            yield key, text
        if isinstance(event, events.CollectionStartEvent):
            keys.append(None)


def _service(name: str, text: str) -> str:
    if name == "resource_id":
        return "https://cloudkms.googleapis.com"
    region = _ARN.fullmatch(text) if name == "arn" else None
    return f"https://kms.{region[1]}.amazonaws.com" if region else text[:_SHOWN]


def lookup(tree: Any, key: str) -> Any:
    """Find a key at the top of a tree, else by the path it is; None where there is nothing."""
    if isinstance(tree, dict) and key in tree:
        return tree[key]
    for step in key.split("/" if "/" in key else "."):
        if isinstance(tree, list) and step.isdecimal() and len(step) <= _DIGITS and int(step) < len(tree):
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

    try:  # "base": all that stands there is text, a day that is none and a number without end among it
        tree = None if path.name.endswith(_LINES) else next(iter(YAML(typ="base").load_all(raw)), None)
    except (YAMLError, RecursionError):
        return False
    stored = lookup(tree, key)
    return isinstance(stored, str) and stored != "" and not stored.startswith("ENC[")


def _no_such_key(path: Path, key: str, tree: Mapping[str, Any]) -> CannotRead:
    import difflib

    near = difflib.get_close_matches(key, tree, n=3, cutoff=0.5)
    named = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(tree)[:10]) or 'no key'}"
    return CannotRead(f"{path}: has no key {key} (or nothing at it)", f"{named}; add one with `sops edit {path}`")


def _found_here(environ: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with what sops would look for in the user's home, or relative to where it runs.

    It gets another home, in which no key service's credentials are: see `reconciler.process.SOPS`.
    """
    home = environ.get("HOME")
    usual = {"XDG_CONFIG_HOME": str(age.configuration(environ))}
    if home and Path(home, ".gnupg").is_dir():
        usual["GNUPGHOME"] = str(Path(home, ".gnupg"))
    if ssh := next(age.ssh_keys(environ), None):
        usual[_SSH_KEY] = str(ssh)
    known = {**usual, **{name: text for name, text in environ.items() if text}}
    return known | {name: str(Path(known[name]).absolute()) for name in _PATHS if known.get(name)}
