"""The files that visitors of the page have dropped, and their end."""

import shutil
import threading
from pathlib import Path


class Uploads:
    """Knows which open page each file in a folder belongs to, so that nothing outlives its page.

    A file goes as soon as it has been analysed. One that is still waiting goes when its page is
    closed. When the last page is closed the folder is emptied, whatever is in it: uploads that
    were broken off have no owner.

    Args:
        folder: where the files arrive; nothing else is ever deleted.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).resolve()
        self._files: dict[str, set[Path]] = {}
        self._lock = threading.Lock()

    def opened(self, page: str) -> None:
        """A page is there."""
        with self._lock:
            self._files.setdefault(page, set())

    def received(self, page: str, path: str | Path) -> None:
        """A page has sent a file."""
        with self._lock:
            self._files.setdefault(page, set()).add(Path(path))

    def done(self, path: str | Path) -> None:
        """A file is no longer needed; it may be gone already."""
        with self._lock:
            for files in self._files.values():
                files.discard(Path(path))
            self._delete(Path(path))

    def closed(self, page: str) -> None:
        """A page is gone."""
        with self._lock:
            for path in self._files.pop(page, ()):
                self._delete(path)
            if not self._files and self.folder.is_dir():
                for left in self.folder.iterdir():
                    if left.is_dir():
                        shutil.rmtree(left, ignore_errors=True)
                    else:
                        left.unlink(missing_ok=True)

    def _delete(self, path: Path) -> None:
        if self.folder not in path.resolve().parents:
            raise ValueError(f"{path} is no file of the folder {self.folder}.")
        path.unlink(missing_ok=True)
