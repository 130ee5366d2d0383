"""torchao for the tests, from a folder of its own in their environment, where `locks/install.py` puts it.

transformers imports torchao wherever it is installed, which takes every command seconds and lets it say things.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TORCHAO = Path(sys.prefix, "float8")

needs_torchao = pytest.mark.skipif(not TORCHAO.is_dir() and find_spec("torchao") is None, reason="no torchao here")
