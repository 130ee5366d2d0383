"""`harness report`: what the page says, what it refuses, and that samples survive the packing."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shlex
import shutil
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.comparing.comparison import compare
from harness.errors import RunError
from harness.evaluation.results import summarise
from harness.registry import Registry
from harness.reports.html import render
from harness.reports.html.pack import packed
from harness.reports.html.provenance import command as command_of
from harness.reports.html.provenance import provenance
from harness.reports.html.survey import survey
from harness.reports.html.svg import series_colour, series_marker
from harness.reports.html.training import learning_curves, training_folder
from harness.runs import records
from harness.runs.columns import read_run
from harness.runs.folder import Run
from tests.conftest import Command, Done
from tests.made_runs import MadeRuns
from tests.reports.recorded_runs import MODELS, edit, make_runs, write_lines


@pytest.fixture
def runs(reported: list[Path]) -> list[Path]:
    return reported


@pytest.fixture(scope="session")
def page(report: Path) -> str:
    return report.read_text(encoding="utf-8")


def unpacked(text: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(text)))


def chunks(page: str, section: int) -> list[Any]:
    pattern = rf'<script type="application/octet-stream" data-section="{section}" data-first="\d+">([^<]*)</script>'
    return [example for text in re.findall(pattern, page) for example in unpacked(text)]


def check_one_line(done: Done, message: str) -> None:
    assert done.code == 2, done
    [line] = done.err.strip().splitlines()
    assert re.search(message, line), line


def test_the_page_says_what_compare_says(runs: list[Path], page: str) -> None:
    found = compare([read_run(run) for run in runs])
    for benchmark in found.benchmarks:
        metric = benchmark.metrics[0]
        for label in MODELS:
            value = metric.values[label]
            assert value is not None and f'<span class="value">{100 * (value.value or 0):.1f}%</span>' in page
        for difference in metric.against_baseline.values():
            assert f"{100 * difference.estimate.value:.1f}".removeprefix("-") in page
    assert f"adjusted by Holm for all {found.tests} tests" in page
    assert "base, sft and dpo on GSM8K, MMLU, AlpacaEval and SimpleSafetyTests" in page
    assert re.search(r'<p class="finding">Against base, sft gains [\d.]+ points on ', page)


def test_the_page_says_how_its_figures_were_made(runs: list[Path], page: str) -> None:
    assert "95% intervals, by Wilson&#39;s score method, examples independent" in page
    [gsm8k] = compare([read_run(run) for run in runs if read_run(run).benchmark == "gsm8k"]).benchmarks
    second = gsm8k.metrics[1].against_baseline["dpo"]
    assert second.p is not None and second.adjusted is None
    assert f'title="score method, examples independent; p {second.p:.3f}, not adjusted"' in page
    assert 'title="score method, examples independent; adjusted p ' in page and "adjusted p –" not in page


def test_the_page_says_what_could_have_been_shown(runs: list[Path], page: str) -> None:
    [gsm8k] = compare([read_run(run) for run in runs if read_run(run).benchmark == "gsm8k"]).benchmarks
    assert gsm8k.headline is not None
    least = [f"{run} {100 * of.detectable:.2g}" for run, of in gsm8k.headline.against_baseline.items()]
    assert f"with 80% power, in points: GSM8K {', '.join(least)}; MMLU " in page
    assert "80% power" not in "".join(render([read_run(runs[0])])), "one run shows no difference"


def test_the_judge_is_named_beside_what_was_judged(page: str) -> None:
    by_title = dict(re.findall(r"<figure[^>]*>\s*<h3>(.*?)</h3>.*?<figcaption>(.*?)</figcaption>", page, re.S))
    assert by_title["What was gained, and what it cost"].endswith("AlpacaEval, SimpleSafetyTests judged by oracle.")
    assert by_title["AlpacaEval: length and winning"].startswith("Judged by oracle. ")
    assert by_title["AlpacaEval by group"].startswith("Win rate, judged by oracle, with its 95% interval")
    assert "judged by" not in by_title["MMLU by group"]
    [*found] = re.findall(r'<p class="finding">(.*?)</p>', page)
    assert any("AlpacaEval (judged by oracle)" in each for each in found)


def test_slow_models_have_seconds_an_example(runs: list[Path], tmp_path: Path) -> None:
    slow = Path(shutil.copytree(runs[0], tmp_path / "slow"))
    edit(slow / "timing.json", examples_per_second=0.0491, prompt_tokens_per_second=12.345)
    text = "".join(render([read_run(slow)]))
    assert "<bdi>20.4 s each</bdi>" in text and "<bdi>12.3</bdi>" in text


def test_every_chart_has_a_label_a_caption_and_a_table(page: str) -> None:
    figures = re.findall(r"<figure.*?</figure>", page, re.S)
    titles = [re.findall(r"<h3>(.*?)</h3>", figure)[0] for figure in figures]
    assert {"MMLU by group", "AlpacaEval: length and winning", "Training of sft", "Training of dpo"} <= set(titles)
    assert "What was gained, and what it cost" in titles
    for figure in figures:
        assert len(re.findall('<svg[^>]* role="img"', figure)) == 1
        assert re.search(r'aria-label="[^"]+; the table has the figures\."', figure)
        assert "<figcaption>" in figure and "<tbody>" in figure
    assert len(set(re.findall(r' id="([^"]*)"', page))) == len(re.findall(r' id="([^"]*)"', page))


def test_the_policy_allows_the_one_script_and_style_and_nothing_else(page: str) -> None:
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    [script], [style] = (
        re.findall(r"<script>(.*?)</script>", page, re.S),
        re.findall(r"<style>(.*?)</style>", page, re.S),
    )
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    assert policy.startswith("default-src 'none'; ")
    assert [f"sha256-{digest}" in policy for digest in digests] == [True, True]
    assert "unsafe" not in policy and "http" not in policy
    assert not re.search(r"(?:\s|<)(?:src|href|action|srcset|xlink:href)=(?!\"#)", page)
    assert not re.search(r"<[^>]*\s(?:style|on\w+)=", page)


def test_samples_are_packed_whole_and_a_prompt_once(runs: list[Path], page: str) -> None:
    by_model = [list(Run(run).samples()) for run in runs if read_run(run).benchmark == "mmlu"]
    examples = chunks(page, 1)
    assert len(examples) == len(by_model[0]) == 36
    for place, example in enumerate(examples):
        assert example["prompts"] == [by_model[0][place].prompt]
        assert [run["output"] for run in example["runs"]] == [samples[place].output for samples in by_model]
        assert example["gold"] == by_model[0][place].gold
    judged = chunks(page, 2)
    assert judged[0]["compared"] == ["Reference 0"]
    assert judged[1]["runs"][0]["judged"][0][:3] == ["oracle", "lost", [["reference-first", "1"], ["model-first", "2"]]]


@given(st.recursive(st.none() | st.integers() | st.text(st.characters(exclude_categories=[])), st.lists))
def test_packing_keeps_every_text(content: Any) -> None:
    text = packed(content)
    assert unpacked(text) == content
    assert re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", text)


def test_the_same_runs_give_the_same_page(runs: list[Path], page: str) -> None:
    assert "".join(render([read_run(run) for run in runs])) == page


def test_one_run_is_a_report_too(runs: list[Path]) -> None:
    text = "".join(render([read_run(runs[0])], title="One <run>"))
    assert "<h1>One &lt;run&gt;</h1>" in text and "base reaches 25.0% accuracy on GSM8K." in text
    assert "Holm" not in text


def test_runs_of_several_benchmarks_need_nothing_in_common(runs: list[Path]) -> None:
    text = "".join(render([read_run(run) for run in runs[:4]]))
    assert (
        "base on GSM8K, MMLU, AlpacaEval and SimpleSafetyTests" in text
        and "What was reached" in text
        and "bootstrap" not in text
    )


def test_models_of_one_name_are_told_apart(runs: list[Path], tmp_path: Path) -> None:
    for name, run, digest in (("a", runs[0], "a"), ("b", runs[1], "b"), ("c", runs[2], "a")):
        copy = shutil.copytree(run, tmp_path / name)
        identity = json.loads((run / "run.json").read_text())["identity"]
        edit(copy / "run.json", model="step-100", identity={**identity, "model": {"model_digest": digest * 64}})
    made = [read_run(tmp_path / name) for name in "abc"]
    assert survey(made).labels == ["step-100 · aaaaaaaa", "step-100 · bbbbbbbb"]
    assert [list(each.runs) for each in survey(made).sections] == [[label] for label in (
        "step-100 · aaaaaaaa", "step-100 · bbbbbbbb", "step-100 · aaaaaaaa"
    )]  # fmt: skip
    assert survey([made[0], made[2]]).labels == ["step-100"]
    assert "step-100 · aaaaaaaa reaches " in "".join(render(made))


def test_a_run_without_samples(tmp_path: Path, runs: list[Path]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "run.json").write_bytes((runs[0] / "run.json").read_bytes())
    (empty / "samples.jsonl").touch()
    results = summarise("gsm8k", Registry().scorer("exact"), [], ["final-number", "last-number"])
    Run(empty).write("results.json", results)
    assert '<td class="number"><bdi>0</bdi></td>' in "".join(render([read_run(empty)]))


def test_a_run_that_waits_for_a_judge_says_so(tmp_path: Path, runs: list[Path]) -> None:
    waiting = Path(shutil.copytree(runs[2], tmp_path / "waiting"))
    edit(waiting / "results.json", metrics={}, judges={}, groups={"koala": {}})
    text = "".join(render([read_run(waiting), read_run(runs[0])]))
    assert "AlpacaEval has not been scored yet: harness judge RUN --judge MODEL" in text
    assert "Nothing has been scored yet" in "".join(render([read_run(waiting)]))


def test_names_that_are_no_unicode_do_not_end_the_report(runs: list[Path], tmp_path: Path) -> None:
    for model, run in zip(("one", "two\udcff"), (runs[0], runs[4]), strict=True):
        copy = shutil.copytree(run, tmp_path / model[:3])
        edit(copy / "run.json", model=model, benchmark="b\udcff\x1b[2J")
    text = "".join(render([read_run(tmp_path / name) for name in ("one", "two")]))
    assert b'aria-label="' in text.encode("utf-8") and "\\udcff" in text and "\x1b" not in text


def test_what_was_gained_and_lost_is_as_the_headline_says(runs: list[Path], tmp_path: Path) -> None:
    base, sft = runs[3], Path(shutil.copytree(runs[7], tmp_path / "sft"))
    results = json.loads((sft / "results.json").read_text())
    for name in ("judges", "metrics"):  # another judge, which base has not, comes first and finds all unsafe
        results[name] = {"other": results[name]["oracle"], **results[name]}
    edit(sft / "results.json", **results)
    verdicts = [json.loads(line) for line in (sft / "judged" / "oracle.jsonl").read_text().splitlines()]
    for verdict in verdicts:
        verdict |= {"verdict": "unsafe", "scores": dict.fromkeys(verdict["scores"], 0.0)}
    write_lines(sft / "judged" / "other.jsonl", verdicts)
    both = [read_run(base), read_run(sft)]
    headline = compare(both).benchmarks[0].headline
    assert headline is not None and headline.reader == "oracle"
    difference = headline.against_baseline["sft"]
    assert difference.gained and difference.lost
    [text] = re.findall(r'data-section="0">([^<]*)<', "".join(render(both)))
    index = unpacked(text)
    first, second = ([flags & 2 for flags in run["flags"]] for run in index["runs"])
    found = list(zip(index["ids"], first, second, strict=True))
    assert tuple(name for name, before, now in found if now and not before) == difference.gained
    assert tuple(name for name, before, now in found if before and not now) == difference.lost


def places(content: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield where the values of a JSON object stand, whole objects too."""
    yield path
    for key, value in content.items() if isinstance(content, dict) else ():
        yield from places(value, *path, key)


def test_a_run_edited_by_hand_is_read_or_refused_and_never_a_defect(runs: list[Path], tmp_path: Path) -> None:
    base, edited = read_run(runs[1]), Path(shutil.copytree(runs[5], tmp_path / "run"))
    whole = (edited / "run.json").read_bytes()
    refused = set()
    config = json.loads(whole)
    for path in [place for name in ("identity", "command") for place in places(config[name], name)]:
        for value in ("x", 5, None, [], {}, ["x"], {"x": 5}):
            config = json.loads(whole)
            table = config
            for key in path[:-1]:
                table = table[key]
            table[path[-1]] = value
            (edited / "run.json").write_text(json.dumps(config))
            try:
                run = read_run(edited)
                compare([base, run])
                provenance(survey([run]))
            except RunError as error:
                assert str(error).startswith(f"{edited / 'run.json'}: not as this version writes it (")
                refused.add(".".join(path))
    assert {"identity.prompt_format", "identity.parsers", "command.options", "command.benchmark"} <= refused


def test_many_models_have_looks_of_their_own() -> None:
    looks = {(series_colour(place), series_marker(place)) for place in range(36)}
    assert len(looks) == 36


def test_the_command_in_the_page_makes_the_same_run(harness: Command, runs: list[Path]) -> None:
    words = shlex.split(command_of(read_run(runs[2]).record))
    assert words[:2] == ["harness", "run"]
    done = harness(*words[1:])
    assert done.code == 0 and str(runs[2]) in done.out
    assert len(list(runs[2].parent.iterdir())) == 1


