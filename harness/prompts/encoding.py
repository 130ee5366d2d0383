"""Text → token ids, in which only what a template writes itself can be a control token.

An added token is a control token where its tokenizer calls it special, where the chat template writes it, be it put
together of parts, or where it looks like one (``<|…|>``). Others, such as runs of spaces and tags of HTML, are text
that happens to have a token.

What is spelled like a control token in an inserted text is encoded by a copy of the tokenizer in which control tokens
have names that no text has: everything around it is encoded as ever, and no character is added.
"""

from __future__ import annotations

import importlib.util
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from harness.interfaces import Tokenizer

#: DeepSeek's bars are full width, EXAONE's stand in brackets.
_LOOKS_LIKE_ONE = re.compile(r"<[|｜].*[|｜]>|\[\|.*\|\]", re.DOTALL)

#: What templates are asked to write, to see which tokens they put together: roles, and whether an answer is to follow.
_CONVERSATIONS = ((("user",), True), (("system", "user", "assistant", "user"), True), (("user", "assistant"), False))

#: Where a text stands: at the very beginning, right behind a control token, or in the middle of a text.
Place = Literal["first", "behind", "within"]


class Piece(NamedTuple):
    """A part of a prompt: the template's `own`, in which control tokens are meant, or a text inserted into it."""

    text: str
    own: bool = False


@dataclass(frozen=True)
class Controls:
    """The control tokens of a tokenizer by id, their ids by text, and a pattern that finds what spells one."""

    tokens: Mapping[int, Any]
    ids: Mapping[str, int]
    pattern: re.Pattern[str]

    def within(self, ids: Iterable[int]) -> list[int]:
        """Return the control tokens among `ids`, in their order."""
        tokens = self.tokens
        return [token for token in ids if token in tokens]

    def spelled(self, text: str) -> list[int]:
        """Return the control tokens that a template's own text spells, in their order."""
        return [self.ids[match.group()] for match in self.pattern.finditer(text)]


@lru_cache(maxsize=16)
def controls_of(tokenizer: Tokenizer) -> Controls:
    """Return the control tokens of a tokenizer."""
    written, named = _written(tokenizer), {*map(str, getattr(tokenizer, "all_special_tokens", ()))}
    added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    tokens = {number: token for number, token in added.items() if token.content in named or _is_control(token, written)}
    ids = {token.content: number for number, token in tokens.items()}
    longest_first = sorted(ids, key=len, reverse=True)
    return Controls(tokens, ids, re.compile("|".join(map(re.escape, longest_first)) or r"(?!)"))


def _is_control(token: Any, written: str) -> bool:
    text = token.content.strip()
    if not text:
        return False
    if token.special or _LOOKS_LIKE_ONE.fullmatch(text):
        return True
    return not text.isalnum() and text in written


def _written(tokenizer: Any) -> str:
    """Return what a tokenizer's chat templates hold of text, and what they make of a few conversations."""
    found = tokenizer.chat_template
    if not found:
        return ""
    templates = [str(each) for each in (found.values() if isinstance(found, Mapping) else [found])]
    if importlib.util.find_spec("jinja2") is None:  # comes with torch; without it no template is used
        return "\n".join(templates)
    from jinja2 import TemplateError

    from harness.prompts.bounded import TemplateBounds, given, literals, render

    texts = []
    for template in templates:
        texts.append(literals(template))
        for roles, generating in _CONVERSATIONS:
            messages = [{"role": role, "content": "a"} for role in roles]
            try:
                texts.append(render(template, given(tokenizer, messages, generating=generating), len(messages)))
            except TemplateBounds:
                break
            except TemplateError:
                continue
    return "\n".join(texts)


