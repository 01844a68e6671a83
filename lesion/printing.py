"""What commands print, which any terminal takes, and the notice that their help ends with."""

import argparse
import codecs
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lesion import NOTICE

_ERRORS = "lesion.plain"
# Keras's bars of progress, too; escaped, they would be lines long.
_PLAIN = str.maketrans({"–": "-", "…": "...", "━": "="})


class CommandParser(argparse.ArgumentParser):
    """The parser of a command's options; whatever the command prints then is printed somehow."""

    def __init__(self, **settings: Any):
        super().__init__(**{"epilog": NOTICE, **settings})

    def parse_known_args(self, *arguments: Any, **settings: Any) -> tuple:
        print_anywhere()
        return super().parse_known_args(*arguments, **settings)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Ends the command with a line, and not a traceback, where what was given is of no use."""
        try:
            yield
        except (OSError, ValueError) as error:
            self.error(str(error))


def print_anywhere() -> None:
    """Lets characters that a terminal's encoding lacks be printed by others instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # elsewhere, as in a notebook, all are known
            stream.reconfigure(errors=_ERRORS)


def _plain(error):
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error(_ERRORS, _plain)
