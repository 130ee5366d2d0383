"""What vLLM is asked where likelihoods are wanted, and what is made of its answers; by a stand-in for the library.

With the library itself: tests/vllm/test_likelihood.py.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from harness.engines.vllm_replica import Finished, Submitted, _StepLoop
from harness.types import SCORED, Continuation, Generation


@dataclass
class Engine:
    """A model that finds token t of 100 the likelier the greater it is, whatever stands before it."""

    waiting: list[tuple[str, list[int], Any]] = field(default_factory=list)
    refused: str = ""
    cached: int = 2  # tokens of the prompts that its cache has
    vllm_config: Any = field(default_factory=lambda: SimpleNamespace(model_config=SimpleNamespace(max_model_len=50)))

    def add_request(self, name: str, ids: list[int], sampling: Any) -> None:
        if name == self.refused:
            raise ValueError("not this one")
        self.waiting.append((name, ids, sampling))

    def abort_request(self, names: Sequence[str]) -> None:
        self.waiting = [each for each in self.waiting if each[0] not in names]

    def step(self) -> list[Any]:
        """Answer the last that came."""
        name, ids, asked = self.waiting.pop()
        [token] = getattr(asked, "allowed_token_ids", [99])
        weighed = getattr(asked, "logprob_token_ids", [99, token] if getattr(asked, "logprobs", None) else None)
        top = weighed and [{each: entry(each) for each in weighed}]
        cached = self.cached if getattr(asked, "skip_reading_prefix_cache", None) is False else 0
        read = getattr(asked, "prompt_logprobs", None) is not None
        places = [None, *({each: entry(each)} for each in ids[1 + cached :])] if read else None
        said = SimpleNamespace(token_ids=[token], finish_reason="length", stop_reason=None, text="", logprobs=top)
        found = {"outputs": [said], "prompt_logprobs": places, "num_cached_tokens": cached}
        return [SimpleNamespace(request_id=name, finished=True, **found)]


def entry(token: int) -> Any:
    return SimpleNamespace(logprob=math.log((token + 1) / 5050), rank=100 - token)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    class Refused(Exception):
        pass

    names: dict[str, dict[str, Any]] = {
        "vllm": {"SamplingParams": lambda **given: SimpleNamespace(**given)},
        "vllm.sampling_params": {"RequestOutputKind": SimpleNamespace(FINAL_ONLY=0, CUMULATIVE=1)},
        "vllm.exceptions": {"VLLMValidationError": Refused},
        "vllm.inputs": {"tokens_input": lambda ids: ids},
    }
    for name, content in names.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return Engine()


WORDS: Any = SimpleNamespace(
    text=lambda prompt, ids: f"said {ids}" if ids else "",
    closing=lambda prompt, ids: [40, 41] if 99 in ids else [],
    thoughts=lambda prompt, ids: len(ids) - 1 if 41 in ids else 0,
)
OF_ONE = tuple(Continuation(letter, letter, (1, 2, 3, token), 3) for letter, token in zip("AB", (7, 8), strict=True))
LONGER = (Continuation("A", "A", (1, 2, 3, 7, 9), 3), Continuation("B", "B", (1, 2, 3, 8), 3))


def drained(loop: _StepLoop, engine: Engine) -> dict[int, Finished]:
    found: dict[int, Finished] = {}
    while engine.waiting:
        found |= {news.key: news for news in loop.step() if isinstance(news, Finished)}
    return found


def test_options_of_one_token_are_one_request_and_others_one_each(engine: Engine) -> None:
    loop = _StepLoop(engine, (0,), WORDS)
    words = Generation(max_tokens=1)
    assert loop.add(Submitted(1, (1, 2, 3), words, False, OF_ONE, False)) is None
    assert loop.add(Submitted(2, (1, 2, 3), words, False, LONGER)) is None
    assert loop.add(Submitted(3, (1, 2, 3), words)) is None
    asked = {name: (ids, vars(sampling)) for name, ids, sampling in engine.waiting}
    assert [*asked] == ["1/0", "2", "2/0", "2/1", "3"]
    assert asked["1/0"][0] == [1, 2, 3] and asked["1/0"][1]["logprob_token_ids"] == [7, 8]
    assert asked["2/0"][0] == [1, 2, 3, 7, 9] and asked["2/0"][1]["prompt_logprobs"] == 0
    found = drained(loop, engine)
    assert found.keys() == {1, 2, 3}
    assert (found[1].text, found[1].finish_reason, found[1].completion_tokens) == ("", SCORED, 0)
    assert found[1].continuations == (entry(7).logprob, entry(8).logprob)
    assert found[2].text == "said [99]" and found[2].finish_reason == "length"
    assert found[2].continuations == (entry(7).logprob + entry(9).logprob, entry(8).logprob)
    assert found[3].continuations == () and found[3].error is None


def test_many_options_are_as_many_requests_as_vllm_takes_tokens(engine: Engine) -> None:
    loop = _StepLoop(engine, (0,), WORDS)
    many = tuple(Continuation(str(token), "", (1, 2, token % 99), 2) for token in range(300))
    loop.add(Submitted(1, (1, 2), Generation(), False, many, False))
    assert [len(asked.logprob_token_ids) for _, _, asked in engine.waiting] == [99, 99, 44]
    assert drained(loop, engine)[1].continuations == tuple(entry(token % 99).logprob for token in range(300))


def test_beside_the_likeliest_tokens_each_option_is_sampled_alone(engine: Engine) -> None:
    loop = _StepLoop(engine, (0,), WORDS)
    words = Generation(max_tokens=1, logprobs=1)
    loop.add(Submitted(1, (1, 2, 3), words, False, OF_ONE, False))
    assert [name for name, _, _ in engine.waiting] == ["1/0"]  # nothing is generated there
    loop.abort()
    loop._words = SimpleNamespace(**vars(WORDS), table=lambda position, count: {})  # type: ignore[assignment]
    loop.add(Submitted(1, (1, 2, 3), words, False, OF_ONE))
    assert [getattr(asked, "allowed_token_ids", None) for _, _, asked in engine.waiting] == [None, [7], [8]]
    assert drained(loop, engine)[1].continuations == (entry(7).logprob, entry(8).logprob)


def test_what_the_prefix_cache_has_of_an_option_is_asked_for_without_it(engine: Engine) -> None:
    loop = _StepLoop(engine, (0,), WORDS)
    engine.cached = 4
    long = (Continuation("A", "A", (1, 2, 3, 7, 9, 11), 3), Continuation("B", "B", (1, 2, 3, 8, 4, 5, 6), 5))
    loop.add(Submitted(1, (1, 2, 3), Generation(), False, long, False))
    assert list(loop.step()) == [] and len(engine.waiting) == 1  # of B the cache has the prompt's alone
    assert list(loop.step()) == [] and engine.waiting[0][2].skip_reading_prefix_cache
    [end] = loop.step()
    expected = [sum(entry(token).logprob for token in each.token_ids[each.start :]) for each in long]
    assert isinstance(end, Finished) and list(end.continuations) == pytest.approx(expected)


def test_what_is_refused_or_aborted_leaves_nothing_behind(engine: Engine) -> None:
    engine.refused = "1/0"
    loop = _StepLoop(engine, (0,), WORDS)
    refused = loop.add(Submitted(1, (1, 2, 3), Generation(), False, OF_ONE))
    assert refused is not None and refused.error == "vLLM refuses the request: ValueError: not this one"
    assert engine.waiting == []
    loop.add(Submitted(2, (1, 2, 3), Generation(), False, LONGER))
    loop.abort()
    assert engine.waiting == []


def test_a_thought_that_takes_too_long_is_closed_and_the_rest_asked_for(engine: Engine) -> None:
    loop = _StepLoop(engine, (0,), WORDS)
    assert loop.add(Submitted(1, (1, 2, 3), Generation(max_tokens=9, thinking_tokens=1))) is None
    [(_, _, first)] = engine.waiting
    assert first.max_tokens == 1 and list(loop.step()) == []
    [(name, ids, rest)] = engine.waiting
    assert (name, ids, rest.max_tokens) == ("1", [1, 2, 3, 99, 40, 41], 6)
    [end] = loop.step()
    assert isinstance(end, Finished) and (end.text, end.completion_tokens) == ("said [99, 40, 41, 99]", 4)
    assert (end.thought_tokens, end.finish_reason) == (3, "length")
