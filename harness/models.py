"""Model folders, as engines and trainings see them: where they lie, their tokenizer, end tokens, context and identity.

A model is named by a folder, or by its name on the Hugging Face hub: ``org/name``, or ``org/name@revision`` to pin one.
Nothing that comes with a model is executed: weights are read from safetensors or GGUF, never from pickles, and code in
a model's folder (``trust_remote_code``) is refused. Each failure is one line with the remedy.

    >>> find_model("ckpt/").context  # doctest: +SKIP
    8192
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import limits
from harness.adapted import adapter_base, described, is_adapter, whole
from harness.downloads import model_files, repository_of
from harness.errors import ModelError, first_line
from harness.files import check_values, expanded, open_read, read_json, sampled

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: What is fetched from the hub: descriptions and tokenizer first, weights only when they are needed.
_DESCRIPTIONS = ("*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt", "*.codes", "*.spm")
_WEIGHTS = ("*.safetensors",)

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_TOKENIZERS = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json", "*.spm")

#: How settings are called that say how many parts a network is built of, one by one.
_PARTS = re.compile(r"(layers?|blocks?|experts?|codebooks?)$")

#: Suffixes of files that the libraries read as a whole, and those files that hold vocabularies.
_BOUNDED = (".json", ".jinja", ".model")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "tekken.json")

#: Files of a model folder that outputs do not depend on, though their suffix is one of those that are digested.
_NO_INFLUENCE = re.compile(
    r"(harness|trainer_state|all_results|\w+_results|training_args)\.json|(readme|licen[cs]e|notice|requirements)\b.*",
    re.IGNORECASE,
)
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
_CARD = "harness.json"
_INDEX = "model.safetensors.index.json"

#: Adapters that lie on each other, each of which may name itself as its base.
_ADAPTERS = 4

_HUB_NAME = re.compile(r"(?!.*(\.\.|--))[\w-][\w.-]*(/[\w-][\w.-]*)?(@[\w./-]+)?")


def find_model(model: str, adapters: int = 0) -> ModelFolder:
    """Return the folder of `model`: a path, or a hub name's snapshot in huggingface_hub's cache.

    Nothing large is downloaded, and a folder without weights will do. The hub is asked once in a process, so that all
    callers see the same revision; without a network the cached snapshot is used. While the files of a folder are as
    they were it is the same object, so that each of them is read once, whoever asks.

    A GGUF file, or a folder that has one and no config.json, is a model too, which transformers alone loads. So many
    `adapters` have led here, each by naming its base.

    Raises ModelError for a folder that does not exist or has no config.json, and for a name that neither the hub nor
    the cache knows.
    """
    folder = expanded(model)
    try:
        given = folder.exists()
    except OSError as error:  # a name longer than names can be, for one
        raise ModelError(f"{model[:80]}: {error.strerror}; give a model folder") from error
    if (file := _gguf(model, folder)) is not None:
        return _known(model, file.parent, True, file.parent.absolute(), _state([file]), file.name)
    if not given:
        if not _HUB_NAME.fullmatch(model):
            raise ModelError(f"{model}: no such folder; give a model folder or a name on the Hugging Face hub")
        folder = model_files(*repository_of(model), _DESCRIPTIONS, limits.DOWNLOAD.value)
    if not folder.is_dir():
        raise ModelError(f"{model}: not a folder; give the folder that holds config.json and the weights")
    state = _state(path for path in sorted(folder.iterdir()) if path.exists())
    if is_adapter(folder):
        if adapters == _ADAPTERS:
            raise ModelError(f"{model}: one of more than {_ADAPTERS} adapters on each other, perhaps without an end")
        return _on_base(model, folder, given, state, adapters)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{model}: no config.json, so it is not a Hugging Face model folder")
    return _known(model, folder, given, folder.absolute(), state)


def _on_base(model: str, folder: Path, given: bool, state: tuple[Any, ...], adapters: int) -> ModelFolder:
    """Return the model that the adapter in `folder` makes of its base."""
    named = adapter_base(folder)
    try:
        base = find_model(named, adapters + 1)
    except ModelError as error:
        raise ModelError(
            f"{model}: an adapter on {named}, which cannot be read ({error}); put the base there, or merge it "
            "with another: harness merge ADAPTER --base MODEL --out FOLDER"
        ) from error
    return _known(model, folder, given, folder.absolute(), state, None, base)


def _state(files: Iterable[Path]) -> tuple[Any, ...]:
    """Return what changes when one of the files does."""
    stats = ((path.name, path.stat()) for path in files)
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats)


@functools.lru_cache(maxsize=4)
def _known(
    model: str, folder: Path, given: bool, place: Path, state: tuple[Any, ...], gguf: str | None = None,
    base: ModelFolder | None = None,
) -> ModelFolder:  # fmt: skip
    """Return the one object for a folder in this `place` whose files are in this state."""
    if base is None:
        return ModelFolder(model, folder, given, gguf)
    adapter = ModelFolder(model, folder, given)
    key = hashlib.sha256(f"{adapter.digest} on {base.digest}".encode()).hexdigest()
    return ModelFolder(model, described(folder, base.path, key, card=_CARD), True, None, OnBase(adapter, base, key))


def _gguf(model: str, path: Path) -> Path | None:
    """Return the GGUF file that a path names, by itself or as the only one of its folder; None where it names none.

    Raises ModelError, with how to serve it, for one that cannot be loaded here.
    """
    found = [path] if path.suffix.lower() == ".gguf" and path.is_file() else []
    if not found and path.is_dir() and not (path / "config.json").is_file():
        found = sorted(path.glob("*.gguf"))
    if not found:
        return None
    if _SHARD.search(found[0].name):
        raise ModelError(f"{model}: GGUF in several files, which transformers does not load; {_serving(found[0])}")
    if len(found) > 1:
        named = ", ".join(file.name for file in found[:3])
        raise ModelError(f"{model}: {len(found)} GGUF files ({named}); give one of them: --model {found[0]}")
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f"{model}: GGUF, which needs a library: pip install gguf; or {_serving(found[0])}")
    return found[0]


def _serving(file: Path) -> str:
    return (
        f"serve it (llama-server -m {file} --port 8080) and ask the server: "
        "--engine openai --set openai.base_url=http://127.0.0.1:8080/v1"
    )


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """A folder with a model's configuration, tokenizer and weights; each is read when it is first asked for.

    Attributes:
        name: the model as it was named.
        path: the folder.
        given: whether `name` is this folder, rather than a model on the hub.
        gguf: the name of the GGUF file that holds everything, where it is such a model.
        on_base: where it is an adapter, that and its base; the folder is one in the cache then.
    """

    name: str
    path: Path
    given: bool = True
    gguf: str | None = None
    on_base: OnBase | None = None

    def __str__(self) -> str:
        return self.name

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """What config.json says; ModelError where it would have code fetched from the hub, or parts without an end."""
        config = self._json("config.json") if self.gguf is None else dict(self.transformers_config.to_dict())
        for name, value in _settings(config):
            if _PARTS.search(name) and isinstance(value, int | float) and value > limits.PARTS.value:
                most = f"models have at most {limits.PARTS.told} of such ({limits.PARTS})"
                raise ModelError(f"{self}: config.json gives {name} as {value:,}, and {most}; copy it anew")
            if ("attn_impl" in name or "experts_impl" in name) and _names_a_repository(value):
                raise ModelError(
                    f"{self}: config.json asks for code of the hub ({name}: {str(value)[:80]!r}), which is not run; "
                    "delete that line"
                )
        return config

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The part of `config` that describes the language model, of one that also sees or hears."""
        return _text_part(self.config)

    @cached_property
    def transformers_config(self) -> Any:
        """The same as transformers has it, with what its type of model adds to the file; treat it as read-only.

        Raises ModelError for a type of model that transformers does not know or that needs code of its own.
        """
        from transformers import AutoConfig

        self.check_sizes()
        try:
            return AutoConfig.from_pretrained(
                self.path, trust_remote_code=False, local_files_only=True, **self.gguf_file
            )
        except Exception as error:  # the library raises whatever its parsers raise: ValueError, OSError, KeyError
            said, remedy = first_line(error), "give another model"
            if self.gguf is not None:
                remedy = _serving(self.path / self.gguf)
            what = self.gguf or "config.json"
            raise ModelError(f"{self}: {what} cannot be used ({said}); {remedy}") from error

    @property
    def gguf_file(self) -> dict[str, str]:
        """What transformers is told, beside the folder, to read all from a GGUF file; nothing for other models."""
        return {} if self.gguf is None else {"gguf_file": self.gguf}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded quietly and without executing any code of the folder.

        Its `taught_end` is the id of the token that ends what a training learns: its EOS, or where the model's files
        name others and not that, the first of them. All of these are `stop_ids`, and other tools stop at the named.
        Raises ModelError if there is none, it cannot be read, or transformers is not installed.
        """
        if self.gguf is None and not any(found for pattern in _TOKENIZERS for found in self.path.glob(pattern)):
            raise ModelError(f"{self}: no tokenizer (tokenizer.json or tokenizer.model); copy it from the base model")
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise ModelError("transformers is not installed: pip install 'posttrain-harness[transformers]'") from error
        self.check_sizes()
        try:
            with quiet():
                tokenizer = AutoTokenizer.from_pretrained(
                    self.path, trust_remote_code=False, local_files_only=True, **self.gguf_file
                )
                tokenizer.encode("a")  # what its files say of lengths and tokens is not looked at before
        except Exception as error:  # the library raises whatever its parsers raise: OSError, KeyError, plain Exception
            _ = self.transformers_config  # which AutoTokenizer reads, too: what is wrong with it is told as such
            raise ModelError(f"{self}: the tokenizer cannot be loaded ({first_line(error)}); copy it anew") from error
        if not len(tokenizer):
            raise ModelError(f"{self}: the tokenizer's vocabulary is empty; copy it from the base model")
        tokenizer.clean_up_tokenization_spaces = False  # Llama 3 asks for it: text would lose spaces, or a warning come
        own, named = tokenizer.eos_token_id, [each for each in self._named_ends if 0 <= each < len(tokenizer)]
        tokenizer.taught_end = named[0] if named and own not in named else own
        return tokenizer

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids of the tokens that end a completion, sorted.

        They are the tokenizer's EOS and those that generation_config.json and config.json name: chat models often end a
        turn with another token than the tokenizer's EOS, and name it in one of these files only.
        """
        end: Any = self.tokenizer.eos_token_id
        return tuple(sorted({*self._named_ends, *([] if end is None else [int(end)])}))

    @cached_property
    def _named_ends(self) -> list[int]:
        """The ids of end tokens that generation_config.json and config.json name, in their order."""
        ids = list[int]()
        for config in (self._json("generation_config.json"), self.config):
            for part in (config, _text_part(config)):
                given = part.get("eos_token_id")
                for one in given if isinstance(given, list) else [given]:
                    if type(one) is int:
                        ids.append(one)
                    elif one is not None:
                        raise ModelError(f"{self}: eos_token_id {str(one)[:80]!r} is no token's number; mend the file")
        return ids

    @cached_property
    def context(self) -> int | None:
        """The number of tokens that the model can attend to, prompt and completion together.

        None stands for a model that names no limit. Rotary scaling that lengthens the context counts as vLLM counts it:
        `factor` times the original length for YaRN, linear and dynamic scaling; Llama 3's and LongRoPE's configurations
        already give the full length.
        """
        config = self.text_config
        names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", "max_sequence_length")
        given = [int(config[name]) for name in names if isinstance(config.get(name), int)]
        if not given:
            return None
        try:
            return _scaled(given[0], config)
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"{self}: config.json scales the context by no number ({error}); copy it anew") from error

    @cached_property
    def digest(self) -> str:
        """A sha256, in hex, that identifies what outputs depend on: weights, configuration and tokenizer.

        Of a folder it covers the names and sizes of the files that a loader reads, the whole content of those below 8
        MiB, and of larger ones 256 evenly spaced pieces of 4 KiB from the first byte to the last: a step of training
        changes nearly all weights and so is always seen, in well under a second for 16 GB; an edit by hand of single
        weights may not be. READMEs, logs, optimizer states, pickles, subfolders and the harness's own record do not
        count. A hub model is identified by its name and commit, so that nothing is downloaded for it; an adapter by
        both that it consists of.
        """
        if self.on_base is not None:
            return self.on_base.digest
        digest = hashlib.sha256()
        if not self.given:
            name = self.name.partition("@")[0]
            digest.update(f"{name}@{self.path.name}".encode())  # a snapshot's folder is named by its commit
            return digest.hexdigest()
        for path in self._read_by_loaders():
            try:
                digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
                for content in sampled(path):
                    digest.update(content)
            except OSError as error:
                raise ModelError(f"{self}: {path.name} cannot be read ({error.strerror}); copy it anew") from error
        return digest.hexdigest()

    @property
    def identity(self) -> dict[str, str]:
        """What records say of a model: its digest, and of an adapter also its base's name and the digests of both."""
        if (parts := self.on_base) is None:
            return {"model_digest": self.digest}
        digests = {"adapter_digest": parts.adapter.digest, "base_digest": parts.base.digest}
        return {"model_digest": self.digest, "base_model": parts.base.name, **digests}

    def _read_by_loaders(self) -> list[Path]:
        if self.gguf is not None:
            return [self.path / self.gguf]
        suffixes = {pattern[1:] for pattern in (*_DESCRIPTIONS, *_WEIGHTS)}
        return [
            path
            for path in sorted(self.path.iterdir())
            if path.suffix in suffixes and not path.name.startswith(".") and not _NO_INFLUENCE.fullmatch(path.name)
        ]

    def with_weights(self) -> Path:
        """Return the folder with all weights in it; those of a hub model are downloaded.

        Those of an adapter are merged into its base's once, and kept in the cache. Raises ModelError where there are no
        safetensors weights (a pickle is never loaded), or a shard is missing, and for a GGUF file, whose weights are of
        another form.
        """
        if self.on_base is not None:
            return self.on_base.merged()
        if self.gguf is not None:
            file = self.path / self.gguf
            raise ModelError(f"{self}: GGUF is loaded by --engine transformers alone; or {_serving(file)}")
        _ = self.config  # is checked before anything loads it
        self.check_sizes()
        if not self.given:
            model_files(repository_of(self.name)[0], self.path.name, _WEIGHTS)
        if (self.path / _INDEX).is_file():
            named = self._json(_INDEX).get("weight_map", {})
            shards = sorted({str(shard) for shard in named.values()}) if isinstance(named, dict) else []
            if outside := [shard for shard in shards if Path(shard).name != shard]:
                raise ModelError(
                    f"{self}: {_INDEX} names {outside[0][:80]!r}, which is no file beside it; copy it anew"
                )
            there = {path.name for path in self.path.iterdir() if path.is_file()}
            if missing := [shard for shard in shards if shard not in there]:
                raise ModelError(
                    f"{self}: {len(missing)} of {len(shards)} weight files are missing; copy {missing[0][:80]} there"
                )
        if any(self.path.glob("*.safetensors")):
            return self.path
        if any(found for pattern in _PICKLES for found in self.path.glob(pattern)):
            raise ModelError(
                f"{self}: its weights are a pickle, which can run code when read; if you trust them, convert them "
                f'once: python -c "from transformers import AutoModelForCausalLM as M; '
                f"M.from_pretrained({self.name!r}).save_pretrained('CONVERTED')\", "
                "then copy the tokenizer's files there"
            )
        raise ModelError(f"{self}: no weights (*.safetensors) in {self.path}")

    def check_sizes(self) -> None:
        """Raise ModelError for a description that is no file, or so large that the libraries would take all memory."""
        _ = self._sizes_are_right

    @cached_property
    def _sizes_are_right(self) -> bool:
        for path in sorted(self.path.iterdir()):
            if path.suffix not in _BOUNDED or path.name.startswith(".") or path.is_dir():
                continue
            bound = limits.TEMPLATE if path.suffix == ".jinja" else limits.RECORD
            if path.name in _VOCABULARIES or path.suffix == ".model":
                bound = limits.TOKENIZER
            try:
                with open_read(path, links=True) as file:
                    size = os.fstat(file.fileno()).st_size
                    if size > bound.value:
                        raise ValueError(f"it is larger than {bound.told} ({bound})")
                    if path.suffix == ".json" and size > 1 << 20:
                        check_values(file.read())
            except FileNotFoundError:  # a link to nothing
                continue
            except (OSError, ValueError) as error:
                said = error.strerror if isinstance(error, OSError) else error
                raise ModelError(f"{self}: {path.name} cannot be used ({said}); copy it anew") from error
        return True

    def check_vocabulary(self, largest: int) -> None:
        """Raise ModelError where there is no embedding of the token id `largest`, which the tokenizer gives."""
        size = self.text_config.get("vocab_size")
        if isinstance(size, int) and largest >= size:
            raise ModelError(
                f"{self}: the data has token {largest} of its tokenizer, but its embeddings are {size:,}; "
                "resize them first (model.resize_token_embeddings)"
            )

    def _json(self, file: str) -> Mapping[str, Any]:
        """Return the object in a JSON file, empty if there is no such file."""
        try:
            content = read_json(self.path / file, links=True)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ModelError(f"{self}: {file} cannot be read ({first_line(error)}); copy it anew") from error
        if not isinstance(content, dict):
            raise ModelError(f"{self}: {file} is not a JSON object; copy it anew")
        return content


