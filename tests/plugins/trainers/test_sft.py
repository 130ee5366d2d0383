"""`harness train sft` from end to end on a tiny model, and everything that can be wrong with what it is given."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.testing.tiny import make_tiny_model, word_problems
from harness.training.checkpoint.folder import TrainingProgress
from harness.training.loop import Loop
from tests.conftest import Command, Done

SETTINGS = {
    "prompt_format": "plain",
    "sequence_length": "128",
    "batch_size": "4",
    "microbatch_size": "4",
    "learning_rate": "3e-3",
    "log_every": "5",
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", context=256)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "train.jsonl", word_problems(80, seed=3))


def write(path: Path, pairs: list[tuple[str, str]]) -> Path:
    lines = [json.dumps({"prompt": prompt, "response": response}) for prompt, response in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def train(harness: Command, tiny: Path, data: Path, tmp_path: Path) -> Callable[..., Done]:
    def command(*words: str | Path, model: Path = tiny, files: Any = None, **options: str) -> Done:
        settings = {"data": json.dumps([str(data)] if files is None else files), **SETTINGS, **options}
        pairs = [part for key, value in settings.items() for part in ("--set", f"sft.{key}={value}")]
        return harness("train", "sft", "--model", model, "--out", tmp_path / "out", *pairs, *words)

    return command


def test_a_model_learns_and_is_evaluated_without_flags(
    harness: Command, train: Callable[..., Done], tiny: Path, gsm8k_data: Path, tmp_path: Path
) -> None:
    """Trained on the benchmark's own four questions, until it knows their answers."""
    lines = [json.loads(line) for line in (gsm8k_data / "gsm8k" / "test.jsonl").read_text().splitlines()]
    known = write(tmp_path / "known.jsonl", [(f"{line['question']}\nAnswer:", line["answer"]) for line in lines])
    done = train(files=[str(known)], epochs="60", learning_rate="1e-2", sequence_length="256", log_every="20")
    assert done.code == 0, done.err
    assert done.out.strip() == str(tmp_path / "out")
    assert "4 documents" in done.err and "learned 'Answer" not in done.err

    def accuracy(model: Path, *words: str) -> float:
        runs = tmp_path / "runs" / model.name
        ran = harness(
            "run", "-b", "gsm8k", "-m", model, "--data", gsm8k_data, "-o", runs, "-e", "transformers",
            "--set", "gsm8k.generation.max_tokens=40", *words,
        )  # fmt: skip
        assert ran.code == 0, ran.err
        [results] = runs.rglob("results.json")
        [config] = runs.rglob("run.json")
        assert json.loads(config.read_text())["prompt_format"]["name"] == "plain"
        return float(json.loads(results.read_text())["metrics"]["final-number"]["accuracy"]["value"])

    assert accuracy(tiny, "--prompt-format", "plain") == 0
    assert accuracy(tmp_path / "out") == 1
    for name in ("curve.png", "curve.svg", "metrics.jsonl", "training.json"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    first, *_, last = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert last["loss"] < first["loss"] / 10
    assert {"learning_rate", "gradient_norm", "tokens", "seconds", "tokens_per_second"} <= last.keys()


def test_the_same_command_again_finds_it_done(train: Callable[..., Done], tmp_path: Path) -> None:
    assert train().code == 0
    before = (tmp_path / "out" / "last" / "model.safetensors").stat().st_mtime_ns
    again = train()
    assert again.code == 0
    assert "done" in again.err
    assert (tmp_path / "out" / "last" / "model.safetensors").stat().st_mtime_ns == before


def test_a_plan_says_everything_and_writes_nothing(train: Callable[..., Done], tmp_path: Path) -> None:
    done = train("--plan", validation_documents="8", packing="concat", loss_on="all", epochs="3")
    assert done.code == 0
    for fact in ("plain (", "72 documents", "8 documents", "warm-up", "GiB a device", "learned", "rows"):
        assert fact in done.out, fact
    rows = int(re.search(r"rows +(\d+) of 128 tokens", done.out)[1])  # type: ignore[index]
    assert f"steps       {3 * -(-rows // 4)} of 4 rows" in done.out
    assert not (tmp_path / "out").exists()


def test_what_is_trained_on_is_the_evaluators_prompt(train: Callable[..., Done], tiny: Path, tmp_path: Path) -> None:
    from harness.interfaces import TrainingRun
    from harness.models import find_model
    from harness.prompts import find_format
    from harness.training.session import Session
    from harness_sft import SFT
    from harness_sft.trainer import read_rows

    pair = ("What is 2 + 2?\n", "\n4")
    file = write(tmp_path / "one.jsonl", [pair])
    for name in ("alpaca_sft", "plain"):
        chosen = SFT(data=(str(file),), sequence_length=200, prompt_format=name)
        session = Session(chosen, TrainingRun(str(tiny), tmp_path, {}))
        rows, _ = read_rows(chosen, session)
        batch = rows.batch([0])
        sent = find_format(name).render(pair[0], find_model(str(tiny)).tokenizer).token_ids
        assert sent is not None
        assert batch.input_ids[0, : len(sent)].tolist() == list(sent)
        labels = [label for label in batch.labels[0].tolist() if label != -100]
        assert session.tokenizer.decode(labels) == pair[1] + session.tokenizer.eos_token
        assert batch.labels[0, : len(sent) - 1].tolist() == [-100] * (len(sent) - 1)


def test_files_have_weights_and_columns_of_their_own(tiny: Path, tmp_path: Path) -> None:
    from harness.interfaces import TrainingRun
    from harness.training.session import Session
    from harness_sft import SFT
    from harness_sft.trainer import read_rows

    plain = write(tmp_path / "plain.jsonl", [("one", "1"), ("two", "2")])
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"q": "three", "a": "3"}\n{"q": "four", "a": "4"}\n')
    named = tmp_path / "named.jsonl"
    named.write_text('{"question": "five", "reply": "5"}\n')
    chosen = SFT(
        data=(
            {"file": str(plain), "weight": 1.5, "columns": {"prompt": "prompt", "response": "response"}},
            {"file": str(asked), "weight": 3, "columns": {"prompt": "q", "response": "a"}},
            str(named),
        ),
        columns={"prompt": "question", "response": "reply"}, prompt_format="plain", sequence_length=64,
    )  # fmt: skip
    session = Session(chosen, TrainingRun(str(tiny), tmp_path, {}))
    rows, _ = read_rows(chosen, session)
    assert rows.report.documents == 3 + 6 + 1
    made = chosen.prepare(session)
    assert chosen.prepare(session).digest == made.digest  # from the cache
    named.write_text('{"question": "five", "reply": "6"}\n')
    assert chosen.prepare(session).digest != made.digest


