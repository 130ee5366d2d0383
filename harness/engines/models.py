"""Model folders, as every local engine sees them: where they lie, their tokenizer, end tokens, context and identity.

A model is named by a folder, or by its name on the Hugging Face hub: ``org/name``, or ``org/name@revision`` to pin one.
Nothing that comes with a model is executed: weights are read from safetensors only, never from pickles, and code in a
model's folder (``trust_remote_code``) is refused. Each failure is one line with the remedy.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ModelError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: What is fetched from the hub: descriptions and tokenizer first, weights only when they are needed.
_DESCRIPTIONS = ("*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt", "*.codes", "*.spm")
_WEIGHTS = ("*.safetensors",)

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_TOKENIZERS = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json", "*.spm")

#: Files of a model folder that outputs do not depend on, though their suffix is one of those that are digested.
_NO_INFLUENCE = re.compile(
    r"(harness|trainer_state|all_results|\w+_results|training_args)\.json|(readme|licen[cs]e|notice|requirements)\b.*",
    re.IGNORECASE,
)
_SMALL = 8 << 20  # files below this size are digested whole
_PIECES = 256  # of the larger ones that many evenly spaced pieces,
_PIECE = 4096  # of that many bytes each

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(@[\w./-]+)?")


def model_folder(model: str, *, weights: bool = True) -> Path:
    """Return the folder of `model`: a path as it stands, or a hub name's snapshot in huggingface_hub's cache.

    With `weights` false nothing large is downloaded, and a folder without weights will do. The hub is asked once in a
    process, so that all callers see the same revision; without a network the cached snapshot is used.

    Raises ModelError for a folder that does not exist, has no config.json or no safetensors weights (a pickle is never
    loaded), or lacks a shard of them, and for a name that neither the hub nor the cache knows.
    """
    folder = Path(model).expanduser()
    if not folder.exists():
        if not _HUB_NAME.fullmatch(model):
            raise ModelError(f"{model}: no such folder; give a model folder or a name on the Hugging Face hub")
        folder = _hub_folder(model, weights)
    if not folder.is_dir():
        raise ModelError(f"{model}: not a folder; give the folder that holds config.json and the weights")
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        remedy = "an adapter: merge it into its base model first" if adapter else "not a Hugging Face model folder"
        raise ModelError(f"{model}: no config.json, so it is {remedy}")
    if weights:
        _check_weights(model, folder)
    return folder


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of `model`, loaded quietly and without executing any code of its folder.

    Raises ModelError if there is none, it cannot be read, or transformers is not installed.
    """
    folder = model_folder(model, weights=False)
    if not any(found for pattern in _TOKENIZERS for found in folder.glob(pattern)):
        raise ModelError(f"{model}: no tokenizer (tokenizer.json or tokenizer.model); copy it from the base model")
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ModelError("transformers is not installed: pip install 'posttrain-harness[transformers]'") from error
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the library raises whatever its parsers raise: OSError, KeyError, plain Exception
        raise ModelError(f"{model}: the tokenizer cannot be loaded ({first_line(error)}); copy it anew") from error
    if not len(tokenizer):
        raise ModelError(f"{model}: the tokenizer's vocabulary is empty; copy it from the base model")
    return tokenizer


def stop_token_ids(model: str, tokenizer: Any) -> tuple[int, ...]:
    """Return, sorted, the ids of the tokens that end a completion.

    They are the tokenizer's EOS and those that generation_config.json and config.json name: chat models often end a
    turn with another token than the tokenizer's EOS, and name it in one of these files only.
    """
    folder = model_folder(model, weights=False)
    ids: set[int] = set()
    if tokenizer.eos_token_id is not None:
        ids.add(int(tokenizer.eos_token_id))
    for name in ("generation_config.json", "config.json"):
        config = _read_json(model, folder / name)
        for part in (config, _text_config(config)):
            given = part.get("eos_token_id")
            ids.update(int(one) for one in (given if isinstance(given, list) else [given]) if one is not None)
    return tuple(sorted(ids))


def context_length(model: str) -> int | None:
    """Return the number of tokens that `model` can attend to, prompt and completion together.

    None stands for a model that names no limit. Rotary scaling that lengthens the context counts as vLLM counts it:
    `factor` times the original length for YaRN, linear and dynamic scaling; Llama 3's and LongRoPE's configurations
    already give the full length.
    """
    config = _text_config(_read_json(model, model_folder(model, weights=False) / "config.json"))
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", "max_sequence_length")
    given = [int(config[name]) for name in names if isinstance(config.get(name), int)]
    if not given:
        return None
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "yarn":
        original = scaling.get("original_max_position_embeddings", given[0])
        return max(given[0], int(original * scaling.get("factor", 1)))
    if kind in ("linear", "dynamic") and "gemma3" not in str(config.get("model_type")):  # Gemma 3 gives the full length
        return int(given[0] * scaling.get("factor", 1))
    return given[0]


