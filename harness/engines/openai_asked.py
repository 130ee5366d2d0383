"""What is asked of a server of OpenAI's protocol, in the form that it takes: learned from what it refuses."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.engines.openai_said import left_for
from harness.errors import ModelError
from harness.prompts.chat import under
from harness.types import Message, Request

#: Parameters that a request can do without where the server refuses them, in the order in which they are given up.
_DISPENSABLE = ("top_p", "seed", "stop", "temperature")

#: What servers write where they do not take a parameter, or not the value that says to do nothing.
_REFUSED = re.compile(
    r"unsupported|n[o']t (?:\w+ )?support|unknown|unrecogni[sz]ed|unexpected|deprecated|not permitted|not allowed"
    r"|cannot both|extra (?:inputs|fields)|invalid|not (?:a )?valid|not accept|not available|not enabled"
    r"|must be|should be|only \S+ (?:is|are) allowed|too many|at most|maximum",
    re.IGNORECASE,
)

#: What they write where another value would do.
_OUT_OF_RANGE = re.compile(
    r"must be|should be|at (?:most|least)|(?:maxi|mini)mum|(?:less|greater) than|[<>≤≥]"
    r"|\b(?:range|between|above|below|exceeds?)\b",
    re.IGNORECASE,
)

#: The values of parameters that a server may decide on: they ask for nothing, or, as a temperature of 0, for what no
#: other value asks for. Any other value that is out of range is what the user asked for, and is no server's to change.
_LEFT_TO_IT = {"top_p": (1,), "temperature": (0, 1)}

#: What they write where a model, or its chat template, has no place for a system message.
_NO_SYSTEM = re.compile(
    r"\bsystem\W{0,2} ?(?:roles?|messages?|prompts?|instructions?)\b.{0,40}\bnot\b|developer instruction is not"
    r"|n[o']t support\w*(?: \w+)? \W?system\b|(?:unexpected|invalid|unknown|unsupported) (?:message )?role\W+system"
    r"|roles must alternate|only user and assistant",
    re.IGNORECASE,
)

#: So often a limit is lowered to what the server says that is left; from then on it is halved at least.
_TIMES = 3

_log = logging.getLogger(__name__)


@dataclass
class Asking:
    """The form of requests for `model` on the server at `url`; other fields are those of the engine's options.

    `notices` say what they had to be sent without, or with less of, than was asked.
    """

    url: str
    model: str
    api: Literal["completions", "chat"]
    stop_limit: int
    extra_body: Mapping[str, Any]
    omit: tuple[str, ...]
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._limit_name = "max_tokens"
        self._omitted = {*self.omit}
        self._system = True

    def body(self, request: Request, limit: int) -> dict[str, Any]:
        """Return the JSON to send for a request, for an answer of `limit` tokens at most."""
        generation, prompt = request.generation, request.prompt
        body: dict[str, Any] = {
            "model": self.model,
            self._limit_name: limit,
            "temperature": generation.temperature,
            "top_p": generation.top_p,
        }
        if self.api == "chat":
            messages = self._placed(prompt.messages or (Message("user", prompt.text),))
            body.update(messages=[message.as_dict() for message in messages])
            if prompt.template_arguments:
                body.update(chat_template_kwargs=dict(prompt.template_arguments))
            if generation.logprobs:
                body.update(logprobs=True, top_logprobs=generation.logprobs)
        elif prompt.messages is not None and prompt.token_ids is None:
            remedy = "set openai.api=chat, or openai.tokenizer_path to make token ids of it here"
            raise ModelError(f"openai: a chat prompt cannot go to {self.url}/completions: {remedy}")
        else:
            body.update(prompt=prompt.text if prompt.token_ids is None else list(prompt.token_ids))
            if generation.logprobs:
                body.update(logprobs=generation.logprobs)
        if stop := generation.stop[: self.stop_limit]:
            body.update(stop=list(stop))
        if generation.seed is not None:
            body.update(seed=generation.seed)
        body |= self.extra_body
        return {name: value for name, value in body.items() if name not in self._omitted or name in self.extra_body}

    def lowered(self, said: str, request: Request, limit: int, times: int) -> int | None:
        """Return the limit to ask with instead, where the server says of `limit` that it is too much, else None.

        It has been lowered `times` times before: what a server says may be true by a token alone.
        """
        ids = request.prompt.token_ids
        left = left_for(said, limit, None if ids is None else len(ids))
        if left is not None and times >= _TIMES:
            left = min(left, limit // 2) or None
        return left

    def adapt(self, said: str, param: object, body: Mapping[str, Any]) -> bool:
        """Change what is sent, from what the server said of `body`; whether there was something to change."""
        roles = [message.get("role") for message in body.get("messages", ())]
        if "system" in roles[:1] and roles[1:] and _NO_SYSTEM.search(said):
            self._system = False
            self.notice(f"the server takes no system message ({said.rstrip('.')}); it stands before the first question")
            return True
        ours = [name for name in body if name not in self.extra_body]
        if "max_tokens" in ours and "max_completion_tokens" in said and _REFUSED.search(said):
            self._limit_name = "max_completion_tokens"
            return True
        named = [name for name in _DISPENSABLE if name in ours and (name == param or re.search(rf"\b{name}\b", said))]
        if not named or (param not in named and not _REFUSED.search(said)):
            return False
        name = str(param) if param in named else named[0]
        asked = body[name]
        if asked not in _LEFT_TO_IT.get(name, (asked,)) and (_OUT_OF_RANGE.search(said) or not _REFUSED.search(said)):
            return False
        self._omitted.add(name)
        self.notice(f"the server does not take {name} ({said.rstrip('.')}); requests go without it")
        return True

    def notice(self, text: str) -> None:
        """Say something once."""
        if text not in self.notices:
            self.notices.append(text)
            _log.warning("openai: %s", text)

    def _placed(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """Return messages, the system message within the first of the others where the server takes none."""
        if self._system or messages[0].role != "system" or not messages[1:]:
            return messages
        system, first, *others = messages
        return (first._replace(content=under(system.content, first.content)), *others)
