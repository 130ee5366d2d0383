"""The command ``harness``, and ``python -m harness``: where what it is made of is not installed, one line says so."""

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line, as `harness.cli.main` says; exit with 2 where click is missing."""
    if find_spec("click") is None:
        sys.stderr.write("harness: click is not installed: pip install 'posttrain-harness[core]'\n")
        sys.exit(2)
    from harness.cli import main as run

    run()


if __name__ == "__main__":
    main()
