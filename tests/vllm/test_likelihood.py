"""How likely options are by vLLM: the same as by the transformers engine, and generated tokens beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.engines.transformers import TransformersEngine
from harness.interfaces import Model
from harness.types import Continuation, Generation, Prompt, Request
from tests.engines.test_likelihood import answered, plain, requests_for


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


@pytest.mark.parametrize("asked", [1, 2])
def test_what_the_prefix_cache_has_is_taken_from_it_but_for_the_options(model: Model, folder: Path, asked: int) -> None:
    """The second time the cache has more than the prompt, in blocks of up to 128 tokens."""
    prompt, common, ends = tuple(range(30, 60)), tuple(range(40, 170)), ([7, 8], [9], [10, 11, 12])
    loaded: Any = model
    for starts in ([30, 30, 30], [160, 160, 160], [30, 160, 140]):
        texts = [(*prompt, *common, *end) for end in ends]
        long = tuple(
            Continuation(str(n), "", ids, start) for n, (ids, start) in enumerate(zip(texts, starts, strict=True))
        )
        request = Request("a", Prompt("", prompt), Generation(), continuations=long, generated=False)
        for _ in range(asked):
            [one] = answered(loaded, [request])
        expected = [plain(folder, each.token_ids[: each.start], each.token_ids[each.start :]) for each in long]
        assert one.continuations == pytest.approx(expected, abs=1e-3)
