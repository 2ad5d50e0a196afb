"""The prompt template of a GGUF file: the Jinja text that it carries, or what it means by a name or by its tokens."""

from __future__ import annotations

from local_llms.hub.gguf import GGUFHeader

_KEY, _TOKENS = "tokenizer.chat_template", "tokenizer.ggml.tokens"

_NAMED = {"chatglm3": "chatglm3", "chatglm4": "glm4"}
"""Names that llama.cpp's converter wrote for ChatGLM instead of a template (``convert_hf_to_gguf.py``) → ours."""

_BY_TOKENS = (
    (frozenset(("[gMASK]", "<sop>", "<|user|>")), "glm4"),
    (frozenset(("[gMASK]", "sop", "<|user|>")), "chatglm3"),
    (frozenset(("[gMASK]", "sop")), "chatglm2"),
)
"""Tokens of a file of the architecture "chatglm" → the template of that generation."""


def jinja_of(header: GGUFHeader) -> str | None:
    """The Jinja template in a file; None where there is none. What has no brace is a name."""
    value = header.metadata.get(_KEY)
    return value if isinstance(value, str) and "{" in value else None


def template_name(header: GGUFHeader) -> str | None:
    """The catalog's name of the template that a file's model was trained with, where its kind of file tells."""
    value = header.metadata.get(_KEY)
    named = _NAMED.get(value.lower()) if isinstance(value, str) else None
    if named is not None or header.architecture != "chatglm":
        return named
    tokens = set(header.strings(_TOKENS))
    return next((name for wanted, name in _BY_TOKENS if wanted <= tokens), None)
