"""Comparing figures."""

from __future__ import annotations

from typing import Any

import pytest


def near(value: Any, **tolerance: float) -> Any:
    """Compare to 1e-9, or to the tolerance given."""
    return pytest.approx(value, **(tolerance or {"abs": 1e-9, "rel": 0.0}))  # type: ignore[arg-type]
