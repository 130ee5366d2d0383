"""A run in the schema of Every Eval Ever, version 0.3.0: one record of all figures, and a line for each sample's.

Source: https://github.com/evaleval/every_eval_ever, eval.schema.json and instance_level_eval.schema.json. A parser or
judge stands behind its metric in ``evaluation_result_id``: ``accuracy:final-number``. A sample that failed counts for
no figure and has no line.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.errors import HarnessError
from harness.exporting.rows import Finished, Reading, Row, file_name
from harness.files import expanded
from harness.prompts import read_prompt, shipped_prompts
from harness.runs.records import Estimate, JudgeRecord
from harness.types import Sample

VERSION = "0.3.0"

#: Engines that run a model's weights on the machine of the run.
_LOCAL = ("vllm", "transformers")


@dataclass(frozen=True)
class Export:
    """A run's export: `organization` evaluated it, at the time `now` (seconds since 1970) this is written.

    A model without a developer in its name, such as a checkpoint's folder, is called the organization's own.
    """

    run: Finished
    organization: str
    now: int

    @property
    def model(self) -> str:
        """The model as DEVELOPER/NAME."""
        return _model_id(self.run.record.command.model, self.run.record.model, self.organization)

    @property
    def identifier(self) -> str:
        """What the lines of samples refer to."""
        return f"{self.run.record.benchmark}/{self.model}/{self.now}"

    @property
    def folder(self) -> str:
        """Where the files belong in the project's collection."""
        developer, _, name = self.model.partition("/")
        return "/".join(["data", *map(file_name, (self.run.record.benchmark, developer, name))])

    @property
    def stem(self) -> str:
        """The name of the files, in the form of a random UUID: the same for the same run."""
        record = self.run.record
        digest = hashlib.sha256(f"{record.fingerprint} {record.created}".encode()).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))

    def samples(self) -> Iterator[dict[str, Any]]:
        """Yield a record for each sample and figure that it counts for."""
        for row in self.run.rows():
            for reading in row.readings:
                for metric, value in reading.values.items():
                    yield self._sample(row, reading, metric, value)

    def _sample(self, row: Row, reading: Reading, metric: str, value: float) -> dict[str, Any]:
        sample, benchmark = row.sample, self.run.record.benchmark
        reference = [text for text in (sample.gold, reading.against) if text is not None]
        options = sample.fields.get("options")
        known = isinstance(options, list) and all(isinstance(option, str) for option in options)
        facts = {
            "status": sample.status,
            "group": sample.group,
            "category": sample.category,
            "finish_reason": sample.finish_reason,
            "repeat": str(sample.repeat) if self.run.record.samples > 1 else None,
        }
        return {
            "schema_version": VERSION,
            "evaluation_id": self.identifier,
            "model_id": self.model,
            "evaluation_name": benchmark,
            "evaluation_result_id": f"{metric}:{reading.reader}",
            "sample_id": sample.id,
            "sample_hash": _hash(json.dumps({"raw": row.instruction, "reference": reference})),
            "interaction_type": "single_turn",
            "input": {
                "raw": row.instruction,
                "formatted": sample.prompt,
                "reference": reference,
                **({"choices": options} if known else {}),
            },
            "output": {"raw": [sample.output]},
            "answer_attribution": [] if reading.answer is None else [_attribution(reading.answer, reading.reader)],
            "evaluation": {"score": value, "is_correct": value > 0.5},
            "metadata": {name: said for name, said in facts.items() if said is not None},
            **_cost(sample),
        }

    def evaluation(self, checksum: str, lines: int) -> dict[str, Any]:
        """Return the record of all figures; `checksum` (sha256) and number of `lines` are of the file of samples."""
        record = self.run.record
        done = str(int(self.run.created.timestamp()))
        return {
            "schema_version": VERSION,
            "evaluation_id": self.identifier,
            "evaluation_timestamp": done,
            "retrieved_timestamp": str(self.now),
            "source_metadata": {
                "source_name": "posttrain-harness",
                "source_type": "evaluation_run",
                "source_organization_name": self.organization,
                "evaluator_relationship": "other",
                "additional_details": {"fingerprint": record.fingerprint},
            },
            "eval_library": {
                "name": "posttrain-harness",
                "version": record.harness or "unknown",
                "additional_details": {name: str(found) for name, found in record.versions.items()},
            },
            "model_info": self._model_info(self.model, record.model, record.engine, record.identity.model),
            "evaluation_results": list(self._results()),
            "detailed_evaluation_results": {
                "format": "jsonl",
                "file_path": f"{self.folder}/{self.stem}_samples.jsonl",
                "hash_algorithm": "sha256",
                "checksum": checksum,
                "total_rows": lines,
            },
        }

    def _model_info(self, model: str, name: str, engine: str, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Return a model and what runs it. Whether others can have its weights is not known here."""
        by = {"name": engine, "version": self.run.record.versions.get(engine, "unknown")}
        return {
            "name": name,
            "id": model,
            "developer": model.partition("/")[0],
            "inference_engine": by,
            "additional_details": {
                "deployment_type": "self_deployed" if engine in _LOCAL else "unknown",
                "model_availability": "unknown",
                **{key: _text(value) for key, value in identity.items() if value is not None},
            },
        }

    def _results(self) -> Iterator[dict[str, Any]]:
        results, name = self.run.recorded.results, self.run.record.benchmark
        for reader, metrics in results.metrics.items():
            for metric, estimate in metrics.items():
                if estimate.value is not None:
                    details = self._details(reader, metric)
                    yield self._result(name, reader, metric, estimate, score_details={"details": details})
        for group, readers in results.groups.items():
            for reader, metrics in readers.items():
                for metric, estimate in metrics.items():
                    if estimate.value is not None:
                        yield self._result(f"{name}/{group}", reader, metric, estimate, group=group)

    def _result(
        self,
        name: str,
        reader: str,
        metric: str,
        estimate: Estimate,
        *,
        group: str | None = None,
        score_details: Mapping[str, Any] = MappingProxyType({}),
    ) -> dict[str, Any]:
        record, judge = self.run.record, self.run.recorded.results.judged.get(reader)
        known = [value for value in (estimate.value, estimate.low, estimate.high) if value is not None]
        share = all(0 <= value <= 1 for value in known)
        return {
            "evaluation_result_id": f"{metric}:{reader}" if group is None else f"{metric}:{reader}:{group}",
            "evaluation_name": name,
            "source_data": {
                "dataset_name": record.benchmark,
                "source_type": "other",
                "additional_details": {file.name: f"sha256 {file.sha256}" for file in record.data},
            },
            "metric_config": {
                "metric_id": metric,
                "metric_name": metric,
                "lower_is_better": False,
                "score_type": "continuous",
                "additional_details": {"read_by": reader, "scorer": record.scorer},
                **({"metric_unit": "proportion", "min_score": 0, "max_score": 1} if share else {}),
                **({} if judge is None else {"llm_scoring": self._judging(judge)}),
            },
            "score_details": {"score": estimate.value, "uncertainty": _uncertainty(estimate), **score_details},
            "generation_config": self._generation(),
        }

    def _details(self, reader: str, metric: str) -> dict[str, str]:
        """Return what a figure leaves open: how many samples failed or could not be read, and its bounds then."""
        results = self.run.recorded.results
        unparsed = {"unparsed": results.unparsed[reader].count} if reader in results.unparsed else {}
        counts: dict[str, Any] = {"failed": results.failed.count, **unparsed}
        if (judge := results.judged.get(reader)) is not None:
            counts |= {"not_judged": judge.failed.count, "unreadable": judge.unreadable.count}
            counts |= dict(zip(("lowest", "highest"), judge.bounds.get(metric, ()), strict=False))
        return {name: str(count) for name, count in counts.items()}

    def _judging(self, judge: JudgeRecord) -> dict[str, Any]:
        name = Path(judge.judge).name or judge.judge
        model = _model_id(judge.judge, name, self.organization)
        info = self._model_info(model, name, judge.engine, judge.model)
        return {
            "judges": [{"model_info": info}],
            "input_prompt": _judge_prompt(judge),
            "additional_details": {"scorer": judge.scorer, "options": _text(judge.options)},
        }

    def _generation(self) -> dict[str, Any]:
        record = self.run.record
        said, form = self.run.generation, record.identity.prompt_format
        arguments = {"temperature": said.temperature, "top_p": said.top_p, "max_tokens": said.max_tokens}
        more = {"prompt_format": form.name, "prompt_format_digest": form.digest, "stop": _text(said.stop)}
        more |= {name: _text(value) for name, value in record.identity.benchmark_options.items() if value is not None}
        return {"generation_args": arguments, "additional_details": more}


def _attribution(answer: str, reader: str) -> dict[str, Any]:
    return {
        "turn_idx": 0,
        "source": "output.raw",
        "extracted_value": answer,
        "extraction_method": reader,
        "is_terminal": True,
    }


def _cost(sample: Sample) -> dict[str, Any]:
    """Return the tokens and the time of a sample, where they are known."""
    sent, made = sample.prompt_tokens, sample.completion_tokens
    tokens, time = {}, {}
    if sent is not None and made is not None:
        tokens = {"token_usage": {"input_tokens": sent, "output_tokens": made, "total_tokens": sent + made}}
    if sample.seconds is not None:
        time = {"performance": {"latency_ms": round(1000 * sample.seconds, 1)}}
    return tokens | time


def _uncertainty(estimate: Estimate) -> dict[str, Any]:
    error, interval = {}, {}
    if estimate.stderr is not None:
        error = {"standard_error": {"value": estimate.stderr, "method": estimate.method}}
    if estimate.low is not None and estimate.high is not None:
        bounds = {"lower": estimate.low, "upper": estimate.high, "confidence_level": 0.95, "method": estimate.method}
        interval = {"confidence_interval": bounds}
    return {"num_samples": estimate.n, **error, **interval}


def _model_id(given: str, name: str, organization: str) -> str:
    """Return DEVELOPER/NAME: of a name on the hub as it is, of any other with the organization before it."""
    hub = re.fullmatch(r"[\w.-]+/[\w.-]+", given) is not None and not Path(given).exists()
    return given if hub and not given.startswith(".") else f"{organization}/{name}".replace(" ", "-")


def _judge_prompt(judge: JudgeRecord) -> str:
    """Return the text of a judge's prompt where it is still the one that was used, else its name."""
    name = str(judge.options.get("prompt", judge.scorer))
    try:
        text = read_prompt(shipped_prompts().get(name, expanded(name)))
    except (OSError, ValueError, HarnessError):
        return name
    return text if hashlib.sha256(text.encode()).hexdigest() == judge.inputs.get("prompt") else name


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
