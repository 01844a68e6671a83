"""The files that visitors of the page have dropped, and their end."""

import shutil
import threading
from collections import Counter
from pathlib import Path


class Uploads:
    """Knows which open page each file in a folder belongs to, so that nothing outlives its page.

    A file goes as soon as it has been analysed, or the last of them if several pages, or one twice,
    have sent the same, which lies in one place. One that is still waiting goes when its page is
    closed. When the last page is closed the folder is emptied, whatever is in it: uploads that
    were broken off have no owner.

    Args:
        folder: where the files arrive; nothing else is ever deleted.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).resolve()
        self._files: dict[str, Counter[Path]] = {}
        self._lock = threading.Lock()

    def opened(self, page: str) -> None:
        """A page is there."""
        with self._lock:
            self._files.setdefault(page, Counter())

    def received(self, page: str, path: str | Path) -> None:
        """A page has sent a file."""
        with self._lock:
            self._files.setdefault(page, Counter())[Path(path)] += 1

    def done(self, page: str, path: str | Path) -> None:
        """A page no longer needs a file; it may be gone already."""
        path = Path(path)
        with self._lock:
            files = self._files.get(page, Counter())
            files[path] -= 1
            if files[path] <= 0:
                del files[path]
            self._delete(path)

    def closed(self, page: str) -> None:
        """A page is gone."""
        with self._lock:
            for path in self._files.pop(page, Counter()):
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
        if not any(path in files for files in self._files.values()):
            path.unlink(missing_ok=True)
