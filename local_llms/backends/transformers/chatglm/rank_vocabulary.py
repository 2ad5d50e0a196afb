"""GLM-4's vocabulary: byte pairs with ranks, one a line, as ``tiktoken`` writes them.

A line is a token in base64, a space, and its rank, which is its id too. The pattern that cuts a text into words, and
that special tokens are numbered behind the ranks, are those of ``ChatGLM4Tokenizer`` in GLM-4's
``tokenization_chatglm.py``. Ranks become the merges of a byte-level BPE of the library ``tokenizers``, which
transformers brings: two neighbours merge where their union has a rank, the lowest first.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from local_llms.backends.transformers.chatglm.marks import Marked
from local_llms.backends.transformers.files import TOKENIZER_BYTES, read_bytes
from local_llms.backends.transformers.pieces import byte_alphabet
from local_llms.backends.transformers.tokenizer_json import whole_characters
from local_llms.errors import ModelFileError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
)
"""In the order of their ids, where ``tokenizer_config.json`` lists none."""

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


class RankVocabulary(Marked):
    """Implements ``Vocabulary`` over byte pairs with ranks."""

    def __init__(
        self, ranks: Mapping[bytes, int], special_tokens: Mapping[str, int], chat_template: str | None = None
    ) -> None:
        """``ranks`` from ``read_ranks``; ``special_tokens``: marker → id, none of them a rank."""
        prefix = ("[gMASK]", "<sop>")
        ends = ("<|endoftext|>", "<|user|>", "<|observation|>")
        super().__init__(special_tokens, prefix=prefix, ends=ends, chat_template=chat_template)
        self.size = 1 + max([len(ranks) - 1, *special_tokens.values()])
        self._bytes = [b""] * self.size
        for token, rank in ranks.items():
            self._bytes[rank] = token
        self._tokenizer = _tokenizer(ranks)

    def tokenize_after(self, text: str) -> list[int]:
        """The same: a text is read alike wherever it stands."""
        return self.tokenize(text)

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text; every byte has one, and no marker is known here."""
        ids: list[int] = self._tokenizer.encode(whole_characters(text), add_special_tokens=False).ids
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text; b"" for a special one."""
        return self._bytes[token_id]


def read_ranks(path: Path) -> dict[bytes, int]:
    """Token → rank, in the order of ranks. Raises ModelFileError where the file is no sound list of them."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(read_bytes(path, TOKENIZER_BYTES).splitlines(), 1):
        entry = _entry(line)
        if entry is None or entry[0] in ranks or entry[1] != len(ranks):
            raise ModelFileError(
                f"{path} is damaged: line {number} is not a new token in base64 and the rank {len(ranks)}. "
                "Fetch it again."
            )
        ranks[entry[0]] = entry[1]
    missing = sum(bytes((byte,)) not in ranks for byte in range(256))
    if missing:
        raise ModelFileError(f"{path} is damaged: {missing} of the 256 bytes have no token. Fetch it again.")
    return ranks


def _entry(line: bytes) -> tuple[bytes, int] | None:
    parts = line.split()
    if len(parts) != 2 or not parts[1].isdigit() or len(parts[1]) > 9:
        return None
    try:
        token = base64.b64decode(parts[0], validate=True)
    except binascii.Error:
        return None
    return (token, int(parts[1])) if token else None


def _tokenizer(ranks: Mapping[bytes, int]) -> Tokenizer:
    """A byte-level BPE that merges in the order of ranks."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    sign = {byte: sign for sign, byte in byte_alphabet().items()}
    spelled = {token: "".join(sign[byte] for byte in token) for token in ranks}
    vocabulary = {spelled[token]: rank for token, rank in ranks.items()}
    merges = [(spelled[left], spelled[right]) for left, right in _merges(ranks)]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Every pair of tokens whose union is a token, by the rank of the union."""
    for token in ranks:
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ranks and right in ranks:
                yield left, right
