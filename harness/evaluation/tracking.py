"""Final metrics of runs, sent to the trackers that training's metrics go to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.evaluation.journal import RunFolder
from harness.interfaces import Tracker
from harness.types import RunInfo


def track(trackers: Sequence[Tracker], folder: RunFolder) -> Iterator[str]:
    """Send the figures of a finished run to each of `trackers`, at step 0 of a run called as its folder is.

    Yields why it failed for one that did: the results are on disk, and other runs are not to wait for it.
    """
    if not trackers:
        return
    config = folder.config
    values = figures(folder.results, folder.timing)
    info = RunInfo(f"{config['benchmark']}/{config['model']}/{folder.path.name}", config)
    for tracker in trackers:
        try:
            run = tracker.start(info)
            run.log(0, values)
            run.close()
        except Exception as error:  # each library has errors of its own
            reason = " ".join(str(error).split()) or type(error).__name__
            yield f"tracker {tracker.name!r} failed ({reason}); the results are in {folder.path}"


def figures(results: Mapping[str, Any], timing: Mapping[str, Any]) -> dict[str, float]:
    """Return what trackers are told, by names such as ``gsm8k/final-number/accuracy``.

    Metrics overall, by parser or judge; the shares of samples unparsed, truncated, failed and, for a judge, unreadable;
    examples and tokens a second. What is not known is left out.
    """
    benchmark, n = results["benchmark"], results["n"]
    found: dict[str, float | None] = {
        f"{reader}/{metric}": each["value"]
        for reader, metrics in results["metrics"].items()
        for metric, each in metrics.items()
    }
    if n:
        found |= {f"{parser}/unparsed": each["count"] / n for parser, each in results["unparsed"].items()}
        found |= {kind: results[kind]["count"] / n for kind in ("truncated", "failed")}
    for judge, said in results.get("judges", {}).items():
        found[f"{judge}/unreadable"] = said["unreadable"]["count"] / said["n"] if said["n"] else None
    found |= {name: timing.get(name) for name in ("examples_per_second", "completion_tokens_per_second")}
    return {f"{benchmark}/{name}": value for name, value in found.items() if value is not None}
