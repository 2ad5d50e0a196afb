"""What the files beside a tokenizer say: which tokens begin and end a text, and the chat template.

``tokenizer_config.json``, ``special_tokens_map.json``, ``added_tokens.json`` and ``chat_template.jinja``, as the
transformers library writes them (huggingface/transformers: src/transformers/tokenization_utils_base.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_llms.backends.transformers.files import read_json_if_there, text_of
from local_llms.errors import ModelFileError
from local_llms.hub.folder_template import chat_template_of


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that was added to a vocabulary. ``control``: it adds no text of its own.

    ``lstrip``, ``rstrip``: where its marker is found, the white space in front of it, or behind it, goes.
    """

    text: str
    control: bool
    lstrip: bool = False
    rstrip: bool = False

    @classmethod
    def declared(cls, text: str, entry: Mapping[str, Any]) -> AddedToken:
        """As ``tokenizer.json`` and ``tokenizer_config.json`` declare one."""
        return cls(text, *(entry.get(name) is True for name in ("special", "lstrip", "rstrip")))


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What is said about a tokenizer outside of it.

    ``adds_bos`` is None where the files leave it to the tokenizer. ``added``: id → token. Of a SentencePiece model:
    ``adds_space``, whether it puts a space in front of a text (None: as the model itself says), ``legacy``, whether it
    does so behind special tokens too, as everybody did before July 2023.
    """

    bos: str | None = None
    eos: str | None = None
    adds_bos: bool | None = None
    chat_template: str | None = None
    adds_space: bool | None = None
    legacy: bool = True
    added: Mapping[int, AddedToken] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> TokenizerFacts:
        """Read them. Raises ModelFileError for a damaged file."""
        path = folder / "tokenizer_config.json"
        config = read_json_if_there(path)
        marks = read_json_if_there(folder / "special_tokens_map.json")
        adds = config.get("add_bos_token")
        if not isinstance(adds, bool):
            # The library's class for LLaMA puts a BOS in front unless it is told not to.
            adds = True if str(config.get("tokenizer_class", "")).startswith("LlamaTokenizer") else None
        return cls(
            bos=text_of(config.get("bos_token", marks.get("bos_token"))),
            eos=text_of(config.get("eos_token", marks.get("eos_token"))),
            adds_bos=adds,
            chat_template=chat_template_of(folder, config),
            adds_space=config["add_prefix_space"] if isinstance(config.get("add_prefix_space"), bool) else None,
            legacy=config.get("legacy") is not False,
            added=_added(path, config, read_json_if_there(folder / "added_tokens.json"), marks),
        )


def _added(
    path: Path, config: Mapping[str, Any], extra: Mapping[str, Any], marks: Mapping[str, Any]
) -> dict[int, AddedToken]:
    declared = config.get("added_tokens_decoder", {})
    if not isinstance(declared, dict):
        raise ModelFileError(f"{path} is damaged: added_tokens_decoder is no object.")
    special = {text_of(value) for value in marks.values()}
    found = {
        token: AddedToken(text, text in special) for text, token in extra.items() if type(token) is int and token >= 0
    }
    for key, value in declared.items():
        text = text_of(value)
        if not str(key).isdecimal() or text is None:
            raise ModelFileError(f"{path} is damaged: added_tokens_decoder has an entry {key!r} that is no token.")
        found[int(key)] = AddedToken.declared(text, value)
    return found


def swallowing(marks: Mapping[int, AddedToken]) -> tuple[frozenset[int], frozenset[int]]:
    """The tokens whose marker drops the white space in front of it, and those that drop it behind."""
    before = frozenset(token for token, entry in marks.items() if entry.lstrip)
    return before, frozenset(token for token, entry in marks.items() if entry.rstrip)
