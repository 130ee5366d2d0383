"""Plugins that break one promise each: a sound source, what is changed in it, and what the check then says."""

from __future__ import annotations

from typing import NamedTuple

from harness.registry import Kind
from harness.testing.new import plugin_files

#: A scorer that asks a judge, whole.
JUDGED = """
import math
from harness.hookspecs import hookimpl
from harness.statistics import proportion
from harness.types import Generation, Judgement, JudgeQuestion

class Polite:
    name = "odd"
    judged = True
    verdicts = ("polite", "rude")
    def inputs(self, examples):
        return {}
    def questions(self, example, response):
        return [JudgeQuestion("only", f"Is this polite or rude? {response}", Generation(max_tokens=4))]
    def judgement(self, example, response, replies):
        said = [verdict for verdict in self.verdicts if verdict in replies["only"].text]
        verdict = said[0] if len(said) == 1 else "unreadable"
        return Judgement(verdict, self.score(example, verdict))
    def score(self, example, answer):
        return {"polite": {"polite": 1.0, "rude": 0.0}.get(answer, math.nan)}
    def summarise(self, columns):
        values = [value for value in columns.get("polite", ()) if not math.isnan(value)]
        return {"polite": proportion(sum(values), len(values))}
    def details(self, columns):
        return {"bounds": {"polite": [0, 1]}}
    def report(self, model, judge, judged):
        return {}
    def exports(self, model, judge, judged):
        return {}

@hookimpl
def harness_scorers():
    return [Polite()]
"""

#: An engine on top of `transformers` that streams, whole.
ENGINE = """
from harness.engines.transformers import TransformersEngine
from harness.hookspecs import hookimpl

class Odd(TransformersEngine):
    name = "odd"
    def load(self, model):
        return Model(super().load(model))

class Model:
    def __init__(self, model):
        self.model = model
    def generate(self, requests):
        return self.model.generate(requests)
    def stream(self, request):
        [completion] = self.model.generate([request])
        yield completion.text
        return completion
    def close(self):
        self.model.close()

@hookimpl
def harness_engines():
    return [Odd()]
"""

#: A trainer that trains nothing, but breaks no promise.
TRAINER = """
import json
import shutil
from harness.hookspecs import hookimpl
from harness.types import RunInfo

class Odd:
    name = "odd"
    def plan(self, run):
        return "9 steps"
    def train(self, run):
        shutil.copytree(run.model, run.out, dirs_exist_ok=True)
        (run.out / "harness.json").write_text(json.dumps({"prompt_format": "plain"}))
        saved = run.out / "saved"
        trackers = [tracker.start(RunInfo("odd")) for tracker in run.trackers]
        for step in range(int(saved.read_text()) if saved.exists() else 0, 9):
            for tracker in trackers:
                tracker.log(step, {"loss": 1 / (step + 1)})
            saved.write_text(str(step + 1))
        for tracker in trackers:
            tracker.close()
        return run.out

@hookimpl
def harness_trainers():
    return [Odd()]
"""


#: A scorer that takes any answer for right.
LENIENT = """

class Lenient:
    name = "odd"
    judged = False
    def score(self, example, answer):
        return {"right": 1.0}
    def summarise(self, columns):
        return {}

@hookimpl
def harness_scorers():
    return [Lenient()]
"""


class Break(NamedTuple):
    """How the promise of the check `check` is broken: `old` becomes `new` in `source`, and the check says `says`.

    Without a source it is the module that ``harness plugins --new odd`` writes.
    """

    check: str
    old: str
    new: str
    says: str
    source: str = ""


#: What `generate` of ENGINE does, and each completion with something replaced instead.
_GENERATE = "return self.model.generate(requests)"
_REPLACED = """import dataclasses
        for one in self.model.generate(requests):
            yield dataclasses.replace(one, {})"""

_PROPORTION = "proportion(sum(values), len(values))"
_COUNT = "min(len(said), limit))"