@dataclass(frozen=True)
class OnBase:
    """An adapter and its base; `digest` identifies the model that they come to."""

    adapter: ModelFolder
    base: ModelFolder
    digest: str

    def merged(self) -> Path:
        """Return the folder of that model in the cache."""
        if not self.adapter.given:
            model_files(repository_of(self.adapter.name)[0], self.adapter.path.name, _WEIGHTS)
        base = self.base.with_weights()
        with quiet():
            return whole(self.adapter.path, base, self.digest, card=_CARD)


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


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield each name in a configuration with its value, those of the parts too."""
    waiting = [config]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield from ((str(name), value) for name, value in found.items())
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def _names_a_repository(value: Any) -> bool:
    return any("/" in str(one) for one in (value.values() if isinstance(value, dict) else [value]))


def _scaled(length: int, config: Mapping[str, Any]) -> int:
    """Return a context of this `length` as rotary scaling lengthens it."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor", 1)
    if kind in ("yarn", "linear", "dynamic") and not isinstance(factor, int | float):
        raise TypeError(f"a factor of {str(factor)[:80]!r}")
    if kind == "yarn":
        original = scaling.get("original_max_position_embeddings", length)
        return max(length, int(original * factor))
    if kind in ("linear", "dynamic") and "gemma3" not in str(config.get("model_type")):  # Gemma 3 gives the full one
        return int(length * factor)
    return length


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    text = config.get("text_config")
    return text if isinstance(text, dict) else config
