"""JSON files that remember what was found out about other files, and may go at any time."""

import json
import logging
from pathlib import Path
from typing import Any

from mrcnn.files import write_json

logger = logging.getLogger(__name__)


def stamp_of(path: Path) -> list[int]:
    """Size in bytes and time of change in nanoseconds: another file's, or a changed one's, differ.

    Raises:
        OSError: if there is no such file.
    """
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def read_record(path: Path, what: str) -> dict[str, Any]:
    """A record's content; empty where there is none, or, with a warning, none that can be used.

    Args:
        path: of the record.
        what: it is of, for the warning.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
        return content
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("The record of %s %s is unusable (%s): made anew.", what, path, error)
        return {}


def write_record(path: Path, content: dict[str, Any], what: str) -> None:
    """Writes a record; where that fails, as on a full disk, it only warns: time is all it costs."""
    try:
        write_json(path, content, indent=None)
    except OSError as error:
        logger.warning("The record of %s %s cannot be written: %s.", what, path, error)
