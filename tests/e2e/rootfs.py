"""A root file system of this machine's Python, its libraries, git, ssh, Docker and Compose: our image's base in tests.

Nothing is downloaded. Python lies where it lies here, and its virtual environment at ``VENV``: where it lies here may
be below /tmp, which is empty in the container. reconciler is left out: the Dockerfile installs it.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

APPLETS = ("sh", "sleep", "cat", "env", "echo", "mkdir", "chown", "true", "false", "rm", "id")
VENV = PurePosixPath("/opt/venv")
_SKIPPED = (
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "lib2to3",
    "ensurepip",
    "site-packages",
    "dist-packages",
)
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


def write(path: Path, busybox: bytes, compose: Path) -> str:
    """Write it as an archive; return the PATH that it wants."""
    programs = [Path(shutil.which(name) or "") for name in ("git", "ssh", "docker")]
    base, venv = Path(sys.executable).resolve(), Path(sys.prefix)
    trees = [*_tree(Path(sysconfig.get_path("stdlib"))), *_environment(venv), *_git()]
    binaries = [base, *programs, compose, *(item for item in trees if ".so" in item.name)]
    with tarfile.open(path, "w") as archive:
        made: set[str] = set()
        for file in dict.fromkeys([*_libraries(binaries), *trees, base]):
            inside = file.is_relative_to(venv)
            _put(archive, made, file, str(VENV / file.relative_to(venv) if inside else file))
        for program in programs:
            _put(archive, made, program.resolve(), f"/usr/bin/{program.name}")
        _put(archive, made, compose.resolve(), "/usr/libexec/docker/cli-plugins/docker-compose")
        _text(archive, made, "/bin/busybox", busybox, 0o755)
        for applet in APPLETS:
            _link(archive, made, f"/bin/{applet}", "/bin/busybox")
        for name in ("python", "python3", base.name):
            _link(archive, made, str(VENV / "bin" / name), str(base))
        _text(archive, made, "/etc/passwd", b"root:x:0:0::/:/bin/sh\n")
        _text(archive, made, "/etc/group", b"root:x:0:\n")
        _folder(archive, made, PurePosixPath("/tmp"), 0o1777)
    return f"{VENV / 'bin'}:/usr/bin:/bin"


def _environment(venv: Path) -> Iterator[Path]:
    """The files of what the lock of the image names, and of pip, which installs."""
    lock = Path(__file__).parents[2] / "requirements" / "run.txt"
    names = re.findall(r"^([a-z0-9.-]+)==", lock.read_text(), re.MULTILINE)
    yield venv / "pyvenv.cfg"
    for name in ("pip", *names):
        try:
            files = importlib.metadata.distribution(name).files or ()
        except importlib.metadata.PackageNotFoundError:  # of another system: the lock says for which
            continue
        for item in files:
            found = Path(os.path.normpath(str(item.locate())))
            if found.is_file() and found.is_relative_to(sysconfig.get_path("purelib")):
                yield found


def _tree(top: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(top):
        names[:] = [name for name in names if name not in _SKIPPED and not name.startswith("config-")]
        yield from (Path(folder, name) for name in files if not name.endswith(".a"))


def _git() -> Iterator[Path]:
    """Git's own folder, without the second copies of its program."""
    folder = Path(subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip())
    yield from (folder / name for name in ("git", "git-upload-pack") if (folder / name).exists())


def _libraries(binaries: Iterable[Path]) -> Iterator[Path]:
    """What the loader maps for these, and the loader."""
    said = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    for name in sorted(set(_LIBRARY.findall(said))):
        yield Path(name)


def _put(archive: tarfile.TarFile, made: set[str], file: Path, name: str) -> None:
    if name in made:
        return
    status = file.stat()
    _text(archive, made, name, file.read_bytes(), 0o755 if status.st_mode & 0o111 else 0o644)


def _text(archive: tarfile.TarFile, made: set[str], name: str, content: bytes, mode: int = 0o644) -> None:
    entry = _entry(archive, made, name, mode)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def _link(archive: tarfile.TarFile, made: set[str], name: str, leads_to: str) -> None:
    if name not in made:
        entry = _entry(archive, made, name, 0o777)
        entry.type, entry.linkname = tarfile.SYMTYPE, leads_to
        archive.addfile(entry)


def _entry(archive: tarfile.TarFile, made: set[str], name: str, mode: int) -> tarfile.TarInfo:
    _folder(archive, made, PurePosixPath(name).parent)
    made.add(name)
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.mode = mode
    return entry


def _folder(archive: tarfile.TarFile, made: set[str], path: PurePosixPath, mode: int = 0o755) -> None:
    """Each folder once, open to all: who owns it here may be nobody there."""
    if str(path) in made or path == PurePosixPath("/"):
        return
    _folder(archive, made, path.parent)
    made.add(str(path))
    entry = tarfile.TarInfo(str(path).lstrip("/"))
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    archive.addfile(entry)
