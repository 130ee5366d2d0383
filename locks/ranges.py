"""Try the ends of the ranges in pyproject.toml: ``python locks/ranges.py newest|oldest ENV [TORCH]``.

Makes the environment ENV of the newest, or of the oldest, versions that the ranges allow, says where they differ from
the lock, and runs the tests there. TORCH, such as ``2.13.0``, holds torch at a version: of most there is only a CUDA
build, of gigabytes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import lock

RESOLUTION = {"newest": "highest", "oldest": "lowest-direct"}


def main() -> None:
    """Resolve, install, compare with the lock, test; exit as the tests do."""
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in RESOLUTION:
        sys.exit("usage: python locks/ranges.py newest|oldest ENV [TORCH]")
    end, environment = sys.argv[1], Path(sys.argv[2])
    torch = f"torch=={sys.argv[3]}" if sys.argv[3:] else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = folder / f"{end}.txt"
        lock.resolve(found, ("dev",), lock.BUILD, folder, torch=torch, resolution=RESOLUTION[end])
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        words = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"]
        chosen = folder / "chosen.txt"
        chosen.write_text("\n".join(pin for name, pin in lock.pins(found).items() if not _is_cuda(name)))
        for arguments in (["-r", str(chosen)], ["--no-deps", "--no-build-isolation", f"--editable={lock.ROOT}"]):
            if code := subprocess.run([*words, *arguments]).returncode:
                sys.exit(code)
        _compare(end, found)
    test = [str(python), "-m", "pytest", "-q", "-n", "logical", "--dist", "worksteal"]
    sys.exit(subprocess.run(test, cwd=lock.ROOT).returncode)


def _compare(end: str, found: Path) -> None:
    locked = lock.pins(lock.LOCKS / "dev.txt") | lock.pins(lock.LOCKS / "torch.txt")
    for name, pin in lock.pins(found).items():
        if name in locked and locked[name] != pin:
            print(f"{end}: {pin} (locked: {locked[name]})".replace("\n", ", "), flush=True)


def _is_cuda(name: str) -> bool:
    """Whether it is torch that brings this, or not, as its build is."""
    return name in lock.pins(lock.LOCKS / "torch-cuda.txt")


if __name__ == "__main__":
    main()
