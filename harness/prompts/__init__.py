"""Prompt formats: instruction → prompt → token ids. The only place that does so, for evaluation and training alike."""

from harness.prompts.choice import CHECKPOINT_FILE, Choice, choose_format, read_checkpoint_file
from harness.prompts.documents import NO_EXTRAS, Document, Extras, Turns
from harness.prompts.encoding import encode, end_of
from harness.prompts.files import prompt_folder, read_prompt, shipped_prompts
from harness.prompts.formats import (
    NO_OPTIONS,
    FormatOptions,
    PromptFormat,
    find_format,
    format_names,
    format_options,
    system_text,
)
from harness.prompts.shots import Shot, ShotsAs, with_shots

__all__ = [
    "CHECKPOINT_FILE",
    "NO_EXTRAS",
    "NO_OPTIONS",
    "Choice",
    "Document",
    "Extras",
    "FormatOptions",
    "PromptFormat",
    "Shot",
    "ShotsAs",
    "Turns",
    "choose_format",
    "encode",
    "end_of",
    "find_format",
    "format_names",
    "format_options",
    "prompt_folder",
    "read_checkpoint_file",
    "read_prompt",
    "shipped_prompts",
    "system_text",
    "with_shots",
]
