"""How likely options are by vLLM: the same as by the transformers engine, and generated tokens beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.engines.transformers import TransformersEngine
from harness.interfaces import Model
from tests.engines.test_likelihood import answered, requests_for


@pytest.mark.parametrize("generated", [False, True])
def test_options_are_as_likely_as_by_transformers(model: Model, folder: Path, generated: bool) -> None:
    loaded: Any = model
    requests = [
        each
        for each in (replace(one, generated=generated) for one in requests_for(folder, 24))
        if max(len(asked.token_ids) for asked in each.continuations) < 250
    ]
    expected = answered(TransformersEngine().load(str(folder)), requests)
    for one, other in zip(answered(loaded, requests), expected, strict=True):
        assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
        assert one.continuations == pytest.approx(other.continuations, abs=1e-3)
