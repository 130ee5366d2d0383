"""`harness train dpo` from end to end on a tiny model, what its metrics mean, and what can be wrong with its input."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from harness.testing.tiny import make_tiny_model, word_problems
from harness_dpo import LOSSES
from tests.conftest import Command, Done
from tests.processes import start

if TYPE_CHECKING:
    from harness.testing.fixtures import FakeDistribution

SETTINGS = {
    "prompt_format": "plain",
    "sequence_length": "128",
    "batch_size": "8",
    "microbatch_size": "4",
    "validation_pairs": "8",
    "learning_rate": "3e-4",
    "log_every": "2",
    "validate_every": "4",
    "device": "cpu",
}
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", context=256)


def write(path: Path, pairs: list[tuple[str, str, str]]) -> Path:
    lines = [json.dumps(dict(zip(("prompt", "chosen", "rejected"), pair, strict=True))) for pair in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two files: one prefers right results, the other capital letters."""
    folder = tmp_path_factory.mktemp("data")
    problems = word_problems(60, seed=3)
    wrong = [(q, a, re.sub(r"\d+", "0", a)) for q, a in problems[:40]]
    capitals = [(q, a.upper(), a) for q, a in problems[40:]]
    return [str(write(folder / "right.jsonl", wrong)), str(write(folder / "capitals.jsonl", capitals))]


def words_of(model: Path, out: Path, files: list[str], **options: str) -> list[str]:
    settings = {"data": json.dumps(files), **SETTINGS, **options}
    pairs = [part for key, value in settings.items() for part in ("--set", f"dpo.{key}={value}")]
    return ["train", "dpo", "--model", str(model), "--out", str(out), *pairs]


