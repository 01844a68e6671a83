import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lesion import NOTICE, __version__, cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_a_module(name):
    assert importlib.util.find_spec(f"lesion.{name}") is not None


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(arguments, capsys):
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in cli.COMMANDS)
    assert NOTICE in printed


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lesion {__version__}\n"


def test_unknown_command(capsys):
    assert cli.main(["diagnose"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("lesion: there is no command 'diagnose'.\n")
    assert printed.out == ""


def test_arguments_and_exit_code_are_passed_on(monkeypatch):
    received = []

    def fake_main(arguments):
        received.append(arguments)
        return 3

    fake = SimpleNamespace(main=fake_main)
    monkeypatch.setattr(cli.importlib, "import_module", {"lesion.train": fake}.__getitem__)
    assert cli.main(["train", "--dataset", "x", "--help"]) == 3
    assert received == [["--dataset", "x", "--help"]]


@pytest.mark.parametrize("name", ["phantom", "dataset", "join", "export", "ship", "demo"])
def test_stopped_commands_say_so(name, monkeypatch, capsys):
    def stop():
        raise KeyboardInterrupt

    module = importlib.import_module(f"lesion.{name}")
    monkeypatch.setattr(module, "build_parser", stop)
    assert module.main([]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_runs_as_a_script_from_any_directory(tmp_path):
    command = [sys.executable, str(ROOT / "lesion" / "cli.py"), "phantom", "--images", "0"]
    finished = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert finished.returncode == 2
    assert "at least 1" in finished.stderr
