"""Which tokenizer a folder has."""

from __future__ import annotations

from pathlib import Path

from local_llms.backends.transformers.parts import Vocabulary
from local_llms.backends.transformers.tokenizer_json import JsonVocabulary
from local_llms.backends.transformers.tokenizer_model import SentencePieceVocabulary
from local_llms.errors import ModelFileError


def vocabulary_of(folder: Path) -> Vocabulary:
    """The vocabulary in a folder: tokenizer.json, or else tokenizer.model. Raises ModelFileError."""
    if (folder / "tokenizer.json").is_file():
        return JsonVocabulary.of(folder)
    if (folder / "tokenizer.model").is_file():
        return SentencePieceVocabulary.of(folder)
    raise ModelFileError(
        f"{folder} has no tokenizer that can be read: neither tokenizer.json nor tokenizer.model. Fetch it again."
    )
