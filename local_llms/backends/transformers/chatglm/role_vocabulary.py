"""The vocabulary of ChatGLM2 and ChatGLM3: SentencePiece, and special tokens numbered behind its pieces.

As in ``SPTokenizer`` of ``tokenization_chatglm.py`` in THUDM/chatglm2-6b and chatglm3-6b. ChatGLM3 has a special token
for each role; there is no other difference.
"""

from __future__ import annotations

from pathlib import Path

from local_llms.backends.transformers.files import TOKENIZER_BYTES, read_bytes
from local_llms.backends.transformers.tokenizer_facts import AddedToken, TokenizerFacts
from local_llms.backends.transformers.tokenizer_model import SentencePieceVocabulary, read_pieces

MASKS = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")


class RoleVocabulary(SentencePieceVocabulary):
    """Implements ``Vocabulary``."""

    def __init__(self, path: Path, *, roles: bool, chat_template: str | None = None) -> None:
        """``roles``: whether roles have tokens, as in ChatGLM3. Raises MissingDependency and ModelFileError."""
        count = len(read_pieces(read_bytes(path, TOKENIZER_BYTES), path))
        texts = (*MASKS, *ROLES) if roles else MASKS
        added = {count + place: AddedToken(text, control=True) for place, text in enumerate(texts)}
        super().__init__(path, TokenizerFacts(adds_bos=False, chat_template=chat_template, added=added))
        specials = self.special_tokens
        self.prompt_prefix = (specials["[gMASK]"], specials["sop"])
        if roles:
            self.end_ids |= {specials["<|user|>"], specials["<|observation|>"]}
