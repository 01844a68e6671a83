"""The `lesion` command: `lesion train …` is the same as `python lesion/train.py …`."""

import importlib
import sys
from pathlib import Path

if not __package__:  # run as a script: import the packages beside it, not the modules in it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from lesion import NOTICE, __version__
from lesion.printing import print_anywhere

COMMANDS = {
    "train": "train a network on a data set",
    "join": "make one ensemble of several trained classifiers",
    "evaluate": "score a network as the ISIC 2018 challenge does",
    "analyze": "analyse images and write masks, overlays, records and a report",
    "app": "open a page on this computer that analyses images",
    "export": "write a network as a TensorFlow SavedModel",
    "dataset": "check a data set and list its problems",
    "phantom": "draw synthetic dermoscopy",
    "demo": "train briefly on phantoms and show the result",
}


def main(argv: list[str] | None = None) -> int:
    """Runs `lesion COMMAND …`; returns the command's exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name in COMMANDS:
        return importlib.import_module(f"lesion.{name}").main(arguments[1:])
    if name == "--version":
        print(f"lesion {__version__}")
        return 0
    print_anywhere()
    lines = "\n".join(f"  {command:10} {text}" for command, text in COMMANDS.items())
    hint = "`lesion COMMAND --help` lists its options."
    usage = f"usage: lesion COMMAND …\n\n{lines}\n\n{hint}\n{NOTICE}"
    if name in ("-h", "--help"):
        print(usage)
        return 0
    print(f"lesion: there is no command {name!r}.\n\n{usage}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
