"""The command ``harness``, and ``python -m harness``: where what it is made of is not installed, one line says so."""

import gc
import sys
from importlib.util import find_spec

#: New objects between two searches for garbage, Python's 700 or 2,000 otherwise: what torch and transformers import
#: stays, and going through it again and again takes a quarter of the time that importing them takes.
_OBJECTS = 50_000


def main() -> None:
    """Run the command line, as `harness.cli.main` says; exit with 2 where click is missing."""
    if find_spec("click") is None:
        sys.stderr.write("harness: click is not installed: pip install 'posttrain-harness[core]'\n")
        sys.exit(2)
    gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
    from harness.cli import main as run

    run()


if __name__ == "__main__":
    main()
