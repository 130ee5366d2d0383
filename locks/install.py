"""Make an environment of exactly the versions of a lock: ``python locks/install.py ENV LOCK [PROJECT]``.

ENV is the environment's folder, LOCK a name in this folder (dev, demo, docs, vllm), PROJECT what is installed last,
such as ``.`` or ``--editable=.``. What ASIDE names comes into a folder of the environment where nothing imports it
unasked. A lock that does not fit this machine, and a package index that cannot be reached,
are told in one line. Only the standard library is used, and this file is read by old Pythons too, to tell them that
they are.
"""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

LOCKS = Path(__file__).resolve().parent
#: The locks of environments that run no model.
WITHOUT_TORCH = ("docs",)
#: Lock → another, of what a few tests want and other packages would import wherever it is installed.
ASIDE = {"dev": "float8"}
#: What pip says where it reaches no index.
UNREACHED = re.compile(
    "NewConnectionError|ConnectTimeoutError|ReadTimeoutError|NameResolutionError|ProxyError|Max retries exceeded"
    "|Connection(?:Error| refused| reset)|Temporary failure in name resolution|Network is unreachable|SSLError"
)
#: What pip says where a requirement has no build for this Python and platform.
UNFIT = re.compile(r"No matching distribution found for ([\w.-]+==[\w.+-]+)")
CHANGED = re.compile(r"THESE PACKAGES DO NOT MATCH THE HASHES")


def main(words):
    """Make the environment, or bring one that is there up to the lock."""
    if not 2 <= len(words) <= 3:
        sys.exit("usage: python locks/install.py ENV LOCK [PROJECT]")
    environment, lock = Path(words[0]), LOCKS / f"{words[1]}.txt"
    if sys.version_info < (3, 11):
        stop(f"Python {version()} is too old, 3.11 or newer is needed: give its name, as in PYTHON=python3.12")
    if not lock.is_file():
        stop(f"{lock.name} is not there: run `make lock`")
    try:
        venv.create(str(environment), with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        stop(f"no environment in {environment} ({error}): Debian has what is missing in python3-venv")
    python = environment / "bin" / "python"
    pip(python, lock, "--no-deps", "--require-hashes", "-r", str(lock))
    if lock.stem not in WITHOUT_TORCH:
        pip(python, lock, "-r", str(LOCKS / "torch.txt"))
    if lock.stem in ASIDE:
        aside = LOCKS / f"{ASIDE[lock.stem]}.txt"
        folder = str(environment / aside.stem)
        pip(python, aside, "--no-deps", "--require-hashes", "--upgrade", "--target", folder, "-r", str(aside))
    if words[2:]:
        pip(python, lock, "--no-deps", "--no-build-isolation", words[2])


def pip(python, lock, *words):
    """Run ``pip install`` in the environment, which compiles no module that nothing imports."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"]
    environ = dict(os.environ, PIP_CONSTRAINT="") if "PIP_CONSTRAINT" in os.environ else None
    done = subprocess.run([*command, "--only-binary=:all:", *words], stderr=subprocess.PIPE, text=True, env=environ)
    if done.returncode == 0:
        return
    told = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    last = told[-1].partition(": ")[2] if told else f"exit code {done.returncode}"
    unfit = UNFIT.search(done.stderr)
    if UNREACHED.search(done.stderr):
        stop(
            "no package index can be reached: connect this machine, or name an index or a folder of wheels in "
            "PIP_INDEX_URL or PIP_FIND_LINKS, and give the same command again"
        )
    if unfit:
        stop(
            f"locks/{lock.name} does not fit: where pip looks, {unfit[1]} has no build for Python {version()} on "
            f"{sysconfig.get_platform()}; take another Python, as in PYTHON=python3.12, or the newest versions that do "
            "fit: make newest"
        )
    if CHANGED.search(done.stderr):
        stop(f"a package is not the one that locks/{lock.name} was made from: {last}")
    sys.stderr.write(done.stderr)
    stop(f"pip failed ({last})")


def version():
    """Return this Python's version, such as ``3.11``."""
    return "{}.{}".format(*sys.version_info[:2])


def stop(line):
    """End with one line and exit code 2."""
    sys.stderr.write(f"locks: {line}\n")
    sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
