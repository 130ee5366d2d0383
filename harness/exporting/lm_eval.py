"""A run as lm-evaluation-harness would have written it: results_TIME.json and samples_TASK_TIME.jsonl.

The names are those of version 0.4 (``lm_eval/result_schema.py``). Each parser or judge is a filter, so that a metric is
called ``accuracy,final-number``. What has no place there is left out: intervals, and samples that failed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness.exporting.rows import Finished, Reading, Row, file_name

#: What lm-eval's filters give where they find no answer.
_NO_ANSWER = "[invalid]"


def file_names(run: Finished) -> tuple[str, str]:
    """Return the names of the files of results and of samples, as lm-eval forms them."""
    record, time = run.record, run.created.strftime("%Y-%m-%dT%H-%M-%S.%f")
    folder = file_name(record.model, "__")
    return f"{folder}/results_{time}.json", f"{folder}/samples_{file_name(record.benchmark)}_{time}.jsonl"


def samples(run: Finished) -> Iterator[dict[str, Any]]:
    """Yield a record for each sample and filter."""
    arguments = _generation(run)
    for row in run.rows():
        for reading in row.readings:
            yield _sample(row, reading, arguments)


def _sample(row: Row, reading: Reading, arguments: Mapping[str, Any]) -> dict[str, Any]:
    sample = row.sample
    doc = {"id": sample.id, "group": sample.group, "instruction": row.instruction, **sample.fields}
    target = sample.gold if reading.against is None else reading.against
    return {
        "doc_id": sample.index,
        "doc": doc,
        "target": target or "",
        "arguments": {"gen_args_0": {"arg_0": sample.prompt, "arg_1": arguments}},
        "resps": [[sample.output]],
        "filtered_resps": [_NO_ANSWER if reading.answer is None else reading.answer],
        "filter": reading.reader,
        "metrics": list(reading.values),
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(sample.prompt),
        "target_hash": _hash(target or ""),
        **reading.values,
    }


def results(run: Finished, samples_hash: str) -> dict[str, Any]:
    """Return what results_TIME.json says; `samples_hash` stands for the samples."""
    record, summed_up = run.record, run.recorded.results
    task, identity = record.benchmark, record.identity
    figures: dict[str, Any] = {"alias": task, "sample_len": summed_up.outputs}
    for reader, metrics in summed_up.metrics.items():
        for metric, estimate in metrics.items():
            if estimate.value is not None:
                figures[f"{metric},{reader}"] = estimate.value
                figures[f"{metric}_stderr,{reader}"] = "N/A" if estimate.stderr is None else estimate.stderr
    names = dict.fromkeys(metric for metrics in summed_up.metrics.values() for metric in metrics)
    shots = identity.benchmark.get("shots", 0)
    generation = _generation(run)
    template = identity.chat_template
    return {
        "results": {task: figures},
        "group_subtasks": {task: []},
        "configs": {
            task: {
                "task": task,
                "output_type": "generate_until",
                "num_fewshot": shots,
                "repeats": record.samples,
                "generation_kwargs": generation,
                "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names],
                "filter_list": [{"name": reader} for reader in summed_up.metrics],
                "metadata": {"data": {file.name: file.sha256 for file in record.data}, **identity.benchmark_options},
            }
        },
        "versions": {task: record.harness},
        "n-shot": {task: shots},
        "higher_is_better": {task: dict.fromkeys(names, True)},
        "n-samples": {task: {"original": record.examples or summed_up.n, "effective": summed_up.outputs}},
        "config": {
            "model": record.engine,
            "model_args": f"pretrained={record.command.model or record.model}",
            "model_sha": identity.weights or "",
            "limit": identity.limit,
            "gen_kwargs": generation,
            "random_seed": identity.seed,
        },
        "git_hash": None if record.git is None else record.git.commit,
        "date": run.created.timestamp(),
        "transformers_version": record.versions.get("transformers"),
        "task_hashes": {task: samples_hash},
        "model_source": record.engine,
        "model_name": record.model,
        "model_name_sanitized": file_name(record.model, "__"),
        "system_instruction": record.command.system,
        "chat_template": template,
        "chat_template_sha": None if template is None else _hash(template),
        "total_evaluation_time_seconds": str(run.recorded.timing.generation_seconds),
    }


def _generation(run: Finished) -> dict[str, Any]:
    """Return how answers were sampled, in lm-eval's words."""
    said = run.generation
    return {
        "until": list(said.stop),
        "do_sample": said.temperature > 0,
        "temperature": said.temperature,
        "top_p": said.top_p,
        "max_gen_toks": said.max_tokens,
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
