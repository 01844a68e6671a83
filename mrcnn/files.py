"""Files that are complete or absent, and their fingerprints."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LONGEST_SUFFIX = 32


def require_writable(folder: str | os.PathLike) -> None:
    """OSError if a folder can take no file, or cannot be made: before hours of work are lost."""
    with tempfile.TemporaryFile(dir=_folder_there(folder)):
        pass


def _folder_there(folder):
    """A folder, or the one above it that is there; NotADirectoryError where that is a file."""
    place = Path(folder).absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(
            f"Nothing can be written to {folder}: {place} is no folder. Give another place, or "
            "move away what has its name."
        )
    return place


class AnotherProcess(BlockingIOError):
    """Another process, or thread, is at work in a folder."""


@contextmanager
def alone_in(folder: str | os.PathLike, wait: bool = True) -> Iterator[None]:
    """Lets one process at a time work in a folder, where the system has locks for that.

    Args:
        folder: which is there.
        wait: for the other to end; if not, `AnotherProcess` is raised.
    """
    try:
        import fcntl
    except ImportError:  # on Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise AnotherProcess(f"Another process is at work in {folder}.") from error
        except OSError:  # some network file systems have none
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: str | os.PathLike, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name once the block has succeeded.

    The temporary name ends like `path` (`.png`, `.weights.h5`), so that writers who choose the
    format by suffix choose the right one. Missing parent folders are made. When the block raises,
    whatever it has written is removed and a file already standing at `path` stays as it was.
    What is meant for a stream (`is_stream`) is copied to it at the end.

    Args:
        path: of a file or a folder.
        durable: whether the content is on the disk before it takes the name, so that losing power
            cuts no file short. That takes a moment: it is for what took hours to make.

    Raises:
        NotADirectoryError: if what should be its folder, or one above it, is a file.
        FileNotFoundError: if the block ended without writing to the temporary path.
    """
    path = Path(path)
    if is_stream(path):  # which would be replaced by a file
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / path.name
            yield temporary
            _copy_to_stream(temporary, path)
        return
    _folder_there(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = "".join(path.suffixes[-2:])
    if len(suffix) > _LONGEST_SUFFIX:  # a name with dots in it
        suffix = path.suffix[-_LONGEST_SUFFIX:]
    temporary = path.parent / f".{uuid.uuid4().hex}{suffix}"
    try:
        yield temporary
        if not temporary.exists():
            raise FileNotFoundError(
                f"Nothing was written for {path}: write to the path that atomic_path yields."
            )
        parts = temporary.rglob("*") if temporary.is_dir() else [temporary]
        for part in parts if durable else ():
            if part.is_file():
                _write_through(part)
        os.replace(temporary, path)
        if durable:
            with contextlib.suppress(OSError):  # the name; not every system opens folders
                _write_through(path.parent)
    finally:
        # After the rename there is nothing left under this name.
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Removes the temporary files that a killed process left in a folder: for who is `alone_in`."""
    for path in Path(folder).iterdir():
        if re.match(r"\.[0-9a-f]{32}(\.|$)", path.name) and path.is_file():
            path.unlink(missing_ok=True)


def is_stream(path: str | os.PathLike) -> bool:
    """Whether a path is of a device, a pipe or an open file, such as `/dev/stdout`."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        return True
    return any(re.match(r"/(proc/.*|dev(/fd)?)$", str(place.parent)) for place in _places(path))


def _places(path):
    """A path, and where it leads to if it is a link."""
    return [path.absolute(), *([path.readlink()] if path.is_symlink() else [])]


def _copy_to_stream(source, path):
    """Writes a file to a stream; to an open one where it is, as its file may have text already."""
    names = (re.fullmatch(r"/(dev|proc/self)/fd/(\d+)", str(place)) for place in _places(path))
    number = next((int(name[2]) for name in names if name), None)
    sys.stdout.flush()
    sys.stderr.flush()
    with open(source, "rb") as file, open(path if number is None else os.dup(number), "wb") as out:
        shutil.copyfileobj(file, out)


def _write_through(path):
    """Has the system write a file, or the names in a folder, to the disk."""
    # Windows writes through only what is open for writing.
    handle = os.open(path, os.O_RDWR if os.name == "nt" and path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # what no file there can do
            raise
    finally:
        os.close(handle)


def write_json(
    path: str | os.PathLike, content: Any, indent: int | None = 1, durable: bool = False
) -> None:
    """Writes plain values as JSON text, whole or not at all; `durable` as for `atomic_path`.

    Raises:
        ValueError: for a number that is not finite, which JSON has no word for.
    """
    text = json.dumps(content, indent=indent, allow_nan=False) + "\n"
    with atomic_path(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content as 64 lower-case hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_folders(package: Path | None = None) -> tuple[Path, ...]:
    """Where files that come with the project lie: in a clone, or as pip has installed them.

    Args:
        package: folder of a package, by default this one's. pip puts data below a `share` beside it
            or some folders above: in an environment, a user's folder, /usr/local, a `--target`.
    """
    package = package or Path(__file__).resolve().parent
    installed = package.parent.name in ("site-packages", "dist-packages")
    roots = [Path(sys.prefix), *package.parents[: 4 if installed else 1]]
    return (package.parent / "weights", *dict.fromkeys(r / "share" / "mrcnn" for r in roots))
