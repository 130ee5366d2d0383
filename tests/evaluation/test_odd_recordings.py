"""Files that others recorded, in which a value is of a kind that nobody writes there: one line, whatever the format."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.formats.alpaca_eval import AlpacaEvalFormat
from harness.formats.inspect import InspectFormat
from harness.formats.lm_eval import LmEvalFormat
from harness.formats.mmlu_pro import MmluProFormat
from harness.formats.rows import RowsFormat
from harness.interfaces import Format

ODD: tuple[Any, ...] = (None, True, 5, 0.5, -1, 1e300, "ab", [], [3], [[]], {}, {"a": 1})

ASKED = {"role": "user", "content": [{"type": "text", "text": "2 and 2?"}]}
ANSWERED = {"role": "assistant", "content": "4"}

#: Format → a file's name and what stands in it; of lists only the first is made odd.
RECORDED: dict[str, tuple[Format, str, Any]] = {
    "lm-eval": (
        LmEvalFormat(),
        "samples_sums_1.jsonl",
        {
            "doc_id": 0, "doc": {"question": "2 and 2?", "choices": ["3", "4"]}, "target": "4", "filter": "strict",
            "arguments": {"gen_args_0": {"arg_0": "2 and 2?", "arg_1": {"max_gen_toks": 48}}}, "resps": [["4"]],
            "filtered_resps": ["4"], "metrics": ["exact_match"], "exact_match": 1.0,
        },
    ),
    "inspect": (
        InspectFormat(),
        "log.json",
        {
            "version": 2, "status": "success",
            "eval": {
                "task": "sums", "model": "a/b", "packages": {"inspect_ai": "1"}, "model_generate_config": {"seed": 1},
            },
            "samples": [
                {
                    "id": 1, "epoch": 1, "input": [ASKED], "choices": ["3", "4"], "target": "4",
                    "messages": [ASKED, ANSWERED],
                    "output": {"choices": [{"message": ANSWERED, "stop_reason": "stop"}], "usage": {"input_tokens": 3}},
                    "scores": {"match": {"value": "C", "answer": "4"}}, "attachments": {"a": "b"},
                }
            ],
        },
    ),
    "mmlu-pro": (
        MmluProFormat(),
        "physics.json",
        {
            "physics": [
                {
                    "question_id": 1, "question": "?", "options": ["3", "4"], "answer": "B", "pred": "B",
                    "model_outputs": "B",
                }
            ]
        },
    ),
    "alpaca-eval": (
        AlpacaEvalFormat(), "outputs.json", [{"instruction": "Add.", "output": "4", "generator": "m", "dataset": "d"}]
    ),
    "rows": (
        RowsFormat(),
        "rows.jsonl",
        {
            "id": "a", "question": "?", "output": "4", "options": ["3"], "finish_reason": "stop", "prompt_tokens": 3,
            "score": 1.0,
        },
    ),
}  # fmt: skip


def changed(value: Any) -> Iterator[Any]:
    """Yield the value with itself, or one that lies in it, made odd."""
    yield from ODD
    if isinstance(value, dict):
        yield {"\ud800": 1, **value}
        for key, inner in value.items():
            yield {name: each for name, each in value.items() if name != key}
            yield from ({**value, key: odd} for odd in changed(inner))
    elif isinstance(value, list) and value:
        yield from ([odd, *value[1:]] for odd in changed(value[0]))


@pytest.mark.parametrize("name", RECORDED)
def test_what_nobody_writes_there_is_read_or_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, file, recorded = RECORDED[name]
    monkeypatch.setitem(sys.modules, "inspect_ai", None)  # its own reader has its own tests
    path, read = tmp_path / file, 0
    for odd in changed(recorded):
        path.write_text(json.dumps(odd) + "\n")
        try:
            read += len(list(recorder.read(path).outputs))
        except HarnessError as error:
            assert str(path) in str(error) and "\n" not in str(error)
    assert read > 3
