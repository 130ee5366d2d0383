"""A model of an adapter folder and its base: what the two come to, as an ordinary Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from harness.adapted import adapter_base, adapter_card, describe, merged
from harness.errors import ModelError
from harness.files import expanded, make_folder
from harness.models import find_model, quiet
from harness.prompts import CHECKPOINT_FILE


def merge_adapter(adapter: str | Path, out: str | Path, *, base: str | None = None) -> Path:
    """Write the model that an adapter makes of its base to the folder `out`, and return that.

    Arguments:
        adapter: a folder in peft's format, such as ``ckpt/best/adapter``. Tokenizer and harness.json are taken from it,
            else from the checkpoint that it lies in, else from the base.
        out: a folder that does not exist yet or is empty.
        base: the model below it, where that is not at the place that the adapter names.

    Sums are computed in fp32 and rounded once to the base's dtype. Raises ModelError for what is no adapter of LoRA's
    kind or does not fit the base, ConfigError where peft is not installed.
    """
    folder, target = expanded(adapter), expanded(out)
    adapter_card(folder)
    named = adapter_base(folder) if base is None else base
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(f"{target} is there already and not empty; give another --out")
    try:
        below = find_model(named)
    except ModelError as error:
        raise ModelError(f"{folder} lies on {named}, which cannot be read ({error}); give --base FOLDER") from error
    with quiet():
        model = merged(folder, below.with_weights())

    def fill(aside: Path) -> None:
        with quiet():
            model.save_pretrained(aside)
        describe(folder, below.path, aside, card=CHECKPOINT_FILE)

    try:
        if target.exists():
            target.rmdir()
        made = make_folder(target, fill)
    except OSError as error:
        raise ModelError(f"{target}: cannot be written ({error.strerror or error}); give another --out") from error
    if not made:
        raise ModelError(f"{target} is there already; give another --out")
    return target
