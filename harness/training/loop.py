"""The training loop: what to train on and the loss come from a trainer, everything else is here.

One optimizer step: every rank computes its microbatches, each loss divided by what the whole step counts, so that
gradients are those of the step's mean, however it is cut up; the gradient's norm is taken, clipped through the
optimizer, and tested. A step whose loss or gradient is not finite changes nothing, on the device, and neither do those
behind it; the host asks only when it writes a line of metrics, once an interval, and then stops and names the rows.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from harness.calls import foreign
from harness.errors import DataError, RunError, first_line
from harness.files import replace_file
from harness.interfaces import Tracker, TrackerRun, TrainingRun
from harness.training.batch import Batch, TrainingRows, steps_in_epoch, total_steps
from harness.training.checkpoint.folder import BEST, LAST, METRICS, STEP, Checkpoints, TrainingProgress
from harness.training.checkpoint.kept import is_asked, is_kept
from harness.training.data.tokens import cache_folder
from harness.training.graphs import Graphs, recorder
from harness.training.metrics import Metrics, draw_curves, duration, means, peak_flops
from harness.training.model.attention import fastest_kernels
from harness.training.model.flash import flash_kernels, settle_flash
from harness.training.model.float8 import gathers_float8, scale_weights
from harness.training.model.memory import Shape
from harness.training.model.network import Network, Objective, load_network, weights_dtype
from harness.training.offload import refuse_offload
from harness.training.optim import AdamW, Optimizer, RMSprop
from harness.training.options import TrainingOptions
from harness.training.parallel import Ranks, join, leave, together, whole
from harness.training.schedule import learning_rate
from harness.types import RunInfo

#: The variable by which torch is told where to keep compiled code.
_COMPILED = "TORCHINDUCTOR_CACHE_DIR"

#: What the ranks tell each other after each step; the larger word wins.
_STOP, _FAILED = 1, 2


@dataclass(frozen=True)
class Job:
    """A training as a trainer puts it together.

    `objective` computes the loss of a microbatch of `rows`, and of `validation` where there is any. `packed` says that
    rows hold documents that must not see each other. `identity` is all that the outcome depends on beside the options,
    `card` the content of harness.json. `best` names the metric whose validation figure picks ``best/``: the lowest, or
    the highest if `highest`. With `baseline` there is a validation before the first step too; it picks nothing.
    `prepare` is called before the model is loaded, with the output folder held, for what the objective needs.
    """

    run: TrainingRun
    options: TrainingOptions
    objective: Objective
    rows: TrainingRows
    validation: TrainingRows | None
    packed: bool
    tokenizer: Any
    identity: Mapping[str, Any]
    card: Mapping[str, Any]
    best: str = "loss"
    highest: bool = False
    baseline: bool = False
    prepare: Callable[[Ranks], None] = lambda ranks: None

    @property
    def steps(self) -> int:
        """The number of optimizer steps."""
        return total_steps(len(self.rows), self.options)


@together()
def train(job: Job) -> Path:
    """Run a training, from its beginning or from where it was interrupted, and return the folder with the model.

    SIGTERM, SIGHUP and Ctrl-C save after the step under way; the first two return the folder, the third raises
    KeyboardInterrupt. Raises HarnessError for what cannot be used, and RunError when a step is not finite.
    """
    options = job.options
    if not len(job.rows):
        raise DataError("the data is too small for a single row; give more of it, or shorter rows")
    prepare_process()
    ranks = join(options.device)
    _set_determinism(options, ranks)
    dtype = weights_dtype(options, ranks.device)
    identity = {**job.identity, "dtype": str(dtype).removeprefix("torch.")}  # auto is another one on another device
    checkpoints = Checkpoints(
        job.run.out, ranks, identity=identity, card=job.card, tokenizer=job.tokenizer, kept=options.keep
    )
    with (
        checkpoints,
        fastest_kernels(ranks.device),
        flash_kernels(settle_flash(options, job.run.model, job.rows, dtype, job.packed, ranks)) as flash,
    ):
        if flash is not None:
            checkpoints.note(flash_attention=flash)
        start = checkpoints.latest()
        job.prepare(ranks)
        with Signals() as signals:
            source = job.run.model if start is None or options.lora_rank else str(start)  # an adapter stays on its base
            network = load_network(source, options, ranks, packed=job.packed)
            optimizer = make_optimizer(network, options)
            progress = TrainingProgress() if start is None else checkpoints.restore(start, network, optimizer)
            loop = Loop(job, ranks, network, optimizer, checkpoints, progress, signals)
            loop.run()
    leave()
    if signals.caught == signal.SIGINT:
        raise KeyboardInterrupt
    return job.run.out


def make_optimizer(network: Network, options: TrainingOptions) -> Optimizer:
    """Return the optimizer that the options ask for, over all parameters that are trained.

    Raises ConfigError where a part of its state is to lie in the host's memory and cannot.
    """
    named = list(network.lm.named_parameters())
    refuse_offload(options, named)
    shared: dict[str, Any] = {name: getattr(options, name) for name in ("eps", "weight_decay", "moments", "offload")}
    if options.optimizer == "rmsprop":
        return RMSprop(named, alpha=options.alpha, **shared)
    return AdamW(named, betas=options.betas, **shared)


class Loop:
    """The state of a training under way."""

    def __init__(
        self, job: Job, ranks: Ranks, network: Network, optimizer: Optimizer, checkpoints: Checkpoints,
        progress: TrainingProgress, signals: Signals,
    ) -> None:  # fmt: skip
        self.job, self.options, self.ranks, self.network = job, job.options, ranks, network
        self.optimizer, self.checkpoints, self.progress, self.signals = optimizer, checkpoints, progress, signals
        device = ranks.device
        self.sums = {name: torch.tensor(value, device=device) for name, value in progress.pending.items()}
        self.norm = torch.zeros((), device=device)
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self.shape = Shape.of(network.lm.config.get_text_config())
        self.peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self.metrics: Metrics | None = None
        self.began = self.logged = time.monotonic()
        self.first = self.logged_step = progress.step
        self.window = self.squares = 0  # tokens, and squares of document lengths, since the last line
        self.asked: Callable[[], int] | None = None
        record = recorder(self.options, ranks)
        self.recorded = record and Graphs(self.microbatch, list(optimizer.parameters.values()), device, record)

    def run(self) -> None:
        """Train to the end, or until a signal comes."""
        job, progress = self.job, self.progress
        if self.ranks.main:
            info = RunInfo(job.run.out.name, dict(job.run.recipe))
            trackers = [_started(tracker, info) for tracker in job.run.trackers]
            self.metrics = Metrics(job.run.out / METRICS, job.steps, progress.step, trackers)
            if progress.step:
                self._say(f"going on behind step {progress.step:,} of {job.steps:,}")
        try:
            if job.baseline and job.validation is not None and progress.step == 0:
                self.validate()
            while not self.over:
                self.step()
                if self._interrupted() and not self.over:
                    self.save(LAST)
                    self._settle()
                    self._say(f"saved after step {progress.step:,}; the same command goes on from there")
                    return
            self._settle()
            if progress.step < job.steps:
                self._say(f"stopped: {progress.stale} validations in a row were no better than the best")
            if self.ranks.main:
                self._draw()
                if progress.best is not None:
                    said = f"validation/{job.best} {progress.best:.4g} after step {progress.best_step:,}"
                    self._say(f"best: {said}, in {job.run.out / BEST}")
                self._say(f"done: {progress.step:,} steps in {duration(progress.seconds)}, {job.run.out}")
                if progress.best is not None:
                    self._say(f"best/ is step {progress.best_step:,}: validation/{job.best} {progress.best:.6g}")
        finally:
            if self.metrics is not None:
                self.metrics.close()

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do: all steps are taken, or validations are no better any more."""
        return self.progress.step >= self.job.steps or 0 < self.options.patience <= self.progress.stale

    def step(self) -> None:
        """Take one optimizer step, and validate, save and tell as far as it is time."""
        options, progress, rows = self.options, self.progress, self.job.rows
        indices = rows.step(options.batch_size, options.seed, progress.step)
        rate = learning_rate(
            progress.step, self.job.steps, options.learning_rate, schedule=options.schedule, warmup=options.warmup
        )
        weight = int(rows.weights[indices].sum())
        sums = self.backward(indices, 1 / max(weight, 1))
        self.update(sums, rate)
        tokens = int(rows.tokens[indices].sum())
        progress.step, progress.tokens, self.window = progress.step + 1, progress.tokens + tokens, self.window + tokens
        for name, value in {**sums, "weight": torch.full((), float(weight), device=self.ranks.device)}.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        if self.over or _due(progress.step, options.log_every):
            self.tell(rate)
        epoch = steps_in_epoch(len(rows), options.batch_size)
        asked = is_asked(options.keep, progress.step, epoch)
        due = self.over or _due(progress.step, options.validate_every) or (asked and options.keep == "epochs")
        validates = self.job.validation is not None and due
        best = [BEST] if validates and self.validate() else []
        if self.over and self.sums:  # it ends between two lines
            self.tell(rate)
        last = [LAST] if self.over or asked or _due(progress.step, options.save_every) else []
        last += [STEP] if last and is_kept(options.keep, progress.step, epoch) else []
        if best or last:
            self.save(*best, *last)

    def backward(self, indices: Sequence[int], scale: float) -> dict[str, Tensor]:
        """Compute the gradients of a step's rows and return the sums of its metrics over all ranks."""
        options, ranks = self.options, self.ranks
        sums: dict[str, Tensor] = {}
        for part in self.job.rows.microbatches(indices, options.microbatch_size, ranks.rank, ranks.world):
            batch = self.job.rows.batch(part, options.microbatch_size)
            self.squares += batch.squares * ranks.world
            factor = scale * ranks.world  # FSDP averages over the ranks
            if self.recorded:
                found = self.recorded(batch, factor)
            else:
                found = self.microbatch(batch.to(ranks.device), torch.full((), factor, device=ranks.device))
            sums = {name: value + sums.get(name, 0) for name, value in found.items()}
        names = sorted(sums)
        return dict(zip(names, ranks.total(torch.stack([sums[name].float() for name in names])).unbind(), strict=True))

    def microbatch(self, batch: Batch, scale: Tensor) -> Mapping[str, Tensor]:
        """Add the gradients of a microbatch on the device, its loss times `scale`, and return the sums of its metrics.

        Nothing here may wait for the device or ask it anything: it is recorded.
        """
        found: Mapping[str, Tensor]
        loss, found = self.network(self.job.objective, batch, scale)
        loss.backward()
        return found

    @torch.no_grad()
    def update(self, sums: Mapping[str, Tensor], rate: float) -> None:
        """Clip, test and apply the gradients."""
        gradients = [p.grad for p in self.optimizer.parameters.values() if p.grad is not None]
        self.norm = whole(torch.linalg.vector_norm(torch.stack(_norms(gradients))))
        finite = torch.isfinite(self.norm) & torch.isfinite(torch.stack(list(sums.values()))).all()
        self.bad_step = torch.where((self.bad_step < 0) & ~finite, self.progress.step, self.bad_step)
        clip = self.options.clip
        scale = torch.clamp(clip / (self.norm + 1e-6), max=1.0) if clip else torch.ones_like(self.norm)
        self.optimizer.step(rate, scale, self.bad_step < 0)
        if gathers_float8(self.options, self.ranks.world):
            scale_weights(self.network.lm)
        self.optimizer.zero_grad()

    def tell(self, rate: float) -> None:
        """Fetch what has been summed up since the last line, in one transfer, and write a line."""
        names = sorted(self.sums)
        tensors = [*(self.sums[name] for name in names), self.norm, self.bad_step]
        *numbers, norm, bad = torch.stack([tensor.double() for tensor in tensors]).tolist()
        self._stop_if_not_finite(int(bad))
        found = dict(zip(names, numbers, strict=True))
        weight = found.pop("weight")
        now, progress = time.monotonic(), self.progress
        span, steps = now - self.logged, progress.step - self.logged_step
        progress.seconds += span
        line = means(found, weight)
        line |= {"learning_rate": rate, "gradient_norm": norm, "tokens": progress.tokens, "seconds": progress.seconds}
        line |= {**self._speed(span), "seconds_left": (self.job.steps - progress.step) * span / steps}
        self._log(line)
        self.sums, self.window, self.squares, self.logged, self.logged_step = {}, 0, 0, now, progress.step

    @torch.no_grad()
    def validate(self) -> bool:
        """Compute the metrics over the validation rows and return whether the model is the best so far."""
        rows = self.job.validation
        assert rows is not None
        began, ranks, size = time.monotonic(), self.ranks, self.options.microbatch_size
        self.check()
        sums: dict[str, Tensor] = {}
        self.network.eval()
        for part in rows.microbatches(range(len(rows)), size, ranks.rank, ranks.world):
            _, found = self.network(self.job.objective, rows.batch(part, size).to(ranks.device), 1.0)
            sums = {name: value.double() + sums.get(name, 0) for name, value in found.items()}
        self.network.train()
        names, weight = sorted(sums), int(rows.weights.sum())
        totals = ranks.total(torch.stack([sums[name] for name in names])).tolist()
        averages = means(dict(zip(names, totals, strict=True)), weight)
        value, progress = averages[self.job.best], self.progress
        self._log({f"validation/{name}": average for name, average in averages.items()})
        loss = averages.get("loss", value)
        better = progress.step > 0 and self._better(value, loss)  # what a training begins with is no result of it
        if better:
            progress.best, progress.best_loss, progress.best_step = value, loss, progress.step
        progress.stale = 0 if better else progress.stale + (progress.step > 0)
        self.logged += time.monotonic() - began  # not a part of the training's speed
        return better

    def _better(self, value: float, loss: float) -> bool:
        """Whether a validation figure is the best so far; of equal ones that with the lower loss is."""
        progress, sign = self.progress, -1 if self.job.highest else 1
        if progress.best is None or sign * value < sign * progress.best:
            return True
        return value == progress.best and progress.best_loss is not None and loss < progress.best_loss

    def save(self, *places: str) -> None:
        """Begin to write checkpoints to `places`; the training goes on meanwhile."""
        began = time.monotonic()
        self.check()
        self.progress.pending = {name: value.item() for name, value in self.sums.items()}
        self.checkpoints.save(self.network, self.optimizer, self.progress, places)
        self.logged += time.monotonic() - began

    def check(self) -> None:
        """Raise RunError if a step was not finite."""
        self._stop_if_not_finite(int(self.bad_step.item()))

    def _stop_if_not_finite(self, bad: int) -> None:
        if bad < 0:
            return
        rows = self.job.rows
        indices = rows.step(self.options.batch_size, self.options.seed, bad)
        said = "; ".join(rows.describe(index) for index in indices)
        path = self.job.run.out / "not-finite.txt"
        if self.ranks.main:
            replace_file(path, [f"{rows.describe(index)}\n".encode() for index in indices])
        kept = self._keep_as_before(bad)
        raise RunError(
            f"step {bad + 1}: the loss or its gradient is not finite, and {kept}; its rows hold "
            f"{said if len(said) <= 300 else said[:297] + '...'} (all in {path}); look at these, or give a lower "
            "learning_rate and another out="
        )

    def _keep_as_before(self, bad: int) -> str:
        """Save the model as it was before step `bad`, which changed nothing as those after it; return what was done."""
        progress, options = self.progress, self.options
        if bad == self.first:  # nothing was learned since the training began, or went on
            return "the weights are as before it"
        rows, tokens = self.job.rows, progress.tokens
        for step in range(bad, progress.step):
            tokens -= int(rows.tokens[rows.step(options.batch_size, options.seed, step)].sum())
        before = replace(progress, step=bad, tokens=tokens, pending={})
        try:
            self.checkpoints.save(self.network, self.optimizer, before, [LAST])
            self.checkpoints.finish()
        except RunError as error:
            return f"the model before it could not be saved ({error})"
        return f"{self.job.run.out / LAST} is the model before it"

    def _settle(self) -> None:
        """Return when checkpoints are written and the other ranks have said their last."""
        self.checkpoints.finish()
        if self.asked is not None:
            self.asked()

    def _interrupted(self) -> bool:
        """Whether a signal came to any rank; raise RunError on all if one could not write its checkpoint.

        Of many ranks each hears what the others said one step before: nobody waits for the slowest.
        """
        word = _FAILED if self.checkpoints.failed else _STOP if self.signals.caught is not None else 0
        if self.ranks.world > 1:
            before, self.asked = self.asked, self.ranks.ask(word)
            word = before() if before is not None else 0
        if word == _FAILED:
            self.checkpoints.finish()
        return word == _STOP

    def _speed(self, span: float) -> dict[str, float]:
        found = {"tokens_per_second": self.window / max(span, 1e-9)}
        device = self.ranks.device
        if self.peak is not None:
            flops = self.shape.flops(self.window, self.squares)
            found |= {"mfu": flops / max(span, 1e-9) / (self.peak * self.ranks.world)}
        if device.type == "cuda":
            found |= {"memory_gib": torch.cuda.max_memory_allocated(device) / 2**30}
        return found

    def _log(self, values: Mapping[str, float]) -> None:
        if self.metrics is not None:
            self.metrics.log(self.progress.step, values)

    def _draw(self) -> None:
        try:
            draw_curves(self.job.run.out / METRICS, self.job.run.out, self.job.run.out.name)
        except ImportError:
            self._say("no picture of the learning curve: pip install matplotlib")
        except Exception as error:  # matplotlib raises whatever it meets; the training is whole without a picture
            said = error.strerror if isinstance(error, OSError) else None
            self._say(f"no picture of the learning curve: {said or first_line(error)}")

    def _say(self, text: str) -> None:
        if self.ranks.main:
            with suppress(OSError):  # a training goes on without the terminal that it was begun in
                print(text, file=sys.stderr, flush=True)


