"""`harness chat`: talk to a model in the prompt format that it was trained in."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import judge_options, model_options, warn
from harness.errors import ConfigError, ModelError, nearest
from harness.files import expanded

if TYPE_CHECKING:
    from harness.chatting.chat import Chat, Critic
    from harness.runs.judgements import Verdict
    from harness.runs.transcripts import Turn


@click.command("chat")
@model_options
@judge_options
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="Transcript.  [default: in chats/]")
def command(pairs: tuple[str, ...], disabled: tuple[str, ...], out: Path | None, **flags: Any) -> int:
    """Talk to a model in the prompt format that it was trained in; /help lists what can be done on the way.

    Where standard input is no terminal, each line of it is an instruction (or a command) and the answers are printed.
    Everything said is in the transcript at once, what was edited, tried again or taken back too; `harness judge` takes
    transcripts. Options of sampling are --set chat.temperature=0.7, chat.max_tokens=512 and the like.

    \b
    harness chat -m ckpt/
    harness chat -m ckpt/ --out red-team.jsonl --set chat.temperature=0.7
    """
    from harness.chatting.chat import chat_options
    from harness.chatting.session import ChatSession
    from harness.registry import Registry
    from harness.reports.chat import greeting

    session = ChatSession(chat_options(pairs, flags), Registry(disabled), out)
    warn(session.warnings)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(130))  # not what Ctrl-C does, which stops an answer

    def note(text: str) -> None:
        if sys.stdin.isatty():
            click.echo(text, err=True)

    with session.opened(lambda: note(f"loading {session.speaker.model} …")) as (chat, critic):
        note(greeting(session.speaker, session.path))
        return (_Terminal if sys.stdin.isatty() else _Script)(chat, critic).converse()


class _Script:
    """A chat whose instructions and commands are the lines of standard input."""

    def __init__(self, chat: Chat, critic: Critic | None) -> None:
        self.chat = chat
        self._critic = critic
        self._verdict: Verdict | None = None
        self._commands: dict[str, Callable[[str], object]] = {
            "edit": self.edit,
            "retry": lambda text: self.answer(self.chat.retry),
            "undo": self.undo,
            "system": self.system,
            "set": self.set,
            "prompt": self.prompt,
            "judge": self.judge,
            "save": self.save,
            "help": self.help,
        }

    def converse(self) -> int:
        """Do what the lines say; return the exit code, 1 where something failed on the way."""
        code = 0
        for text in self.instructions():
            if text.split() == ["/quit"]:
                break
            try:
                self.take(text)
            except (ConfigError, ModelError) as error:  # a prompt that cannot be made, a judge that cannot be asked
                self.note(str(error))
                code = 1
            except KeyboardInterrupt:
                self.interrupted()
            failed = self._verdict is not None and self._verdict.verdict == "judge_error"
            if failed or (self.chat.turns and self.chat.turns[-1].error is not None):
                code = 1
        return self.leave(code)

    def leave(self, code: int) -> int:
        """Return the exit code."""
        return code

    def lines(self) -> Iterator[str]:
        """Yield the lines as they come in."""
        for number, line in enumerate(sys.stdin.buffer, start=1):
            try:
                yield line.decode("utf-8").removesuffix("\n").removesuffix("\r")
            except UnicodeDecodeError as error:
                raise ConfigError(f"standard input, line {number}: not UTF-8 (byte {error.start})") from error

    def instructions(self) -> Iterator[str]:
        """Yield what is said, lines that end in a backslash joined to the next; blank ones are passed over."""
        parts: list[str] = []
        for line in self.lines():
            goes_on = line.endswith("\\")
            parts.append(line.removesuffix("\\"))
            if not goes_on:
                text, parts = "\n".join(parts), []
                if text.strip():
                    yield text
        text = "\n".join(parts)
        if text.strip() and not sys.stdin.isatty():  # to a person Ctrl-D leaves, in the middle of an instruction too
            yield text

    def take(self, text: str) -> None:
        """Ask an instruction or carry out a command; ConfigError or ModelError where that cannot be done."""
        if text.startswith("//") or not text.startswith("/"):
            self.answer(lambda tell: self.chat.say(text.removeprefix("/") if text.startswith("//") else text, tell))
            return
        name, _, rest = text[1:].partition(" ")
        if name.strip() not in self._commands:
            known = [*self._commands, "quit"]
            raise ConfigError(f"no command /{name}{nearest(name, known)} (//{name} says /{name} to the model)")
        self._commands[name.strip()](rest.strip())

    def note(self, text: str) -> None:
        """Print what is no answer."""
        from harness.reports.samples import printable

        click.echo(printable(text), err=True)

    def answer(self, ask: Callable[[Callable[[str], None]], Turn]) -> None:
        """Print an answer as it comes, and what is to be known of it."""
        from harness.reports.chat import turn_facts, verdict_line
        from harness.reports.samples import printable

        self._verdict = None
        turn = ask(lambda piece: click.echo(printable(piece), nl=False))
        click.echo()
        if self.remarkable(turn):
            self.note(turn_facts(turn))
        if self._critic is not None and turn.error is None and not turn.interrupted:
            self._verdict = self.chat.judge(turn, self._critic)
            self.note(verdict_line(self._critic.judge.name, self._verdict))
        if turn.interrupted:
            raise KeyboardInterrupt

    def remarkable(self, turn: Turn) -> bool:
        """Whether to print how an answer ended."""
        return turn.finish_reason != "stop"

    def interrupted(self) -> None:
        """End the script."""
        raise KeyboardInterrupt

    def edit(self, text: str) -> None:
        if not text:
            raise ConfigError("/edit needs the new text: /edit TEXT")
        self.answer(lambda tell: self.chat.edit(text, tell))

    def undo(self, text: str) -> None:
        self.note(f"taken back: {self.chat.undo().instruction}")

    def system(self, text: str) -> None:
        self.chat.system = text or None
        self.note(f"system message: {text or 'none'}")

    def set(self, text: str) -> None:
        from harness.reports.chat import sampling

        self.chat.set(re.split(r"\s+(?=\w+=)", text) if text else ())
        self.note(sampling(self.chat.generation))

    def prompt(self, text: str) -> None:
        from harness.reports.chat import sent_prompt

        self.note(sent_prompt(self.chat))

    def judge(self, text: str) -> None:
        from harness.reports.chat import verdict_words

        if self._critic is None:
            raise ConfigError("no judge: start the chat with --judge MODEL, or give its transcript to `harness judge`")
        if not self.chat.turns or self.chat.turns[-1].error is not None:
            raise ConfigError("there is no answer to judge")
        last, known = self.chat.turns[-1], self._verdict
        if known is None or known.id != last.id or known.verdict == "judge_error":
            self._verdict = known = self.chat.judge(last, self._critic)
        self.note(verdict_words(self._critic.judge.name, known))

    def save(self, text: str) -> None:
        if not text:
            self.note(f"the transcript is {self.chat.transcript.path}, and is written as you speak")
            return
        self.chat.save(expanded(text))
        self.note(f"saved: {text}")

    def help(self, text: str) -> None:
        from harness.reports.chat import command_list

        self.note(command_list())


class _Terminal(_Script):
    """A chat with a person."""

    def lines(self) -> Iterator[str]:
        """Yield what is typed, with a line editor and a history where Python has them; Ctrl-C begins a line anew."""
        with suppress(ImportError):
            import readline  # noqa: F401  # which input uses from here on
        while True:
            try:
                yield input("> ")
            except KeyboardInterrupt:
                self.note("\nCtrl-D or /quit leaves")
            except UnicodeDecodeError:
                self.note("that was not UTF-8; it has been left out")
            except EOFError:
                click.echo(err=True)
                return

    def leave(self, code: int) -> int:
        """Say where the transcript is; to a person, failures have been told."""
        self.note(f"transcript: {self.chat.transcript.path}" if self.chat.transcript.turns else "nothing was said")
        return 0

    def remarkable(self, turn: Turn) -> bool:
        """Always."""
        return True

    def interrupted(self) -> None:
        """Go on: Ctrl-C stops the answer alone."""

    def edit(self, text: str) -> None:
        """Let the last turn be edited in place where there is a line editor."""
        if not text and self.chat.turns:
            text = _edited(self.chat.turns[-1].instruction)
        super().edit(text)


def _edited(text: str) -> str:
    try:
        import readline
    except ImportError as error:
        raise ConfigError("there is no line editor here: /edit TEXT") from error
    readline.set_startup_hook(lambda: readline.insert_text(text))
    try:
        return input("edit> ")
    except (KeyboardInterrupt, EOFError) as error:
        raise ConfigError("left as it was") from error
    finally:
        readline.set_startup_hook()
