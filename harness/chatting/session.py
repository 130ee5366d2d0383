"""A chat from its options to its end: whom one talks to and who judges, the transcript, weights loaded and freed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from harness.chatting.chat import Chat, Critic, chat_facts, critic_of, make_speaker
from harness.evaluation.plan import RunOptions
from harness.judging.judging import make_judge
from harness.registry import Registry
from harness.runs.transcripts import Transcript


class ChatSession:
    """A chat that everything has been checked of but the weights; HarnessError for what does not fit.

    `path` is the transcript's: `out`, or a new one in ``chats/MODEL/``. `warnings` say what is to be known before.
    """

    def __init__(self, options: RunOptions, registry: Registry, out: Path | None = None) -> None:
        self._options, self._registry = options, registry
        self.speaker, self._generation = make_speaker(options, registry)
        self.judge = make_judge(options, registry) if options.judge_model is not None else None
        said = self.judge.choice.warnings if self.judge is not None else ()
        self.warnings: Sequence[str] = [*self.speaker.choice.warnings, *said]
        self.path = out or Path("chats") / self.speaker.name / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"

    @contextmanager
    def opened(self, loading: Callable[[], object]) -> Iterator[tuple[Chat, Critic | None]]:
        """Give the chat and its judge, loaded; `loading` is called before, once the transcript is known to be written.

        Raises ConfigError for a transcript that is there already, ModelError for a model that cannot be loaded.
        """
        with ExitStack() as stack:
            transcript = Transcript(self.path, lambda: chat_facts(self.speaker))
            stack.callback(transcript.close)
            stack.enter_context(self.speaker)
            loading()
            chat = Chat(self.speaker, self._generation, transcript, self.speaker.format.options.system)
            critic = None
            if self.judge is not None:
                critic = critic_of(stack.enter_context(self.judge), self._options, self._registry, self.path)
                stack.callback(critic.log.close)
            yield chat, critic
