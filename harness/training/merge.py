"""A model of an adapter folder and its base: what the two come to, as an ordinary Hugging Face folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from harness.errors import ModelError, first_line
from harness.files import read_json
from harness.models import ModelFolder, find_model, quiet
from harness.prompts import CHECKPOINT_FILE
from harness.training.model.adapters import peft_quietly

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "chat_template*", "vocab.*", "merges.txt", "added_tokens.json")


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
    folder, target = Path(adapter).expanduser(), Path(out).expanduser()
    named = _base(folder) if base is None else base
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(f"{target} is there already and not empty; give another --out")
    try:
        below = find_model(named)
    except ModelError as error:
        raise ModelError(f"{folder} lies on {named}, which cannot be read ({error}); give --base FOLDER") from error
    model = _merged(folder, below)
    aside = target.with_name(f"{target.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    with quiet():
        model.save_pretrained(aside)
    _describe(folder, below, aside)
    if target.exists():
        target.rmdir()
    aside.rename(target)
    return target


def _base(folder: Path) -> str:
    """Return the base that an adapter names; ModelError for a folder that holds no adapter that can be merged."""
    try:
        card: Any = read_json(folder / _CONFIG)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: no adapter ({_CONFIG}: {first_line(error)})") from error
    if not isinstance(card, dict) or card.get("peft_type") != "LORA":
        raise ModelError(f"{folder}: not an adapter of LoRA's kind, which alone can be merged here")
    if not (folder / _WEIGHTS).is_file():
        raise ModelError(f"{folder}: no {_WEIGHTS}; pickles are not read")
    named = card.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise ModelError(f"{folder}: {_CONFIG} names no base; give --base FOLDER")
    return named


def _merged(folder: Path, below: ModelFolder) -> Any:
    _base(folder)
    import torch

    path = below.with_weights()
    with peft_quietly():
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
    models: Any = AutoModelForCausalLM  # untyped
    try:
        with quiet():
            kept = models.from_pretrained(path, dtype="auto", trust_remote_code=False, local_files_only=True)
            dtype, lm = kept.dtype, kept.to(torch.float32)
            adapted: Any = PeftModel.from_pretrained(lm, str(folder), use_safetensors=True)
            return adapted.merge_and_unload(safe_merge=True).to(dtype)
    except Exception as error:  # both libraries raise whatever they meet
        raise ModelError(f"{folder}: cannot be merged into {below} ({first_line(error)})") from error


def _describe(folder: Path, below: ModelFolder, out: Path) -> None:
    """Put tokenizer and harness.json into `out`: the adapter's own, else those of its checkpoint, else the base's."""
    places = [folder, folder.parent, below.path]
    tokenizer = next((place for place in places if any(place.glob("tokenizer*"))), None)
    for pattern in _TOKENIZER if tokenizer is not None else ():
        for file in tokenizer.glob(pattern) if tokenizer is not None else ():
            if file.is_file():
                shutil.copy2(file, out / file.name)
    card = next((place / CHECKPOINT_FILE for place in places if (place / CHECKPOINT_FILE).is_file()), None)
    if card is not None:
        shutil.copy2(card, out / CHECKPOINT_FILE)
