"""Tiny real models for tests, demonstrations and plugin authors: made on the spot, on a CPU, without a network.

A tiny model is an ordinary Hugging Face folder, so that whatever loads it takes the same path as with a large one::

    folder = make_tiny_model(tmp_path / "model")                    # random weights, under a second
    folder = make_tiny_model(tmp_path / "model", steps=1000)        # answers `word_problems`, some 10 seconds
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.models import quiet

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|pad|>"

_PEOPLE = ("Ada", "Ben", "Chloe", "Dev", "Emil", "Fatima", "Grace", "Hugo", "Ines", "Jonas", "Kemi", "Lin")
_THINGS = ("apples", "books", "coins", "eggs", "kites", "marbles", "pears", "pencils", "shells", "stamps")
_GAINS = ("finds", "buys", "is given", "wins")
_LOSSES = ("loses", "sells", "gives away", "drops")


def word_problems(count: int, *, seed: int = 0) -> list[tuple[str, str]]:
    """Return `count` pairs of a question and its worked answer, in GSM8K's format (the answer ends in ``#### N``).

    Each adds or subtracts two numbers from 1 to 9, with a result of 0 or more. Questions may repeat; the same seed
    gives the same list, and a longer list begins with a shorter one.
    """
    draw = random.Random(seed)
    problems = []
    for _ in range(count):
        person, thing = draw.choice(_PEOPLE), draw.choice(_THINGS)
        first, second = draw.randint(1, 9), draw.randint(1, 9)
        if draw.random() < 0.5:
            verb, sign, result = draw.choice(_GAINS), "+", first + second
        else:
            first, second = max(first, second), min(first, second)
            verb, sign, result = draw.choice(_LOSSES), "-", first - second
        problems.append(
            (
                f"{person} has {first} {thing} and {verb} {second}. How many {thing} does {person} have now?",
                f"{person} has {first} {sign} {second} = {result} now.\n#### {result}",
            )
        )
    return problems


def make_tiny_model(
    folder: str | Path,
    *,
    texts: Sequence[str] | None = None,
    steps: int = 0,
    seed: int = 0,
    batch_size: int = 16,
    learning_rate: float = 5e-3,
    chat_template: str | None = None,
    bos: bool = True,
    vocab_size: int = 512,
    layers: int = 2,
    hidden: int = 64,
    context: int = 1024,
) -> Path:
    """Write a tiny Llama with its own tokenizer to `folder` and return it; an existing model there is overwritten.

    The tokenizer is a byte-level BPE trained on `texts` (any text can be encoded and comes back exactly), with
    ``<|begin_of_text|>`` put in front as Llama 3's does unless `bos` is false, and distinct end and padding tokens.
    The model has grouped-query attention and fp32 weights as safetensors; its generation_config.json names the end
    token.

    Arguments:
        texts: what the tokenizer, and with `steps` the model, learns; by default 2,000 `word_problems`, each as
            ``{question}\\nAnswer: {answer}``.
        steps: steps of AdamW on rows of BOS + text + EOS, the loss on every token; 0 leaves the weights random.
            1,000 steps of the default teach it to answer ``{question}\\nAnswer:`` with the worked answer and to
            stop. The same arguments give the same weights on the same machine.
        seed: of the weights and of the order of the texts.
        batch_size: rows a step.
        learning_rate: the peak of a linear warm-up over a tenth of the steps and decay to 0.
        chat_template: a Jinja chat template to save with the tokenizer.
        vocab_size: entries of the vocabulary, at least 259 (all bytes and three special tokens).
        layers: depth.
        hidden: width, a multiple of 32. Heads have 32 dimensions, vLLM's least on a CPU.
        context: positions, prompt and completion together.

    Raises ValueError for a size that does not fit or a text longer than the context.
    """
    if vocab_size < 259:
        raise ValueError(f"vocab_size must be at least 259 (256 bytes and 3 special tokens), not {vocab_size}")
    if texts is not None and not texts:
        raise ValueError("texts must not be empty")
    if hidden < 32 or hidden % 32:
        raise ValueError(f"hidden must be a multiple of 32, not {hidden}")
    if texts is None:
        texts = [f"{question}\nAnswer: {answer}" for question, answer in word_problems(2000, seed=seed)]
    tokenizer = _tokenizer(texts, vocab_size, context, bos)
    tokenizer.chat_template = chat_template
    model = _random_llama(tokenizer, layers, hidden, context, seed)
    if steps:
        rows = [[*tokenizer.encode(text), tokenizer.eos_token_id] for text in texts]
        if max(map(len, rows)) > context:
            raise ValueError(f"a text has {max(map(len, rows))} tokens, but the context is {context}")
        _train(model, rows, steps, batch_size, learning_rate, seed)
    folder = Path(folder)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(texts: Sequence[str], vocab_size: int, context: int, bos: bool) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of at most `vocab_size` entries, trained on `texts`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = [*([BOS] if bos else []), EOS, PAD]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    if bos:
        bpe.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(
                    single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bpe.token_to_id(BOS))]
                ),
            ]
        )
    make: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast  # its constructor is untyped
    return make(
        tokenizer_object=bpe,
        bos_token=BOS if bos else None,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def _random_llama(
    tokenizer: PreTrainedTokenizerFast, layers: int, hidden: int, context: int, seed: int
) -> LlamaForCausalLM:
    """Return a Llama with random fp32 weights for `tokenizer`, whose heads have 32 dimensions."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = hidden // 16
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=32,
        max_position_embeddings=context,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def _train(
    model: LlamaForCausalLM, rows: list[list[int]], steps: int, batch_size: int, learning_rate: float, seed: int
) -> None:
    """Train on one thread: no slower at this size, unharmed by a busy machine, and sums in one order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _take_steps(model, rows, steps, batch_size, learning_rate, seed)
    finally:
        torch.set_num_threads(threads)


def _take_steps(
    model: LlamaForCausalLM, rows: list[list[int]], steps: int, batch_size: int, learning_rate: float, seed: int
) -> None:
    """Train `model` for `steps` steps on `rows` of token ids, each a row of its own, and leave it in eval mode."""
    import torch

    warmup = max(1, steps // 10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / (steps - warmup + 1))
    )
    network: Any = model  # its methods are untyped
    network.train()
    batches = _batches(rows, batch_size, seed)
    for _ in range(steps):
        ids, mask = _padded(next(batches))
        logits = network(input_ids=ids, attention_mask=mask).logits[:, :-1]
        labels = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    network.eval()


def _batches(rows: list[list[int]], batch_size: int, seed: int) -> Iterator[list[list[int]]]:
    """Yield batches for ever: each epoch every row once, in an order of its own."""
    draw = random.Random(seed)
    queue: list[list[int]] = []
    while True:
        while len(queue) < batch_size:
            queue.extend(draw.sample(rows, len(rows)))
        yield queue[:batch_size]
        del queue[:batch_size]


def _padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and attention mask, both [rows, longest], padded on the right with an id that the mask hides."""
    import torch

    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask
