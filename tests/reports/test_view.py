"""`harness view` as a process of its own: what it shows, what it refuses, and what it never gives away."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import RunError
from harness.runs.columns import read_run
from harness.runs.folder import Run
from harness.runs.journal import Journal
from tests.conftest import Command
from tests.reports.viewing import Answer, Viewing, sample, viewing, write_run

HOSTILE = "<script>alert(1)</script>\u202e\x1b[2J\"'&"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all kinds, beside a folder that must stay unseen."""
    folder = tmp_path_factory.mktemp("view")
    runs = folder / "runs"
    write_run(runs, "base", 8, day=20)
    write_run(runs, "sft", 15, day=21)
    write_run(runs, "stopped", 5, done=7, finished=False)
    write_run(runs, "old", 5, format=0, harness="0.0.1")
    write_run(runs, "torn", 5)
    (runs / "gsm8k/torn/20261121T040338Z-6605e4b9/run.json").write_text('{"format": 1, "bench')
    write_run(runs, "other", 5, benchmark="quiz")
    write_run(runs, "strange", 5, selected="many")
    write_run(folder / "secret", "classified", 20)
    (runs / "gsm8k" / "link").symlink_to(folder / "secret" / "gsm8k" / "classified")
    partly = write_run(runs, "partly", 5)
    (partly / "results.json").unlink()
    (partly / "results.json").symlink_to(folder / "secret/gsm8k/classified/20261121T040338Z-6605e4b9/results.json")
    return runs


@pytest.fixture(scope="module")
def server(runs: Path) -> Iterator[Viewing]:
    with viewing(runs) as server:
        yield server


def key(model: str, day: int = 21, benchmark: str = "gsm8k") -> str:
    return f"{benchmark}/{model}/202611{day}T040338Z-6605e4b9"


def row(page: Answer, model: str, day: int = 21) -> str:
    [found] = [part for part in page.text.split("<tr ") if f'id="run-{key(model, day)}"' in part]
    return " ".join(found.split())


def test_the_list_says_of_each_run_what_it_is_and_how_far(server: Viewing) -> None:
    page = server.get("/")
    assert page.status == 200
    assert '<span id="shown">8</span> of 8 runs' in page.text
    assert 'scope="rowgroup">GSM8K <' in page.text  # as reports call it
    base = row(page, "base", 20)
    assert "finished" in base
    assert "40.0%" in base
    assert "[21.9%, 61.3%]" in base  # Wilson's interval of 8 of 20
    assert "2026-11-20 04:03" in base
    stopped = row(page, "stopped")
    assert '<span class="state stopped">' in stopped
    assert "7 of 20" in stopped
    assert 'type="checkbox"' not in stopped


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("old", "format 0 is not the 1 that this version reads; use harness &#39;0.0.1&#39;, or run it --fresh"),
        ("torn", "cannot read"),
        ("strange", "Expected `int`, got `str` - at `$.selected`"),
        ("partly", "its files lie outside the folder of runs"),
    ],
)
def test_a_run_that_cannot_be_read_is_a_row_with_a_note(server: Viewing, model: str, said: str) -> None:
    assert said in row(server.get("/"), model)
    page = server.get(f"/report?run={key(model)}")
    assert page.status in (404, 422)
    assert "Traceback" not in page.text


@pytest.mark.parametrize(
    ("query", "first", "missing"),
    [
        ("q=SFT", "sft", "base"),
        ("state=stopped", "stopped", "base"),
        ("q=2026-11-20", "base", "sft"),
        ("q=nothing+has+this", None, "base"),
    ],
)
def test_the_list_is_filtered_where_there_are_no_scripts_too(
    server: Viewing, query: str, first: str | None, missing: str
) -> None:
    page = server.get(f"/?{query}").text
    assert f"/{missing}/2026" not in page
    assert first is None or f'id="run-gsm8k/{first}/' in page


def test_the_list_is_sorted_by_any_column_within_its_groups(server: Viewing) -> None:
    def order(query: str) -> list[str]:
        page = server.get(f"/?{query}").text
        return [
            part.split("/")[1] for part in page.split('id="run-')[1:] if part.split("/")[1] in ("base", "sft", "other")
        ]

    assert order("group=none&sort=value") == ["other", "base", "sft"]
    assert order("group=none&sort=-value") == ["sft", "base", "other"]
    assert order("group=benchmark&sort=-value") == ["sft", "base", "other"]
    assert order("group=none&sort=created")[0] == "base"
    assert order("group=model&sort=value") == ["base", "other", "sft"]
    assert order("group=nonsense&sort=nonsense") == order("")


