"""`harness view` as people see it, in Chromium: list, tick, compare, report, and a run that is still going."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.runs.folder import Run
from harness.runs.journal import Journal
from harness.testing.distributions import write_distribution
from tests.browser import Open, Visit
from tests.reports.viewing import Viewing, sample, viewing, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202e\x1b[2J"

#: An engine of a third party that gives as many answers as the file GATE has bytes.
GATED = """
import dataclasses, os, time
from typing import ClassVar
from harness.hookspecs import hookimpl
from harness.types import Completion

class Model:
    def generate(self, requests):
        for number, request in enumerate(requests, start=1):
            while os.path.getsize(os.environ["GATE"]) < number:
                time.sleep(0.01)
            text = os.environ["SAID"] if number == 2 else f"It is {request.index}."
            yield Completion(request.id, text, "length" if number == 3 else "stop", 5, 4, 0.01)
    def close(self):
        pass

@dataclasses.dataclass(frozen=True)
class Gated:
    name: ClassVar[str] = "gated"
    applies_chat_template: ClassVar[bool] = False
    def available(self): return None
    def tokenizer(self, model): return None
    def identity(self, model): return {"model": model}
    def load(self, model): return Model()

@hookimpl
def harness_engines():
    return [Gated()]
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    write_run(runs, "base", 8, day=19)
    write_run(runs, "sft", 15, day=20)
    write_run(runs, "dpo", 14, day=21)
    write_run(runs, "base", 5, benchmark="quiz")
    write_run(runs, "half", 3, day=18, done=7, finished=False)
    write_run(runs, "old", 5, format=0)
    folder = Run(write_run(runs, "hostile", 3, benchmark="quiz"))
    folder.write("run.json", replace(folder.record, model=HOSTILE))
    return runs


@pytest.fixture(scope="module")
def server(runs: Path) -> Iterator[Viewing]:
    with viewing(runs) as server:
        yield server


def shown(page: Page) -> list[str]:
    """Return the models of the rows that can be seen."""
    return [link.inner_text() for link in page.locator("tr.run:visible td a").all()]


def own(visit: Visit, server: Viewing) -> bool:
    """Whether nothing was asked of anyone but the server, and nothing went wrong."""
    return all(each.startswith((server.address, "data:")) for each in visit.requests) and visit.faults == []


def test_runs_are_found_ticked_compared_and_reported(page_of: Open, server: Viewing) -> None:
    visit = page_of(server.address)
    page = visit.page
    assert page.get_by_role("button", name="Compare").is_disabled()
    page.get_by_label("Search").fill("gsm8k 2026")
    assert shown(page) == ["dpo", "sft", "base", "half"]
    assert page.locator("#counts").inner_text() == "5 of 7 runs"
    for model in ("base", "sft", "dpo"):
        page.locator("tr.run:visible", has=page.get_by_role("link", name=model)).get_by_role("checkbox").check()
    assert page.locator("#counts").inner_text() == "5 of 7 runs, 3 ticked"
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url("**/compare?**")
    assert "q=" not in page.url
    assert page.locator("thead th").all_inner_texts()[1].startswith("base")
    assert "+35.0" in page.locator("tbody").first.inner_text()
    page.get_by_role("link", name="as the baseline").first.click()
    assert page.locator("thead th").all_inner_texts()[1].startswith("sft")
    assert "−35.0" in page.locator("tbody").first.inner_text()
    page.go_back()
    page.get_by_text("turned right").first.click()
    page.get_by_role("link", name="test-0008").first.click()
    page.wait_for_url("**/report?**")
    page.get_by_text("It is 8.").first.wait_for()
    assert page.get_by_role("heading", name="test-0008").is_visible(), "the link leads to the sample"
    assert own(visit, server)


def test_what_was_ticked_is_there_again_on_the_way_back(page_of: Open, server: Viewing) -> None:
    page = page_of(server.address).page
    page.get_by_label("Tick gsm8k/sft").first.check()
    page.get_by_role("button", name="Report").click()
    page.wait_for_url("**/report?**")
    page.go_back()
    page.locator("#ticked", has_text="1 ticked").wait_for()
    assert page.get_by_role("button", name="Report").is_enabled()


def test_the_list_is_sorted_and_grouped_at_a_press(page_of: Open, server: Viewing) -> None:
    page = page_of(server.address).page
    page.get_by_label("Tick gsm8k/sft").first.check()
    page.get_by_label("Group by").select_option("none")
    page.wait_for_url("**group=none**")
    page.get_by_role("button", name="Headline metric").click()
    page.wait_for_url("**sort=-value**")
    assert shown(page)[:3] == ["sft", "dpo", "base"]
    assert page.get_by_role("columnheader", name="Headline metric").get_attribute("aria-sort") == "descending"
    assert page.get_by_label("Tick gsm8k/sft").first.is_checked()
    page.get_by_role("button", name="Headline metric").click()
    page.wait_for_url("**sort=value**")
    assert shown(page)[-1] == "sft"