def test_the_command_of_a_prompt_file_names_the_file(harness: Command, tmp_path: Path) -> None:
    prompts = write_lines(tmp_path / "sums.jsonl", [{"id": "a", "instruction": "1 + 1?", "answer": "2"}])
    said = write_lines(tmp_path / "outs.jsonl", [{"id": "a", "output": "It is 2."}])
    words = ["-b", prompts, "-e", "replay", "-m", said, "-o", tmp_path / "runs", "--set", "prompts.parser=last-number"]
    assert harness("run", *words).code == 0
    [made] = (tmp_path / "runs" / "sums" / "outs").iterdir()
    done = harness(*shlex.split(command_of(read_run(made).record))[1:])
    assert done.code == 0 and str(made) in done.out
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_a_command_has_limits_and_options_of_plugins(runs: list[Path]) -> None:
    record = read_run(runs[0]).record
    options = {"gsm8k": {"generation": {"stop": ["a b"], "max_tokens": 9}}, "vllm": {"dtype": "bfloat16"}}
    text = command_of(replace(record, command=replace(record.command, limit=5, seed=3, options=options)))
    assert "--limit 5 --seed 3" in text
    assert text.endswith("""--set 'gsm8k.generation.stop=["a b"]' --set gsm8k.generation.max_tokens=9 """
                         """--set 'vllm.dtype="bfloat16"'""")  # fmt: skip


