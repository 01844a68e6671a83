"""Opens a page on this computer: drop an image, see what is found in it, take the report along.

    python lesion/app.py [--weights=PATH] [--attributes-weights=PATH] [--diagnosis-weights=PATH]

The page talks to this computer alone, and others cannot reach it unless --host lets them. Uploaded
files lie in a temporary folder. Each is deleted as soon as it has been analysed, all are when their
page is closed, and the folder goes when the command ends; results are part of the page alone. Only
a command that is killed (SIGKILL) leaves its folder, `lesion_app_...`, behind.

Exit codes:

    0    stopped by Ctrl-C, SIGTERM or a terminal that is closed
    2    the command, the weights, the host or the port cannot be used, or the extra `demo` is
         missing; no page was opened
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import ipaddress
import os
import tempfile
import threading

from lesion import NOTICE
from lesion.analyzer import Analyzer
from lesion.app_uploads import Uploads
from lesion.app_view import MAX_MEGAPIXELS
from lesion.options import add_analyzer, analyzer_options, positive, rate
from lesion.printing import CommandParser
from lesion.stopping import as_ctrl_c


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="lesion app",
        description="Opens a page on this computer that analyses dermoscopic images.",
    )
    add_analyzer(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; any but this computer's own lets others in (127.0.0.1)",
    )
    parser.add_argument("--port", type=_port, default=7860, metavar="N", help="(7860)")
    parser.add_argument(
        "--max-megapixels",
        type=_megapixels,
        default=50,
        metavar="X",
        help=f"refuse larger images; up to {MAX_MEGAPIXELS} (50)",
    )
    return parser


def _port(text: str) -> int:
    port = positive(text)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"must be a port from 1 to 65535, not {text!r}")
    return port


def _megapixels(text: str) -> float:
    value = rate(text)
    if value > MAX_MEGAPIXELS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_MEGAPIXELS}, not {text!r}")
    return value


def is_loopback(host: str) -> bool:
    """Whether only this computer can reach what listens at a host."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="lesion_app_") as folder, as_ctrl_c():
        os.environ.update(environment(folder))
        try:
            from lesion.app_page import build_page, open_page
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            way = 'pip install -e ".[demo]", in the checkout'
            print(f"The page needs gradio: {way}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 0
        try:
            print("Loading the networks …", flush=True)
            analyzer = Analyzer(**analyzer_options(arguments))
            page = build_page(analyzer.load(), Uploads(folder), arguments.max_megapixels)
            alone = is_loopback(arguments.host)
            address = open_page(page, arguments.host, arguments.port, alone)
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 0
        if not alone:
            print(
                f"Warning: --host {arguments.host} lets other computers use this page, without "
                "password or encryption.",
                file=sys.stderr,
            )
        print(f"The page is at {address} – Ctrl-C stops it.\n{NOTICE}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            page.close(verbose=False)
        return 0


def environment(folder: str) -> dict[str, str]:
    """What gradio reads from the environment when it is imported, with the folder for uploads."""
    return {
        "GRADIO_TEMP_DIR": folder,
        "GRADIO_ANALYTICS_ENABLED": "False",
        # Otherwise browsers keep all images that were analysed.
        "GRADIO_RUN_HISTORY": "False",
        # Gradio asks the page whether it is there, which no proxy can answer.
        "NO_PROXY": "*",
        "no_proxy": "*",
    }


if __name__ == "__main__":
    sys.exit(main())