def test_ticks_stay_when_the_list_is_filtered(server: Viewing) -> None:
    page = server.get(f"/?q=base&run={key('base', 20)}")
    assert f'value="{key("base", 20)}" aria-label="Tick {key("base", 20)}" checked' in page.text


def test_a_finished_run_opens_as_its_report(server: Viewing) -> None:
    page = server.get(f"/report?run={key('sft')}")
    assert page.status == 200
    assert "75.0" in page.text
    assert "script-src 'unsafe-inline'" in page.headers["content-security-policy"]
    assert "script-src 'sha256-" in page.text.replace("&#39;", "'"), "the page itself forbids all scripts but its own"


def test_several_runs_are_a_report_of_all(server: Viewing) -> None:
    page = server.get(f"/report?run={key('sft')}&run={key('base', 20)}&run={key('other', benchmark='quiz')}")
    assert page.status == 200
    assert all(word in page.text for word in ("75.0", "40.0", "25.0", "quiz"))


def test_a_comparison_has_the_oldest_as_its_baseline_unless_told_otherwise(server: Viewing) -> None:
    query = f"run={key('sft')}&run={key('base', 20)}"
    page = server.get(f"/compare?{query}").text
    assert "+35.0" in page
    assert "7 turned right, 0 turned wrong" in page
    found = json.loads(server.get(f"/compare.json?{query}").text)
    assert found["labels"] == ["base", "sft"]
    assert found["benchmarks"][0]["metrics"][0]["against_baseline"]["sft"]["estimate"]["value"] == pytest.approx(0.35)
    turned = json.loads(server.get(f"/compare.json?{query}&baseline={key('sft')}").text)
    assert turned["labels"] == ["sft", "base"]


@pytest.mark.parametrize("page", ["/compare", "/compare.json", "/report"])
@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 422, "no run is ticked"),
        ("run=gsm8k/nothing/here", 404, "no run gsm8k/nothing/here"),
        (f"run={key('base', 20)}&run={key('stopped')}", 422, "has stopped before its end: 7 of 20 samples"),
        (f"run={key('base', 20)}&run={key('old')}", 422, "format 0"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(
    server: Viewing, page: str, query: str, status: int, said: str
) -> None:
    answer = server.get(f"{page}?{query}")
    assert (answer.status, said in answer.text) == (status, True)
    if page == "/compare.json":
        assert said in json.loads(answer.text)["error"]


def test_runs_of_different_benchmarks_have_nothing_to_compare(server: Viewing) -> None:
    answer = server.get(f"/compare?run={key('base', 20)}&run={key('other', benchmark='quiz')}")
    assert answer.status == 422
    assert "nothing to compare" in answer.text


@pytest.mark.parametrize(
    "name",
    [
        "../secret/gsm8k/classified/20261121T040338Z-6605e4b9",
        "gsm8k/../../secret/gsm8k/classified/20261121T040338Z-6605e4b9",
        "%2e%2e/secret/gsm8k/classified/20261121T040338Z-6605e4b9",
        "%252e%252e%252fsecret/gsm8k/classified/20261121T040338Z-6605e4b9",
        "gsm8k/link/20261121T040338Z-6605e4b9",
        "{outside}/secret/gsm8k/classified/20261121T040338Z-6605e4b9",
        "/etc",
        "gsm8k",
        "gsm8k/base",
        "gsm8k/base/20261120T040338Z-6605e4b9/run.json",
        "x%00y",
        "%ff%fe",
        "%25ff%25fe",
        "x" * 5000,
        ".",
        "",
    ],
)
def test_nothing_outside_the_folder_and_nothing_but_runs_is_opened(server: Viewing, runs: Path, name: str) -> None:
    for page in ("/report", "/progress", "/compare.json"):
        answer = server.get(f"{page}?run={name.format(outside=runs.parent)}")
        assert (answer.status, "100.0" in answer.text) == (404, False)


@pytest.mark.parametrize(
    "target", ["/../secret", "/%2e%2e/secret", "/view.py", "/static/view.css", "//etc/passwd", "/%00"]
)
def test_there_are_no_files_but_the_style_and_the_script(server: Viewing, target: str) -> None:
    assert server.get(target).status == 404
    assert server.get("/view.css").headers["content-type"] == "text/css; charset=utf-8"


def test_runs_behind_links_are_not_listed(server: Viewing) -> None:
    assert "gsm8k/link" not in server.get("/").text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "169.254.1.1", "[::ffff"]
)
def test_a_request_by_another_name_is_refused(server: Viewing, host: str) -> None:
    answer = server.get("/", Host=host)
    assert answer.status in (400, 421)
    assert "gsm8k" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1", "127.0.0.1:8000", "[::1]:80"])
