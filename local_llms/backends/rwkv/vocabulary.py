"""Which vocabulary a model has: the file does not say, so the number of its tokens does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from local_llms.backends.rwkv.greedy import byte_vocabulary, world_file, world_vocabulary
from local_llms.errors import MissingDependency, ModelFileError
from local_llms.hub.rwkv_facts import BYTES_SIZE, PILE_SIZE, WORLD_SIZE, vocabulary_of

TOKENIZER_FILES = ("20B_tokenizer.json", "tokenizer.json")
_PILE_END = "<|endoftext|>"


class Vocabulary(Protocol):
    """Text ↔ ids, as ``Backend`` wants it."""

    @property
    def size(self) -> int:
        """Ids are below it; the network may have more rows, which are padding."""
        ...

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Marker text → id."""
        ...

    @property
    def eos_text(self) -> str:
        """Marker text of the token that ends a text; "" where there is none."""
        ...

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text, none of them special."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text."""
        ...


def choose_vocabulary(file: Path, rows: int) -> tuple[Vocabulary, str]:
    """The vocabulary of the model in ``file``, whose embedding has that many rows; and which it is and why, in words.

    65536 rows are RWKV's World vocabulary, from a file beside the weights or from the rwkv package; 256 are bytes. Any
    other number, such as 50277 of the models trained on the Pile (Raven), needs the tokenizer's file beside the
    weights. Raises ModelFileError where none is there or does not fit, MissingDependency.
    """
    if rows == WORLD_SIZE:
        path = world_file(file.parent)
        return _fitting(world_vocabulary(path), rows, path), f"{vocabulary_of(rows)} ({path.name})"
    if rows == BYTES_SIZE:
        return byte_vocabulary(), str(vocabulary_of(rows))
    for name in TOKENIZER_FILES:
        path = file.with_name(name)
        if path.is_file():
            return _fitting(_json_vocabulary(path), rows, path), f"{name}, which lies beside the weights"
    raise ModelFileError(
        f"{file} has a vocabulary of {rows} tokens that it does not carry. Put its tokenizer beside it, as "
        + ("20B_tokenizer.json (it is in the repository BlinkDL/ChatRWKV)." if rows == PILE_SIZE else "tokenizer.json.")
    )


def _fitting(vocabulary: Vocabulary, rows: int, path: Path) -> Vocabulary:
    if vocabulary.size > rows:
        raise ModelFileError(
            f"{path} has {vocabulary.size} tokens and the model {rows}: it belongs to another model. Put the "
            "tokenizer of this one beside the weights."
        )
    return vocabulary


def _json_vocabulary(path: Path) -> Vocabulary:
    # The same kind of file as in a transformers folder, so it is read by the same code.
    try:
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise MissingDependency("tokenizers", extra="rwkv", purpose=f"Reading {path.name}") from error
    from local_llms.backends.transformers.files import TOKENIZER_BYTES, read_json
    from local_llms.backends.transformers.tokenizer_facts import TokenizerFacts
    from local_llms.backends.transformers.tokenizer_json import JsonVocabulary

    return JsonVocabulary(read_json(path, TOKENIZER_BYTES), TokenizerFacts(eos=_PILE_END), path)
