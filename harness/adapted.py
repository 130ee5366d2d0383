"""Models that are an adapter on a base: how such a folder is recognised, and what the two come to, merged.

An adapter is a folder in peft's format: ``adapter_config.json``, which names the base, and
``adapter_model.safetensors``.
"""

from __future__ import annotations

import json
import logging
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, ModelError, first_line
from harness.files import cache_root, check_values, make_folder, open_read, read_json

#: The name of the folder of an adapter in a checkpoint.
ADAPTER = "adapter"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_FETCHER = "kernels"  # the package that fetches compiled code
_TOKENIZER = (
    "tokenizer*", "special_tokens_map.json", "chat_template*", "vocab.*", "merges.txt", "added_tokens.json", "*.model",
)  # fmt: skip
#: Kinds that are no change of the base's weights.
_NOT_MERGED = {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT"}
_LONGEST_HEADER = 100 << 20


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model; some tools put the base's config.json beside one."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return False
    beside = (folder / ADAPTER_WEIGHTS).is_file() and not any(folder.glob("model*.safetensors"))
    return beside or not (folder / "config.json").is_file()


def adapter_card(folder: Path) -> Mapping[str, Any]:
    """Return what adapter_config.json says; ModelError for a kind of adapter that cannot be merged into its base."""
    try:
        card: Any = read_json(folder / ADAPTER_CONFIG, links=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: no adapter ({ADAPTER_CONFIG}: {first_line(error)})") from error
    kind = card.get("peft_type") if isinstance(card, dict) else None
    if not isinstance(kind, str):
        raise ModelError(f"{folder}: {ADAPTER_CONFIG} names no peft_type; copy the adapter anew")
    if kind in _NOT_MERGED:
        raise ModelError(
            f"{folder}: an adapter of the kind {kind}, which cannot be merged into a model; take one of LoRA's"
        )
    if card.get("task_type") not in (None, "CAUSAL_LM"):
        raise ModelError(f"{folder}: an adapter for {str(card['task_type'])[:40]}, which writes no text")
    return dict(card)


def adapter_base(folder: Path) -> str:
    """Return the base that an adapter names, with its revision; ModelError where it names none."""
    card = adapter_card(folder)
    named, revision = card.get("base_model_name_or_path"), card.get("revision")
    if not isinstance(named, str) or not named:
        raise ModelError(f"{folder}: {ADAPTER_CONFIG} names no base (base_model_name_or_path); give --base FOLDER")
    return f"{named}@{revision}" if isinstance(revision, str) and revision and not Path(named).exists() else named


def belonging(folder: Path, base: Path, *patterns: str) -> list[Path]:
    """Return the files of these patterns that belong to an adapter.

    They are its own, else those of the checkpoint that it lies in (as ``adapter/``), else the base's.
    """
    for place in (folder, *([folder.parent] if folder.absolute().name == ADAPTER else []), base):
        found = [path for pattern in patterns for path in sorted(place.glob(pattern)) if path.is_file()]
        if found:
            return found
    return []


def describe(folder: Path, base: Path, out: Path, *, card: str) -> None:
    """Put into `out` the tokenizer's files and the file `card` that belong to an adapter, where there are any."""
    for file in (*belonging(folder, base, *_TOKENIZER), *belonging(folder, base, card)):
        shutil.copyfile(file, out / file.name)


def described(folder: Path, base: Path, key: str, *, card: str) -> Path:
    """Return a folder in the cache with all of the model `key` but its weights: an adapter's and its base's files."""

    def fill(out: Path) -> None:
        config = dict(read_json(base / "config.json", links=True))
        if (rows := embeddings_of(folder)) is not None:
            text = config.get("text_config")
            (text if isinstance(text, dict) else config).update(vocab_size=rows)
        (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if (generation := base / "generation_config.json").is_file():
            shutil.copyfile(generation, out / generation.name)
        describe(folder, base, out, card=card)

    return _kept(f"{key}.described", fill)


def whole(folder: Path, base: Path, key: str, *, card: str) -> Path:
    """Return a folder in the cache with the model `key`, merged by the first that asks; ModelError as `merged`."""

    def fill(out: Path) -> None:
        merged(folder, base).save_pretrained(out)
        describe(folder, base, out, card=card)

    return _kept(key, fill)


def _kept(name: str, fill: Callable[[Path], None]) -> Path:
    path = cache_root() / "merged" / name
    try:
        if not path.is_dir():
            make_folder(path, fill)
    except OSError as error:
        raise ModelError(
            f"{path}: the merged model cannot be kept there ({error.strerror or error}); make room, or set "
            "HARNESS_CACHE to another folder"
        ) from error
    return path


def embeddings_of(folder: Path) -> int | None:
    """Return the number of token embeddings that an adapter brings, None where it leaves the base's as they are."""
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        return None
    try:
        with open_read(path, links=True) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            content = file.read(min(length, _LONGEST_HEADER))
            check_values(content)
            header = json.loads(content)
        shapes = {name: entry.get("shape") for name, entry in header.items() if name != "__metadata__"}
        names = [name for name in shapes if name.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight"))]
        return int(shapes[names[0]][0]) if names else None
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
        RecursionError,
        struct.error,
    ) as error:
        raise ModelError(f"{path}: cannot be read ({first_line(error)}); copy the adapter anew") from error


def merged(folder: Path, base: Path) -> Any:
    """Return the model that an adapter makes of the base in the folder `base`, in the base's dtype.

    Sums are computed in fp32 and rounded once. Raises ModelError for an adapter that does not fit the base, ConfigError
    where peft is not installed.
    """
    adapter_card(folder)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelError(f"{folder}: no {ADAPTER_WEIGHTS}; pickles are not read")
    if read_json(base / "config.json", links=True).get("quantization_config") is not None:
        raise ModelError(
            f"{folder}: its base {base} holds weights in few bits, into which nothing can be merged; give the model "
            "that it was made of: harness merge ADAPTER --base MODEL --out FOLDER"
        )
    import torch

    with peft_quietly():
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
    models: Any = AutoModelForCausalLM  # untyped
    try:
        kept = models.from_pretrained(
            base, dtype="auto", trust_remote_code=False, local_files_only=True, use_safetensors=True
        )
        dtype, lm = kept.dtype, kept.to(torch.float32)
        if (rows := embeddings_of(folder)) is not None:
            lm.resize_token_embeddings(rows, mean_resizing=False)
        adapted: Any = PeftModel.from_pretrained(lm, str(folder), use_safetensors=True)
        return adapted.merge_and_unload(safe_merge=True).to(dtype)
    except Exception as error:  # both libraries raise whatever they meet
        raise ModelError(f"{folder}: cannot be merged into {base} ({first_line(error)})") from error


@contextmanager
def peft_quietly() -> Iterator[None]:
    """Have what imports peft inside fetch nothing; raise ConfigError where it is not installed."""
    try:
        with nothing_fetched():
            yield
    except ImportError as error:
        raise ConfigError("adapters need peft: pip install 'posttrain-harness[lora]'") from error


@contextmanager
def nothing_fetched() -> Iterator[None]:
    """Keep bitsandbytes, which peft imports too, from fetching compiled code from the hub and running it on a CPU."""
    before = sys.modules.get(_FETCHER)
    sys.modules[_FETCHER] = None  # type: ignore[assignment]
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it would warn of that
    try:
        yield
    finally:
        if before is None:
            del sys.modules[_FETCHER]
        else:
            sys.modules[_FETCHER] = before
