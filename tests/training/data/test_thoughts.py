"""Responses with thoughts, in the shapes of templates that reasoning models have: learned as these write them, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import DataError
from harness.models import find_model
from harness.prompts import FormatOptions, PromptFormat, Turns, find_format
from harness.testing.tiny import make_tiny_model
from harness.training.data.texts import read_texts
from harness.training.data.tokens import fitting, tokenize
from tests.training.data.test_texts import written

_QWEN_TURNS = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% set content = m.content %}"
    "{% if m.role == 'assistant' %}{% set thought = '' %}"
    "{% if m.reasoning_content is string %}{% set thought = m.reasoning_content %}"
    "{% elif '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
)
_QWEN_END = "{% else %}{{ content }}{% endif %}<|im_end|>\n{% endfor %}"

#: Thoughts of the last answer alone; an empty block where thinking is switched off, in the prompt too.
QWEN_3 = (
    _QWEN_TURNS
    + "{% if loop.index0 > ns.last and (loop.last or thought) %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n"
    "{{ content.lstrip('\n') }}{% else %}{{ content }}{% endif %}"
    + _QWEN_END
    + "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
#: The prompt begins the thoughts, or closes them where thinking is switched off.
QWEN_3_5 = (
    _QWEN_TURNS + "{% if loop.index0 > ns.last %}<think>\n{{ thought | trim }}\n</think>\n\n{{ content | trim }}"
    "{% else %}{{ content }}{% endif %}" + _QWEN_END + "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% else %}<think>\n"
    "{% endif %}{% endif %}"
)
GLM_4 = (
    "[gMASK]<sop>{% for m in messages %}{% if m.role == 'user' %}<|user|>\n{{ m.content }}"
    "{% if enable_thinking is defined and not enable_thinking %}/nothink{% endif %}"
    "{% elif m.role == 'assistant' %}<|assistant|>{% set thought = '' %}{% set content = m.content %}"
    "{% if m.reasoning_content is string %}{% set thought = m.reasoning_content %}"
    "{% elif '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.last and thought %}{{ '\n<think>' + thought.strip() + '</think>' }}"
    "{% else %}{{ '\n<think></think>' }}{% endif %}"
    "{% if content.strip() %}{{ '\n' + content.strip() }}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '\n<think></think>' }}{% endif %}{% endif %}"
)
DEEPSEEK_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% else %}"
    "{% set content = m.content %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}"
    "{% endif %}<|Assistant|>{{ content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
#: Of DeepSeek V3.1: the block is closed where nothing is thought.
DEEPSEEK_V3_1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% else %}"
    "{% set content = m.content %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>', 1)[1] %}{% endif %}<|Assistant|></think>{{ content }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>{% if thinking %}<think>{% else %}</think>{% endif %}{% endif %}"
)
GPT_OSS = (
    "<|start|>system<|message|>Reasoning: medium<|end|>"
    "{% for m in messages %}{% if m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>"
    "{% elif m.role == 'assistant' %}"
    "{% if '<|channel|>analysis' in m.content %}{{ raise_exception('thoughts go into thinking') }}{% endif %}"
    "{% if loop.last and not add_generation_prompt %}{% if m.thinking %}"
    "<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|return|>{% else %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)

THOUGHT, ANSWER, EOS = "The sky is grey.", "It rains.", "<|end_of_text|>"
ASKED = {"role": "user", "content": "Is it wet?"}
APART = {"role": "assistant", "content": ANSWER, "reasoning_content": THOUGHT}
WITHIN = {"role": "assistant", "content": f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"}
PLAIN = {"role": "assistant", "content": ANSWER}

#: Template, arguments → what the prompt ends in, and what is learned of a thought with its answer.
THINKS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "Qwen 3": (QWEN_3, {}, "<|im_start|>assistant\n", f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}<|im_end|>"),
    "Qwen 3.5": (QWEN_3_5, {}, "<|im_start|>assistant\n<think>\n", f"{THOUGHT}\n</think>\n\n{ANSWER}<|im_end|>"),
    "GLM 4": (GLM_4, {}, "<|assistant|>", f"\n<think>{THOUGHT}</think>\n{ANSWER}"),
    "DeepSeek R1": (DEEPSEEK_R1, {}, "<|Assistant|><think>\n", f"{THOUGHT}\n</think>\n\n{ANSWER}"),
    "gpt-oss": (
        GPT_OSS, {}, "<|start|>assistant",
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}<|return|>",
    ),
}  # fmt: skip
#: The same of an answer without a thought.
SAYS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "Qwen 3": (QWEN_3, {}, "<|im_start|>assistant\n", f"<think>\n\n</think>\n\n{ANSWER}<|im_end|>"),
    "Qwen 3, off": (
        QWEN_3, {"enable_thinking": False}, "assistant\n<think>\n\n</think>\n\n", f"{ANSWER}<|im_end|>"
    ),
    "Qwen 3.5, off": (
        QWEN_3_5, {"enable_thinking": False}, "assistant\n<think>\n\n</think>\n\n", f"{ANSWER}<|im_end|>"
    ),
    "GLM 4": (GLM_4, {}, "<|assistant|>", f"\n<think></think>\n{ANSWER}"),
    "GLM 4, off": (GLM_4, {"enable_thinking": False}, "<|assistant|>\n<think></think>", f"\n{ANSWER}"),
    "DeepSeek V3.1": (DEEPSEEK_V3_1, {}, "<|Assistant|></think>", ANSWER),
    "gpt-oss": (GPT_OSS, {}, "<|start|>assistant", f"<|channel|>final<|message|>{ANSWER}<|return|>"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), chat_template=QWEN_3)


def chat(folder: Path, template: str, arguments: dict[str, Any]) -> tuple[PromptFormat, Any]:
    tokenizer: Any = find_model(str(folder)).tokenizer
    tokenizer.chat_template = template
    return PromptFormat("chat", None, options=FormatOptions(arguments=arguments)), tokenizer


def learned(path: Path, form: PromptFormat, tokenizer: Any, **options: Any) -> tuple[str, str]:
    """Return what is read and what is learned of the only text of a file, the closing end token left out."""
    tokens = tokenize(read_texts([path], fits=fitting(form, tokenizer), **options), form, tokenizer)
    ids, mask = tokens.document(0), tokens.learned(0, int(tokens.offsets[1]))
    return tokenizer.decode(ids[~mask]), tokenizer.decode(ids[mask]).removesuffix(EOS)


@pytest.mark.parametrize("answer", [APART, WITHIN], ids=["apart", "within"])
@pytest.mark.parametrize("shape", THINKS)
def test_a_thought_is_learned_once_as_the_template_writes_it(
    folder: Path, tmp_path: Path, shape: str, answer: dict[str, str]
) -> None:
    template, arguments, begun, expected = THINKS[shape]
    form, tokenizer = chat(folder, template, arguments)
    read, taught = learned(written(tmp_path / "a.jsonl", [{"messages": [ASKED, answer]}]), form, tokenizer)
    assert read.endswith(begun) and taught == expected
    assert (read + taught).count(THOUGHT) == 1 and (read + taught).count("<think>") <= 1
    assert read == tokenizer.decode(form.render(ASKED["content"], tokenizer).token_ids), "as at generation"


@pytest.mark.parametrize("shape", SAYS)
def test_an_answer_without_a_thought_has_the_block_that_the_template_writes(
    folder: Path, tmp_path: Path, shape: str
) -> None:
    template, arguments, begun, expected = SAYS[shape]
    form, tokenizer = chat(folder, template, arguments)
    read, taught = learned(written(tmp_path / "a.jsonl", [{"messages": [ASKED, PLAIN]}]), form, tokenizer)
    assert read.endswith(begun) and taught == expected
    assert (read + taught).count("<think>") <= 1 and (read + taught).count(ANSWER) == 1


@pytest.mark.parametrize("shape", ["Qwen 3", "GLM 4", "DeepSeek R1", "gpt-oss"])
def test_earlier_thoughts_are_read_as_the_template_leaves_them(folder: Path, tmp_path: Path, shape: str) -> None:
    template, arguments, _, expected = THINKS[shape]
    form, tokenizer = chat(folder, template, arguments)
    before = {"role": "assistant", "content": "<think>\nWho asks?\n</think>\n\nYes."}
    for earlier in (before, {"role": "assistant", "content": "Yes.", "reasoning_content": "Who asks?"}):
        row = {"messages": [ASKED, earlier, ASKED, APART]}
        read, taught = learned(written(tmp_path / "a.jsonl", [row]), form, tokenizer)
        assert taught == expected and "Who asks?" not in read and read.count("Yes.") == 1


def test_where_thoughts_have_no_place_it_is_said(folder: Path, tmp_path: Path) -> None:
    """DeepSeek V3.1 closes the block in its prompt; with thinking on, it begins one."""
    path = written(tmp_path / "a.jsonl", [{"messages": [ASKED, APART]}])
    with pytest.raises(DataError, match="a.jsonl:1: the chat template has no place for the response's thoughts"):
        learned(path, *chat(folder, DEEPSEEK_V3_1, {}))
    read, taught = learned(path, *chat(folder, DEEPSEEK_V3_1, {"thinking": True}))
    assert read.endswith("<|Assistant|><think>") and taught.startswith(f"{THOUGHT}\n</think>")
    path = written(tmp_path / "b.jsonl", [{"messages": [ASKED, PLAIN]}])
    with pytest.raises(DataError, match="b.jsonl:1: the chat template begins thoughts, and the response has none"):
        learned(path, *chat(folder, DEEPSEEK_R1, {}))


def test_thoughts_in_a_format_of_one_turn_are_those_of_the_response() -> None:
    form = find_format("alpaca_sft")
    assert form.fault(Turns("q", "<think>\nhm\n</think>\n\na"), None) is None  # type: ignore[arg-type]
    assert json.dumps(form.card())
