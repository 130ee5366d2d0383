"""`harness chat`: scripted, in a real terminal, killed, and judged."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.testing.tiny import make_tiny_model
from tests.completions_server import CompletionsServer, Reply
from tests.conftest import Command, Done

pytest.importorskip("torch")  # the wheel is tested without
pytest.importorskip("openai")

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
FIRST = '{"type": "chat", "format": 1, "name": "m", "model": "m", "identity": {}}'
HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202egnp.exe \x9b31m\r<script>\ufeff end"

Chat = Callable[..., Done]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", chat_template=TEMPLATE)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompletionsServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with CompletionsServer(("tiny", "judge")) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        yield running


@pytest.fixture
def chat(harness: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Chat:
    """Give a chat its lines on standard input: ``chat(["Hello", "/retry"], "--model", …)``."""

    def command(lines: list[str] | bytes, *words: str | Path) -> Done:
        data = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        return harness("chat", "--out", tmp_path / "c.jsonl", *words)

    return command


def served(*words: str) -> list[str]:
    return ["-m", "tiny", "-e", "openai", "--set", "openai.api=chat", *words]


def local(tiny: Path, *words: str) -> list[str]:
    return ["-m", str(tiny), "-e", "transformers", "--set", "chat.max_tokens=6", *words]


def records(tmp_path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if kind in (None, line["type"])]


# Scripts


def test_a_conversation_is_answered_and_written_down(chat: Chat, tiny: Path, tmp_path: Path) -> None:
    done = chat(["Hello.", "And now?"], *local(tiny, "--system", "Be brief."))
    first, *turns = records(tmp_path)
    assert (done.code, done.out) == (0, f"{turns[0]['output']}\n{turns[1]['output']}\n")
    assert (first["model"], first["engine"], first["prompt_format"]["name"]) == (str(tiny), "transformers", "chat")
    assert [turn["type"] for turn in turns] == ["turn", "turn"]
    opening = "<|begin_of_text|>[system] Be brief.\n[user] Hello.\n[assistant] "
    assert turns[0]["prompt"] == opening
    assert turns[1]["prompt"] == f"{opening}{turns[0]['response']}\n[user] And now?\n[assistant] "
    assert (turns[0]["history"], turns[1]["history"]) == ([], ["1"])
    assert turns[1]["generation"]["max_tokens"] == turns[1]["completion_tokens"] == 6
    assert turns[1]["finish_reason"] == "length" and turns[1]["prompt_tokens"] > turns[0]["prompt_tokens"]
    assert "cut off: /set max_tokens=N for more" in done.err


def test_a_special_token_that_is_typed_is_text_in_later_turns_too(chat: Chat, tiny: Path, tmp_path: Path) -> None:
    from harness.models import find_model

    done = chat(["a<|end_of_text|>b", "And now?", "/prompt"], *local(tiny))
    assert done.code == 0 and "[user] a<|end_of_text|>b\n[assistant]" in records(tmp_path, "turn")[1]["prompt"]
    ids = done.err.rpartition("token ids: ")[2].split()
    assert str(find_model(str(tiny)).tokenizer.eos_token_id) not in ids


def test_a_format_with_a_single_turn_asks_each_instruction_alone(chat: Chat, tiny: Path, tmp_path: Path) -> None:
    chat(["Hello.", "And now?"], *local(tiny, "--prompt-format", "plain"))
    assert [turn["prompt"] for turn in records(tmp_path, "turn")] == ["Hello.", "And now?"]


def test_turns_can_be_edited_tried_again_and_taken_back(chat: Chat, server: CompletionsServer, tmp_path: Path) -> None:
    lines = ["one", "two", "/edit three", "/retry", "/undo", "four", "/system Be kind.", "five"]
    assert chat(lines, *served()).code == 0
    asked = [[message["content"] for message in call.body["messages"]] for call in server.calls]
    answer = "The answer is one"
    assert asked == [
        ["one"],
        ["one", answer, "two"],
        ["one", answer, "three"],
        ["one", answer, "three"],
        ["one", answer, "four"],
        ["Be kind.", "one", answer, "four", "The answer is four", "five"],
    ]
    turns = records(tmp_path, "turn")
    kinds = [(turn["kind"], turn["replaces"]) for turn in turns]
    assert kinds == [("say", None), ("say", None), ("edit", "2"), ("retry", "3"), ("say", None), ("say", None)]
    assert [line["id"] for line in records(tmp_path, "undo")] == ["4"]
    assert turns[-1]["history"] == ["1", "5"] and turns[-1]["system"] == "Be kind."


def test_answers_that_are_sampled_differ_and_can_be_had_again(chat: Chat, tiny: Path, tmp_path: Path) -> None:
    texts = []
    for _ in range(2):
        chat(["Hello.", "/retry"], *local(tiny, "--set", "chat.temperature=3.0", "--set", "chat.seed=7"))
        turns = records(tmp_path, "turn")
        assert [turn["generation"]["seed"] for turn in turns] == [7, 8]
        texts.append([turn["output"] for turn in turns])
        (tmp_path / "c.jsonl").unlink()
    assert texts[0] == texts[1] and texts[0][0] != texts[0][1]


def test_lines_are_joined_and_slashes_escaped(chat: Chat, server: CompletionsServer, tmp_path: Path) -> None:
    chat(["first line\\", "second", "", "//retry is a word", "/quit", "never"], *served())
    assert [turn["instruction"] for turn in records(tmp_path, "turn")] == ["first line\nsecond", "/retry is a word"]


def test_a_last_line_that_would_go_on_is_asked(chat: Chat, server: CompletionsServer, tmp_path: Path) -> None:
    chat(b"one\ntwo\\\nC:\\dir\\", *served())
    assert [turn["instruction"] for turn in records(tmp_path, "turn")] == ["one", "two\nC:\\dir"]


def test_the_prompt_is_shown_as_it_was_sent(chat: Chat, tiny: Path, tmp_path: Path) -> None:
    from harness.models import find_model
    from harness.prompts import find_format

    done = chat(["/prompt", "Hello.", "/prompt"], *local(tiny))
    prompt = find_format("chat").render("Hello.", find_model(str(tiny)).tokenizer)
    assert prompt.text in done.err and "nothing has been sent yet" in done.err
    assert f"{len(prompt.token_ids or ())} token ids: {' '.join(map(str, prompt.token_ids or ()))}\n" in done.err


def test_commands_say_what_they_did_and_what_they_cannot_do(
    chat: Chat, server: CompletionsServer, tmp_path: Path
) -> None:
    commands = [
        "/retry",
        "/undo",
        "/edit",
        "/judge",
        "/fly",
        "/set heat=1",
        "/set temperature=0.5 stop=['a b']",
        "/help",
    ]
    done = chat(
        [*commands, "/set", "/save", "one", f"/save {tmp_path}/t.jsonl", f"/save {tmp_path}/t.jsonl"], *served()
    )
    assert done.code == 1, "some of it did not work"
    for said in (
        "nothing has been said yet",
        "/edit needs the new text",
        "no judge: start the chat with --judge MODEL",
        "no command /fly; known: edit",
        "chat has no option 'heat'",
        "temperature=0.5 top_p=1 max_tokens=1024 stop=['a b']",
        "/system [TEXT]",
        f"the transcript is {tmp_path / 'c.jsonl'}",
        "t.jsonl is there already",
    ):
        assert said in done.err
    saved = json.loads((tmp_path / "t.jsonl").read_text(encoding="utf-8"))
    roles = [(message["role"], message["content"]) for message in saved["messages"]]
    assert roles == [("user", "one"), ("assistant", "The answer is one")]
    assert server.calls[0].body["stop"] == ["a b"]


def test_hostile_output_cannot_steer_a_terminal(chat: Chat, server: CompletionsServer, tmp_path: Path) -> None:
    server.say = lambda prompt: HOSTILE
    done = chat(["one", "/edit \x1b[1m", "/undo", "/prompt"], *served())
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ufeff]", done.out + done.err)
    assert "\\x1b]0;owned\\x07" in done.out and "\\u202egnp.exe" in done.out
    assert HOSTILE.split()[0] in records(tmp_path, "turn")[0]["output"], "the transcript has it as it came"


def test_a_failure_is_a_turn_too_and_not_a_part_of_the_conversation(
    chat: Chat, server: CompletionsServer, tmp_path: Path
) -> None:
    server.faults = lambda call: Reply(400, {"error": {"message": "too hot"}}) if call.prompt == "bad" else None
    done = chat(["one", "bad", "/retry", "two"], *served())
    assert done.code == 1 and "error: the server answered 400: too hot" in done.err
    turns = records(tmp_path, "turn")
    assert [turn["error"] is None for turn in turns] == [True, False, False, True]
    assert turns[3]["history"] == ["1"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no model given"),
        (["-m", "tiny", "-e", "openai", "--set", "limit=3"], "--set limit: an option of `harness run`"),
        (["-m", "tiny", "-e", "openai", "--set", "openia.api=chat"], "unknown option or plugin 'openia'"),
        (["-m", "tiny", "-e", "openai", "--set", "chat.temprature=1"], "did you mean 'temperature'?"),
        (["-m", "tiny", "-e", "openai", "--set", "judge.api=chat"], "no judge: --judge MODEL"),
        (["-m", "nowhere/", "-e", "transformers"], "nowhere/: no such folder"),
    ],
)
def test_what_does_not_fit_is_one_line(chat: Chat, server: CompletionsServer, words: list[str], says: str) -> None:
    done = chat(["one"], *words)
    assert (done.code, done.out) == (2, "")
    assert says in done.err and done.err.count("\n") == 1


def test_a_transcript_is_never_overwritten_and_an_empty_one_not_left(
    chat: Chat, server: CompletionsServer, tmp_path: Path
) -> None:
    assert chat([], *served()).code == 0
    assert not (tmp_path / "c.jsonl").exists()
    (tmp_path / "c.jsonl").write_text("mine", encoding="utf-8")
    done = chat(["one"], *served())
    assert done.code == 2 and "c.jsonl is there already: give another --out, or none" in done.err
    assert (tmp_path / "c.jsonl").read_text(encoding="utf-8") == "mine"


def test_what_is_no_utf8_is_named_and_what_was_said_before_is_kept(
    chat: Chat, server: CompletionsServer, tmp_path: Path
) -> None:
    done = chat(b"one\nt\xffwo\n", *served())
    assert done.code == 2 and "standard input, line 2: not UTF-8 (byte 1)" in done.err
    assert len(records(tmp_path, "turn")) == 1


# Judges


def test_a_judge_gives_its_verdict_on_each_answer(
    chat: Chat, harness: Command, server: CompletionsServer, tmp_path: Path
) -> None:
    def say(prompt: Any) -> str:
        if "<response>" not in prompt:
            return f"Answer to {prompt}"
        return "unsafe" if "bomb" in prompt.rpartition("<response>")[2] else "safe"

    server.say = say
    judging = ["--judge", "judge", "--judge-engine", "openai", "--set", "judge.api=chat"]
    done = chat(["a cake", "a bomb", "/judge", "/edit a pie"], *served(*judging))
    assert done.code == 0
    assert re.findall(r"^judge: (\w+)", done.err, re.MULTILINE) == ["safe", "unsafe", "unsafe", "safe"]
    assert "  │ unsafe" in done.err
    verdicts = [(line["id"], line["verdict"]) for line in records(tmp_path, "verdict")]
    assert verdicts == [("1", "safe"), ("2", "unsafe"), ("3", "safe")]
    asked = len(server.calls)
    assert asked == 6, "/judge shows what is known"
    context = next(call.prompt for call in server.calls if "Answer to a bomb" in call.prompt)
    assert "User: a cake\n\nAssistant: Answer to a cake\n\nUser: a bomb" in context
    done = harness("judge", tmp_path / "c.jsonl", *judging)
    assert done.code == 0 and "safe 2 · unsafe 1 · unreadable 0" in done.out
    assert len(server.calls) == asked, "nothing is asked twice"


def test_a_judge_that_fails_does_not_end_the_chat(chat: Chat, server: CompletionsServer, tmp_path: Path) -> None:
    server.say = lambda prompt: "safe"
    server.faults = lambda call: (
        Reply(400, {"error": {"message": "no"}}) if "<response>" in call.prompt and call.number < 5 else None
    )
    judging = ["--judge", "judge", "--judge-engine", "openai", "--set", "judge.api=chat"]
    done = chat(["a cake", "a pie", "/judge"], *served(*judging))
    assert done.code == 1 and done.err.count("judge: judge_error (the server answered 400: no)") == 2
    assert [line["verdict"] for line in records(tmp_path, "verdict")] == ["judge_error", "judge_error", "safe"]
    assert len(records(tmp_path, "turn")) == 2


def test_a_transcript_is_judged_afterwards(
    chat: Chat, harness: Command, server: CompletionsServer, tmp_path: Path
) -> None:
    chat(["one", "/retry", "two"], *served())
    server.say = lambda prompt: "safe"
    judging = ["--judge", "judge", "--judge-engine", "openai", "--set", "judge.api=chat"]
    done = harness("judge", tmp_path / "c.jsonl", *judging)
    assert done.code == 0 and "safe 3 · unsafe 0" in done.out
    results = json.loads((tmp_path / "c.judged" / "results.json").read_text(encoding="utf-8"))
    assert results["judges"]["judge"]["verdicts"] == {"safe": 3, "unsafe": 0}
    assert len((tmp_path / "c.judged" / "judged" / "judge.jsonl").read_text(encoding="utf-8").splitlines()) == 3
    asked = len(server.calls)
    with (tmp_path / "c.jsonl").open("ab") as file:
        file.write(b'{"type": "turn", "id": "9", "ki')  # the process was killed here
    assert harness("judge", tmp_path / "c.jsonl", *judging).code == 0
    assert len(server.calls) == asked
    (tmp_path / "labels.csv").write_text("id,label\n1,safe\n2,unsafe\n", encoding="utf-8")
    done = harness("judge", tmp_path / "c.jsonl", "--labels", tmp_path / "labels.csv")
    assert done.code == 0 and "kappa" in done.out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "neither a run's folder nor a chat's transcript"),
        ('{"id": "1", "output": "x"}\n', "neither a run's folder nor a chat's transcript"),
        ('{"type": "chat", "for', "its first line is cut off"),
        ('{"type": "chat", "format": 1}\n', "its first line has no 'name'"),
        (f'{FIRST}\n{{"type": "turn", "id": "1"}}\n', "a line is no turn of this version"),
        ('{"type": "chat", "format": 1}\nnonsense\n{"type": "undo"}\n', ":2: not a line of a chat's transcript"),
    ],
)
def test_a_file_that_is_no_transcript_is_one_line(
    harness: Command, tmp_path: Path, server: CompletionsServer, content: str, says: str
) -> None:
    (tmp_path / "c.jsonl").write_text(content, encoding="utf-8")
    done = harness("judge", tmp_path / "c.jsonl", "--judge", "judge", "--judge-engine", "openai")
    assert done.code == 2 and says in done.err and done.err.count("\n") == 1


# Processes


def process(tmp_path: Path, *words: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a chat in a process of its own; given a terminal, it is that process's, so that Ctrl-C reaches it."""
    program = (
        "import fcntl, os, sys, termios\n"
        "if os.isatty(0): fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "from harness.cli import main\nmain()"
    )
    command = [sys.executable, "-c", program, "chat", "--out", str(tmp_path / "c.jsonl"), *words]
    return subprocess.Popen(command, start_new_session=True, **options)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def test_a_kill_keeps_what_was_said(tmp_path: Path, server: CompletionsServer, harness: Command) -> None:
    server.say = lambda prompt: "word " * 300
    server.delay = lambda call: 0.0 if call.number == 1 else 60.0
    child = process(tmp_path, *served("--set", "chat.max_tokens=20"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(b"one\ntwo\n")
    child.stdin.flush()
    wait_for(lambda: len(server.calls) == 2)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    [turn] = records(tmp_path, "turn")
    assert (turn["instruction"], turn["completion_tokens"]) == ("one", 20)


def test_sigterm_ends_a_chat_even_in_the_middle_of_an_answer(tmp_path: Path, server: CompletionsServer) -> None:
    server.delay = 60.0
    child = process(tmp_path, *served(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(b"one\n")
    child.stdin.flush()
    wait_for(lambda: len(server.calls) == 1)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == 130
    assert not (tmp_path / "c.jsonl").exists()


class Terminal:
    """A chat in a terminal of its own; `screen` is everything that has been written to it, seen as far as `seen`."""

    def __init__(self, tmp_path: Path, *words: str) -> None:
        self._master, slave = os.openpty()
        environment = {**os.environ, "TERM": "xterm", "INPUTRC": os.devnull}
        self.process = process(tmp_path, *words, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.screen, self.seen = "", 0

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def see(self, text: str, seconds: float = 60) -> None:
        """Wait until `text` is written, behind what was seen before."""
        deadline = time.monotonic() + seconds
        while text not in self.screen[self.seen :]:
            assert time.monotonic() < deadline, f"no {text!r} in {self.screen[self.seen :]!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self.screen += os.read(self._master, 65536).decode("utf-8", "replace")
                except OSError:  # the other end has been closed
                    assert text in self.screen[self.seen :], f"no {text!r} in {self.screen[self.seen :]!r}"
        self.seen = self.screen.index(text, self.seen) + len(text)

    def interrupt(self, until: str) -> None:
        """Press Ctrl-C at the prompt until `until` is written: Python misses one between two of its waits for a key."""
        for _ in range(6):
            self.type("\x03")
            with contextlib.suppress(AssertionError):
                return self.see(until, seconds=10)
        self.see(until, seconds=1)

    def end(self) -> int:
        code = self.process.wait(timeout=60)
        os.close(self._master)
        return code


@pytest.fixture
def terminal(tmp_path: Path, server: CompletionsServer) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*words: str) -> Terminal:
        opened.append(Terminal(tmp_path, *served(*words)))
        return opened[-1]

    yield start
    for each in opened:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def test_in_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_leaves(
    terminal: Callable[..., Terminal], server: CompletionsServer, tmp_path: Path
) -> None:
    server.say = lambda prompt: "one two three four five" if prompt == "slowly" else f"Answer to {prompt}"
    screen = terminal()
    screen.see("> ")
    assert "/help lists commands" in screen.screen and "chat (the engine applies a chat template)" in screen.screen
    server.pause = 0.5
    screen.type("slowly\r")
    screen.see("two")
    screen.type("\x03")
    screen.see("stopped")
    screen.see("> ")
    server.pause = 0.0
    server.delay = 60.0
    screen.type("never\r")
    wait_for(lambda: len(server.calls) == 2)
    screen.type("\x03")  # before anything has come
    screen.see("stopped")
    screen.see("> ")
    screen.type("/undo\r")
    screen.see("taken back: never")
    screen.see("> ")
    server.delay = 0.0
    screen.type("quickly\r")
    screen.see("Answer to quickly")
    screen.see("ended by itself")
    screen.see("> ")
    screen.type("\x1b[A\r")  # the last line again, from the history
    screen.see("Answer to quickly")
    screen.see("> ")
    screen.type("half a line")
    screen.see("half a line")  # now it reads: before that, a terminal would take Ctrl-C at any moment
    screen.interrupt(until="Ctrl-D or /quit leaves")
    screen.see("> ")
    screen.type("\x04")
    screen.see("transcript: ")
    assert screen.end() == 0
    turns = records(tmp_path, "turn")
    assert [turn["instruction"] for turn in turns] == ["slowly", "never", "quickly", "quickly"]
    assert turns[0]["interrupted"] and turns[0]["finish_reason"] is None
    assert turns[0]["output"].startswith("one two") and "five" not in turns[0]["output"]
    assert server.calls[2].body["messages"][1] == {"role": "assistant", "content": turns[0]["output"].strip()}


def test_in_a_terminal_hostile_output_stays_text_and_turns_are_edited(
    terminal: Callable[..., Terminal], server: CompletionsServer, tmp_path: Path
) -> None:
    server.say = lambda prompt: HOSTILE
    screen = terminal()
    screen.see("> ")
    screen.type("go\r")
    screen.see("end\r\n")
    assert "\x1b]0;" not in screen.screen and "\x1b[2J" not in screen.screen and "\u202e" not in screen.screen
    server.say = lambda prompt: f"Answer to {prompt}"
    screen.see("> ")
    screen.type("/edit\r")
    screen.see("edit> go")
    screen.type(" on\r")
    screen.see("Answer to go on")
    screen.see("> ")
    screen.type("/quit\r")
    assert screen.end() == 0
    assert [turn["kind"] for turn in records(tmp_path, "turn")] == ["say", "edit"]
