"""Folders of results, which one command at a time writes to."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mrcnn.files import AnotherProcess, alone_in


@contextlib.contextmanager
def writing_alone(*folders: str | os.PathLike) -> Iterator[None]:
    """While this is entered no other command can write to these folders, where systems have locks.

    Folders that are missing are made; what was made and is still empty at the end is removed.

    Raises:
        BlockingIOError: if another command writes to one of them.
        OSError: if one cannot be made.
    """
    with contextlib.ExitStack() as held:
        for folder in dict.fromkeys(Path(os.path.realpath(each)) for each in folders):
            made = [each for each in (folder, *folder.parents) if not each.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            for each in reversed(made):  # the innermost is removed first
                held.callback(_remove_empty, each)
            try:
                held.enter_context(alone_in(folder, wait=False))
            except AnotherProcess as error:
                raise BlockingIOError(
                    f"Another command writes its results to {folder} at the moment, and those of "
                    "the two would be mixed. Wait until it has ended, or give another folder."
                ) from error
        yield


def _remove_empty(folder):
    with contextlib.suppress(OSError):
        folder.rmdir()
