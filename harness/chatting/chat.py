"""A conversation with a model: asked by the renderer of everything else, followed as it answers, and written down."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, cast

from harness.config import assignments, configure, configured
from harness.engines.streaming import stream
from harness.errors import ConfigError, ModelError, nearest
from harness.evaluation.options import run_options
from harness.evaluation.plan import JUDGE, TEMPLATE, RunOptions, asked_with, check_judge
from harness.interfaces import JudgedScorer, Model
from harness.judging.judging import judge_sample
from harness.parsers import without_reasoning
from harness.registry import Registry
from harness.respondent import Respondent, choose_engine, engine_tables, make_respondent
from harness.runs.environment import environment
from harness.runs.folder import RUN_FORMAT
from harness.runs.judgements import JudgementLog, Verdict
from harness.runs.line_file import json_lines, write_atomically
from harness.runs.transcripts import SCORER, Transcript, Turn, judged_folder
from harness.types import Completion, Generation, Message, Prompt, Request, described
from harness.version import __version__

#: The table of options that say how answers are sampled.
CHAT = "chat"

#: Is given each piece of an answer.
Tell = Callable[[str], object]


def chat_options(pairs: Sequence[str], flags: Mapping[str, Any]) -> RunOptions:
    """Return what `harness chat` was given; ConfigError for options that belong to a run, and for no model."""
    options = run_options(pairs=pairs, flags=flags)
    own = ("model", "engine", "prompt_format", "system", "template", "options")
    for field in dataclasses.fields(RunOptions):
        of_run = not field.name.startswith(JUDGE) and field.name not in own
        if of_run and getattr(options, field.name) != getattr(RunOptions(), field.name):
            raise ConfigError(f"--set {field.name}: an option of `harness run`, not of a chat")
    if not options.model:
        raise ConfigError("no model given: --model FOLDER (or a name on the Hugging Face hub)")
    check_judge(options, [True])
    return options


def make_speaker(options: RunOptions, registry: Registry) -> tuple[Respondent, Generation]:
    """Return whom one talks to, its weights not loaded, and how its answers are sampled.

    Raises HarnessError where engine, model, prompt format or options do not fit.
    """
    engine, why = choose_engine(options.engine, options.options, registry)
    known = (CHAT, SCORER, JUDGE, TEMPLATE, *engine_tables(engine))
    for name in options.options:
        if name not in known:
            raise ConfigError(f"unknown option or plugin {name!r}{nearest(name, known)}")
    generation = configured(options.options, CHAT, Generation())
    return make_respondent(options.model, engine, why, options.prompt_format, asked_with(options)), generation


def chat_facts(speaker: Respondent) -> dict[str, Any]:
    """Return the first line of a transcript."""
    identity = speaker.identity
    return {
        "format": RUN_FORMAT,
        "harness": __version__,
        "created": _now(),
        "model": speaker.model,
        "name": speaker.name,
        **{name: identity[name] for name in ("engine", "prompt_format", "chat_template")},
        "identity": {"model": speaker.model_identity},
        **environment(),
    }


@dataclass(frozen=True)
class Critic:
    """Who gives a verdict on each answer; `log` keeps the replies, so that `harness judge` need not ask again."""

    judge: Respondent
    scorer: JudgedScorer
    model: Model
    log: JudgementLog


class Chat:
    """A conversation under way.

    `turns` are those that stand, the last one perhaps failed; `generation`, `system` and `sent`, the last prompt, are
    what /set, /system and /prompt are about.
    """

    def __init__(
        self, speaker: Respondent, generation: Generation, transcript: Transcript, system: str | None = None
    ) -> None:
        self.speaker = speaker
        self.transcript = transcript
        self.turns: list[Turn] = []
        self.generation = speaker.sampling(generation)
        self.system = system
        self.sent: Prompt | None = None
        self._model = speaker.loaded()

    def say(self, instruction: str, tell: Tell) -> Turn:
        """Ask, `tell` the answer piece by piece, write the turn down and return it.

        KeyboardInterrupt stops the answer, which then stands as far as it came; a second one, before it has stopped,
        ends the process. Raises ModelError for a prompt that cannot be made, RunError where the transcript cannot be
        written.
        """
        return self._ask(instruction, "say", None, tell)

    def edit(self, instruction: str, tell: Tell) -> Turn:
        """Ask something else in the place of the last turn; otherwise as `say`. ConfigError where there is none."""
        return self._ask(instruction, "edit", self._last(), tell)

    def retry(self, tell: Tell) -> Turn:
        """Ask the last turn's instruction again, with another seed; otherwise as `say`."""
        last = self._last()
        return self._ask(last.instruction, "retry", last, tell)

    def undo(self) -> Turn:
        """Take back the last turn and return it; ConfigError where there is none."""
        turn = self._last()
        self.transcript.undo(turn)
        return self.turns.pop()

    def set(self, pairs: Sequence[str]) -> None:
        """Put in options of `Generation`, such as ``temperature=0.7``; ConfigError for what does not fit."""
        self.generation = configure(self.generation, assignments(pairs), CHAT)

    def judge(self, turn: Turn, critic: Critic) -> Verdict:
        """Return the verdict on a turn, and write it down. Raises ModelError where the judge cannot be asked."""
        sample = self.transcript.sample(turn)
        verdict = judge_sample(sample, critic.scorer, critic.judge, critic.model, critic.log)
        self.transcript.verdict(critic.judge.name, verdict)
        return verdict

    def save(self, path: Path) -> None:
        """Write the turns that stand as data to train on: ``messages`` of role and content, a conversation a line."""
        if path.exists():
            raise ConfigError(f"{path} is there already: choose another name")
        turns = self._standing()
        if not turns:
            raise ConfigError("there is no answer to save")
        conversations = [[turn] for turn in turns] if self.speaker.format.single_turn else [turns]
        write_atomically(
            path, json_lines({"messages": [said.as_dict() for said in _messages(each)]} for each in conversations)
        )

    def _last(self) -> Turn:
        if not self.turns:
            raise ConfigError("nothing has been said yet")
        return self.turns[-1]

    def _standing(self) -> list[Turn]:
        return [turn for turn in self.turns if turn.error is None]

    def _ask(self, instruction: str, kind: Literal["say", "edit", "retry"], over: Turn | None, tell: Tell) -> Turn:
        speaker, number = self.speaker, len(self.transcript.turns)
        before = [turn for turn in self._standing() if turn is not over]
        history = [] if speaker.format.single_turn else before
        messages = tuple(_messages(history, system=False))
        generation = self.generation
        if generation.temperature > 0:
            generation = dataclasses.replace(generation, seed=(generation.seed or 0) + number)
        identifier = str(number + 1)
        system = self.system or ""  # none, whatever the format's options say
        request = speaker.request(identifier, number, instruction, generation, system=system, history=messages)
        text, completion = _answer(self._model, request, tell)
        turn = Turn(
            id=identifier,
            kind=kind,
            replaces=None if over is None else over.id,
            history=tuple(turn.id for turn in history),
            system=self.system,
            instruction=instruction,
            prompt=request.prompt.text,
            generation=described(generation),
            output=text,
            response=speaker.format.response(without_reasoning(text)),
            finish_reason=completion.finish_reason if completion else None,
            prompt_tokens=completion.prompt_tokens if completion else len(request.prompt.token_ids or ()) or None,
            completion_tokens=completion.completion_tokens if completion else None,
            seconds=round(completion.seconds, 4) if completion and completion.seconds is not None else None,
            interrupted=completion is None,
            error=completion.error if completion else None,
            time=_now(),
        )
        self.transcript.turn(turn)
        self.turns = [*before, turn]
        self.sent = request.prompt
        return turn


