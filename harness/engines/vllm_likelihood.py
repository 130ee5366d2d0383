"""How likely continuations are by vLLM: what it is asked, and what its answers say.

Continuations of one token each, behind the same ids, are one request: one token is sampled there, and the
log-probabilities of theirs are told with it. A longer one is read as a prompt. By itself vLLM reads a prompt whose
tokens' log-probabilities are wanted as a whole, as it has none of those in its prefix cache; those of the continuation
alone are wanted here, so it takes the prompt itself from there (vLLM 0.25, 0.32).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from harness.types import Continuation

#: Tokens whose log-probabilities one request may ask for (vLLM 0.25).
_MOST = 128


class Part(NamedTuple):
    """A request to vLLM: ids, and which continuations it answers; `tokens` are weighed behind the ids.

    Without `tokens` the ids are a continuation's own, which begins at `start`.
    """

    ids: tuple[int, ...]
    numbers: tuple[int, ...]
    tokens: tuple[int, ...] = ()
    start: int = 0


def parts(continuations: Sequence[Continuation], *, apart: bool) -> Iterator[Part]:
    """Yield what to ask for the log-probabilities of continuations; with `apart` a request for each."""
    together: dict[tuple[int, ...], list[int]] = {}
    for number, each in enumerate(continuations):
        if len(each.token_ids) - each.start > 1:
            yield Part(each.token_ids, (number,), start=each.start)
        else:
            together.setdefault(each.token_ids[:-1], []).append(number)
    most = 1 if apart else _MOST
    for ids, numbers in together.items():
        for first in range(0, len(numbers), most):
            some = tuple(numbers[first : first + most])
            yield Part(ids, some, tuple(continuations[number].token_ids[-1] for number in some))


def sampling(part: Part, *, apart: bool, cached: bool = True) -> Any:
    """Return how to have a part's log-probabilities, `apart` as for `parts`, with use of the prefix cache or without.

    vLLM's first model runner mixes requests for the log-probabilities of certain tokens up with those for the likeliest
    (0.25), so that where both are asked a token is sampled with no other to choose from.
    """
    return _sampling(part.tokens, apart, cached)


@lru_cache(maxsize=256)
def _sampling(tokens: tuple[int, ...], apart: bool, cached: bool) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    asked: dict[str, Any]
    if not tokens:
        asked = {"prompt_logprobs": 0, "flat_logprobs": True, "skip_reading_prefix_cache": not cached}
    elif apart:
        asked = {"logprobs": 1, "allowed_token_ids": list(tokens)}
    else:
        asked = {"logprob_token_ids": list(dict.fromkeys(tokens))}
    final = RequestOutputKind.FINAL_ONLY
    return SamplingParams(max_tokens=1, temperature=0, detokenize=False, output_kind=final, **asked)


def logprobs(part: Part, output: Any) -> list[float] | None:
    """Return the log-probabilities of the continuations that a part asks for, in its order, from vLLM's output.

    None where vLLM took more than the prompt from its cache: then it is to be asked again, without that.
    """
    if part.tokens:
        found = output.outputs[0].logprobs[0]
        return [float(found[token].logprob) for token in part.tokens]
    if (output.num_cached_tokens or 0) >= part.start:
        return None
    places, count = output.prompt_logprobs, len(part.ids) - part.start
    return [sum(float(places[place][part.ids[place]].logprob) for place in range(-count, 0))]