def test_a_recipe_is_recorded_with_the_checkpoint(train: Callable[..., Done], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[sft]\nepochs = 1\nseed = 7\nweight_decay = 0.5\n")
    assert train(recipe, seed="8").code == 0
    card = json.loads((tmp_path / "out" / "last" / "harness.json").read_text())
    assert card["prompt_format"] == "plain" and card["trainer"] == "sft"
    assert (card["recipe"]["sft"]["seed"], card["recipe"]["sft"]["weight_decay"]) == (8, 0.5)


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("sft/safety_only.json", {}),
        ("sft/sft_sample.jsonl", {"packing": "concat", "loss_on": "all"}),
        ("gsm8k/train.jsonl", {"columns.prompt": "question", "columns.response": "answer"}),
    ],
)
def test_real_data_trains(
    train: Callable[..., Done], shared_data: Path, tmp_path: Path, file: str, options: dict[str, str]
) -> None:
    done = train(files=[str(shared_data / file)], sequence_length="256", max_steps="2", log_every="1", **options)
    assert done.code == 0, done.err
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 2 and all(4 < loss < 8 for loss in losses)


def test_the_tiny_recipe_learns_none_of_the_questions_it_is_measured_on() -> None:
    root = Path(__file__).parents[3]
    learned = (root / "recipes" / "tiny" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    asked = (root / "examples" / "demo" / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = {json.loads(line)["prompt"] for line in learned}
    assert len(prompts) > 1500
    assert not prompts & {json.loads(line)["question"] + "\nAnswer:" for line in asked}


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
def test_the_course_s_csv_trains_with_four_bits(
    train: Callable[..., Done], harness: Command, gsm8k_data: Path, tmp_path: Path
) -> None:
    """Columns id, instruction, output and fail_mode, the shipped recipe, a checkpoint that is evaluated as it is."""
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("peft")
    file = tmp_path / "corrected.csv"
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["id", "instruction", "output", "fail_mode"])
        rows.writerows([number, *pair, 'Tone, or "chat"'] for number, pair in enumerate(word_problems(40, seed=4)))
    recipe = Path(__file__).parents[3] / "recipes" / "qlora.toml"
    done = train(recipe, files=[str(file)], max_steps="6", sequence_length="128")
    assert done.code == 0, done.err
    assert "40 documents" in done.err and "kernels" not in done.err
    assert (tmp_path / "out" / "last" / "adapter" / "adapter_config.json").is_file()
    ran = harness("run", "-b", "gsm8k", "-m", tmp_path / "out", "--data", gsm8k_data, "-o", tmp_path / "runs", "-e",
                  "transformers", "--set", "gsm8k.generation.max_tokens=8")  # fmt: skip
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("file", ["sft.toml", "tiny-sft.toml", "qlora.toml"])
def test_the_shipped_recipes_have_no_unknown_option(harness: Command, tmp_path: Path, file: str) -> None:
    recipe = Path(__file__).parents[3] / "recipes" / file
    done = harness(
        "train", "sft", recipe, "--model", "none", "--out", tmp_path / "out", "--set", 'sft.data=["none.jsonl"]'
    )
    check_one_line(done, "none: no such folder|none.*no such model|huggingface|hub")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rat": "1"}, "sft has no option 'learning_rat'; did you mean 'learning_rate'"),
        ({"learning_rate": "0"}, "learning_rate must be above 0"),
        ({"batch_size": "0"}, "batch_size must be at least 1"),
        ({"packing": "tight"}, "sft.packing"),
        ({"sequence_length": "300"}, "sequence_length=300 is above the model's 256 tokens"),
        ({"validation_documents": "80"}, "leaves none of 80 documents"),
        ({"validation_documents": "8", "validation": '["x"]'}, "not both"),
        ({"attention": "varlen"}, "attention=varlen needs a GPU"),
        ({"device": "cuda:7"}, "GPUs are visible here|no such device"),
        ({"device": "toaster"}, "no such device"),
        ({"prompt_format": "alpaca_sf"}, "unknown prompt format 'alpaca_sf'"),
        ({"data": "[]"}, "no data given"),
        ({"data": "[{ weight = 2 }]"}, "names no file"),
        (
            {"data": '[{ file = "a", wieght = 2 }]'},
            "an entry of sft's data has no option 'wieght'; did you mean 'weight'",
        ),
        ({"validation": '[{ file = "a", weight = 2 }]'}, "files to validate on have no weight"),
        ({"base_bits": "4"}, "base_bits=4 needs lora_rank"),
        ({"patience": "2"}, "patience=2 needs validate_every"),
        (
            {"patience": "2", "validate_every": "1", "validation_documents": "0"},
            "sft.patience=2 needs sft.validation or sft.validation_documents",
        ),
        ({"validation_documents": "-3"}, "validation_documents must be 0 or more, not -3"),
        ({"sequence_length": "0"}, "sequence_length must be at least 1, not 0"),
        ({"seed": "-1"}, "seed must be from 0 to 9223372036854775807, not -1"),
        ({"seed": "99999999999999999999999"}, "seed must be from 0 to 9223372036854775807, not 9{23}"),
        ({"warmup": "1.5"}, "warmup must be a share below 1 or a whole number of steps, not 1.5"),
        ({"lora_alpha": "64"}, "lora_alpha=64 needs lora_rank"),
        ({"lora_targets": '["q_proj"]'}, r"lora_targets=\('q_proj',\) needs lora_rank"),
        ({"lora_rank": "4", "lora_alpha": "0"}, "lora_alpha must be at least 1, not 0"),
        ({"learning_rate": "true"}, "sft.learning_rate: Input should be a number, not True"),
        ({"max_steps": "true"}, "sft.max_steps: Input should be a number, not True"),
        ({"device": "mps"}, "device=mps: no such device; give auto, cpu, cuda or cuda:N"),
        ({"device": "meta"}, "device=meta: no such device"),
        ({"device": "cpu:0"}, "device=cpu:0: no such device"),
        ({"data": '["none.jsonl"]'}, "none.jsonl: no such file"),
    ],
)
def test_what_does_not_fit_is_one_line(train: Callable[..., Done], options: dict[str, str], message: str) -> None:
    check_one_line(train(**options), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a", "response": "b"}\n{"prompt": \n', "train.jsonl:2: not JSON"),
        ('{"prompt": "a", "response": ""}\n', "train.jsonl:1"),
        ('{"prompt": "a"}\n', "train.jsonl:1"),
        ('{"question": "a", "reply": "b"}\n', "train.jsonl:1.* only 'question', 'reply'; .* with the option columns"),
        ("", "train.jsonl"),
        ('{"prompt": "a", "response": "<|begin_of_text|>b"}\n', "train.jsonl:1: the response begins with"),
        (
            json.dumps({"messages": [{"role": role, "content": "a"} for role in ("user", "assistant") * 2]}),
            "train.jsonl:1: the prompt format 'plain' has a single turn",
        ),
    ],
)
def test_bad_data_is_one_line(train: Callable[..., Done], tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(content)
    check_one_line(train(files=[str(file)]), message)


def test_data_smaller_than_a_row_is_one_line(train: Callable[..., Done], tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", [("a", "b")])
    check_one_line(train(files=[str(file)], packing="concat"), "too small for one row")


def test_a_tokenizer_without_an_end_token_is_one_line(train: Callable[..., Done], tiny: Path, tmp_path: Path) -> None:
    import shutil

    model = tmp_path / "endless"
    shutil.copytree(tiny, model)
    for name, key in (("tokenizer", "eos_token"), ("config", "eos_token_id"), ("generation_config", "eos_token_id")):
        path = model / f"{name}_config.json" if name == "tokenizer" else model / f"{name}.json"
        content = json.loads(path.read_text())
        content.pop(key, None)
        path.write_text(json.dumps(content))
    check_one_line(train(model=model), "no end token")


def test_the_end_is_learned_where_padding_is_the_same_token(tiny: Path, data: Path, tmp_path: Path) -> None:
    import shutil

    from harness.interfaces import TrainingRun
    from harness.training.session import Session
    from harness_sft import SFT
    from harness_sft.trainer import read_rows

    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["pad_token"] = config["eos_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    chosen = SFT(data=(str(data),), sequence_length=128, prompt_format="plain")
    session = Session(chosen, TrainingRun(str(model), tmp_path, {}))
    rows, _ = read_rows(chosen, session)
    end = session.tokenizer.eos_token_id
    assert session.tokenizer.pad_token_id == end
    ends = sum(int((rows.batch([row]).labels == end).sum()) for row in range(len(rows)))
    assert ends == 80


def test_another_trainings_folder_is_one_line(train: Callable[..., Done], tmp_path: Path) -> None:
    assert train(epochs="1").code == 0
    check_one_line(train(epochs="1", learning_rate="1e-4"), "another training \\(learning_rate was 0.003 and is 0.0001")
    assert train(epochs="1", microbatch_size="2", log_every="1").code == 0


def test_without_model_or_out_it_says_so(harness: Command) -> None:
    check_one_line(harness("train", "sft", "--out", "x"), "no model given")
    check_one_line(harness("train", "sft", "--model", "x"), "no out given")
    check_one_line(harness("train", "sftt", "--model", "x", "--out", "y"), "unknown trainer 'sftt'; did you mean 'sft'")
    check_one_line(
        harness("train", "sft", "--set", "modle=x"), "unknown option or plugin 'modle'; did you mean 'model'"
    )


def test_data_whose_rows_hold_nothing_to_learn_is_refused(train: Callable[..., Done], tmp_path: Path) -> None:
    """The one response lies behind the last whole row of the stream."""
    file = write(tmp_path / "long.jsonl", [("Count to nine. " * 20, "No.")])
    for words in ({"files": [str(file)]}, {"validation": json.dumps([str(file)])}):
        done = train(packing="concat", sequence_length="64", **words)
        check_one_line(done, "nothing to learn in .* rows of 64 tokens: prompts fill them")


def test_pieces_of_prompts_take_no_rows(train: Callable[..., Done], tmp_path: Path) -> None:
    file = write(tmp_path / "long.jsonl", [("Count to nine. " * 20, "No.")] * 4)
    done = train("--plan", files=[str(file)], sequence_length="64")
    assert done.code == 0, done.err
    assert re.search(r"rows +[1-4] of 64 tokens.* 4 documents cut, .* [1-9][\d,]* tokens in no row", done.out), done.out
    assert "learned" in done.out


def test_a_tokenizer_beyond_the_models_embeddings_is_refused(
    train: Callable[..., Done], tiny: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    larger = tmp_path / "larger"
    shutil.copytree(tiny, larger)
    tokenizer: Any = AutoTokenizer.from_pretrained(larger)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = "{% for m in messages %}<|turn|>{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(larger)
    done = train("--plan", model=larger, prompt_format="chat")
    check_one_line(done, r"the data has token \d+ of its tokenizer, but its embeddings are \d+; resize them first")


def test_a_plan_shows_the_prompt_to_its_last_character(train: Callable[..., Done]) -> None:
    done = train("--plan", prompt_format="alpaca_sft", sequence_length="256")
    [first, *_] = [line for line in done.out.splitlines() if line.startswith("  read ")]
    assert first.endswith("### Response:\\n'"), first


def check_one_line(done: Any, message: str) -> None:
    assert done.code == 2, done
    [line] = [line for line in done.err.splitlines() if line.startswith("harness: ")]
    assert re.search(message, line), line


# What is validated on, and which checkpoints stay


def test_what_is_held_out_is_not_trained_on_in_other_words_of_the_same(
    train: Callable[..., Done], tmp_path: Path
) -> None:
    """Neither a file given twice nor other case and white space lets a document be both."""
    rows = [(f"Count to {n}.", " ".join(map(str, range(n)))) for n in range(1, 13)]
    first = write(tmp_path / "a.jsonl", rows)
    again = write(tmp_path / "b.jsonl", [(f" COUNT  to {n}.", f"{answer}\n") for n, (_, answer) in enumerate(rows, 1)])
    done = train("--plan", files=[str(first), str(first), str(again)], validation_documents="5")
    assert done.code == 0, done.err
    held = re.search(r"validation +5 documents; (\d+) others read alike and are not trained on", done.out)
    documents = re.search(r"data +(\d+) documents", done.out)
    assert held and documents
    assert int(documents[1]) == 36 - 5 - int(held[1])
    assert int(documents[1]) % 3 == 0  # each of those left with both of its likes
    done = train("--plan", files=[str(first)], validation=json.dumps([str(first)]))
    assert (done.code, done.out) == (2, "")
    assert "a.jsonl is in sft.data and in sft.validation" in done.err
    done = train("--plan", files=[str(first)], validation=json.dumps([str(again)]))
    assert "all of 12 documents are validated on too, so none is left to train on" in done.err


def test_checkpoints_stay_by_step_and_the_best_is_named(train: Callable[..., Done], tmp_path: Path) -> None:
    more = {"validation_documents": "8", "validate_every": "2", "max_steps": "6", "epochs": "9", "batch_size": "2"}
    done = train(**more, save_every="2", keep="2")
    assert done.code == 0, done.err
    out = tmp_path / "out"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line["validation/loss"] for line in lines if "validation/loss" in line}
    assert sorted(found) == [0, 2, 4, 6]  # one before the first step
    best = min((step for step in found if step), key=lambda step: found[step])
    assert f"best/ is step {best}: validation/loss {found[best]:.6g}" in done.err
    assert sorted(path.name for path in out.glob("step-*")) == ["step-000004", "step-000006"]
    kept, last = (out / name / "model.safetensors" for name in ("step-000006", "last"))
    assert kept.read_bytes() == last.read_bytes() and not (out / "step-000006" / "training").exists()
    (out / "training.json").unlink()
    shutil.rmtree(out)
    assert train(**more, keep="[3, 5]").code == 0
    assert sorted(path.name for path in out.glob("step-*")) == ["step-000003", "step-000005"]
    assert "keep must be 0 or more, not -1" in train("--plan", keep="-1").err


def test_of_equal_figures_the_lower_loss_is_the_best() -> None:
    def better(value: float, loss: float, highest: bool) -> bool:
        loop: Any = SimpleNamespace(
            progress=TrainingProgress(best=0.5, best_loss=0.69), job=SimpleNamespace(highest=highest)
        )
        return Loop._better(loop, value, loss)

    assert better(0.5, 0.42, True) and not better(0.5, 0.69, True) and not better(0.4, 0.1, True)
    assert better(0.6, 0.9, True) and better(0.4, 0.9, False) and not better(0.6, 0.1, False)
