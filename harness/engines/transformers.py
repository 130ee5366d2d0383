"""The engine `transformers`: any causal language model that transformers can load, on a CPU or one GPU.

Requests are sorted by length and decoded by the harness's own loop (see `harness.engines.batching`), which gives the
same greedy tokens in fp32 whatever the batch. The results of sampling do not depend on the batch either.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
import os
import random
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.engines.batching import Decoder, out_of_memory, release
from harness.engines.decoding import Row, RowTexts, cache_keyword
from harness.engines.folder_tokenizer import FolderTokenizer
from harness.engines.likelihood import Weighed, Weigher
from harness.errors import ConfigError, ModelError, first_line, unloadable
from harness.hookspecs import hookimpl
from harness.interfaces import Engine, Model, Tokenizer
from harness.models import ModelFolder, find_model, quiet
from harness.types import SCORED, Completion, Request

if TYPE_CHECKING:
    import torch

_WINDOW = 8192  # requests that are sorted together
_ROWS = {"cpu": 128, "cuda": 256}  # rows of a batch, beyond which throughput no longer grows
_PREFILL = {"cpu": 4096, "cuda": 16384}  # tokens of prompts in one forward pass

#: Llama-3-8B's shape on an H200, 160 new tokens of GSM8K's questions (docs/performance.md).
_FASTER = "vLLM, for the models that it runs: 89.5 examples/s on an H200 where this engine gives 10 (8B)"


@dataclass(frozen=True)
class TransformersEngine:
    """Runs models with transformers; its fields are its options.

    Arguments:
        device: ``auto`` (the first GPU if there is one, else the CPU) or a device of torch's, such as ``cuda:1``.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``auto``: the checkpoint's own on a GPU; float32 on a CPU: it
            holds every bf16 and fp16 weight exactly and is supported everywhere.
        batch_tokens: tokens, prompts and completions together, that a batch may hold keys and values for; chosen from
            the free memory if not given.
        attn_implementation: a name that transformers knows, such as ``flash_attention_2``. By default transformers
            chooses: PyTorch's fused attention where the model supports it.
        seed: of requests that sample without a seed of their own.
    """

    name: ClassVar[str] = "transformers"
    applies_chat_template: ClassVar[bool] = False
    gives_likelihoods: ClassVar[bool] = True
    limits_thoughts: ClassVar[bool] = True

    device: str = "auto"
    dtype: str = "auto"
    batch_tokens: int | None = None
    attn_implementation: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ConfigError(f"transformers.dtype is auto, float32, bfloat16 or float16, not {self.dtype!r}")
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise ConfigError(f"transformers.batch_tokens must be at least 1, not {self.batch_tokens}")

    @property
    def accelerators(self) -> int | None:
        """How many GPUs it takes, for those who reserve them; None: one where there are any."""
        return None if self.device == "auto" else int(self.device.startswith("cuda"))

    def available(self) -> str | None:
        """Return None if torch, transformers and the device asked for are there, else what is missing."""
        for library in ("torch", "transformers"):
            if importlib.util.find_spec(library) is None:
                return f"{library} is not installed: pip install 'posttrain-harness[transformers]'"
        if self.device.startswith("cuda"):
            import torch

            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
            if not count:
                return f"device {self.device}: PyTorch sees no GPU here; use device=auto or device=cpu"
            if self.device != "cuda" and self.device not in {f"cuda:{index}" for index in range(count)}:
                return f"device {self.device}: PyTorch sees {count} GPU(s) here, from cuda:0 on"
        return None

    def advice(self) -> str | None:
        """Return what would generate faster: on a GPU vLLM does, whose steps do not wait for Python; else None."""
        if self._device_type() != "cuda":
            return None
        installed = importlib.util.find_spec("vllm") is not None
        remedy = "--engine vllm" if installed else "pip install 'posttrain-harness[vllm]'"
        return f"{_FASTER}: {remedy}"

    def tokenizer(self, model: str) -> Tokenizer:
        """Return the model's tokenizer, which is read when something is encoded; raises ModelError if there is none."""
        return FolderTokenizer(find_model(model))

    def identity(self, model: str) -> Mapping[str, Any]:
        """Return the model's digests, the dtype that it runs in (``auto``: the checkpoint's) and the sampling seed."""
        dtype = "float32" if self.dtype == "auto" and self._device_type() == "cpu" else self.dtype
        return {**find_model(model).identity, "dtype": dtype, "seed": self.seed}

    def load(self, model: str) -> Model:
        """Load weights and tokenizer; raises ModelError when anything about them or this machine does not fit."""
        if reason := self.available():
            raise ModelError(reason)
        folder = find_model(model)
        tokenizer = folder.tokenizer  # before the weights, which take longer
        return TransformersModel(
            self._network(folder),
            tokenizer,
            stop_ids=folder.stop_ids,
            context=folder.context,
            batch_tokens=self.batch_tokens,
            seed=self.seed,
        )

    def _device_type(self) -> str:
        if self.device != "auto":
            return self.device.partition(":")[0]
        return "cuda" if _has_gpu() else "cpu"

    def _network(self, model: ModelFolder) -> Any:
        """Return the model's network in evaluation mode on its device."""
        import torch
        from transformers import AutoModelForCausalLM

        auto: Any = AutoModelForCausalLM  # its methods are untyped

        device = self._device_type() if self.device == "auto" else self.device
        dtype = "float32" if self.dtype == "auto" and device == "cpu" else self.dtype
        try:
            with quiet():
                config = copy.deepcopy(model.transformers_config)
                config._attn_implementation = self.attn_implementation  # whatever config.json would have
                network, report = auto.from_pretrained(
                    model.with_weights() if model.gguf is None else model.path,
                    config=config,
                    dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                    trust_remote_code=False,
                    use_safetensors=True,
                    local_files_only=True,
                    output_loading_info=True,
                    **model.gguf_file,
                )
            missing = sorted(report.get("missing_keys"))
            network.to(device)
        except ModelError:
            raise
        except Exception as error:  # the library and the code of each architecture raise whatever they meet
            if out_of_memory(error):
                raise ModelError(f"{model}: does not fit into the memory of {device}; try dtype=bfloat16") from error
            raise ModelError(f"{model}: transformers cannot load it ({unloadable(error)})") from error
        if missing:
            raise ModelError(f"{model}: {len(missing)} weights are missing, such as {missing[0]}; save the model anew")
        return network.eval()