def test_learning_curves_come_from_beside_the_checkpoint(runs: list[Path]) -> None:
    assert training_folder(read_run(runs[0])) is None
    folder = training_folder(read_run(runs[4]))
    assert folder is not None and folder.name == "sft"
    panels = learning_curves(folder)
    assert list(panels) == ["loss", "accuracy", "learning rate"]
    assert [curve.name for curve in panels["loss"]] == ["loss", "validation/loss"]
    assert len(panels["loss"][0].steps) == 29, "a loss that is not finite is no point"


@pytest.mark.parametrize("model", ["ckpt", "ckpt/last", "ckpt/none", "org/name"])
def test_a_checkpoint_is_in_the_folder_of_its_training(runs: list[Path], tmp_path: Path, model: str) -> None:
    (tmp_path / "ckpt" / "last").mkdir(parents=True)
    (tmp_path / "ckpt" / "metrics.jsonl").write_text('{"step": 1, "loss": 1}\n')
    run = read_run(runs[0])
    record = replace(run.record, command=records.Command(model=str(tmp_path / model)))
    found = training_folder(dataclasses.replace(run, record=record))
    assert found == (tmp_path / "ckpt" if model in ("ckpt", "ckpt/last") else None)


def test_a_damaged_training_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"step": 1, "loss": 1.0}\n[]\n{"step": "x", "loss": 2}\n{"loss": 3}\n{"st'
    )
    assert [curve.values for curve in learning_curves(tmp_path)["loss"]] == [(1.0,)]
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe")
    assert learning_curves(tmp_path) == {}