class Signals(AbstractContextManager["Signals"]):
    """Notes SIGTERM, SIGHUP and Ctrl-C instead of dying of them; the next one is taken as it was before.

    What comes within two seconds of the first is the same: a signal to all processes of a training reaches its ranks
    once from the sender and once more from torchrun.
    """

    def __init__(self) -> None:
        self.caught: int | None = None
        self._at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: object) -> None:
        if self.caught is None:
            self.caught, self._at = number, time.monotonic()
            with suppress(OSError):  # the terminal may be gone
                print("saving after this step; once more to stop without", file=sys.stderr, flush=True)
        elif time.monotonic() - self._at > 2:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()


def _started(tracker: Tracker, info: RunInfo) -> TrackerRun:
    with foreign(tracker):
        return tracker.start(info)


def _norms(gradients: list[Tensor]) -> list[Tensor]:
    """Return the fp32 norms of gradients; those that are not sharded in few launches."""
    if hasattr(gradients[0], "to_local"):
        return [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]
    return list(torch._foreach_norm(gradients, 2, dtype=torch.float32))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def prepare_process() -> None:
    """Set how a GPU's memory is handed out, and where compiled code is kept, unless the user has; before it is used."""
    if "PYTORCH_ALLOC_CONF" not in os.environ:
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # fragments cost an 8B model 2 GiB
    folder = cache_folder().parent / "compiled" / f"torch-{torch.__version__}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # torch finds another place
    if os.environ.get(_COMPILED) in (None, _chosen_by_torch()):
        os.environ[_COMPILED] = str(folder)
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))


def _chosen_by_torch() -> str | None:
    """Return the folder, a temporary one, that torch itself names for compiled code when its compiler is imported."""
    compiler = sys.modules.get("torch._inductor.runtime.cache_dir_utils")
    return None if compiler is None else os.path.abspath(compiler.default_cache_dir())


def _set_determinism(options: TrainingOptions, ranks: Ranks) -> None:
    """Seed torch; ask for repeatable kernels if the options do."""
    torch.manual_seed(options.seed + ranks.rank)
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only so
        os.environ["FLASH_ATTENTION_DETERMINISTIC"] = "1"  # read by transformers for flash-attn
        torch.use_deterministic_algorithms(True)  # with warn_only torch's flash attention would not repeat itself