def encode(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the ids of a plain-text prompt: one BOS in front where the tokenizer is made to add one, no end token.

    Control tokens that are spelled out in the text are ordinary characters.
    """
    return (*begin(tokenizer), *encode_pieces([Piece(text)], tokenizer))


def encode_all(texts: Sequence[Sequence[Piece]], tokenizer: Any) -> Iterable[tuple[int, ...]]:
    """Return the ids of each text, given as pieces, with a BOS as `encode` puts it; many are encoded on all cores."""
    first = begin(tokenizer)
    joined = ["".join(piece.text for piece in pieces) for pieces in texts]
    encoded = tokenizer(joined, add_special_tokens=False, verbose=False)
    for pieces, ids in zip(texts, encoded.input_ids, strict=True):
        yield (*first, *(ids if _as_meant(ids, pieces, tokenizer) else _guarded(pieces, tokenizer)))


def encode_pieces(pieces: Sequence[Piece], tokenizer: Tokenizer) -> list[int]:
    """Return the ids of the joined pieces, without a BOS that they do not spell."""
    text = "".join(piece.text for piece in pieces)
    ids = tokenizer.encode(text, add_special_tokens=False, verbose=False)
    return ids if _as_meant(ids, pieces, tokenizer) else _guarded(pieces, tokenizer)


def encode_behind(prompt: Sequence[int], pieces: Sequence[Piece], tokenizer: Tokenizer) -> list[int]:
    """Return the ids of the joined pieces as they go on from the ids of a `prompt`, with which they share no token.

    A space that the tokenizer puts before a text is put there only where it would put one within the whole: behind a
    control token at most.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return _behind_anchor(encode_pieces(pieces, tokenizer), pieces, tokenizer)
    return _guarded(
        pieces, tokenizer, "behind" if prompt[-1:] and prompt[-1] in controls_of(tokenizer).tokens else "within"
    )


def _behind_anchor(alone: list[int], pieces: Sequence[Piece], tokenizer: Tokenizer) -> list[int]:
    """Return ids of pieces behind a line's end, if that has ids of its own then; else those that they have `alone`."""
    anchor = encode_pieces([Piece("\n")], tokenizer)
    found = encode_pieces([Piece("\n"), *pieces], tokenizer)
    return found[len(anchor) :] if anchor and found[: len(anchor)] == anchor else alone


def begin(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return what the tokenizer puts before any text: its BOS or nothing."""
    bos = tokenizer.bos_token_id
    return (bos,) if bos is not None and _adds(tokenizer, bos) else ()


def end_of(tokenizer: Any) -> int | None:
    """Return the id of the token that ends a text that is learned: as the model's files say, else the tokenizer's EOS.

    See `harness.models.ModelFolder.tokenizer`.
    """
    found: int | None = getattr(tokenizer, "taught_end", tokenizer.eos_token_id)
    return found


def one_bos(ids: Sequence[int], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Give `ids` exactly one BOS if the template wrote any, or if the tokenizer is made to add one."""
    bos = tokenizer.bos_token_id
    start = 0
    while start < len(ids) and ids[start] == bos:
        start += 1
    return (*((bos,) if bos is not None and start else begin(tokenizer)), *ids[start:])


@lru_cache(maxsize=16)
def _adds(tokenizer: Tokenizer, bos: int) -> bool:
    """Whether a BOS is put before a text; of an empty one it could be an end token of the same id."""
    return tokenizer.encode("a", add_special_tokens=True)[:1] == [bos]


def _as_meant(ids: Iterable[int], pieces: Iterable[Piece], tokenizer: Tokenizer) -> bool:
    controls = controls_of(tokenizer)
    meant = [token for piece in pieces if piece.own for token in controls.spelled(piece.text)]
    return controls.within(ids) == meant


def _guarded(pieces: Sequence[Piece], tokenizer: Tokenizer, place: Place = "first") -> list[int]:
    """Return ids in which the control tokens of own pieces alone are control tokens; the first text has its `place`.

    A tokenizer cuts a text at its added tokens and encodes what is in between by itself. So is it done here, with cuts
    at own control tokens only.
    """
    controls = controls_of(tokenizer)
    between, ids = "", list[int]()
    strip = False  # whether the control token before takes the white space behind it
    for piece in pieces:
        start = 0
        for match in controls.pattern.finditer(piece.text) if piece.own else ():
            number = controls.ids[match.group()]
            token = controls.tokens[number]
            between += piece.text[start : match.start()]
            between = between.lstrip() if strip else between
            ids += text_ids(between.rstrip() if token.lstrip else between, tokenizer, place)
            ids.append(number)
            place = "behind"
            between, start, strip = "", match.end(), token.rstrip
        between += piece.text[start:]
    return ids + text_ids(between.lstrip() if strip else between, tokenizer, place)


def text_ids(text: str, tokenizer: Any, place: Place) -> list[int]:
    """Return the ids of a text in such a place, in which nothing is a control token."""
    if not text:
        return []
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # one without the library tokenizers: it knows which of its tokens are special
        return [*tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)]
    return list(_plain(tokenizer, place).encode(text, add_special_tokens=False).ids)


@lru_cache(maxsize=12)
def _plain(tokenizer: Tokenizer, place: Place) -> Any:
    """Return a copy of the tokenizer that knows no control token, for texts in such a place."""
    from tokenizers import Tokenizer as Backend

    content = json.loads(getattr(tokenizer, "backend_tokenizer").to_str())  # noqa: B009  # not in the protocol
    secret = secrets.token_hex(8)
    names = {token.content: f"\ue000{secret}-{number}" for number, token in controls_of(tokenizer).tokens.items()}
    for token in content.get("added_tokens"):
        if (name := names.get(token.get("content"))) is not None:
            token.update(content=name, special=True, normalized=False)
    _rename(content.get("model"), names)
    content.update(post_processor=None, truncation=None, padding=None)
    if place != "first":
        for key in ("normalizer", "pre_tokenizer"):
            content[key] = _without_prefix(content.get(key), place == "within")
    return Backend.from_str(json.dumps(content))


def _rename(model: Any, names: Mapping[str, str]) -> None:
    """Rename the control tokens in a model's own vocabulary, where pieces are looked up as well."""
    vocabulary, unknown, merges = map(model.get, ("vocab", "unk_token", "merges"))
    if isinstance(vocabulary, dict):
        model.update(vocab={names.get(piece, piece): number for piece, number in vocabulary.items()})
    else:
        model.update(vocab=[[names.get(piece, piece), score] for piece, score in vocabulary])
    if unknown in names:
        model.update(unk_token=names[unknown])
    if merges is not None:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
        model.update(merges=[pair for pair in pairs if not names.keys() & {*pair, "".join(pair)}])


def _without_prefix(part: Any, within: bool) -> Any:
    """Return a part of a tokenizer that puts no space before a text that does not begin the whole.

    Behind a control token some put one all the same; `within` a text none does, nor takes any white space away there.
    """
    if not isinstance(part, dict):
        return part
    for key in ("pretokenizers", "normalizers"):
        if key in part:
            kept = (_without_prefix(each, within) for each in part[key])
            part[key] = [each for each in kept if each is not None]
    kind = part.get("type")
    if kind == "Metaspace" and (within or part.get("prepend_scheme") == "first"):
        part.update(prepend_scheme="never")
    if within and kind == "Prepend":
        return None
    if within and kind == "ByteLevel":
        part.update(add_prefix_space=False)
    if within and kind == "Strip":
        part.update(strip_left=False)
    return part
