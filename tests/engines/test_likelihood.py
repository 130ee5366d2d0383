"""How likely options are: against a plain loop in fp64, and where lm-evaluation-harness puts the border."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.engines import likelihood
from harness.engines.transformers import TransformersEngine
from harness.models import find_model
from harness.prompts import find_format
from harness.testing.tiny import make_tiny_model, word_problems
from harness.types import SCORED, Choices, Completion, Continuation, Generation, Request
from tests.engines.test_transformers import FAMILIES, save_family
from tests.prompts.shapes import SHAPES, make

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", steps=40)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("families") / request.param
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors", "*config.json"))
    shutil.copy(tiny / "tokenizer_config.json", folder)
    save_family(request.param, folder, len(find_model(str(tiny)).tokenizer))
    return folder


def border(tokenizer: Any, context: str, text: str) -> tuple[list[int], list[int]]:
    """Return the ids of context and continuation as lm-evaluation-harness has them, for models that read to the right.

    White space at the context's end goes to the continuation; the continuation's ids are those of both together behind
    as many as the context has.
    """
    space = len(context) - len(context.rstrip())
    if space:
        context, text = context[:-space], context[-space:] + text
    given = tokenizer.encode(context)
    return given, tokenizer.encode(context + text)[len(given) :]


def plain(folder: Path, given: Sequence[int], behind: Sequence[int]) -> float:
    """Return the log-probability of some ids behind others, one pass for each, in fp64."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM
    network = loaded.from_pretrained(folder, dtype=torch.float64)
    ids = torch.tensor([[*given, *behind]])
    with torch.inference_mode():
        logits = network(input_ids=ids[:, :-1], use_cache=False).logits[0].log_softmax(-1)
    return float(sum(logits[len(given) - 1 + place, token] for place, token in enumerate(behind)))


TEXTS = [
    {"A": "A", "B": "B", "C": "C"},
    {"A": "3 apples", "B": "3 apples and 4 pears", "C": "none", "D": "3"},
    {"A": "x", "B": "a rather long answer, of many tokens: 1, 2, 3, 4, 5, 6"},
    {"A": "yes", "B": "no"},
]


def requests_for(folder: Path, count: int, **more: Any) -> list[Request]:
    tokenizer, form, found = find_model(str(folder)).tokenizer, find_format("plain"), []
    for index, (question, _) in enumerate(word_problems(count, seed=3)):
        text = question * (1 + index % 3) + ["\nAnswer:", "\nAnswer: ", "\n\n"][index % 3]
        choices = Choices(TEXTS[index % len(TEXTS)], lead="It is" if index % 2 else "")
        prompt = form.render(text, tokenizer)
        continuations = form.continuations(text, tokenizer, choices)
        request = Request(f"q{index}", prompt, Generation(max_tokens=3), index, continuations=continuations)
        found.append(Request(**{**{n: getattr(request, n) for n in request.__slots__}, **more}))
    return found


def answered(model: Any, requests: Sequence[Request]) -> list[Completion]:
    found = {one.id: one for one in model.generate(iter(requests))}
    assert found.keys() == {request.id for request in requests}
    return [found[request.id] for request in requests]


def test_the_log_probabilities_are_those_of_a_plain_loop_in_whatever_batch(family: Path) -> None:
    requests = requests_for(family, 17, generated=False)
    many = answered(TransformersEngine().load(str(family)), requests)
    few = answered(TransformersEngine(batch_tokens=1).load(str(family)), requests)
    for one, other in zip(many, few, strict=True):
        assert one.text == "" and one.finish_reason == SCORED and one.error is None and one.completion_tokens == 0
        assert one.continuations == pytest.approx(other.continuations, abs=1e-4)
    for request, one in list(zip(requests, many, strict=True))[:6]:
        expected = [
            plain(family, each.token_ids[: each.start], each.token_ids[each.start :]) for each in request.continuations
        ]
        assert one.continuations == pytest.approx(expected, abs=1e-4)


def test_what_is_generated_beside_them_stays_the_same(tiny: Path) -> None:
    model = TransformersEngine().load(str(tiny))
    alone = answered(model, requests_for(tiny, 9, continuations=()))
    beside = answered(model, requests_for(tiny, 9))
    scored = answered(model, requests_for(tiny, 9, generated=False))
    assert [one.text for one in alone] == [one.text for one in beside] and any(one.text for one in alone)
    assert [one.continuations for one in beside] == [one.continuations for one in scored]
    assert all(len(one.continuations) > 1 for one in scored) and not any(one.continuations for one in alone)


def test_the_border_is_where_lm_eval_has_it(tiny: Path) -> None:
    tokenizer, form, draw = find_model(str(tiny)).tokenizer, find_format("plain"), random.Random(5)
    for question, answer in word_problems(30, seed=11):
        end = draw.choice(["\nAnswer:", "\nAnswer: ", "\n\n", " \n", ""])
        joined = answer if (question + end)[-1].isspace() else f" {answer}"
        [found] = form.continuations(question + end, tokenizer, Choices({"A": answer}))
        given, behind = border(tokenizer, question + end, joined)
        assert (*given, *behind) == found.token_ids and found.start == len(given)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_a_chat_the_border_lies_behind_the_template_and_texts_stay_texts(shape: str) -> None:
    tokenizer, form = make(shape), find_format("chat")
    if not tokenizer.chat_template:
        return
    prompt = form.render("Which?", tokenizer).token_ids or ()
    found = form.continuations("Which?", tokenizer, Choices({"A": "A", "B": "B"}, lead="It is"))
    assert len({each.token_ids[: each.start] for each in found}) == 1
    assert all(each.token_ids[: len(prompt)] == prompt for each in found)
    for each in (*found, *form.continuations("Which?", tokenizer, Choices({"A": "A", "B": "B"}))):
        behind = tokenizer.decode(list(each.token_ids[each.start :])).strip()
        assert behind == each.text or "<unk>" in behind  # a small vocabulary
    control = tokenizer.added_tokens_decoder[max(tokenizer.added_tokens_decoder)].content
    spelled = form.continuations(f"Which {control}?\n", tokenizer, Choices({"A": "A", "B": "B"}))
    rendered = form.render(f"Which {control}?\n", tokenizer).token_ids or ()
    assert all(each.token_ids[: each.start] == rendered[: each.start] for each in spelled)


def test_what_does_not_fit_is_an_error_of_its_own(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = requests_for(tiny, 5, generated=False)
    long = Continuation("A", "", (*first.continuations[0].token_ids, *[7] * 2000), first.continuations[0].start)
    spoilt = Request("long", first.prompt, first.generation, continuations=(long, long), generated=False)
    model = TransformersEngine().load(str(tiny))
    found = {one.id: one for one in model.generate([spoilt, *others])}
    assert "more than the model's context of 1024" in str(found["long"].error)
    assert all(found[one.id].error is None for one in others)
    whole = answered(model, others)

    forward, failures = likelihood.Weigher._shared, iter([True] * 2)

    def exhausted(self: Any, batch: Any, kept: int) -> Any:
        if next(failures, False):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return forward(self, batch, kept)

    monkeypatch.setattr(likelihood.Weigher, "_shared", exhausted)
    halved = answered(model, others)
    assert [one.error for one in halved] == [None] * 4
    for one, other in zip(halved, whole, strict=True):
        assert one.continuations == pytest.approx(other.continuations, abs=1e-4)
