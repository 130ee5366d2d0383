"""What a model takes of a cluster: GPUs a replica, replicas, how many requests at a time, and how long it will be.

Memory is counted, from the weights' files and the configuration; speed is never guessed: it is that of the newest
finished run of the same benchmark and model, GPU by GPU, and without one there is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from harness.errors import ConfigError, HarnessError, ModelError
from harness.evaluation.plan import Plan
from harness.models import ModelFolder, find_model
from harness.runs.folder import RESULTS, RUN, Run

MIB, GIB = 1 << 20, 1 << 30

#: The part of a GPU's memory that vLLM takes by default, and what it keeps of it for activations and CUDA graphs.
_USED, _KEPT = 0.9, 4 * GIB

#: GPUs that one replica may be cut over: those of one machine.
_CUTS = (1, 2, 4, 8)

#: With fewer requests at a time than this a GPU waits for its memory; a replica is cut over more GPUs, if that helps.
_ENOUGH = 64

#: Samples a second that one driver has been measured to record, by its CPU time (perf/ray_driver.py).
DRIVER = 7_500

#: Prompts that are measured.
_PROMPTS = 32


@dataclass(frozen=True)
class Hardware:
    """So many GPUs, with so much memory each, in bytes."""

    gpus: int
    memory: float


@dataclass(frozen=True)
class Sizing:
    """What a benchmark on a model comes to. Sizes are bytes; `rate` is requests a second of all replicas together.

    `each` GPUs hold a replica, of which there are `replicas`; `seats` is how many requests of the longest kind a
    replica holds at a time, `tokens` what such a one takes. `measured` says by what run the rate is known.
    """

    weights: int
    per_token: int
    tokens: int
    each: int
    replicas: int
    seats: int
    requests: int
    rate: float | None = None
    measured: str | None = None


def hardware(text: str) -> Hardware:
    """Read GPUs and the GiB of each; ConfigError where it is something else.

    >>> hardware("16x80").gpus
    16
    """
    found = re.fullmatch(r"(\d+)x(\d+(?:\.\d+)?)", text.strip())
    if found is None or not int(found[1]) or not float(found[2]):
        raise ConfigError(f"--plan {text}: give the number of GPUs and the GiB of each, as in --plan 16x80")
    return Hardware(int(found[1]), float(found[2]) * GIB)


def size(plan: Plan, there: Hardware) -> Sizing:
    """Return what a plan takes; ModelError where the model fits on no 8 GPUs of the kind, or has no weights here."""
    folder = find_model(plan.options.model)
    weights, per_token = _weights(folder), _bytes_per_token(folder)
    asked = [plan.request(index)[1] for index in plan.selection[:: -(-len(plan.selection) // _PROMPTS)]]
    prompt = int(median(len(one.prompt.token_ids or ()) for one in asked))
    tokens = prompt + plan.generation.max_tokens
    cuts = [(int((each * (_USED * there.memory - _KEPT) - weights) // (per_token * tokens)), each) for each in _CUTS]
    fitting = [cut for cut in cuts if cut[0] >= 1 and cut[1] <= there.gpus]
    enough = [cut for cut in fitting if cut[0] >= _ENOUGH]
    seats, each = (enough or sorted(fitting, reverse=True) or cuts)[0]
    if seats < 1:
        need = (weights + per_token * tokens) / GIB
        kind = f"{min(there.gpus, _CUTS[-1])} of {there.memory / GIB:g} GiB"
        raise ModelError(f"{folder}: {need:,.0f} GiB and more do not fit on {kind}")
    replicas = there.gpus // each
    rate, measured = _measured(plan, each * replicas)
    requests = len(plan.selection) * plan.options.samples
    return Sizing(weights, per_token, tokens, each, replicas, seats, requests, rate, measured)


def described(sizing: Sizing, benchmark: str) -> str:
    """Return a sizing in words, a fact a line."""
    one, many = sizing, f"{sizing.replicas} replica{'s' if sizing.replicas > 1 else ''}"
    lines = [
        f"weights        {one.weights / GIB:,.1f} GiB, {one.weights / one.each / GIB:,.1f} GiB a GPU",
        f"a request      {one.tokens:,} tokens at most, {one.tokens * one.per_token / MIB:,.1f} MiB of keys and values",
        f"a replica      {one.each} GPU{'s' if one.each > 1 else ''}, {one.seats:,} such requests at a time",
        f"the cluster    {many}: --set ray.engine=vllm --set ray.replicas={one.replicas} "
        f"--set vllm.tensor_parallel_size={one.each}",
    ]
    if one.rate is None:
        known = f"no finished run of {benchmark} on this model was found; one with --limit 500 gives it"
        lines.append(f"expected       not known: {known}")
    else:
        hours, bound = one.requests / min(one.rate, DRIVER) / 3600, one.rate > DRIVER
        driver = f", of which one driver records {DRIVER:,}" if bound else ""
        speed = f"{one.rate:,.1f} examples/s{driver}"
        lines.append(f"expected       {speed}: {one.requests:,} in {_time(hours)} ({one.measured})")
    return "\n".join(lines)


def _time(hours: float) -> str:
    return f"{hours * 60:,.1f} min" if hours < 1.5 else f"{hours:,.1f} h"


def _weights(folder: ModelFolder) -> int:
    files = list(folder.path.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder}: no weights are here to be counted; give the folder of the model")
    return sum(file.stat().st_size for file in files)


def _bytes_per_token(folder: ModelFolder) -> int:
    """Return what the keys and values of a token take, in two bytes a number."""
    config: Mapping[str, Any] = folder.text_config
    try:
        heads = int(config.get("num_attention_heads") or 0)
        of_keys = int(config.get("num_key_value_heads") or heads)
        width = int(config.get("head_dim") or int(config.get("hidden_size") or 0) // heads)
        layers = int(config.get("num_hidden_layers") or 0)
    except (TypeError, ValueError, ZeroDivisionError):
        heads = of_keys = width = layers = 0
    if not (of_keys and width and layers):
        raise ModelError(f"{folder}: its config.json does not say how many keys and values a token has")
    return 2 * 2 * layers * of_keys * width


def _measured(plan: Plan, gpus: int) -> tuple[float | None, str | None]:
    """Return the examples a second of so many GPUs, by the newest finished run of the benchmark on the model."""
    parent = Path(plan.options.out).expanduser() / plan.benchmark.name / plan.respondent.name
    for path in sorted(parent.glob("*"), reverse=True):
        if not ((path / RUN).is_file() and (path / RESULTS).is_file()):
            continue
        try:
            found = Run(path)
            rate, had = found.timing.examples_per_second, _gpus(found)
        except HarnessError:
            continue
        if rate and had:
            return rate * gpus / had, f"{rate:,.1f}/s on {had} in {path}"
    return None, None


def _gpus(run: Run) -> int:
    """Return how many GPUs a run was made on, by its options; 0 where they do not say it."""
    tables: Mapping[str, Any] = run.record.command.options
    inner = tables.get("vllm", {})
    sizes: list[int] = [inner.get(name, 1) for name in ("tensor_parallel_size", "data_parallel_size")]
    replicas = tables.get("ray", {}).get("replicas") if run.record.engine == "ray" else 1
    return sizes[0] * sizes[1] * (replicas if isinstance(replicas, int) else 0)
