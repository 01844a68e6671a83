"""Commands that are stopped: by Ctrl-C, by a scheduler, or because their terminal is closed."""

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator

# What schedulers and containers send before they kill; what a terminal sends that is closed, which
# Windows does not have.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextlib.contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Lets other signals to stop raise KeyboardInterrupt in the block, as Ctrl-C does.

    Otherwise they would end the process at once, and leave what is half written. What is ignored
    stays so, as nohup wants; outside of the main thread, which alone may set it, nothing changes.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # which was not set by Python, and cannot be set by it
                signal.signal(number, handler)


def stoppable(main: Callable[..., int]) -> Callable[..., int]:
    """A command's `main` which, stopped by Ctrl-C or `as_ctrl_c`, says so and returns 130.

    Where it has more to say than one line, it says that itself and returns the same.
    """

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        try:
            with as_ctrl_c():
                return main(argv)
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
            return 130

    return run