@hookimpl
def harness_engines() -> Iterable[Engine]:
    """Provide the engine `transformers`."""
    return [TransformersEngine()]


class TransformersModel:
    """A network on its device, with its tokenizer.

    `room` is how many requests it is to be given at a time, so that batches are full and of rows of like lengths.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        *,
        stop_ids: Iterable[int],
        context: int | None,
        batch_tokens: int | None,
        seed: int,
    ) -> None:
        device = network.device
        kind = "cuda" if device.type == "cuda" else "cpu"
        room = _spare_memory(device) // _bytes_per_token(network)
        sizes = {"batch_tokens": batch_tokens or max(1, room), "batch_rows": _ROWS[kind]}
        sizes |= {"prefill_tokens": _PREFILL[kind]}
        self._decoder: Decoder | None = Decoder(network, RowTexts(tokenizer), stop_ids, **sizes)
        self._weigher: Weigher | None = Weigher(network, **sizes)
        self.room = 4 * _ROWS[kind]
        self._device = device
        self._vocabulary: int = network.get_input_embeddings().num_embeddings
        self._context = context
        self._seed = seed

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield a completion for each request as it finishes; `seconds` count from its admission to a batch."""
        pending = iter(requests)
        while window := list(itertools.islice(pending, _WINDOW)):
            decoder, taken = self._open(), dict[str, Request]()
            for request in window:
                problem = self._problem(request)
                if problem is None:
                    taken[request.id] = request
                else:
                    yield _refusal(request, problem)
            weighed: dict[str, Weighed] = {}
            for each in self._weighed(taken.values()):
                weighed[each.request.id] = each
                if each.error is not None or not each.request.generated:
                    yield _scored(each)
                    del taken[each.request.id]
            for completion in decoder.run(map(self._row, taken.values())):
                found = weighed.get(completion.id)
                yield replace(completion, continuations=found.logprobs) if found else completion

    def stream(self, request: Request) -> Generator[str, None, Completion]:
        """Yield the pieces of an answer and return its completion; see `harness.interfaces.StreamingModel`."""
        problem = self._problem(request)
        if problem is not None:
            return _refusal(request, problem)
        return (yield from self._open().stream(self._row(request)))

    def _weighed(self, requests: Iterable[Request]) -> Iterator[Weighed]:
        assert self._weigher is not None, "the model is open"
        return self._weigher.run([request for request in requests if request.continuations])

    def close(self) -> None:
        """Drop the network and give its memory back."""
        self._decoder = self._weigher = None
        release(self._device)

    def _open(self) -> Decoder:
        if self._decoder is None:
            raise ModelError("the model has been closed; load it again")
        return self._decoder

    def _problem(self, request: Request) -> str | None:
        """Return why a request cannot be answered, None if it can."""
        ids = request.prompt.token_ids
        if not ids:
            return "the prompt has no token ids; the transformers engine takes nothing else"
        if self._context is not None and len(ids) >= self._context:
            return (
                f"the prompt has {len(ids)} tokens; the model's context of {self._context} leaves no room for an answer"
            )
        ids = max((ids, *(each.token_ids for each in request.continuations)), key=len)
        if self._context is not None and len(ids) > self._context:
            return f"prompt and option have {len(ids)} tokens, more than the model's context of {self._context}"
        if not 0 <= min(ids) <= max(ids) < self._vocabulary:
            return f"a token id lies outside the model's vocabulary of {self._vocabulary}: not its own tokenizer"
        return None

    def _row(self, request: Request) -> Row:
        ids, generation = list(request.prompt.token_ids or ()), request.generation
        limit = len(ids) + generation.max_tokens
        seed = generation.seed if generation.seed is not None else f"{self._seed} {request.id}"
        return Row(request, ids, min(limit, self._context or limit), random.Random(seed))