#: Broken in the same way, whatever the kind; here in a parser.
EVERY = (
    Break("it loads", 'name = "odd"', 'name = "even"', "no object whose name is 'odd'"),
    Break("importing it is light", "class Odd", "import pyarrow\n\n\nclass Odd", "importing it imports pyarrow"),
    Break(
        "options come back from a file",
        "class OddParser:",
        "import dataclasses\n\n\n@dataclasses.dataclass\nclass OddParser:\n    odd: object = frozenset((1,))\n",
        "cannot be written as JSON",
    ),
)

BREAKS: dict[Kind, tuple[Break, ...]] = {
    "benchmarks": (
        Break("it says what it is", "our own questions", "two\\nlines", "citation must be one line"),
        Break(
            "examples are indexed alike every time",
            "return Mapped(rows, _example)",
            "import random\n        return Mapped(rows, lambda i, row: Example(str(random.random()), {}, '1'))",
            "is another the second time",
        ),
        Break("ids are unique", "{index:04d}", "x", "examples 0 and 1 have the same id 'odd-x'"),
        Break("fields are json", '"question": row["question"]', '"question": (1, 2)', "are others when read back"),
        Break(
            "instructions depend on the example alone",
            "{example.fields['question']}",
            "{id(example.fields)}",
            "is another the second time",
        ),
        Break(
            "another process gives the same examples",
            '"odd-{index:04d}"',
            "\"odd-{hash(row['question'])}\"",
            "is another in a new process",
        ),
        Break("its scorer takes its examples", 'gold=row["answer"]', "gold=None", "has no gold answer"),
        Break("gold answers score one", 'gold=row["answer"]', 'gold=row["answer"] + " legs"', "reads '16' in"),
        Break("other answers score less", '[str] = "exact"', '[str] = "odd"', "no answer gets the full score"),
        Break(
            "exports are json",
            "    def instruction",
            '    def exports(self, run):\n        return {"out.csv": []}\n\n    def instruction',
            "called 'out.csv'",
        ),
    ),
    "formats": (
        Break(
            "any beginning can be looked at",
            "return start.startswith(_FIRST)",
            "return start or None",
            "not True or False",
        ),
        Break("a file of its own is recognised", "start.startswith(_FIRST)", "not start", "it does not recognise"),
        Break(
            "outputs are the same each time",
            "yield RecordedOutput(place, output,",
            "import random\n                yield RecordedOutput(place, str(random.random()),",
            "a second time gives others",
        ),
        Break(
            "a damaged file is refused",
            'raise DataError(f"{place}: no tab between an id and an output")',
            "continue",
            "is read as if it were whole",
        ),
    ),
    "parsers": (
        Break("it reads any text", "before, end", "output.encode()\n        before, end", "raises UnicodeEncodeError"),
        Break(
            "the same output gives the same answer",
            "before, end",
            "return str(hash(output))\n        before, end",
            "in a new process",
        ),
        Break("answers are canonical", "before, end", "return output[1:] or None\n        before, end", "itself gives"),
        Break(
            "time grows with the length",
            "before, end",
            "sum(output.count(a) for a in output)\n        before, end",
            "times as long as",
        ),
    ),
    "scorers": (
        Break("scores lie between 0 and 1", "float(math", "3 * float(math", "near = 3.0, not a number from 0 to 1"),
        Break(
            "the same answer gets the same score",
            'return {"near": ',
            'import random\n        return {"near": random.random() * 0 + random.random() or ',
            "the second time",
        ),
        Break("estimates hold together", _PROPORTION, "Estimate(2, len(values), 0, 0, 1, 'wrong')", "is 2 with the"),
        Break(
            "the order makes no difference", _PROPORTION, "proportion(sum(values[:5]), len(values))", "in another order"
        ),
        Break("a judge is shown the response", "{response}", "", "does not show the response", JUDGED),
        Break("any reply gives a verdict", 'else "unreadable"', 'else "rude"', "is rude, not unreadable", JUDGED),
        Break("judged responses are reported", "[0, 1]", "[1, 0]", r"bounds of polite are \[1, 0\]", JUDGED),
    ),
    "engines": (
        Break(
            "it says whether it can run",
            "    def identity",
            '    def available(self):\n        return ""\n\n    def identity',
            "not None or one line",
        ),
        Break("its identity is json", '"model": model', '"model": {model}', "it raises TypeError"),
        Break(
            "each request is answered once",
            "yield Completion",
            "if '1' in request.id: continue\n            yield Completion",
            "are answered by the completions",
        ),
        Break("tokens are counted", _GENERATE, _REPLACED.format("prompt_tokens=1"), "1 prompt tokens counted", ENGINE),
        Break("max tokens are kept", "limit = request.generation.max_tokens", "limit = 8", "but max_tokens is 1"),
        Break("stop strings end the text", "request.generation.stop if", "() if", "with the stop strings"),
        Break(
            "greedy text is the same in any batch",
            "said = prompt",
            "self._words = 9 - self._words\n            said = prompt",
            "alone, and among others",
        ),
        Break(
            "a seed gives the same text in any batch",
            "text = text[:",
            "text += str(id(requests)) * (request.generation.seed or 0)\n            text = text[:",
            "alone, and among others",
        ),
        Break(
            "an overlong prompt is an error of its own",
            _GENERATE,
            _REPLACED.format("error=None"),
            "has the error None",
            ENGINE,
        ),
        Break(
            "logprobs belong to the tokens",
            _COUNT,
            f'{_COUNT[:-1]}, top_logprobs=({{"a": 0.5}},) * 4)',
            "log-probabilities {'a': 0.5}",
        ),
        Break(
            "likelihoods are those of what it generates",
            _GENERATE,
            _REPLACED.format("continuations=tuple(value - 1 for value in one.continuations)"),
            "and -[0-9.]+ as generated",
            ENGINE,
        ),
        Break(
            "a stream gives what generate gives",
            "yield completion.text",
            "yield completion.text[1:]",
            "are not the text",
            ENGINE,
        ),
        Break("closing twice is safe", '"""Free what the model holds: nothing here."""', "del self._words", "_words"),
    ),
    "trackers": (
        Break(
            "it says whether it can be used",
            "    def start",
            '    def available(self):\n        return ""\n\n    def start',
            "not None or one line",
        ),
        Break("a run is followed", "self._file.flush()", "self._file.flush(1)", "raises TypeError"),
        Break(
            "a run without options or numbers is followed",
            "**values}",
            '**values, "loss": values["loss"]}',
            "raises KeyError: 'loss'",
        ),
        Break("any number can be told", "**values})", "**values}, allow_nan=False)", "raises ValueError"),
        Break(
            "closing twice is safe", "self._file.close()", "self._file.write('')\n        self._file.close()", "closed"
        ),
    ),
}

#: What a trainer that breaks every promise has instead, as a rehearsal takes seconds.
TRAINER_BREAKS = (
    Break("a plan needs no weights", '"9 steps"', '"a while"', "does not say how many steps"),
    Break("it trains", "return run.out", 'return run.out / "nowhere"', "which is no folder"),
    Break("trackers follow it", "tracker.close()", "pass", "is not closed"),
    Break(
        "its model can be evaluated", '{"prompt_format": "plain"}', "{}", "no harness.json that names a prompt format"
    ),
    Break(
        "interrupted training ends the same",
        "int(saved.read_text()) if saved.exists() else 0",
        "0",
        "begins anew after being killed, at step 0",
    ),
)


def sound(kind: Kind) -> str:
    """Return the source of a plugin called ``odd`` that keeps all promises; a benchmark's has a scorer beside it."""
    if kind == "trainers":
        return TRAINER
    return plugin_files("odd", kind[:-1])["harness_odd.py"] + (LENIENT if kind == "benchmarks" else "")


def broken(kind: Kind, *breaks: Break) -> str:
    """Return the source of one that breaks some."""
    source = breaks[0].source or sound(kind)
    for one in breaks:
        assert one.old in source, one
        source = source.replace(one.old, one.new)
    return source
