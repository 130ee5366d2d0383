"""What `harness chat` prints beside the answers, as plain text that no model's output can steer a terminal with."""

from __future__ import annotations

from pathlib import Path

from harness.chatting.chat import Chat
from harness.reports.samples import on_one_line, printable
from harness.respondent import Respondent
from harness.runs.judgements import Verdict
from harness.runs.transcripts import Turn
from harness.types import Generation, Prompt

#: Commands → what they do.
COMMANDS = {
    "/edit [TEXT]": "say something else in the place of your last turn",
    "/retry": "have the last turn answered again, with another seed where answers are sampled",
    "/undo": "take back the last turn",
    "/system [TEXT]": "set the system message, or have none",
    "/set [temperature=0.7 …]": "say how answers are sampled, or show it",
    "/prompt": "show the last prompt exactly as it was sent, with its token ids",
    "/judge": "show the judge's words about the last answer",
    "/save [FILE]": "write the turns that stand as training data, or say where the transcript is",
    "/help": "show this",
    "/quit": "leave, as Ctrl-D does; Ctrl-C stops an answer",
}


def greeting(speaker: Respondent, transcript: Path) -> str:
    """Return with whom one talks, how, and where it is written down."""
    choice = speaker.choice
    lines = [f"{speaker.model} · {speaker.engine.name} · {choice.format.name} ({choice.reason})"]
    if choice.format.single_turn:
        lines.append(f"the prompt format {choice.format.name!r} has a single turn: each instruction is asked alone")
    lines.append(f"transcript: {transcript} · /help lists commands, Ctrl-D leaves")
    return printable("\n".join(lines))


def command_list() -> str:
    """Return the commands, one a line, and how to write what looks like one or has several lines."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{meaning}" for name, meaning in COMMANDS.items()]
    return "\n".join([*lines, "  A line that ends in \\ goes on in the next one; //text says /text."])


def turn_facts(turn: Turn) -> str:
    """Return how an answer ended and what it took, on one line."""
    if turn.error is not None:
        return f"error: {on_one_line(turn.error)}"
    facts = []
    if turn.completion_tokens is not None:
        facts.append(f"{turn.completion_tokens:,} tokens")
    if turn.seconds:
        facts.append(f"{turn.seconds:.1f} s")
    ends = {"stop": "ended by itself", "length": "cut off: /set max_tokens=N for more", None: "stopped"}
    return " · ".join([*facts, ends.get(turn.finish_reason) or on_one_line(str(turn.finish_reason))])


def sampling(generation: Generation) -> str:
    """Return how answers are sampled, as /set takes it."""
    seed = "" if generation.seed is None else f" seed={generation.seed}"
    stop = "" if not generation.stop else f" stop={list(generation.stop)!r}"
    settings = f"temperature={generation.temperature:g} top_p={generation.top_p:g} max_tokens={generation.max_tokens}"
    return f"{settings}{seed}{stop}"


def sent_prompt(chat: Chat) -> str:
    """Return the last prompt between two lines, and its token ids."""
    prompt: Prompt | None = chat.sent
    if prompt is None:
        return "nothing has been sent yet"
    line = "─" * 40
    ids = "none (the engine takes text)" if prompt.token_ids is None else " ".join(map(str, prompt.token_ids))
    count = "" if prompt.token_ids is None else f"{len(prompt.token_ids)} "
    return f"{line}\n{printable(prompt.text)}\n{line}\n{count}token ids: {ids}"


def verdict_line(judge: str, verdict: Verdict) -> str:
    """Return what a judge says of an answer, on one line."""
    return f"{judge}: {verdict.verdict}" + (f" ({on_one_line(verdict.error)})" if verdict.error is not None else "")


def verdict_words(judge: str, verdict: Verdict) -> str:
    """Return a verdict with the judge's own words."""
    words = [printable(f"  │ {line}") for reply in verdict.replies.values() for line in reply.split("\n")]
    return "\n".join([verdict_line(judge, verdict), *words])
