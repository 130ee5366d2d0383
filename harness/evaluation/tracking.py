"""Final metrics of runs, sent to the trackers that training's metrics go to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.interfaces import Tracker
from harness.runs.folder import Run
from harness.runs.records import Results, Timing, as_json
from harness.types import RunInfo


def track(trackers: Sequence[Tracker], run: Run) -> Iterator[str]:
    """Send the figures of a finished run to each of `trackers`, at step 0 of a run called as its folder is.

    Yields why it failed for one that did: the results are on disk, and other runs are not to wait for it.
    """
    if not trackers:
        return
    record = run.record
    values = figures(run.results, run.timing)
    info = RunInfo(f"{record.benchmark}/{record.model}/{run.path.name}", as_json(record))
    for tracker in trackers:
        try:
            followed = tracker.start(info)
            followed.log(0, values)
            followed.close()
        except Exception as error:  # each library has errors of its own
            reason = " ".join(str(error).split()) or type(error).__name__
            yield f"tracker {tracker.name!r} failed ({reason}); the results are in {run.path}"


def figures(results: Results, timing: Timing) -> dict[str, float]:
    """Return what trackers are told, by names such as ``gsm8k/final-number/accuracy``.

    Metrics overall, by parser or judge; the shares of outputs unparsed and truncated, of samples failed, of judgements
    unreadable; examples and tokens a second. What is not known is left out.
    """
    n, outputs = results.n, results.outputs
    found: dict[str, float | None] = {
        f"{reader}/{metric}": each.value
        for reader, metrics in results.metrics.items()
        for metric, each in metrics.items()
    }
    if n:
        found |= {"failed": results.failed.count / n}
    if outputs:
        found |= {f"{parser}/unparsed": each.count / outputs for parser, each in results.unparsed.items()}
        found |= {"truncated": results.truncated.count / outputs}
    for judge, said in results.judged.items():
        found[f"{judge}/unreadable"] = said.unreadable.count / said.n if said.n else None
    found |= {
        "examples_per_second": timing.examples_per_second,
        "prompt_tokens_per_second": timing.prompt_tokens_per_second,
        "completion_tokens_per_second": timing.completion_tokens_per_second,
    }
    return {f"{results.benchmark}/{name}": value for name, value in found.items() if value is not None}