def check_vocabulary(model: str, largest: int) -> None:
    """Raise ModelError where `model` has no embedding of the token id `largest`, which its tokenizer gives."""
    size = _text_config(_read_json(model, model_folder(model, weights=False) / "config.json")).get("vocab_size")
    if isinstance(size, int) and largest >= size:
        raise ModelError(
            f"{model}: the data has token {largest} of its tokenizer, but its embeddings are {size:,}; "
            "resize them first (model.resize_token_embeddings)"
        )


def model_digest(model: str) -> str:
    """Return a sha256, in hex, that identifies what a model's outputs depend on: weights, configuration and tokenizer.

    Of a folder it covers the names and sizes of the files that a loader reads, the whole content of those below 8 MiB,
    and of larger ones 256 evenly spaced pieces of 4 KiB from the first byte to the last: a step of training changes
    nearly all weights and so is always seen, in well under a second for 16 GB; an edit by hand of single weights may
    not be. READMEs, logs, optimizer states, pickles, subfolders and the harness's own record do not count. A hub model
    is identified by its name and commit, so that nothing is downloaded for it.
    """
    folder = model_folder(model, weights=False)
    digest = hashlib.sha256()
    if not Path(model).expanduser().exists():
        digest.update(f"{model.partition('@')[0]}@{folder.name}".encode())  # a snapshot's folder is named by its commit
        return digest.hexdigest()
    suffixes = {pattern[1:] for pattern in (*_DESCRIPTIONS, *_WEIGHTS)}
    for path in sorted(folder.iterdir()):
        if path.suffix not in suffixes or path.name.startswith(".") or _NO_INFLUENCE.fullmatch(path.name):
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if size < _SMALL:
                digest.update(file.read())
                continue
            for piece in range(_PIECES):
                file.seek(piece * (size - _PIECE) // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    return digest.hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' warnings and progress bars off the screen; errors are still raised."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging  # its functions are untyped
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _check_weights(model: str, folder: Path) -> None:
    """Raise ModelError unless all weights lie in `folder` as safetensors."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(_read_json(model, index).get("weight_map", {}).values()))
        missing = [shard for shard in shards if not (folder / str(shard)).is_file()]
        if missing:
            raise ModelError(
                f"{model}: {len(missing)} of {len(shards)} weight files are missing; copy {missing[0]} there"
            )
    if any(folder.glob("*.safetensors")):
        return
    if any(found for pattern in _PICKLES for found in folder.glob(pattern)):
        raise ModelError(
            f"{model}: its weights are a pickle, which can run code when read; if you trust them, convert them once: "
            f'python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained({model!r}).save_pretrained('CONVERTED')\", then copy the tokenizer's files there"
        )
    raise ModelError(f"{model}: no weights (*.safetensors) in {folder}")


def _hub_folder(name: str, weights: bool) -> Path:
    """Return the snapshot of a hub model, downloading what is not in the cache."""
    repository, _, revision = name.partition("@")
    folder = _snapshot(repository, revision or None, _DESCRIPTIONS)
    return _snapshot(repository, folder.name, _WEIGHTS) if weights else folder


@functools.cache
def _snapshot(repository: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise ModelError(
            f"{repository}: no such folder, and huggingface_hub is not installed to look for it on the hub: "
            f"pip install 'posttrain-harness[transformers]'"
        ) from error
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except GatedRepoError as error:  # a kind of RepositoryNotFoundError
        raise ModelError(
            f"{repository}: gated on the Hugging Face hub; ask for access on its page, then run: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{repository}: no such folder, and no such model on the Hugging Face hub (or a private one: hf auth login)"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{repository}: has no revision {revision!r} on the Hugging Face hub") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{repository}: no such folder here, the Hugging Face hub cannot be reached and nothing is cached; "
            f"give the model's folder, or run where there is a network: hf download {repository}"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"{repository}: the Hugging Face hub failed ({first_line(error)}); try again") from error


def _read_json(model: str, path: Path) -> Mapping[str, Any]:
    """Return the object in a JSON file, empty if there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{model}: {path.name} cannot be read ({first_line(error)}); copy it anew") from error
    if not isinstance(content, dict):
        raise ModelError(f"{model}: {path.name} is not a JSON object; copy it anew")
    return content


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a configuration that describes the language model of one that also sees or hears."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config