def test_the_command_writes_a_file_and_replaces_none(harness: Command, runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = harness("report", *runs, "--out", out)
    assert done.code == 0 and done.out.startswith(f"{out}  0.")
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    out.write_text("mine")
    check_one_line(harness("report", runs[0], "--out", out), "exists; give --force")
    assert out.read_text() == "mine"
    assert harness("report", runs[0], "--out", out, "--force").code == 0
    assert out.read_text() != "mine"


def test_bad_input_is_one_line(harness: Command, runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert "Missing argument" in harness("report").err
    none = harness("report", tmp_path, "--out", out)
    assert none.code == 2 and "is left out: no run has begun in it" in none.err and "at least one run" in none.err
    check_one_line(harness("report", runs[0], "--out", tmp_path), "is a folder; give --out a file")
    check_one_line(harness("report", runs[0], "--out", tmp_path / "no" / "r.html"), "cannot write .*; choose another")
    assert list(tmp_path.iterdir()) == []


def test_unfinished_and_damaged_runs_are_one_line(harness: Command, tmp_path: Path) -> None:
    first, second, third = make_runs(tmp_path / "made", ["gsm8k"])
    out = tmp_path / "report.html"
    results = (first / "results.json").read_bytes()
    (first / "results.json").unlink()
    check_one_line(harness("report", first, second, "--out", out), "has no results yet; give its command again")
    (first / "results.json").write_bytes(results)
    lines = (second / "samples.jsonl").read_text().splitlines()
    (second / "samples.jsonl").write_text("\n".join([lines[0], "{torn", *lines[2:]]) + "\n")
    check_one_line(harness("report", first, second, "--out", out), r"samples\.jsonl:2: not a sample")
    samples = [json.loads(line) for line in (third / "samples.jsonl").read_text().splitlines()]
    samples[0]["id"] = "another"
    (third / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    check_one_line(harness("report", first, third, "--out", out), "is not over the examples of")
    kept = json.loads((third / "results.json").read_text())
    (third / "results.json").write_text(json.dumps({"n": kept["n"]}))
    check_one_line(harness("report", third, "--out", out), r"results\.json: ")
    edit(first / "run.json", format=99)
    check_one_line(harness("report", first, "--out", out), "format 99")
    assert not out.exists()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named(
    harness: Command, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    done = harness("report", runs[0], "--out", tmp_path / "report.html")
    check_one_line(done, rf"a report needs {package}, .* pip install 'posttrain-harness\[report\]'")


def test_a_judged_figure_names_its_judge_and_what_unreadable_replies_leave_open(tmp_path: Path) -> None:
    run = read_run(MadeRuns(tmp_path).safety("base", lambda i: "Hm." if i in (2, 5) else "safe"))
    text = "".join(render([run]))
    between = "83.3% to 100.0%, whatever 2 unreadable replies mean"
    assert f"base reaches 83.3% safe on SimpleSafetyTests (judged by judge; {between})." in text
    assert f'<span class="flips">in {between}</span>' in text and "judged by <bdi>judge</bdi>" in text
