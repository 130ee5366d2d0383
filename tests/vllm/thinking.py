"""A tiny chat model that thinks before it answers, with tokens of their own around its thoughts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.testing import tiny
from harness.testing.tiny import word_problems

#: What stands in a prompt whose answer is to come at once: an empty thought, as in Qwen's without thinking.
EMPTY = "<think>\n\n</think>\n\n"
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% if enable_thinking is defined and not enable_thinking %}"
    + EMPTY
    + "{% endif %}{% endif %}"
)


def conversations(count: int) -> list[tuple[str, str]]:
    """Return prompts, of which every third ends in an empty thought, and what is to be said to them."""
    found = []
    for number, (question, answer) in enumerate(word_problems(count)):
        working, _, result = answer.partition("\n#### ")
        empty = number % 3 == 0
        thought = "" if empty else f"<think>\n{working}\n</think>\n\n"
        found.append((f"user: {question}\nassistant: {EMPTY if empty else ''}", f"{thought}It is {result}."))
    return found


def make_thinking_model(folder: Path, steps: int = 500) -> Path:
    """Write the model, in fp32, that has learnt to think, to answer and to stop."""
    pairs = conversations(1500)
    plain = [(asked + said).replace("<think>", "").replace("</think>", "") for asked, said in pairs]
    tiny.make_tiny_model(folder, texts=plain, chat_template=TEMPLATE)
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    load: Any = AutoTokenizer  # untyped
    tokenizer = load.from_pretrained(folder)
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=False)
    network: Any = LlamaForCausalLM.from_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the new rows are drawn
        network.resize_token_embeddings(len(tokenizer))
    rows = [
        [*tokenizer.encode(asked), *tokenizer.encode(said, add_special_tokens=False), tokenizer.eos_token_id]
        for asked, said in pairs
    ]
    tiny._train(network, rows, steps, 16, 5e-3, 0)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
