"""Commands that are stopped from outside."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lesion.stopping import as_ctrl_c, stoppable

NUMBERS = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
each_signal = pytest.mark.parametrize("number", NUMBERS)


@pytest.fixture(autouse=True)
def handlers():
    """The usual handlers, whatever ignores them around the tests, as nohup does; put back after."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in NUMBERS}
    yield dict.fromkeys(NUMBERS, signal.SIG_DFL)
    for number, handler in before.items():
        signal.signal(number, handler)


@each_signal
def test_a_signal_is_as_ctrl_c(number):
    with pytest.raises(KeyboardInterrupt), as_ctrl_c():
        signal.raise_signal(number)


def test_handlers_come_back(handlers):
    with as_ctrl_c():
        pass
    assert {number: signal.getsignal(number) for number in NUMBERS} == handlers


@each_signal
def test_what_is_ignored_stays_so(number):
    signal.signal(number, signal.SIG_IGN)  # as nohup does
    with as_ctrl_c():
        signal.raise_signal(number)
        assert signal.getsignal(number) == signal.SIG_IGN


def test_in_another_thread_nothing_changes(handlers):
    found = {}

    def look():
        with as_ctrl_c():
            found.update({number: signal.getsignal(number) for number in NUMBERS})

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == handlers


def test_a_command_says_that_it_was_stopped(capsys):
    assert stoppable(lambda argv: signal.raise_signal(signal.SIGTERM))([]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


@pytest.mark.skipif(os.name != "posix", reason="a process is terminated at once elsewhere")
def test_terminated_it_leaves_nothing_half_written(tmp_path):
    command = [sys.executable, "lesion/phantom.py", "--out", tmp_path, "--images=1000000"]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
    while not any(tmp_path.rglob("ISIC_*.jpg")):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    assert process.communicate(timeout=60)[1] == "Stopped.\n"
    assert process.returncode == 130
    assert not list(tmp_path.rglob(".*"))
