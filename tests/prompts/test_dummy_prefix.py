"""Tokenizers that put a space before a text: what is learned behind a prompt is what a model writes behind it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.prompts import PromptFormat, Turns, find_format

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

WORDS = ["Ada", "has", "two", "pens", "Q", "A", ":", "[INST]", "[/INST]", "is", "it", "7", ".", "answer", "Answer"]
TEXTS = [f"{first} {second} {third}" for first in WORDS for second in WORDS[:6] for third in WORDS[6:9]]
SPECIAL = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
BYTES = [f"<0x{number:02X}>" for number in range(256)]

CONTROL_TOKENS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' </s>' }}{% endif %}{% endfor %}"
)


def bpe(normalizer: Any, pre_tokenizer: Any, *, bytes_: bool = True) -> Any:
    """Return a BPE trained on words that a space stands before, written ▁ unless bytes are in letters of their own."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=bytes_, fuse_unk=True))
    made.normalizer, made.pre_tokenizer = normalizer, pre_tokenizer
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=600, special_tokens=[*SPECIAL, *BYTES], show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    return made


def prefixed(marks: str) -> Any:
    n = tokenizers.normalizers
    before = [n.Prepend("▁")] if marks == "prepend" else []
    made = bpe(n.Sequence([*before, n.Replace(" ", "▁")]), None)
    d = tokenizers.decoders
    strip = [d.Strip(" ", 1, 0)] if before else []
    made.decoder = d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse(), *strip])
    return made


def metaspace(scheme: str, *, unigram: bool = False) -> Any:
    pre = tokenizers.pre_tokenizers.Metaspace(prepend_scheme=scheme, split=unigram)
    if unigram:
        made = tokenizers.Tokenizer(tokenizers.models.Unigram())
        made.pre_tokenizer = pre
        trainer = tokenizers.trainers.UnigramTrainer(
            vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        )
        made.train_from_iterator(TEXTS, trainer)
    else:
        made = bpe(None, pre)
    made.decoder = tokenizers.decoders.Metaspace(prepend_scheme=scheme)
    return made


def byte_level(space: bool) -> Any:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=space)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(TEXTS, trainer)
    return made


SHAPES: dict[str, Callable[[], Any]] = {
    "Llama 2, legacy": lambda: prefixed("prepend"),
    "Llama 2": lambda: metaspace("first"),
    "Mistral, always": lambda: metaspace("always"),
    "T5": lambda: metaspace("always", unigram=True),
    "Gemma": lambda: prefixed("none"),
    "OPT with a space": lambda: byte_level(True),
    "GPT-2": lambda: byte_level(False),
}


@cache
def tokenizer_of(shape: str, template: str | None = None) -> Any:
    make: Any = transformers.PreTrainedTokenizerFast
    made = make(
        tokenizer_object=SHAPES[shape](), bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>",
        additional_special_tokens=SPECIAL[3:], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    made.chat_template = template
    return made


def words(least: int = 1) -> st.SearchStrategy[str]:
    """Words with one space or two between them, and at times one at an end."""
    spaces = st.sampled_from([" ", "  "])
    pieces = st.lists(st.tuples(st.sampled_from(WORDS), spaces), min_size=least, max_size=4)
    joined = pieces.map(lambda found: "".join(word + space for word, space in found))
    return st.tuples(joined, st.sampled_from(["", " "])).map(lambda both: both[1] + both[0].rstrip() + both[1])


def read(tokenizer: Any, ids: Any) -> str:
    """Return the text of ids behind a word: of a first token some decoders drop the spaces in its middle too."""
    text: str = tokenizer.decode([*tokenizer.encode("Q", add_special_tokens=False), *ids], skip_special_tokens=False)
    return text


@pytest.mark.parametrize("shape", SHAPES)
@given(prompt=words(), border=st.sampled_from(["", " ", ":", ": "]), response=words())
@example(prompt="Q", border=": ", response="Ada has two pens")
@example(prompt="Q", border="", response="Ada")
@example(prompt="Ada", border="", response=" : ")
@settings(max_examples=40, deadline=None)
def test_a_response_has_the_spaces_that_it_has(shape: str, prompt: str, border: str, response: str) -> None:
    tokenizer, form = tokenizer_of(shape), PromptFormat("own", "{instruction}{response}")
    instruction = prompt.strip() + border
    sent = form.render(instruction, tokenizer).token_ids or ()
    made = form.document(instruction, response, tokenizer)
    assert made.token_ids[: made.prompt_tokens] == sent and made.token_ids[-1] == tokenizer.eos_token_id
    whole = tokenizer.encode(instruction + response, add_special_tokens=False)
    assert read(tokenizer, made.token_ids[:-1]) == read(tokenizer, whole)


@pytest.mark.parametrize("template", [CONTROL_TOKENS, LLAMA_2], ids=["control tokens", "Llama 2"])
@pytest.mark.parametrize("shape", SHAPES)
@given(instruction=words(), response=words().map(str.strip))
@settings(max_examples=25, deadline=None)
def test_so_has_one_in_a_chat(shape: str, template: str, instruction: str, response: str) -> None:
    """What the template writes of the conversation, encoded whole, is what the pieces come to."""
    tokenizer, form = tokenizer_of(shape, template), find_format("chat")
    [made] = form.documents([Turns(instruction, response)], tokenizer)
    sent = form.render(instruction, tokenizer).token_ids or ()
    assert made.token_ids[: made.prompt_tokens] == sent
    whole = tokenizer.encode(made.text, add_special_tokens=False)
    assert read(tokenizer, made.token_ids).removesuffix("</s>") == read(tokenizer, whole).removesuffix("</s>")
    if made.joined:
        assert list(made.token_ids[: len(whole)]) == whole
