"""The command `fruits`: learn fruits from photos, and tell what fruit is on others."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

# Of each command, the module whose `main` takes the words that follow it, and what it is for. Only the module
# of the command that was asked for is imported: some are slow to.
COMMANDS: Final = {
    "run": ("fruits_assets.run", "materialize the whole graph"),
    "predict": ("fruits_assets.predict.cli", "what fruit is on a photo"),
    "app": ("fruits_assets.predict.web", "a web page that tells what fruit is on a photo"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        module, _ = COMMANDS[words[0]]
        status: int = importlib.import_module(module).main(words[1:])
        return status
    asked = words in (["-h"], ["--help"])
    lines = [f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items()]
    usage = "\n".join(["usage: fruits COMMAND ...", "", *lines, "", "fruits COMMAND --help tells more."])
    print(usage, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def command() -> NoReturn:
    """Run a command and end this process, as soon as what has to be done at its end is done.

    To take apart all that was imported, as Python does after that, takes most of a second.
    """
    status = main()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    command()
