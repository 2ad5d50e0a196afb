"""Template → segments → token ids. The only room that may emit a special token.

Who writes what: a template's author writes structure, everybody else content. Only structure becomes special tokens,
so nothing that a user, a document or a model writes can end a turn or begin another.
"""

from local_llms.prompts.encode import Tokenizer, encode, spell
from local_llms.prompts.length import check_length
from local_llms.prompts.named import render_prompt
from local_llms.prompts.preview import Preview, PromptToken, preview
from local_llms.prompts.render import (
    MessageLike,
    Prompt,
    Segment,
    TemplateLike,
    check_not_empty,
    names_read,
    render,
    text_of,
)
from local_llms.prompts.window import encode_within

__all__ = [
    "MessageLike",
    "Preview",
    "Prompt",
    "PromptToken",
    "Segment",
    "TemplateLike",
    "Tokenizer",
    "check_length",
    "check_not_empty",
    "encode",
    "encode_within",
    "names_read",
    "preview",
    "render",
    "render_prompt",
    "spell",
    "text_of",
]
