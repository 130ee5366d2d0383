"""The report in a real browser: it is read, filtered, searched and walked through, and no output does anything."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.comparing.comparison import compare
from harness.reports.html import render
from harness.reports.samples import kinds_of
from harness.runs.columns import read_run
from tests.browser import Open, Visit
from tests.reports.recorded_runs import MODELS, SUBJECTS, command, edit, write_data, write_lines

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=30_000)

#: Each benchmark's first sample.
FIRST = {"GSM8K": "test-0000", "MMLU": "abstract_algebra-test-0000", "AlpacaEval": "alpaca-0000"}

PHONE = {"width": 390, "height": 844}

#: What models, people and files may put into a report to make it do something.
HOSTILE = [
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 1</script>",
    "<img src=x onerror=\"window.pwned = 1\"><svg onload='window.pwned = 1'>",
    '"><a href="javascript:window.pwned=1" id=link>javascript:window.pwned=1</a>',
    "<style>body { display: none }</style><meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<link rel=stylesheet href=http://127.0.0.1:9/a.css><iframe src=http://127.0.0.1:9/></iframe>",
    "a\u202eb\u2066c\u200fd",
    "line\u2028paragraph\u2029end",
    "nul\x00bell\x07 \x1b[2J\x1b]0;title\x07 \x9b31m",
    "lone \ud800 and \udfff",
    "${alert(1)} {{ 7 * 7 }} {% raw %} $\\frac{a}{b}$ <!-- ]]> &lt;b&gt; &#x3c;",
    "--><![CDATA[ </pre></bdi></details></template></noscript></title></textarea>",
    "Z̴̢a̷lgo 👩‍👩‍👧 שלום مرحبا",
]


#: Those of their characters that are not seen, or steer how others are.
HIDDEN = "[\u202e\u2066\u200f\u200d\u2028\u2029\x00\x07\x1b\x9b\ud800-\udfff]"


@pytest.fixture
def read(page_of: Open) -> Iterator[Callable[..., Visit]]:
    """Open a report and wait for its first sample; afterwards nothing was fetched and nothing went wrong."""
    visits = []

    def opened(path: Path, fragment: str = "", **options: object) -> Visit:
        visit = page_of(path.as_uri() + fragment, **options)
        visits.append((visit, path))
        visit.page.wait_for_selector("#texts > *")
        return visit

    yield opened
    for visit, path in visits:
        assert {address.partition("#")[0] for address in visit.requests} == {path.as_uri()}
        assert visit.faults == []


def count(visit: Visit) -> str:
    return visit.page.inner_text("#count")


def title(visit: Visit) -> str:
    return visit.page.inner_text("#sample-title")


def show_all_of(visit: Visit) -> list[str]:
    """Return the ids in the list, all of which are in sight."""
    return visit.page.locator(".row > bdi:not(.under)").all_inner_texts()


def choose(visit: Visit, benchmark: str, run: str = "dpo") -> None:
    visit.page.select_option("#section", label=benchmark)
    expect(visit.page.locator("#sample-title")).to_have_text(FIRST[benchmark])
    visit.page.select_option("#run", label=run)


def test_it_is_read_without_a_fault(report: Path, read: Callable[..., Visit]) -> None:
    visit = read(report)
    assert visit.page.inner_text("h1") == "base, sft and dpo on GSM8K, MMLU, AlpacaEval and SimpleSafetyTests"
    assert visit.page.locator("#results table").first.locator("tbody tr").count() == 4
    assert visit.page.locator("figure svg.chart").count() == visit.page.locator("figure").count() >= 6
    assert count(visit) == "12 samples" and title(visit) == "test-0000"
    assert visit.page.locator("#texts .side > section").count() == 3
    assert visit.page.inner_text("#texts pre.prompt").startswith("# Instruction")
    assert visit.page.locator("figure svg.chart text").first.evaluate("e => getComputedStyle(e).fill") != "none"


def test_what_a_figure_rests_on_is_seen_beside_it(report: Path, read: Callable[..., Visit]) -> None:
    visit = read(report)
    results = visit.page.inner_text("#results")
    assert "win rate · judged by oracle" in results and "safe · judged by oracle" in results
    assert re.search(r"in \d+\.\d% to \d+\.\d%, whatever 1 unreadable replies mean", results)
    assert re.search(r"with 80% power, in points: GSM8K sft \d+, dpo \d+; MMLU ", results)
    assert re.search(r"AlpacaEval, base: oracle prefers what is shown first in \d+\.\d% \[", results)
    assert "failed of all samples; unparsed, truncated and disagreeing of the outputs" in visit.page.inner_text(
        "#failures"
    )
    assert "95% intervals, by Wilson's score method, examples independent (GSM8K" in visit.page.inner_text(
        "#provenance"
    )


def test_filters_show_what_show_finds(report: Path, reported: list[Path], read: Callable[..., Visit]) -> None:
    visit = read(report)
    for label, path in zip(MODELS, reported[::4], strict=True):
        choose(visit, "GSM8K", label)
        recorded = read_run(path)
        samples = [recorded.sample(row) for row in range(len(recorded))]
        for kind in ("wrong", "unparsed", "truncated"):
            expected = [sample.id for sample in samples if kind in kinds_of(sample, "final-number")]
            box = visit.page.get_by_role("checkbox", name=re.compile(f"^{kind} "))
            if not expected:
                assert box.count() == 0
                continue
            box.check()
            assert show_all_of(visit) == expected
            assert count(visit) == f"{len(expected)} of 12 samples"
            box.uncheck()
    assert count(visit) == "12 samples"


def test_flips_are_those_of_the_comparison(report: Path, reported: list[Path], read: Callable[..., Visit]) -> None:
    found = compare([read_run(run) for run in reported]).benchmarks[1]
    visit = read(report)
    choose(visit, "MMLU")
    difference = found.metrics[0].against_baseline["dpo"]
    assert difference.gained
    visit.page.select_option("#flip", label="good here, not with base")
    visit.page.evaluate("document.querySelector('#list').style.height = '4000px'; dispatchEvent(new Event('resize'))")
    assert show_all_of(visit) == list(difference.gained)
    visit.page.select_option("#flip", label="good with base, not here")
    assert show_all_of(visit) == list(difference.lost) == []
    assert title(visit) == "No sample fits"


def test_the_results_lead_to_the_flips_behind_them(report: Path, read: Callable[..., Visit]) -> None:
    visit = read(report)
    visit.page.evaluate("document.querySelector('#list').style.height = '4000px'")
    links = visit.page.locator("#results table").first.locator(".flips a")
    assert links.count() == 4 * 3 * 2, "four benchmarks, three pairs of models"
    for link in links.all():
        number = link.inner_text().split()[0]
        link.click()
        expect(visit.page.locator("#count")).to_have_text(re.compile(f"^{number} of "))
        expect(visit.page.locator(".row")).to_have_count(int(number))


def test_groups_narrow_and_combine(report: Path, read: Callable[..., Visit]) -> None:
    visit = read(report)
    choose(visit, "MMLU")
    visit.page.select_option("#group", label=SUBJECTS[1])
    assert count(visit) == "12 of 36 samples"
    assert all(identifier.startswith("anatomy-") for identifier in show_all_of(visit))
    visit.page.get_by_role("checkbox", name=re.compile("^wrong ")).check()
    assert count(visit) == "3 of 36 samples"
    visit.page.get_by_role("checkbox", name=re.compile("^right ")).check()
    assert count(visit) == "12 of 36 samples"


def test_search_reads_prompts_outputs_and_ids(report: Path, read: Callable[..., Visit]) -> None:
    visit = read(report)
    page = visit.page
    for query, expected in (("I DO NOT know", ["test-0002"]), ("test-0003", ["test-0003"]), ("(a.b*", [])):
        page.fill("#query", query)
        expect(page.locator(".row > bdi:not(.under)")).to_have_text(expected)
        page.fill("#query", "THINKS. ")
        expect(page.locator("#count")).to_have_text("12 samples")
    page.fill("#query", string.punctuation)
    expect(page.locator("#count")).to_have_text("0 of 12 samples")
    page.fill("#query", "do not know")
    page.wait_for_selector("pre mark:not(.deciding)")
    assert page.locator("#texts pre mark:not(.deciding)").all_inner_texts() == ["do not know"]
    page.fill("#query", "")
    expect(page.locator("#count")).to_have_text("12 samples")


def test_the_keyboard_does_all(report: Path, read: Callable[..., Visit]) -> None:
    visit = read(report)
    page = visit.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("j")
    assert title(visit) == "test-0000", "keys count in the samples alone"
    page.focus("#list")
    for key, expected in (
        ("j", 1),
        ("ArrowDown", 2),
        ("ArrowRight", 3),
        ("k", 2),
        ("End", 11),
        ("Home", 0),
        ("ArrowUp", 0),
    ):
        page.keyboard.press(key)
        expect(page.locator("#sample-title")).to_have_text(f"test-{expected:04d}")
        selected = page.locator(".row[aria-selected=true]")
        assert selected.get_attribute("id") == page.get_attribute("#list", "aria-activedescendant")
        assert selected.get_attribute("aria-posinset") == str(expected + 1)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.type("j/k")
    assert page.input_value("#query") == "j/k"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "list"


def test_a_link_leads_to_its_sample(report: Path, read: Callable[..., Visit]) -> None:
    first = read(report)
    choose(first, "MMLU")
    first.page.focus("#list")
    first.page.keyboard.press("End")
    expect(first.page.locator("#sample-title")).to_have_text("astronomy-test-0011")
    fragment = first.page.evaluate("location.hash")
    assert fragment == "#sample=1/astronomy-test-0011" == first.page.get_attribute("#link", "href")
    second = read(report, fragment)
    assert title(second) == "astronomy-test-0011"
    assert second.page.evaluate("document.querySelector('#samples').getBoundingClientRect().top") < 100
    second.page.evaluate("location.hash = '#sample=0/test-0004'")
    expect(second.page.locator("#sample-title")).to_have_text("test-0004")
    for broken in ("#sample=9/x", "#sample=0/%ff", "#sample=0/none", "#sample=0//77"):
        assert title(read(report, broken)) == "test-0000"


def test_judged_samples_show_the_judge(report: Path, read: Callable[..., Visit]) -> None:
    visit = read(report)
    choose(visit, "AlpacaEval", "base")
    kinds = visit.page.locator("#kinds label").all_inner_texts()
    assert kinds == ["won 1", "lost 1", "tied 1", "unreadable 1"]
    visit.page.get_by_role("checkbox", name="lost 1").check()
    for summary in visit.page.locator("#texts details summary").all():
        summary.click()
    assert "Reference 1" in visit.page.inner_text("#texts > details")
    said = visit.page.locator("#texts .side > section").first.inner_text()
    assert "verdict of oracle: lost" in said and "reference-first" in said


def test_deciding_words_are_marked_and_the_rule_is_said(
    tmp_path: Path, report: Path, read: Callable[..., Visit]
) -> None:
    visit = read(report)
    choose(visit, "MMLU", "dpo")
    expect(visit.page.locator("#texts pre mark.deciding")).to_have_count(len(MODELS))
    said = visit.page.locator("#texts .focus .facts").last.inner_text()
    assert re.fullmatch(r"choice: [AB] · an? \w.*", said)
    data = write_data(tmp_path / "data")
    outputs = ({"output": f"{text} 😀<b>\nThe answer is {n}.\n<i>"} for n, text in enumerate(HOSTILE[:12]))
    recorded = write_lines(tmp_path / "m.jsonl", outputs)
    command("run", "-b", "gsm8k", "-e", "replay", "-m", recorded, "--data", data, "-o", tmp_path / "runs")
    [run] = (tmp_path / "runs" / "gsm8k" / "m").iterdir()
    path = tmp_path / "hostile.html"
    path.write_text("".join(render([read_run(run)])), encoding="utf-8")
    page = read(path).page
    for place, text in enumerate(HOSTILE[:12]):
        expect(page.locator("#sample-title")).to_have_text(f"test-{place:04d}")
        pre = page.locator("#texts .side > section pre")
        assert pre.evaluate("e => e.textContent") == f"{visible(text)} 😀<b>\nThe answer is {place}.\n<i>"
        marked = pre.locator("mark.deciding").evaluate("e => e.textContent")
        assert str(place) in marked and "😀" not in marked and "<" not in marked
        page.focus("#list")
        page.keyboard.press("j")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_used_by_all(report: Path, read: Callable[..., Visit], scheme: str) -> None:
    visit = read(report, color_scheme=scheme)
    opened = "#results details, #speed details, .made:first-of-type, .made:first-of-type details, #sample details"
    visit.page.evaluate(f"for (const each of document.querySelectorAll('{opened}')) each.open = true")
    visit.page.fill("#query", "thinks")
    visit.page.wait_for_selector("pre mark:not(.deciding)")
    assert visit.violations() == []


def test_it_fits_a_phone_and_a_sheet(report: Path, read: Callable[..., Visit]) -> None:
    visit = read(report, viewport=PHONE)
    assert visit.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert visit.violations() == []
    visit.page.emulate_media(media="print")
    assert not visit.page.is_visible("#samples") and visit.page.is_visible("#results")
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_browser_that_cannot_unpack_says_so(report: Path, page_of: Open) -> None:
    visit = page_of("about:blank")
    visit.page.add_init_script("delete window.DecompressionStream")
    visit.page.goto(report.as_uri())
    assert "cannot unpack" in visit.page.inner_text("#trouble")
    assert visit.page.is_visible("#results") and not visit.page.is_visible("#browser")


def test_a_list_of_thousands_has_few_elements(tmp_path: Path, read: Callable[..., Visit]) -> None:
    data = tmp_path / "data"
    write_lines(data / "gsm8k" / "test.jsonl", ({"question": f"{n}?", "answer": f"#### {n}"} for n in range(3000)))
    said = write_lines(tmp_path / "m.jsonl", ({"output": f"It is {n}. " + "word " * 40} for n in range(3000)))
    command("run", "-b", "gsm8k", "-e", "replay", "-m", said, "--data", data, "-o", tmp_path / "runs")
    [run] = (tmp_path / "runs" / "gsm8k" / "m").iterdir()
    path = tmp_path / "report.html"
    path.write_text("".join(render([read_run(run)])), encoding="utf-8")
    visit = read(path)
    assert visit.page.locator("script[data-first]").count() > 1
    visit.page.focus("#list")
    visit.page.keyboard.press("End")
    expect(visit.page.locator("#sample-title")).to_have_text("test-2999")
    assert visit.page.locator(".row").count() < 60
    visit.page.fill("#query", "it is 1234.")
    expect(visit.page.locator("#count")).to_have_text("1 of 3,000 samples")


@pytest.fixture(scope="module")
def hostile_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs in which outputs, prompts, golds, errors, ids, groups, models' and judges' names are hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    data = write_data(folder / "data")
    rows = [{"instruction": f"{n} {text}", "dataset": text} for n, text in enumerate(HOSTILE)]
    write_lines(data / "alpaca_eval" / "alpaca_eval.jsonl", rows)
    references = [
        {"instruction": row["instruction"], "output": text, "generator": text}
        for row, text in zip(rows, HOSTILE, strict=True)
    ]
    (data / "alpaca_eval" / "gpt4_1106_preview.json").write_text(json.dumps(references))
    keys = ("reference-first", "model-first")
    replies = [
        {"id": f"alpaca-{n:04d}#{key}", "output": f"1 {text}" if n % 2 else "1"}
        for n, text in enumerate(HOSTILE)
        for key in keys
    ]
    judge = write_lines(folder / "judge.jsonl", replies)
    found = []
    for name in ("a", "b"):
        said = write_lines(folder / f"{name}.jsonl", ({"output": f"{name} {text}"} for text in HOSTILE))
        words = ["run", "-b", "alpaca_eval", "-e", "replay", "-m", said, "--data", data, "-o", folder / "runs"]
        command(*map(str, words), "--judge", judge, "--judge-engine", "replay")
        [run] = (folder / "runs" / "alpaca_eval" / name).iterdir()
        spoil(run, f"{name} {HOSTILE[1]}{HOSTILE[6]}")
        found.append(run)
    return found


def spoil(run: Path, model: str) -> None:
    """Make a run's ids, model and provenance hostile too, as whoever sends a run folder can."""
    config = json.loads((run / "run.json").read_text())
    git, chosen = {"commit": HOSTILE[4], "dirty": True}, {**config["prompt_format"], "name": HOSTILE[0]}
    edit(run / "run.json", model=model, engine=HOSTILE[2], harness=HOSTILE[3], git=git, prompt_format=chosen)
    edit(run / "run.json", versions={HOSTILE[8]: HOSTILE[9]}, fingerprint=HOSTILE[10])
    for path in (run / "samples.jsonl", run / "judged" / "judge.jsonl"):
        lines = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
        for line in lines:
            line["id"] = f"{line['id']} {HOSTILE[int(line['id'].split()[0][-2:])]}"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_nothing_that_was_written_is_executed(
    hostile_runs: list[Path], tmp_path: Path, read: Callable[..., Visit]
) -> None:
    path = tmp_path / "report.html"
    path.write_text("".join(render([read_run(run) for run in hostile_runs])), encoding="utf-8")
    visit = read(path)
    page = visit.page
    elements = page.evaluate("[...document.querySelectorAll('iframe, img, link, object, embed, base, form')].length")
    assert elements == 0 and page.locator("style").count() == 1
    assert page.locator("script:not([type])").count() == 1
    for place, text in enumerate(HOSTILE):
        expect(page.locator("#sample-title")).to_have_text(re.compile(f"^alpaca-{place:04d} "))
        shown = page.locator("#texts .side > section pre").first.evaluate("e => e.textContent")
        assert shown == f"a {visible(text)}", text
        for details in page.locator("#texts details summary").all():
            details.click()
        page.focus("#list")
        page.keyboard.press("j")
    page.fill("#query", "<script>")
    expect(page.locator("#count")).to_have_text("2 of 13 samples")
    seen = page.evaluate("document.body.innerText + document.title")
    spoken = page.evaluate("[...document.querySelectorAll('*')].map(e => e.title + e.ariaLabel).join()")
    assert not re.search(HIDDEN, seen + spoken)
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.querySelectorAll('a[href^=javascript]').length") == 0


def visible(text: str) -> str:
    """Return a text as the page is to show it, independently of how the page does it."""
    return re.sub(HIDDEN, lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)
