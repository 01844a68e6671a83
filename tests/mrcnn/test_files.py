import contextlib
import errno
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mrcnn.files import (
    atomic_path,
    data_folders,
    is_stream,
    remove_leftovers,
    require_writable,
    sha256_of,
    write_json,
)


def test_file_appears_under_its_name_when_the_block_ends(tmp_path):
    path = tmp_path / "result.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_previous_file_and_no_rest(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("previous")
    with pytest.raises(RuntimeError, match="disk"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("disk full")
    assert path.read_text() == "previous"
    assert list(tmp_path.iterdir()) == [path]


def test_keyboard_interrupt_leaves_no_rest(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a.npy") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.png", "a.weights.h5", "a", "mask_rcnn_0001.h5"])
def test_temporary_path_stands_beside_and_ends_alike(tmp_path, name):
    with atomic_path(tmp_path / name) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffixes == (tmp_path / name).suffixes
        temporary.touch()


def test_temporary_name_is_short(tmp_path):
    with atomic_path(tmp_path / f"Dr. {'x' * 240}.json") as partial:
        assert len(partial.name) < 100
        assert partial.suffix == ".json"
        partial.write_text("{}")


def test_missing_folders_are_made(tmp_path):
    path = tmp_path / "one" / "two" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.touch()
    assert path.exists()


@pytest.mark.parametrize("inner", ["a.png", "folder/a.png"])
def test_file_in_the_place_of_a_folder(tmp_path, inner):
    (tmp_path / "out").write_text("a file")
    place = re.escape(f"{tmp_path / 'out'} is no folder")
    with pytest.raises(NotADirectoryError, match=place), atomic_path(tmp_path / "out" / inner):
        pass


def test_folder_is_renamed_as_a_whole(tmp_path):
    with atomic_path(tmp_path / "export") as temporary:
        temporary.mkdir()
        (temporary / "part").touch()
    assert (tmp_path / "export" / "part").exists()


def test_half_written_folder_is_removed(tmp_path):
    with pytest.raises(ValueError, match="stop"), atomic_path(tmp_path / "export") as temporary:
        temporary.mkdir()
        (temporary / "part").touch()
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [False, True])
def test_content_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch, folder):
    """Where power is lost in between, a system may keep the renaming and not the content."""
    path, deeds = tmp_path / "new" / "result", []
    inodes = lambda: {p.stat().st_ino: p.name for p in path.parent.rglob("*")}  # noqa: E731
    monkeypatch.setattr(
        os, "fsync", lambda handle: deeds.append((os.fstat(handle).st_ino, path.exists()))
    )
    with atomic_path(path, durable=True) as temporary:
        if folder:
            (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "part" if folder else temporary).write_text("whole")
    content, parent = deeds
    assert inodes()[content[0]] == ("part" if folder else "result") and not content[1]
    assert parent == (path.parent.stat().st_ino, True)


@pytest.mark.parametrize(("number", "stops"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_content_that_cannot_be_written_through(tmp_path, monkeypatch, number, stops):
    def fail(handle):
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", fail)
    path = tmp_path / "result"
    with pytest.raises(OSError, match="no") if stops else contextlib.nullcontext():
        with atomic_path(path, durable=True) as temporary:
            temporary.write_text("whole")
    assert path.exists() != stops


def test_block_that_writes_nothing_is_an_error_naming_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="result.txt"), atomic_path(tmp_path / "result.txt"):
        pass


def test_leftovers_of_a_killed_process_alone_are_removed(tmp_path):
    with atomic_path(tmp_path / "weights.h5") as temporary:
        temporary.touch()
    temporary.touch()
    kept = {"weights.h5", ".taken", ".0123.h5", "0" * 32, f".{'g' * 32}.h5", f".{'0' * 33}"}
    for name in kept:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert not temporary.exists()
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_json(pipe, {"a": 1}, indent=None)
        assert os.read(reader, 100) == b'{"a": 1}\n'
    finally:
        os.close(reader)
    assert is_stream(pipe) and list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("mode", ["w", "a"], ids=[">", ">>"])
@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "link"])
def test_output_that_is_a_file_keeps_what_is_around(tmp_path, path, mode):
    (tmp_path / "out.txt").write_text("earlier\n")
    (tmp_path / "link").symlink_to("/dev/fd/1")
    script = "from mrcnn.files import write_json\nprint('before')\n"
    script += f"write_json({path!r}, [1], indent=None)\nprint('after')"
    with open(tmp_path / "out.txt", mode) as out:
        root = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-c", f"import sys\nsys.path.append({root!r})\n{script}"]
        subprocess.run(command, check=True, cwd=tmp_path, stdout=out)
    written = (tmp_path / "out.txt").read_text().split()
    assert written == ["earlier"] * (mode == "a") + ["before", "[1]", "after"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/dev/stdout", True), ("/dev/fd/1", True), ("/dev/shm/a.json", False), ("a.json", False)],
)
def test_streams_by_their_names(tmp_path, path, expected):
    assert is_stream(tmp_path / path) == expected


def test_link_to_an_open_file_is_a_stream(tmp_path):
    (tmp_path / "link").symlink_to("/proc/self/fd/1")
    (tmp_path / "own").symlink_to(tmp_path / "file")
    assert is_stream(tmp_path / "link") and not is_stream(tmp_path / "own")


def test_folder_that_takes_no_file(tmp_path):
    require_writable(tmp_path / "new" / "inner")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is no folder"):
        require_writable(tmp_path / "file" / "inner")


@pytest.mark.parametrize("content", [b"", b"abc", bytes(range(256)) * 5000])
def test_sha256_of_is_the_digest_of_the_content(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert sha256_of(path) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "package",
    ["lib/python3.11/site-packages", "lib/python3.11/dist-packages", "."],
    ids=["--user", "Debian", "--target"],
)
def test_data_are_looked_for_where_pip_puts_them(tmp_path, package):
    assert tmp_path / "share" / "mrcnn" in data_folders(tmp_path / package / "mrcnn")


def test_data_of_a_clone_come_first(tmp_path):
    assert data_folders(tmp_path / "mrcnn")[0] == tmp_path / "weights"
    assert (data_folders()[0] / "MODEL_CARD.md").is_file()
