"""What an engine promises: every request is answered once, within its limits, and alike whatever is beside it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import SkipTest

from harness.interfaces import Engine, StreamingModel
from harness.prompts import find_format
from harness.testing.conformance.check import Check, quoted, require
from harness.testing.conformance.subject import Subject
from harness.types import SCORED, Choices, Completion, Continuation, Generation, Request

_QUESTIONS = (
    "Ada has 3 apples and finds 4. How many apples does Ada have now?\nAnswer:",
    "Ben has 9 coins and loses 2. How many coins does Ben have now?\nAnswer:",
    "Hello",
    "Chloe has 1 book and buys 8. How many books does Chloe have now?\nAnswer:",
    "Why?",
    "Dev has 5 eggs and drops 5. How many eggs does Dev have now?\nAnswer:",
    "\u00e9\u00fc\u4e16\u754c \U0001f600",
    "one two three four five six seven eight nine ten eleven twelve",
)
_TOKENS = 24


def it_says_whether_it_can_run(subject: Subject) -> None:
    """Asked whether it can run here, it answers None or one line with the reason."""
    reason = subject.plugin.available()
    good = reason is None or (isinstance(reason, str) and reason.strip() and "\n" not in reason)
    require(good, f"available() gives {quoted(reason)}, not None or one line")
    chat = subject.plugin.applies_chat_template
    require(isinstance(chat, bool), f"its applies_chat_template is {quoted(chat)}, not True or False")


def its_identity_is_json(subject: Subject) -> None:
    """What outputs depend on can be written as JSON, and is the same when asked again."""
    _ = subject.loaded
    first, second = (json.dumps(dict(subject.plugin.identity(subject.model_path)), sort_keys=True) for _ in range(2))
    require(first == second, f"its identity is {first}, and {second} when asked again")


def each_request_is_answered_once(subject: Subject) -> None:
    """As many completions as requests, each with the id of one of them; none where there are none."""
    require(not list(subject.loaded.generate(iter(()))), "no request is answered by a completion")
    requests = _requests(subject, max_tokens=8)
    completions = list(subject.loaded.generate(iter(requests)))
    asked, answered = sorted(request.id for request in requests), sorted(one.id for one in completions)
    require(asked == answered, f"the requests {asked} are answered by the completions {answered}")
    for one in completions:
        said = f"the completion of {one.id!r}"
        require(one.error is None, f"{said} has the error {one.error!r}")
        require(isinstance(one.text, str), f"{said} has the text {quoted(one.text)}")
        require(one.finish_reason in ("stop", "length"), f"{said} has the finish_reason {one.finish_reason!r}")
        require(one.seconds is None or one.seconds >= 0, f"{said} took {one.seconds} s")


def tokens_are_counted(subject: Subject) -> None:
    """Where tokens are counted, the prompt's are those sent, and the completion's are no more than were allowed."""
    requests = _requests(subject, max_tokens=8)
    for request, one in zip(requests, _ask(subject, requests), strict=True):
        ids = request.prompt.token_ids
        if ids is not None and one.prompt_tokens is not None:
            require(one.prompt_tokens == len(ids), f"{one.prompt_tokens} prompt tokens counted, {len(ids)} sent")
        if one.completion_tokens is not None:
            require(one.completion_tokens >= 0, f"{one.completion_tokens} tokens generated")


def max_tokens_are_kept(subject: Subject) -> None:
    """No completion has more tokens than it may, and it says ``length`` when the limit ended it."""
    _needs_generation(subject)
    for limit in (1, 5):
        for one in _ask(subject, _requests(subject, max_tokens=limit)):
            count = one.completion_tokens
            require(count is None or count <= limit, f"{count} tokens were generated, but max_tokens is {limit}")
            cut = one.finish_reason == "length" and count is not None
            require(not cut or count == limit, f"finish_reason is length after {count} tokens of {limit}")
    long = {one.id: one for one in _ask(subject, _requests(subject, max_tokens=_TOKENS))}
    for one in _ask(subject, _requests(subject, max_tokens=5)):
        cut = len(long[one.id].text) > len(one.text)
        said = f"{quoted(one.text)} of {quoted(long[one.id].text)}"
        require(not cut or one.finish_reason == "length", f"{said} has the finish_reason {one.finish_reason!r}")


def stop_strings_end_the_text(subject: Subject) -> None:
    """A completion ends before the first stop string in it, which is no part of its text."""
    _needs_generation(subject)
    requests = _requests(subject, max_tokens=_TOKENS)
    tried = 0
    for request, whole in zip(requests, _ask(subject, requests), strict=True):
        for stops in _stops(whole.text):
            [one] = _ask(subject, [_with(request, stop=stops)])
            expected = whole.text[: min(whole.text.find(stop) for stop in stops if stop in whole.text)]
            said = f"with the stop strings {stops} {quoted(whole.text)}"
            require(one.text == expected, f"{said} gives {quoted(one.text)}, not {quoted(expected)}")
            require(one.finish_reason == "stop", f"{said} has the finish_reason {one.finish_reason!r}")
            tried += 1
    if not tried:
        raise SkipTest("the model says nothing that could be stopped in; give one that does")


def greedy_text_is_the_same_in_any_batch(subject: Subject) -> None:
    """At temperature 0 a request gives the same text alone, among others, and in another order."""
    _same_in_any_batch(subject, Generation(max_tokens=_TOKENS))


def a_seed_gives_the_same_text_in_any_batch(subject: Subject) -> None:
    """When sampling, a request with a seed gives the same text alone, among others, and in another order."""
    _same_in_any_batch(subject, Generation(max_tokens=_TOKENS, temperature=1.0, top_p=0.95, seed=17))
    if subject.model is None and not _is_recording(subject):
        request = _requests(subject, max_tokens=_TOKENS)[2]
        asked = [replace(_with(request, temperature=2.0, seed=seed), id=f"seed {seed}") for seed in range(8)]
        texts = {one.text for one in _ask(subject, asked)}
        require(
            len(texts) > 1, "eight seeds at temperature 2 give one and the same text: temperature or seed is ignored"
        )


def an_overlong_prompt_is_an_error_of_its_own(subject: Subject) -> None:
    """A prompt that is longer than the context gives a completion with an error; those beside it are answered."""
    _needs_generation(subject)
    limit = _context(subject)
    first, second, *_ = _requests(subject, max_tokens=4)
    ids = first.prompt.token_ids or ()
    if limit is None or not ids:
        raise SkipTest("the model's context is not known here")
    much = (limit + 8) // len(ids) + 1
    longer = replace(
        first, id="too long", prompt=replace(first.prompt, text=first.prompt.text * much, token_ids=ids * much)
    )
    found = {one.id: one for one in _ask(subject, [first, longer, second])}
    error = found["too long"].error
    require(error and "\n" not in error, f"a prompt of {much * len(ids)} tokens for {limit} has the error {error!r}")
    for request in (first, second):
        require(found[request.id].error is None, f"the request beside it fails too: {found[request.id].error}")


def logprobs_belong_to_the_tokens(subject: Subject) -> None:
    """Log-probabilities, where given, come as a set for each token, perhaps but the end token; none is above 0."""
    _needs_generation(subject)
    found = _ask(subject, _requests(subject, max_tokens=4, logprobs=3))
    if not any(one.top_logprobs for one in found):
        raise SkipTest("it gives no log-probabilities")
    for one in found:
        count, sets = one.completion_tokens, len(one.top_logprobs)
        require(count is None or sets in (count, count - 1), f"{sets} sets of log-probabilities for {count} tokens")
        for likely in one.top_logprobs:
            require(likely and all(value <= 1e-6 for value in likely.values()), f"log-probabilities {quoted(likely)}")


def likelihoods_are_those_of_what_it_generates(subject: Subject) -> None:
    """Where it says how likely texts are, each is as likely as the tokens that it generates, in any batch."""
    _needs_generation(subject)
    if not getattr(subject.plugin, "gives_likelihoods", False):
        raise SkipTest("it does not say how likely texts are")
    tokenizer, form = subject.plugin.tokenizer(subject.model_path), find_format("plain")
    require(tokenizer is not None, "it says how likely texts are, and has no tokenizer to ask it of ids with")
    texts = Choices({"A": "3 apples", "B": "3", "C": "none at all"})
    asked = [
        replace(_with(request, max_tokens=1, logprobs=3), continuations=form.continuations(question, tokenizer, texts))
        for question, request in zip(_QUESTIONS, _requests(subject), strict=True)
    ]
    beside = _ask(subject, asked)
    alone = _ask(subject, [replace(request, generated=False) for request in asked[::-1]])[::-1]
    for request, one, other in zip(asked, beside, alone, strict=True):
        given, said = one.continuations, f"the log-probabilities {quoted(one.continuations)}"
        require(len(given) == 3 and all(value <= 1e-6 for value in given), f"{said} of three texts")
        require((other.text, other.finish_reason) == ("", SCORED), f"{quoted(other.text)} is generated unasked")
        near = all(abs(a - b) < 1e-2 for a, b in zip(given, other.continuations, strict=True))
        require(near, f"{said} are {quoted(other.continuations)} in another batch")
        _as_likely_as_generated(subject, request, one)


def _as_likely_as_generated(subject: Subject, request: Request, completion: Completion) -> None:
    """Require that a token behind the prompt is as likely as where it is generated; tokens may share a text there."""
    tokenizer, ids = subject.plugin.tokenizer(subject.model_path), request.prompt.token_ids or ()
    texts = {token: str(tokenizer.decode([token])) for token in range(5, 200)}
    tokens = [token for token, text in texts.items() if "\ufffd" not in text]
    following = tuple(Continuation("A", "", (*ids, token), len(ids)) for token in tokens)
    [found] = _ask(subject, [replace(request, continuations=following, generated=False)])
    likely = completion.top_logprobs[0] if completion.top_logprobs else {}
    for token, value in zip(tokens, found.continuations, strict=True):
        known = likely.get(texts[token], value)
        require(abs(known - value) < 1e-2, f"token {token} has the log-probability {value}, and {known} as generated")


def a_stream_gives_what_generate_gives(subject: Subject) -> None:
    """Where answers can be followed as they are made, the pieces joined are the text, and the end is the same."""
    _needs_generation(subject)
    model = subject.loaded
    if not isinstance(model, StreamingModel):
        raise SkipTest("its models have no stream()")
    requests = _requests(subject, max_tokens=_TOKENS)
    for request, whole in zip(requests, _ask(subject, requests), strict=True):
        for asked in (request, *(_with(request, stop=stops) for stops in _stops(whole.text))):
            [expected] = _ask(subject, [asked])
            pieces, end = _followed(model, asked)
            said = f"the pieces {quoted(pieces)}"
            require("".join(pieces) == end.text == expected.text, f"{said} are not the text {quoted(expected.text)}")
            same = (end.id, end.finish_reason) == (expected.id, expected.finish_reason)
            require(same, f"{said} end with {end.finish_reason!r}, generate with {expected.finish_reason!r}")
        stream = model.stream(request)
        next(stream, None)
        stream.close()


def _followed(model: StreamingModel, request: Request) -> tuple[list[str], Completion]:
    stream, pieces = model.stream(request), []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            completion = end.value
            require(isinstance(completion, Completion), f"a stream returns {quoted(completion)}, not a Completion")
            return pieces, completion


def closing_twice_is_safe(subject: Subject) -> None:
    """A model can be closed, and closed again."""
    model = subject.loaded
    subject.forget_loaded()
    model.close()
    model.close()


def _same_in_any_batch(subject: Subject, generation: Generation) -> None:
    requests = [replace(request, generation=generation) for request in _requests(subject)]
    together = {one.id: one.text for one in _ask(subject, requests)}
    turned = {one.id: one.text for one in _ask(subject, requests[::-1])}
    for request in requests:
        [alone] = _ask(subject, [request])
        one, others = alone.text, (together[request.id], turned[request.id])
        require({one} == set(others), f"{request.id!r} gives {quoted(one)} alone, and among others {quoted(others)}")


def _requests(subject: Subject, **generation: Any) -> list[Request]:
    """Return requests for the model; for recorded outputs, such as the recording has."""
    engine: Engine = subject.plugin
    settings = Generation(**generation)
    if _is_recording(subject):
        return _recorded(subject, settings)
    _ = subject.loaded
    tokenizer = engine.tokenizer(subject.model_path)
    form = find_format("plain")
    return [
        Request(f"check/{index} \u00e9", form.render(question, tokenizer), settings, index)
        for index, question in enumerate(_QUESTIONS)
    ]


def _recorded(subject: Subject, generation: Generation) -> list[Request]:
    from harness.datasets import read_rows

    rows = itertools.islice(read_rows(subject.model_path), len(_QUESTIONS))
    found = [
        Request(
            str(row.get("id", f"check/{index}")),
            find_format("plain").render(str(row.get("instruction") or row.get("prompt") or "")),
            generation,
            index,
        )
        for index, row in enumerate(rows)
    ]
    _ = subject.loaded
    return found


def _ask(subject: Subject, requests: Sequence[Request]) -> list[Completion]:
    """Return the completions in the order of the requests."""
    found = {one.id: one for one in subject.loaded.generate(iter(requests))}
    for request in requests:
        require(request.id in found, f"the request {request.id!r} is not answered")
    return [found[request.id] for request in requests]


def _with(request: Request, **changes: Any) -> Request:
    return replace(request, generation=replace(request.generation, **changes))


def _stops(text: str) -> Iterator[tuple[str, ...]]:
    """Yield stop strings that are in the text: one, and one of two."""
    middle = len(text) // 2
    for start, length in ((middle, 1), (1, 3)):
        stop = text[start : start + length]
        if stop and "\ufffd" not in text:
            yield (stop,)
            yield ("\x00 not in it", stop)


def _is_recording(subject: Subject) -> bool:
    """Whether the model is a file of recorded outputs, which are given back as they are."""
    path = Path(subject.model_path)
    return path.suffix in (".json", ".jsonl") and path.is_file()


def _needs_generation(subject: Subject) -> None:
    """Raise SkipTest where nothing is generated: no model is loaded, or one that is a recording."""
    _ = subject.loaded
    if _is_recording(subject):
        raise SkipTest("recorded outputs are given back as they are")


def _context(subject: Subject) -> int | None:
    from harness.models import find_model

    return find_model(subject.model_path).context if Path(subject.model_path).is_dir() else None


CHECKS = [
    Check(it_says_whether_it_can_run),
    Check(its_identity_is_json),
    Check(each_request_is_answered_once),
    Check(tokens_are_counted),
    Check(max_tokens_are_kept),
    Check(stop_strings_end_the_text),
    Check(greedy_text_is_the_same_in_any_batch),
    Check(a_seed_gives_the_same_text_in_any_batch),
    Check(an_overlong_prompt_is_an_error_of_its_own),
    Check(logprobs_belong_to_the_tokens),
    Check(likelihoods_are_those_of_what_it_generates),
    Check(a_stream_gives_what_generate_gives),
    Check(closing_twice_is_safe),
]
