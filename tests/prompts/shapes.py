"""Tokenizers of the shapes that models in the wild have: small, made on the spot, with chat templates of our own.

What counts is kept: how texts are cut and joined, which added tokens are special, which take white space away, who puts
a BOS where, and what templates do with a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

CORPUS = [
    "What does this mean? Answer with one word, please.",
    "the system prompt of an assistant; user question, final answer",
    "<strong>bold</strong>\n\nA list:\n- one\n- two\n  ten 10 100",
    "Ünïcödé tëxt, 日本語 and 🙂",
] * 8  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A kind of tokenizer: how it is built, its added tokens (those in `ordinary` are not special) and its template."""

    build: Callable[[], Any]
    special: Sequence[str]
    template: str
    ordinary: Sequence[str] = ()
    bos: str | None = None
    eos: str | None = None
    adds_bos: bool = False
    takes_space: Sequence[str] = ()


def _byte_level(prefix: bool = False, ignore_merges: bool = False) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _pieces(scheme: str | None) -> Any:
    """Return a tokenizer like SentencePiece's BPE, with its way of putting a space before a text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if scheme is None:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    fallback = [AddedToken(f"<0x{byte:02X}>") for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", *fallback], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _only(tokenizer, {"<unk>"})


def _unigram() -> Any:
    """Return a tokenizer in which control tokens are pieces of the vocabulary too."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = sorted({word for line in CORPUS for word in line.split()})
    letters = sorted({letter for line in CORPUS for letter in line} | set("▁<>/[]|abcdefghijklmnopqrstuvwxyz_"))
    vocabulary = [("<unk>", 0.0), ("</s>", 0.0), ("<user>", 0.0), ("<model>", 0.0)]
    vocabulary += [(f"▁{word}", -6.0) for word in words] + [(letter, -9.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return tokenizer


def _only(tokenizer: Any, kept: set[str]) -> Any:
    """Return a tokenizer without the added tokens that its training made of the pieces for bytes."""
    import json

    from tokenizers import Tokenizer

    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in kept]
    return Tokenizer.from_str(json.dumps(content))


_TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"

SHAPES = {
    "llama 3": Shape(
        lambda: _byte_level(ignore_merges=True),
        [
            *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
            *("<|eot_id|>", "<|eom_id|>"),
        ],
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set told = messages[0].content | trim %}"
        "{% set messages = messages[1:] %}{% else %}{% set told = '' %}{% endif %}"
        "<|start_header_id|>system<|end_header_id|>\n\nToday: {{ strftime_now('%d %b %Y') }}\n\n{{ told }}<|eot_id|>"
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
        "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        bos="<|begin_of_text|>", eos="<|eot_id|>", adds_bos=True,
    ),
    "gemma 3": Shape(
        lambda: _pieces(None),
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content ~ '\n\n' %}"
        "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}<start_of_turn>"
        "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ first if loop.first else '' }}{{ m.content | trim }}"
        "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ordinary=["<strong>", "</strong>", "\n\n"], bos="<bos>", eos="<eos>", adds_bos=True,
    ),
    "qwen 3": Shape(
        _byte_level,
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        _TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}"
        "<think>\n\n</think>\n\n{% endif %}{% endif %}",
        ordinary=["<think>", "</think>", "<tool_call>", "</tool_call>", "<|fim_prefix|>"], eos="<|im_end|>",
    ),
    "mistral": Shape(
        lambda: _pieces("first"),
        ["<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"],
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
        "{% elif m.role == 'system' %}[SYSTEM_PROMPT] {{ m.content }} ({{ strftime_now('%Y-%m-%d') }})[/SYSTEM_PROMPT]"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        bos="<s>", eos="</s>", adds_bos=True,
    ),
    "phi 4": Shape(
        _byte_level,
        ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"],
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        bos="<|endoftext|>", eos="<|endoftext|>", takes_space=["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"],
    ),
    "deepseek": Shape(
        _byte_level,
        ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"],
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}"
        "<｜User｜>{{ m.content }}{% else %}<｜Assistant｜>{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}",
        ordinary=["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"],
        bos="<｜begin▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>", adds_bos=True,
    ),
    "glm 4": Shape(
        _byte_level,
        ["<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<|observation|>"],
        "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        ordinary=["<think>", "</think>"], eos="<|endoftext|>",
    ),
    "smollm 2": Shape(
        _byte_level,
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<file_sep>", "<repo_name>", "<jupyter_start>"],
        "{% if messages[0].role != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n{% endif %}" + _TURNS
        + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        bos="<|im_start|>", eos="<|im_end|>",
    ),
    "gpt-oss": Shape(
        _byte_level,
        ["<|startoftext|>", "<|return|>", "<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|call|>"],
        "<|start|>system<|message|>Date: {{ strftime_now('%Y-%m-%d') }}\nEffort: {{ reasoning_effort or 'medium' }}"
        "<|end|>{% for m in messages %}<|start|>{{ 'developer' if m.role == 'system' else m.role }}"
        "{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        bos="<|startoftext|>", eos="<|return|>",
    ),
    "exaone": Shape(
        _byte_level,
        ["<s>", "</s>", "[|endofturn|]"],
        "{% for m in messages %}[|{{ m.role }}|]{{ m.content }}{% if m.role == 'user' %}\n{% else %}[|endofturn|]\n"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}[|assistant|]{% endif %}",
        ordinary=["[|user|]", "[|assistant|]", "[|system|]"], bos="<s>", eos="[|endofturn|]",
    ),
    "gpt-2": Shape(
        _byte_level,
        ["<|endoftext|>"],
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
        ordinary=["  ", "    "], bos="<|endoftext|>", eos="<|endoftext|>",
    ),
    "pieces of a vocabulary": Shape(
        _unigram,
        ["</s>", "<user>", "<model>"],
        "{% for m in messages %}<{{ 'model' if m.role == 'assistant' else 'user' }}>{{ m.content }}{{ eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}<model>{% endif %}",
        eos="</s>",
    ),
}  # fmt: skip


def make(name: str) -> Any:
    """Return the tokenizer of a shape, as transformers loads one."""
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    shape = SHAPES[name]
    backend = shape.build()
    backend.add_special_tokens(
        [AddedToken(token, rstrip=token in shape.takes_space, normalized=False) for token in shape.special]
    )
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in shape.ordinary])
    if shape.adds_bos:
        number = backend.token_to_id(shape.bos)
        backend.post_processor = processors.TemplateProcessing(
            single=f"{shape.bos} $A", pair=f"{shape.bos} $A $B", special_tokens=[(shape.bos, number)]
        )
    load: Any = PreTrainedTokenizerFast  # untyped
    tokenizer = load(tokenizer_object=backend, bos_token=shape.bos, eos_token=shape.eos)
    tokenizer.chat_template = shape.template
    return tokenizer