def _has_gpu() -> bool:
    """Whether torch can use a GPU here; it need not be imported to know where the machine has no driver for one."""
    nodes = ("nvidia*", "nvhost*", "nvgpu*", "kfd", "dxg")  # NVIDIA's, those of its boards, AMD's, and Windows' for WSL
    if sys.platform == "linux" and not any(found for node in nodes for found in Path("/dev").glob(node)):
        return False
    import torch

    return torch.cuda.is_available()


def _refusal(request: Request, problem: str) -> Completion:
    return Completion(request.id, "", None, prompt_tokens=len(request.prompt.token_ids or ()) or None, error=problem)


def _scored(weighed: Weighed) -> Completion:
    """Return the completion of a request for which nothing is generated."""
    request, count = weighed.request, len(weighed.request.prompt.token_ids or ())
    end = None if weighed.error else SCORED
    return Completion(request.id, "", end, count, 0, weighed.seconds, weighed.error, continuations=weighed.logprobs)


def _bytes_per_token(network: Any) -> int:
    """Return the bytes that the keys and values of a token take, found by running the network on a few tokens.

    Raises ModelError for an architecture that keeps anything else from one token to the next.
    """
    import torch
    from transformers import DynamicCache

    name, cache = type(network).__name__, DynamicCache()
    layers: list[Any] = cache.layers  # filled by the network
    try:
        with torch.inference_mode():
            ids = torch.zeros(2, 3, dtype=torch.long, device=network.device)
            network(input_ids=ids, **{cache_keyword(network): cache})
    except Exception as error:  # the code of each architecture raises whatever it meets
        raise ModelError(f"{name} cannot be run here ({first_line(error)}); try the engine vllm") from error
    held = [(layer.keys, layer.values) for layer in layers if type(layer).__name__ == "DynamicLayer"]
    known = [keys is not None and keys.shape[::2] == (2, 3) for keys, _ in held]
    if not known or not all(known) or len(held) < len(layers):
        raise ModelError(f"{name} keeps a state other than keys and values of each token; use the engine vllm for it")
    return int(sum(part.numel() * part.element_size() for pair in held for part in pair)) // 6


def _spare_memory(device: torch.device) -> int:
    """Return the bytes that keys and values may take: what is free less a share for activations and for others."""
    import torch

    if device.type == "cuda":
        return int(0.7 * torch.cuda.mem_get_info(device)[0])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = Path("/proc/meminfo")
    if available.exists():
        fields = dict(line.split(":", 1) for line in available.read_text().splitlines())
        memory = int(fields["MemAvailable"].split()[0]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        memory = min(memory, int(text) - int(limit.with_name("memory.current").read_text()))
    return memory // 4
