"""A tiny chat model that thinks before it answers, with tokens of their own around its thoughts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.testing import tiny
from harness.testing.tiny import word_problems

#: With ``enable_thinking = false`` the prompt has an empty thought, as Qwen's has.
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def conversations(count: int) -> list[tuple[str, str]]:
    """Return questions, with an answer behind a thought or, where an empty one stands in the prompt, without."""
    found = []
    for number, (question, answer) in enumerate(word_problems(count)):
        asked = f"user: {question}\nassistant: "
        working, _, result = answer.partition("\n#### ")
        thought = "\n\n" if number % 3 == 0 else f"\n{working}\n"
        found.append((asked, f"<think>{thought}</think>\n\nIt is {result}."))
    return found


def make_thinking_model(folder: Path, steps: int = 500) -> Path:
    """Write the model, in fp32, that has learnt to think, to answer and to stop."""
    texts = ["".join(pair) for pair in conversations(1500)]
    plain = [text.replace("<think>", "").replace("</think>", "") for text in texts]
    tiny.make_tiny_model(folder, texts=plain, chat_template=TEMPLATE)
    from transformers import AutoTokenizer, LlamaForCausalLM

    load: Any = AutoTokenizer  # untyped
    tokenizer = load.from_pretrained(folder)
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=False)
    network: Any = LlamaForCausalLM.from_pretrained(folder)
    network.resize_token_embeddings(len(tokenizer))
    rows = [[*tokenizer.encode(text), tokenizer.eos_token_id] for text in texts]
    tiny._train(network, rows, steps, 16, 5e-3, 0)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