def test_all_of_it_works_without_scripts(page_of: Open, server: Viewing) -> None:
    page = page_of(server.address, java_script_enabled=False).page
    page.get_by_label("Search").fill("gsm8k")
    page.get_by_role("button", name="Apply").click()
    assert shown(page) == ["dpo", "sft", "base", "half"]
    for model in ("sft", "base"):
        page.get_by_label(f"Tick gsm8k/{model}").first.check()
    page.get_by_role("button", name="Compare").click()
    assert "+35.0" in page.locator("tbody").first.inner_text()


def test_nothing_that_a_run_contains_is_executed(page_of: Open, server: Viewing, runs: Path) -> None:
    visit = page_of(server.address)
    link = visit.page.get_by_role("link", name="<img src=x")
    assert link.inner_text() == "<img src=x onerror=alert(1)><script>alert(2)</script>\\u202e\\x1b[2J"
    link.click()
    visit.page.wait_for_url("**/report?**")
    visit.page.wait_for_load_state()
    assert own(visit, server)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_can_be_read_by_all(page_of: Open, server: Viewing, scheme: str) -> None:
    base, sft = (f"run=gsm8k/{model}/202611{day}T040338Z-6605e4b9" for model, day in (("base", 19), ("sft", 20)))
    half = "run=gsm8k/half/20261118T040338Z-6605e4b9"
    for target in ("", f"compare?{base}&{sft}", f"report?{half}", "report?run=none"):
        assert page_of(server.address + target, color_scheme=scheme).violations() == []


def test_nothing_sticks_out_on_a_phone(page_of: Open, server: Viewing) -> None:
    half = "report?run=gsm8k/half/20261118T040338Z-6605e4b9"
    for target in ("", half, "report?run=none"):
        page = page_of(server.address + target, viewport={"width": 390, "height": 800}).page
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_run_is_followed_until_it_is_a_report(page_of: Open, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.write_bytes(b"")
    process = gated_run(tmp_path, gate, 12)
    try:
        with viewing(tmp_path / "runs") as server:
            visit = page_of(server.address)
            page = visit.page
            row = page.locator("tr.run")
            assert row.locator(".state").inner_text() == "going"
            gate.write_bytes(b"." * 2)
            page.locator("tr.run", has_text="2 of 12").wait_for()
            row.get_by_role("link").click()
            page.get_by_text("2 of 12 samples").wait_for()
            page.evaluate("window.stayed = true")
            assert page.locator("#latest pre").first.inner_text() == "<img src=x onerror=alert()>\\x1b[J"
            gate.write_bytes(b"." * 5)
            page.get_by_text("5 of 12 samples").wait_for()
            facts = " ".join(page.locator("#progress dl").inner_text().split())
            assert "Unparsed 1 (20.0%) Truncated 1 (20.0%) Failed 0" in facts
            page.get_by_text("Prompt").nth(1).click()
            gate.write_bytes(b"." * 7)
            page.get_by_text("7 of 12 samples").wait_for()
            assert page.locator("details[open]").count() == 1, "what is being read stays where it is"
            assert page.evaluate("window.stayed"), "the page was not loaded again"
            gate.write_bytes(b"." * 12)
            page.locator("h1", has_text="GSM8K").wait_for()
            assert own(visit, server)
    finally:
        gate.write_bytes(b"." * 12)
        assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0


def gated_run(folder: Path, gate: Path, size: int) -> subprocess.Popen[str]:
    """Start a real `harness run` by the gated engine and wait until it holds its run."""
    site = write_distribution(
        folder / "site", "harness-gated", entry_points={"harness.engines": {"gated": "gated"}}, modules={"gated": GATED}
    )
    (folder / "data" / "gsm8k").mkdir(parents=True)
    rows = [json.dumps({"question": f"What is {i}?", "answer": f"#### {i}"}) for i in range(size)]
    (folder / "data" / "gsm8k" / "test.jsonl").write_text("\n".join(rows), encoding="utf-8")
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "run", "-b", "gsm8k", "-e", "gated", "-m", "model", "--data", "data"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "GATE": str(gate), "SAID": "<img src=x onerror=alert()>\x1b[J"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list((folder / "runs").glob("gsm8k/model/2*/samples.jsonl")):  # `*` meets folders that are renamed
        assert process.poll() is None, process.communicate()
    return process


def test_a_run_that_stops_or_goes_away_says_so_while_it_is_followed(page_of: Open, tmp_path: Path) -> None:
    folder = write_run(tmp_path, "model", 3, done=3, finished=False)
    with viewing(tmp_path) as server:
        with Journal(Run(folder), 20) as journal:
            page = page_of(f"{server.address}report?run=gsm8k/model/{folder.name}").page
            assert page.locator("#progress .state").inner_text() == "going"
            journal.append(sample(3))
            page.get_by_text("4 of 20 samples").wait_for()
        page.get_by_text("No process is at work on this run").wait_for()
        (folder / "run.json").unlink()
        page.get_by_text("it has been deleted, or never was").wait_for()


def test_a_server_that_has_ended_is_said_to_have(page_of: Open, tmp_path: Path) -> None:
    folder = write_run(tmp_path, "model", 3, done=3, finished=False)
    with viewing(tmp_path) as server:
        page = page_of(f"{server.address}report?run=gsm8k/model/{folder.name}").page
    page.get_by_text("The server has ended").wait_for()
