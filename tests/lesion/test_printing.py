"""What is printed where the encoding lacks characters."""

import contextlib
import importlib
import io
import sys

import pytest

from lesion import cli
from lesion.printing import print_anywhere

DASHES = {"ascii": "-", "latin-1": "-", "utf-8": "–"}
every_encoding = pytest.mark.parametrize("encoding", DASHES)


def printed(encoding, action, *arguments):
    """What an action prints to stdout and stderr, read by their encoding."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        with contextlib.suppress(SystemExit):
            action(*arguments)
    for stream in streams:
        stream.flush()
    return [stream.buffer.getvalue().decode(encoding) for stream in streams]


@every_encoding
@pytest.mark.parametrize("name", [*cli.COMMANDS, "ship"])
def test_help_of_every_command_ends_with_the_notice(name, encoding):
    main = importlib.import_module(f"lesion.{name}").main
    words = " ".join(printed(encoding, main, ["--help"])[0].split())
    notice = "Research use only – not a medical device – not for diagnosis."
    assert words.endswith(notice.replace("–", DASHES[encoding]))


@every_encoding
@pytest.mark.parametrize(("arguments", "place"), [([], 0), (["diagnose"], 1)])
def test_list_of_commands(arguments, place, encoding):
    end = "…" if encoding == "utf-8" else "..."
    assert f"usage: lesion COMMAND {end}\n" in printed(encoding, cli.main, arguments)[place]


def _say(text):
    print_anywhere()
    print(text)


@every_encoding
def test_what_no_encoding_has_is_escaped(encoding):
    assert printed(encoding, _say, "a\udce9b")[0] == "a\\udce9b\n"


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_streams_of_another_kind_are_left_alone(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)  # as in a notebook, and without a console
    print_anywhere()
    assert sys.stdout is stream
