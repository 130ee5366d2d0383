"""The tokenizer of a model folder, read when a prompt is made: a finished run is answered without transformers."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from harness import limits
from harness.errors import ModelError, first_line
from harness.files import read_bytes, read_json
from harness.interfaces import Tokenizer
from harness.models import ModelFolder

#: Where transformers keeps chat templates, of which those in files of their own win over tokenizer_config.json's.
_TEMPLATE, _MORE_TEMPLATES, _CONFIG = "chat_template.jinja", "additional_chat_templates", "tokenizer_config.json"


class _Template(msgspec.Struct):
    """One of several chat templates in tokenizer_config.json."""

    name: str
    template: str


class FolderTokenizer:
    """A tokenizer whose chat template, which a run is identified by, is known before it has been loaded.

    Everything else loads it, as `ModelFolder.tokenizer` does and with its errors. Raises ModelError for a chat template
    that cannot be read.
    """

    def __init__(self, model: ModelFolder) -> None:
        self._model = model
        self._tokenizer: Tokenizer | None = None
        self.chat_template: Any = _chat_template(model)

    @property
    def bos_token_id(self) -> int | None:
        """The id of the token that stands before any text, if there is one."""
        return self._loaded().bos_token_id

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts of all special tokens."""
        return self._loaded().all_special_tokens

    def encode(self, text: str, *, add_special_tokens: bool = True, **kwargs: Any) -> list[int]:
        """Return the ids of a text."""
        return self._loaded().encode(text, add_special_tokens=add_special_tokens, **kwargs)

    def decode(self, token_ids: Any, **kwargs: Any) -> Any:
        """Return the text of ids."""
        return self._loaded().decode(token_ids, **kwargs)

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """Return a conversation as the chat template writes it."""
        return self._loaded().apply_chat_template(conversation, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._loaded(), name)

    def _loaded(self) -> Tokenizer:
        if self._tokenizer is None:
            loaded = cast(Tokenizer, self._model.tokenizer)
            if loaded.chat_template != self.chat_template:
                raise ModelError(
                    f"{self._model}: transformers reads another chat template than its files hold; "
                    f"save the tokenizer anew (tokenizer.save_pretrained)"
                )
            self._tokenizer = loaded
        return self._tokenizer


def _chat_template(model: ModelFolder) -> Any:
    """Return the chat template in a folder as transformers gives it: a text, texts by name, or None."""
    if model.gguf is not None:
        return model.tokenizer.chat_template
    folder = model.path
    model.check_sizes()
    try:
        files = {path.stem: path for path in (folder / _MORE_TEMPLATES).glob("*.jinja")}
        if (folder / _TEMPLATE).is_file():
            files = {"default": folder / _TEMPLATE, **files}
        if files:
            most = limits.TEMPLATE.value
            texts = {name: read_bytes(path, links=True, most=most).decode() for name, path in files.items()}
            return texts.get("default") if texts.keys() == {"default"} else texts
        path = folder / _CONFIG
        template = read_json(path, links=True).get("chat_template") if path.is_file() else None
        if not isinstance(template, list):
            return template
        return {each.name: each.template for each in msgspec.convert(template, list[_Template])}
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{model}: the chat template cannot be read ({first_line(error)}); copy it anew") from error