def critic_of(judge: Respondent, options: RunOptions, registry: Registry, transcript: Path) -> Critic:
    """Return the judge of a chat, loaded, with the scorer's options and the log beside the transcript, to be closed."""
    scorer = cast(JudgedScorer, configured(options.options, SCORER, registry.scorer(SCORER)))
    scorer.inputs(())
    return Critic(judge, scorer, judge.loaded(), JudgementLog(judged_folder(transcript)))


def _answer(model: Model, request: Request, tell: Tell) -> tuple[str, Completion | None]:
    """Return an answer's text and its completion, None where it was interrupted.

    The engine works in a thread, where no KeyboardInterrupt can catch it in the middle of something.
    """
    told: list[str] = []
    news: SimpleQueue[str | Completion | Exception | None] = SimpleQueue()
    stopped = threading.Event()

    def take(piece: str) -> None:
        if piece:
            told.append(piece)
            news.put(piece)

    def work() -> None:
        try:
            news.put(_follow(stream(model, request), take, stopped))
        except Exception as error:  # is raised again in the thread that waits
            news.put(error)

    threading.Thread(target=work, name="answer", daemon=True).start()
    while True:
        try:
            one = news.get()
            if isinstance(one, str):
                if not stopped.is_set():
                    tell(one)
                continue
        except KeyboardInterrupt:
            if stopped.is_set():
                raise SystemExit(130) from None
            stopped.set()
            continue
        if isinstance(one, ModelError):
            return "", Completion(request.id, "", None, error=str(one))
        if isinstance(one, Exception):
            raise one
        return "".join(told) if one is None or one.error is not None else one.text, one


def _follow(
    pieces: Generator[str, None, Completion], take: Callable[[str], None], stopped: threading.Event
) -> Completion | None:
    """Hand on the pieces of an answer and return its completion; None once `stopped`."""
    while not stopped.is_set():
        try:
            take(next(pieces))
        except StopIteration as end:
            completion: Completion = end.value
            return completion
    pieces.close()
    return None


def _messages(turns: Sequence[Turn], system: bool = True) -> list[Message]:
    """Return turns as messages, the last one's system message in front if there is one and it is wanted."""
    found = [Message("system", turns[-1].system)] if system and turns and turns[-1].system else []
    for turn in turns:
        found.append(Message("user", turn.instruction))
        found.append(Message("assistant", turn.response))
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
