"""Make the tiny model that recipes/tiny.toml trains: ``python recipes/tiny_model.py FOLDER TRAIN.jsonl...``.

A Llama with random weights, and a tokenizer that has seen the files' texts and so has a token for each digit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness.testing.tiny import make_tiny_model


def main(folder: str, *files: str) -> None:
    """Write the model to `folder`."""
    rows = [json.loads(line) for file in files for line in Path(file).read_text(encoding="utf-8").splitlines()]
    make_tiny_model(folder, texts=[row["prompt"] + row["response"] for row in rows], vocab_size=400)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