@pytest.fixture
def train(harness: Command, tiny: Path, files: list[str], tmp_path: Path) -> Callable[..., Done]:
    def command(*words: str | Path, data: Any = None, out: str = "out", **options: str) -> Done:
        return harness(*words_of(tiny, tmp_path / out, files if data is None else data, **options), *words)

    return command


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_model_learns_what_is_preferred(train: Callable[..., Done], harness: Command, tmp_path: Path) -> None:
    done = train(epochs="12", learning_rate="1e-3")
    assert done.code == 0, done.err
    assert done.out.strip() == str(tmp_path / "out")
    lines = metrics(tmp_path / "out")
    learned = [line for line in lines if "loss" in line]
    held_out = [line for line in lines if "validation/loss" in line]
    first = held_out[0]
    assert first["step"] == 0 and first["validation/loss"] == pytest.approx(0.693147, abs=1e-6)
    assert first["validation/rewards/margins"] == 0 and first["validation/rewards/accuracies"] == 0
    assert learned[-1]["accuracy"] > 0.9 and learned[-1]["rewards/accuracies"] > 0.9 and learned[-1]["loss"] < 0.4
    assert learned[-1]["rewards/margins"] == pytest.approx(
        learned[-1]["rewards/chosen"] - learned[-1]["rewards/rejected"], abs=1e-5
    )
    assert {"accuracy/right", "accuracy/capitals"} <= set().union(*learned)
    assert {"validation/accuracy/right", "validation/accuracy/capitals"} <= held_out[-1].keys()
    assert not [name for line in lines for name in line if name.endswith("#")]

    progress = json.loads((tmp_path / "out" / "last" / "training" / "progress.json").read_text())
    trained = [line for line in held_out if line["step"]]
    best = max(trained, key=lambda line: (float(line["validation/accuracy"]), -float(line["validation/loss"])))
    assert (progress["best"], progress["best_step"]) == (best["validation/accuracy"], best["step"])
    card = json.loads((tmp_path / "out" / "best" / "harness.json").read_text())
    assert (card["trainer"], card["prompt_format"]) == ("dpo", "plain")
    for name in ("curve.png", "curve.svg", "config.json"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    shown = harness("preview", "gsm8k", "--model", tmp_path / "out", "--data", ROOT / "examples" / "demo")
    assert shown.code == 0 and "plain" in shown.out


def test_metrics_are_what_they_are_called(train: Callable[..., Done], tiny: Path, tmp_path: Path) -> None:
    """Recomputed over all held-out pairs from transformers' own logits, before and after."""
    from transformers import AutoModelForCausalLM

    from harness.interfaces import TrainingRun
    from harness.training.session import Session
    from harness_dpo import DPO
    from harness_dpo.data import read_data

    assert train(epochs="2", learning_rate="1e-3", validation_pairs="20").code == 0
    recipe = json.loads((tmp_path / "out" / "harness.json").read_text())["recipe"]["dpo"]
    options = DPO(data=tuple(recipe["data"]), prompt_format="plain", sequence_length=128, validation_pairs=20)
    data = read_data(options, Session(options, TrainingRun(str(tiny), tmp_path, {})))
    assert data.validation is not None

    def logprobs(model: Path) -> torch.Tensor:
        lm: Any = AutoModelForCausalLM.from_pretrained(model)
        values = []
        for pair in data.validation.pairs.tolist():  # type: ignore[union-attr]
            for side in (0, 1):
                ids = torch.tensor([data.documents.document(2 * pair + side).tolist()])
                start = int(data.documents.prompts[2 * pair + side])
                with torch.no_grad():
                    each = lm(ids).logits[0].log_softmax(-1)
                values.append(each[start - 1 : -1].gather(-1, ids[0, start:, None]).sum())
        return torch.stack(values).view(-1, 2)

    policy, reference = logprobs(tmp_path / "out" / "last"), logprobs(tiny)
    rewards = 0.1 * (policy - reference)
    margins = rewards[:, 0] - rewards[:, 1]
    source = torch.from_numpy(data.validation.sources[data.validation.pairs])
    right = policy[:, 0] > policy[:, 1]
    expected = {
        "loss": -torch.nn.functional.logsigmoid(margins).mean(),
        "rewards/chosen": rewards[:, 0].mean(),
        "rewards/rejected": rewards[:, 1].mean(),
        "rewards/margins": margins.mean(),
        "rewards/accuracies": (margins > 0).float().mean(),
        "accuracy": right.float().mean(),
        "accuracy/right": right[source == 0].float().mean(),
        "accuracy/capitals": right[source == 1].float().mean(),
        "rewards/margins/capitals": margins[source == 1].mean(),
    }
    last = metrics(tmp_path / "out")[-1]
    for name, value in expected.items():
        assert last[f"validation/{name}"] == pytest.approx(value.item(), abs=1e-5), name


#: The loss where policy and reference are the same, for the options that each loss has by itself.
FIRST = {
    "dpo": math.log(2), "dpo_norm": math.log(2), "robust": math.log(2), "ipo": 25.0, "ipo_norm": 25.0, "hinge": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_made_small(train: Callable[..., Done], tmp_path: Path, name: str) -> None:
    """Small steps on the same pairs, all of them each time, go down whatever the model is."""
    every = {"batch_size": "60", "validation_pairs": "0", "validate_every": "0", "log_every": "1"}
    done = train(loss=name, epochs="4", learning_rate="1e-5", **every)
    assert done.code == 0, done.err
    first, *_, last = [line for line in metrics(tmp_path / "out") if "loss" in line]
    assert last["loss"] < first["loss"]
    if LOSSES[name].needs_reference:
        assert last["rewards/margins"] > first["rewards/margins"]
        assert first["loss"] == pytest.approx(FIRST[name], rel=1e-5)
    else:
        assert "reference" not in done.err.replace("reference   none", "")
        assert not (Path(os.environ["HARNESS_CACHE"]) / "reference").exists()
    identity = json.loads((tmp_path / "out" / "training.json").read_text())
    assert ("reference" in identity) is LOSSES[name].needs_reference
    given = {option: identity[option] for option in ("beta", "label_smoothing") if option in identity}
    assert (identity["loss"], {**given, **identity.get("loss_options", {})}) == (name, asdict(LOSSES[name]))
    assert "reference_model" not in identity and ("loss_options" in identity) is (name == "simpo")


@pytest.mark.parametrize("share", ["false", "true"])
def test_a_loss_without_reference_is_what_its_figures_say(
    train: Callable[..., Done], tmp_path: Path, share: str
) -> None:
    """SimPO's and ORPO's first losses from the same averages, in one of which they are the rewards."""
    for name, options in {
        "simpo": {"loss_options.gamma": "0.3", "beta": "1"},
        "orpo": {"loss_options.beta": "1"},
    }.items():
        assert train(loss=name, out=name, max_steps="1", validation_pairs="1", share_prompt=share, **options).code == 0
    simpo, orpo = (metrics(tmp_path / name)[0] for name in ("simpo", "orpo"))
    chosen, rejected = (simpo[f"validation/rewards/{side}"] for side in ("chosen", "rejected"))
    assert orpo["validation/rewards/chosen"] == pytest.approx(chosen, abs=1e-5) and -10 < chosen < 0
    assert simpo["validation/loss"] == pytest.approx(softplus(-(chosen - rejected - 0.3)), abs=1e-5)
    odds = [average - math.log(-math.expm1(average)) for average in (chosen, rejected)]
    assert orpo["validation/loss"] == pytest.approx(-chosen + softplus(odds[1] - odds[0]), abs=1e-5)


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_a_loss_of_ones_own_is_a_trainer_of_ones_own(
    harness: Command, fake_distribution: FakeDistribution, tiny: Path, files: list[str], tmp_path: Path
) -> None:
    """As docs/preferences.md shows it."""
    page = (ROOT / "docs" / "preferences.md").read_text(encoding="utf-8")
    [source] = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    fake_distribution(
        "harness-squared", entry_points={"harness.trainers": {"squared": "harness_squared"}},
        modules={"harness_squared": source},
    )  # fmt: skip
    words = [word.replace("dpo.", "squared.", 1) for word in words_of(tiny, tmp_path / "out", files, epochs="2")]
    words[words.index("dpo")] = "squared"
    done = harness(*words, "--set", "squared.loss_options.margin=2")
    assert done.code == 0, done.err
    assert metrics(tmp_path / "out")[0]["validation/loss"] == pytest.approx(4.0)
    identity = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (identity["trainer"], identity["beta"], identity["loss_options"]) == ("squared", 0.1, {"margin": 2.0})
    check_one_line(
        harness(*words, "--set", "squared.loss=dpo"), "squared.loss=dpo: there is no such loss; known: squared"
    )


def test_how_a_step_is_cut_changes_nothing(train: Callable[..., Done], tmp_path: Path) -> None:
    for size in ("8", "3", "1"):
        assert train(microbatch_size=size, out=size, max_steps="4", log_every="1").code == 0
    expected = [line["loss"] for line in metrics(tmp_path / "8") if "loss" in line]
    assert len(expected) == 4
    for size in ("3", "1"):
        found = [line["loss"] for line in metrics(tmp_path / size) if "loss" in line]
        assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_killed_training_ends_as_if_it_had_not_been(
    train: Callable[..., Done], tiny: Path, files: list[str], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    more = {"epochs": "5", "save_every": "7", "log_every": "3"}
    assert train(out="whole", **more).code == 0
    killed = tmp_path / "killed"
    processes = start(words_of(tiny, killed, files, **more), tmp_path / "said")
    while not (killed / "last").exists() and processes.running():
        time.sleep(0.01)
    os.kill(processes.pids[0], signal.SIGKILL)
    assert processes.ended().returncode == -signal.SIGKILL
    done = train(out="killed", **more)
    assert done.code == 0 and "going on behind step" in done.err
    kept = [
        [{k: v for k, v in line.items() if not k.startswith(("seconds", "tokens_per"))} for line in metrics(out)]
        for out in (tmp_path / "whole", killed)
    ]
    assert kept[0] == kept[1]
    for place in ("last", "best"):
        whole, other = (load_file(out / place / "model.safetensors") for out in (tmp_path / "whole", killed))
        assert all(torch.equal(whole[name], other[name]) for name in whole)


def test_a_template_of_ones_own_is_handed_on(harness: Command, tiny: Path, files: list[str], tmp_path: Path) -> None:
    """From instruction tuning to preference tuning to evaluation, though the file is gone."""
    own, texts = tmp_path / "own.prompt", tmp_path / "texts.jsonl"
    own.write_text("Asked: {instruction}\nSaid: {response}")
    texts.write_text("".join(json.dumps({"prompt": q, "response": a}) + "\n" for q, a in word_problems(20, seed=4)))
    given = {"data": json.dumps([str(texts)]), "prompt_format": str(own), "sequence_length": "128", "max_steps": "1"}
    words = [part for key, value in given.items() for part in ("--set", f"sft.{key}={value}")]
    tuned = harness("train", "sft", "--model", tiny, "--out", tmp_path / "sft", "--set", "sft.device=cpu", *words)
    assert tuned.code == 0, tuned.err
    own.unlink()
    settings = {"data": json.dumps(files), **SETTINGS, "max_steps": "1"}
    del settings["prompt_format"]
    words = [part for key, value in settings.items() for part in ("--set", f"dpo.{key}={value}")]
    preferred = harness("train", "dpo", "--model", tmp_path / "sft", "--out", tmp_path / "dpo", *words)
    assert preferred.code == 0, preferred.err
    shown = harness("preview", "gsm8k", "--model", tmp_path / "dpo", "--data", ROOT / "examples" / "demo")
    assert shown.code == 0 and "Asked: " in shown.out and "\nSaid: " in shown.out


@pytest.mark.parametrize("reference", ["cached", "same", "adapter"])
def test_two_ranks_give_the_same_training(
    train: Callable[..., Done], tiny: Path, files: list[str], tmp_path: Path, reference: str
) -> None:
    more = {"max_steps": "4", "log_every": "1", "batch_size": "7", "reference": reference}
    if reference == "adapter":
        more |= {"lora_rank": "4", "learning_rate": "1e-3"}
    assert train(out="one", **more).code == 0
    environment = {"HARNESS_CACHE": str(tmp_path / "cache")}
    words = words_of(tiny, tmp_path / "two", files, **more)
    done = start(words, tmp_path / "said", ranks=2, environment=environment).ended()
    assert done.returncode == 0, done.stderr[-3000:]
    names = ("loss", "accuracy", "validation/loss", "validation/accuracy", "rewards/margins", "accuracy/right")
    one, two = ([[line.get(name) for name in names] for line in metrics(tmp_path / out)] for out in ("one", "two"))
    assert len(one) == len(two) > 5
    for expected, found in zip(one, two, strict=True):
        assert [value is None for value in expected] == [value is None for value in found]
        assert [v for v in found if v is not None] == pytest.approx([v for v in expected if v is not None], abs=1e-4)


def test_a_plan_says_everything_and_writes_nothing(
    train: Callable[..., Done], files: list[str], tmp_path: Path
) -> None:
    long = ("A question?", "word " * 200, "no")
    equal = ("A question?", "same", "same")
    odd = write(tmp_path / "odd.jsonl", [long, equal])
    done = train("--plan", data=[*files, str(odd)], epochs="3")
    assert done.code == 0, done.err
    for fact in (
        "61 pairs: right 40, capitals 20, odd 1", "chosen equal to rejected 1", "longer than 128 tokens 1",
        "52 pairs", "validation 8 pairs", "21 of 8 pairs", "GiB a device", "first pair", "rejected '", "(cached)",
    ):  # fmt: skip
        assert fact in done.out, fact
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": "0"}, "beta must be above 0"),
        ({"beta": "inf"}, "beta must be finite, not inf"),
        ({"beta": "nan"}, "beta must be finite, not nan"),
        ({"eps": "0"}, "eps must be at least 1e-30"),
        ({"label_smoothing": "0.7"}, "label_smoothing must be from 0 to 0.5"),
        ({"loss": "kto"}, "dpo.loss=kto: there is no such loss; known: dpo, dpo_norm, hinge, ipo, "),
        ({"loss": "sipmo"}, "dpo.loss=sipmo: there is no such loss; did you mean 'simpo'"),
        ({"loss": "simpo", "label_smoothing": "0.1"}, "dpo.loss=simpo has no option 'label_smoothing'"),
        ({"loss": "simpo", "loss_options.gama": "1"}, "dpo.loss=simpo has no option 'gama'; did you mean 'gamma'"),
        ({"loss": "simpo", "loss_options.gamma": "x"}, "dpo.loss=simpo.gamma: Input should be a valid number"),
        ({"loss": "simpo", "loss_options.gamma": "-1"}, "dpo.loss=simpo: gamma must be 0 or more, not -1"),
        ({"loss": "simpo", "reference": "same"}, "loss=simpo compares with no reference; leave reference and"),
        ({"loss": "orpo", "reference_model": "x"}, "loss=orpo compares with no reference; leave reference and"),
        ({"loss": "robust", "label_smoothing": "0.5"}, "label_smoothing must be below 0.5"),
        ({"beta": "0.1", "loss_options.beta": "0.2"}, "beta and loss_options.beta are one option; give one of them"),
        ({"validation_pairs": "60"}, "validation_pairs=60 leaves none of 60 pairs"),
        ({"validation_pairs": "-1"}, "validation_pairs must be 0 or more"),
        (
            {"sequence_length": "5"},
            r"each of 60 pairs is longer than dpo.sequence_length=5 tokens, the shortest has \d+",
        ),
        ({"sequence_length": "0"}, "sequence_length must be at least 1"),
        ({"sequence_length": "300"}, "sequence_length=300 is above the model's 256 tokens"),
        ({"share_prompt": "true", "attention": "flash"}, "share_prompt needs other keys"),
        ({"betta": "1"}, "dpo has no option 'betta'; did you mean 'beta'"),
        ({"data": []}, "no data given"),
        ({"data": ["none.jsonl"]}, "none.jsonl: no such file"),
        ({"data": ["a.jsonl", "b.jsonl", "./a.jsonl"]}, r"dpo.data names ./a.jsonl twice, as a.jsonl too; give each"),
        ({"columns.chosen": "better"}, "columns must name both chosen and rejected"),
    ],
)
def test_what_does_not_fit_is_one_line(train: Callable[..., Done], options: dict[str, Any], message: str) -> None:
    check_one_line(train(**options), message)


def test_pairs_of_one_prompt_alone_cannot_be_held_out(train: Callable[..., Done], tmp_path: Path) -> None:
    file = write(tmp_path / "one.jsonl", [("Say it.", f"Yes {number}.", "No.") for number in range(9)])
    check_one_line(
        train(data=[str(file)], validation_pairs="4"), "validation_pairs=4 is less than any prompt has pairs"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a", "chosen": "b", "rejected": "b"}\n', "no pair.*chosen equal to rejected"),
        ('{"prompt": "a", "chosen": "b"}\n', "pairs.jsonl:1"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": \n', "pairs.jsonl:2: not JSON"),
        ('{"prompt": "<|begin_of_text|>a", "chosen": "b", "rejected": "c"}\n', "pairs.jsonl:1: the prompt begins with"),
        ("", "pairs.jsonl"),
    ],
)
def test_bad_data_is_one_line(train: Callable[..., Done], tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(content)
    check_one_line(train(data=[str(file)], validation_pairs="0"), message)


def test_another_training_is_refused_and_another_reference_mode_is_not(
    train: Callable[..., Done], tmp_path: Path
) -> None:
    assert train(max_steps="2").code == 0
    check_one_line(train(max_steps="2", beta="0.2"), "another training \\(beta was 0.1 and is 0.2")
    again = train(max_steps="2", reference="same", microbatch_size="2", share_prompt="true")
    assert again.code == 0 and "done" in again.err


def test_without_held_out_pairs_the_last_checkpoint_is_the_model(train: Callable[..., Done], tmp_path: Path) -> None:
    done = train(validation_pairs="0", max_steps="2")
    assert done.code == 0, done.err
    assert not (tmp_path / "out" / "best").exists()
    assert (tmp_path / "out" / "config.json").resolve().parent.name == "last"


@pytest.mark.parametrize("file", ["dpo.toml", "tiny-dpo.toml"])
def test_the_shipped_recipes_have_no_unknown_option(harness: Command, tmp_path: Path, file: str) -> None:
    words = ("--model", "none", "--out", tmp_path / "out", "--set", 'dpo.data=["none.jsonl"]')
    check_one_line(harness("train", "dpo", ROOT / "recipes" / file, *words), "none")


def test_the_tiny_recipes_pairs_ask_nothing_that_is_measured() -> None:
    asked = (ROOT / "examples" / "demo" / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    questions = {json.loads(line)["question"] + "\nAnswer:" for line in asked}
    for name in ("gains", "losses"):
        lines = (ROOT / "recipes" / "tiny" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 300 and not questions & {json.loads(line)["prompt"] for line in lines}


def test_anthropics_pairs_train(train: Callable[..., Done], shared_data: Path, tmp_path: Path) -> None:
    hh = shared_data / "hh" / "harmless-base.jsonl.gz"
    done = train(
        data=[str(hh)], sequence_length="256", max_steps="2", log_every="1", validation_pairs="20",
        **{"prompt_format": "alpaca_sft"},
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "several turns" in done.err
    last = metrics(tmp_path / "out")[-1]
    assert "validation/accuracy/harmless-base" in last


def check_one_line(done: Any, message: str) -> None:
    assert done.code == 2, done
    [line] = [line for line in done.err.splitlines() if line.startswith("harness: ")]
    assert re.search(message, line), line