def test_this_machines_own_names_are_accepted(server: Viewing, host: str) -> None:
    assert server.get("/", Host=host).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("target", ["/", "/report", "/nothing"])
def test_it_is_for_reading_alone(server: Viewing, method: str, target: str) -> None:
    answer = server.get(target, method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_a_head_request_has_headers_alone(server: Viewing) -> None:
    answer = server.get("/", method="HEAD")
    assert (answer.status, answer.text) == (200, "")


@pytest.mark.parametrize("target", ["/", "/nothing", "/compare.json", "/view.js", f"/report?run={key('sft')}"])
def test_every_answer_has_the_headers_that_keep_pages_apart(server: Viewing, target: str) -> None:
    headers = server.get(target).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_what_runs_contain_stays_text(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "model", 3, finished=False, done=3)
    config = json.loads((folder / "run.json").read_text())
    changed = {"model": HOSTILE, "benchmark": HOSTILE, "engine": HOSTILE, "created": HOSTILE}
    Run(folder).write("run.json", {**config, **changed})
    with Journal(Run(folder), 20) as journal:
        journal.append(sample(4, id=HOSTILE, output=HOSTILE + "\ud800", prompt=HOSTILE, answers={HOSTILE: HOSTILE}))
    with viewing(tmp_path) as server:
        for target in ("/", "/?group=model", "/?group=none", f"/?q={HOSTILE[:8]}", f"/report?run={key('model')}"):
            page = server.get(target.replace("<", "%3C"))
            assert page.status == 200
            assert "<script>alert" not in page.text
            assert not {"\u202e", "\x1b", "\ud800"}.intersection(page.text)
            assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e\\x1b[2J" in page.text or "q=" in target


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_folder_with_a_name_that_is_no_text_can_be_opened(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "model", 3)
    os.rename(folder, os.fsencode(folder.parent) + b"/caf\xe9 \x1b[2J?&=%")
    with viewing(tmp_path) as server:
        page = server.get("/").text
        [address] = [part.partition('"')[0] for part in page.split('href="/report?run=')[1:]]
        assert server.get(f"/report?run={address}").status == 200


def test_a_run_that_is_deleted_while_it_is_looked_at_is_said_to_be(tmp_path: Path) -> None:
    write_run(tmp_path, "base", 3)
    going = write_run(tmp_path, "going", 3, finished=False, done=3)
    with viewing(tmp_path) as server:
        assert server.get("/").text.count('<tr class="run"') == 2
        assert server.get(f"/report?run={key('going')}").status == 200
        shutil.rmtree(going)
        for page in ("/report", "/progress"):
            answer = server.get(f"{page}?run={key('going')}")
            assert (answer.status, "it has been deleted, or never was" in answer.text) == (404, True)
        assert server.get("/").text.count('<tr class="run"') == 1
        shutil.rmtree(tmp_path)
        assert "There are no runs in" in server.get("/").text


def test_a_damaged_line_is_counted_where_a_run_is_followed_and_named_in_its_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "base", 3)
    whole = (folder / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "samples.jsonl").write_bytes(whole[0] + b"garbage\n" + b"".join(whole[2:]))
    with viewing(tmp_path) as server:
        answer = server.get(f"/report?run={key('base')}")
        assert (answer.status, "samples.jsonl:2: not a sample" in answer.text) == (422, True)
        (folder / "results.json").unlink()
        page = server.get(f"/report?run={key('base')}")
        assert page.status == 200
        assert "Lines that cannot be read</dt><dd>1<" in page.text


@pytest.mark.parametrize("label", ["../../../../secret", "/secret", ".secret", "a\\b", "a\0b", ""])
def test_a_judge_that_would_lead_out_of_the_folder_is_refused(
    reported: list[Path], tmp_path: Path, harness: Command, label: str
) -> None:
    run = Path(shutil.copytree(reported[3], tmp_path / "runs" / "gsm8k" / "base" / "one"))
    results = json.loads((run / "results.json").read_text())
    for name in ("judges", "metrics"):
        results[name] = {label: results[name]["oracle"]}
    (run / "results.json").write_text(json.dumps(results))
    (run / "judged" / "oracle.jsonl").rename(tmp_path / "secret.jsonl")
    with pytest.raises(RunError, match="cannot name a judge: it is no plain name of a file"):
        read_run(run)
    if label.startswith(".."):
        done = harness("report", run, "--out", tmp_path / "page.html")
        assert done.code == 2 and len(done.err.splitlines()) == 1
        with viewing(tmp_path / "runs") as server:
            answer = server.get("/report?run=gsm8k/base/one")
        assert (answer.status, "cannot name a judge" in answer.text) == (422, True)


CHANGES = [
    ("run.json", "prompt_format", {}),
    ("run.json", "parsers", 5),
    ("run.json", "data", None),
    ("run.json", "identity", "x"),
    ("run.json", "identity", {"prompt_format": "x"}),
    ("run.json", "identity", {"plugins": [{"name": "exact"}]}),
    ("run.json", "command", {"options": []}),
    ("run.json", "git", {"commit": 5}),
    ("run.json", "hardware", {"gpus": [{}]}),
    ("run.json", "created", ["x"]),
    ("results.json", "n", float("nan")),
    ("results.json", "n", 19),
    ("results.json", "metrics", {"final-number": {"accuracy": {"value": "x"}}}),
    ("results.json", "groups", None),
    ("results.json", "unparsed", {"final-number": 3}),
    ("results.json", "judges", {"judge": {}}),
    ("timing.json", "examples_per_second", "fast"),
    ("timing.json", "sessions", {}),
]


def test_a_file_of_another_shape_is_never_a_defect(tmp_path: Path) -> None:
    write_run(tmp_path, "base", 3, day=20)
    folder = write_run(tmp_path, "model", 3)
    Run(folder).write("timing.json", {"load_seconds": 1.0, "generation_seconds": 1.0, "sessions": []})
    both = f"run={key('base', 20)}&run={key('model')}"
    with viewing(tmp_path) as server:
        for name, field, value in CHANGES:
            whole = (folder / name).read_bytes()
            (folder / name).write_text(json.dumps({**json.loads(whole), field: value}))
            said = []
            for page in ("report", "compare", "compare.json"):
                answer = server.get(f"/{page}?{both}")
                assert answer.status == 422, (name, field, value, page)
                said.append(name in answer.text)
            assert all(said), (name, field, value)
            assert server.get("/").status == 200
            (folder / name).write_bytes(whole)
        assert server.get(f"/compare?{both}").status == 200


def test_a_process_that_holds_the_run_makes_it_going_and_its_death_makes_it_stopped(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "base", 3, finished=False, done=3)
    program = (
        "import sys; from pathlib import Path\n"
        "from harness.runs.folder import Run\n"
        "from harness.runs.journal import Journal\n"
        "with Journal(Run(Path(sys.argv[1])), 20):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with viewing(tmp_path) as server:
        assert "state stopped" in row(server.get("/"), "base")
        holder = subprocess.Popen(
            [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert "state going" in row(server.get("/"), "base")
        answer = server.get(f"/report?run={key('base')}&run={key('base')}")
        assert '<span class="state going">' in answer.text
        holder.kill()
        holder.communicate()
        assert "state stopped" in row(server.get("/"), "base")
        page = server.get(f"/report?run={key('base')}").text
        assert f"harness run --from {folder}" in page


def test_a_folder_that_is_itself_a_run_can_be_shown(tmp_path: Path) -> None:
    with viewing(write_run(tmp_path, "base", 3)) as server:
        [address] = [part.partition('"')[0] for part in server.get("/").text.split('href="/report?run=')[1:]]
        assert server.get(f"/report?run={address}").status == 200


def test_a_folder_without_runs_says_what_to_do(tmp_path: Path) -> None:
    with viewing(tmp_path) as server:
        page = server.get("/")
        assert page.status == 200
        assert "There are no runs in" in page.text
        assert "harness run --benchmark gsm8k" in page.text
