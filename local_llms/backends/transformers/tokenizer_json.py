"""The vocabulary in a ``tokenizer.json``, through the tokenizers library.

That library finds added tokens in any text it is given. So it is given a vocabulary without them: they are taken out of
the list of added tokens, and where the model's own table has them too, they get a name there that nobody can type. What
is left can only read a marker as the plain text that it is.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_llms.backends.transformers.files import TOKENIZER_BYTES, read_json
from local_llms.backends.transformers.pieces import SPACE, reader_of
from local_llms.backends.transformers.tokenizer_facts import AddedToken, TokenizerFacts, swallowing
from local_llms.errors import ModelFileError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


ENDS = frozenset(
    {"<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|end_of_text|>"}
)
"""Control tokens that end a turn or a text in whatever model has them (ggml-org/llama.cpp: src/llama-vocab.cpp)."""


class JsonVocabulary:
    """Implements ``Vocabulary`` over a parsed ``tokenizer.json``."""

    def __init__(self, spec: dict[str, Any], facts: TokenizerFacts, source: Path) -> None:
        """``spec``: the parsed file; it is changed. ``source`` is named in errors. Raises ModelFileError."""
        added = {**_added_tokens(spec, source), **facts.added}
        self._blank = {token: entry.text for token, entry in added.items() if _is_blank(entry)}
        self._marks = {token: entry for token, entry in added.items() if token not in self._blank}
        table = _table(spec, source)
        self.size = 1 + max([*table.values(), *added], default=-1)
        ids = {**table, **{entry.text: token for token, entry in added.items()}}
        self.special_tokens: Mapping[str, int] = {entry.text: token for token, entry in self._marks.items()}
        self.swallows_before, self.swallows_after = swallowing(self._marks)
        before = _in_front(spec.get("post_processor"))
        # A single token in front is a BOS; several are more than that.
        frame = before[0] if len(before) == 1 else None
        self.prompt_prefix = tuple(ids[text] for text in before if text in ids) if len(before) > 1 else ()
        self.prompt_suffix: tuple[int, ...] = ()
        bos = facts.bos if facts.bos in ids else frame
        self.bos_id = ids.get(bos) if bos is not None else None
        framed = frame is not None and ids.get(frame) == self.bos_id
        self.adds_bos = self.bos_id is not None and (framed if facts.adds_bos is None else facts.adds_bos)
        eos = ids.get(facts.eos) if facts.eos is not None else None
        self.eos_text = facts.eos if facts.eos is not None and facts.eos in self.special_tokens else ""
        ends = {token for token, entry in self._marks.items() if entry.control and entry.text in ENDS}
        self.end_ids = frozenset(ends if eos is None else {*ends, eos})
        self.chat_template = facts.chat_template
        self._read_piece = reader_of(spec.get("decoder"))
        self._pieces = {token: text for text, token in table.items()}
        self._unknown = _unknown(spec, ids)
        self._tokenizer = _plain(spec, self._marks, source)
        after = _without_first_space(spec.get("pre_tokenizer"))
        self._after = self._tokenizer if after is None else _built({**spec, "pre_tokenizer": after}, source)
        self._bytes: list[bytes | None] = [None] * self.size

    @classmethod
    def of(cls, folder: Path) -> JsonVocabulary:
        """That of a checkpoint's folder. Raises ModelFileError."""
        path = folder / "tokenizer.json"
        return cls(read_json(path, TOKENIZER_BYTES), TokenizerFacts.of(folder), path)

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text. A character that the vocabulary does not have is left out."""
        return self._ids(self._tokenizer, text)

    def tokenize_after(self, text: str) -> list[int]:
        """The same behind a special token, where a space that belongs to the beginning of a text alone is left out."""
        return self._ids(self._after, text)

    def _ids(self, tokenizer: Tokenizer, text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(whole_characters(text), add_special_tokens=False).ids
        return ids if self._unknown is None else [token for token in ids if token != self._unknown]

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text; b"" for a control token, and for an id that no token has."""
        known = self._bytes[token_id]
        if known is None:
            known = self._bytes[token_id] = self._read(token_id)
        return known

    def _read(self, token_id: int) -> bytes:
        mark = self._marks.get(token_id)
        if mark is not None:
            return b"" if mark.control else mark.text.encode()
        if token_id in self._blank:
            return self._blank[token_id].replace(SPACE, " ").encode()
        piece = self._pieces.get(token_id)
        return b"" if piece is None or token_id == self._unknown else self._read_piece(piece)


def whole_characters(text: str) -> str:
    """The text with pairs of surrogates joined, and U+FFFD for a lone one, which UTF-8 cannot express."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _is_blank(entry: AddedToken) -> bool:
    """Runs of spaces or line ends are ordinary words that some vocabularies add."""
    return not entry.control and not entry.text.replace(SPACE, " ").strip()


def _added_tokens(spec: Mapping[str, Any], source: Path) -> dict[int, AddedToken]:
    found: dict[int, AddedToken] = {}
    for entry in spec.get("added_tokens") or ():
        token, text = (entry.get("id"), entry.get("content")) if isinstance(entry, dict) else (None, None)
        if type(token) is not int or not 0 <= token < 1 << 24 or not isinstance(text, str):
            raise _damaged(source, f"added_tokens has {entry!r}")
        found[token] = AddedToken.declared(text, entry)
    return found


def _table(spec: Mapping[str, Any], source: Path) -> dict[str, int]:
    """Token text → id of the model's own vocabulary."""
    model = spec.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):
        entries = [entry[0] if isinstance(entry, list) and entry else None for entry in vocab]
        table = {text: token for token, text in enumerate(entries) if isinstance(text, str)}
        sound = len(entries) == sum(isinstance(text, str) for text in entries)
    elif isinstance(vocab, dict):
        table = vocab
        sound = all(type(token) is int and 0 <= token < 1 << 24 for token in vocab.values())
    else:
        raise _damaged(source, "it has no vocabulary")
    if not sound:
        raise _damaged(source, "its vocabulary has an entry that is no token")
    return table


def _unknown(spec: Mapping[str, Any], ids: Mapping[str, int]) -> int | None:
    """The id that stands for what the vocabulary does not have."""
    model = spec["model"]
    number = model.get("unk_id")
    if type(number) is int:
        return number
    text = model.get("unk_token")
    return ids.get(text) if isinstance(text, str) else None


def _in_front(processor: Any) -> list[str]:
    """The special tokens that a post-processor puts in front of a single text."""
    if not isinstance(processor, dict):
        return []
    for step in processor.get("processors") or ():
        found = _in_front(step)
        if found:
            return found
    single = processor.get("single")
    found = []
    for item in single if isinstance(single, list) else ():
        mark = item.get("SpecialToken") if isinstance(item, dict) else None
        text = mark.get("id") if isinstance(mark, dict) else None
        if not isinstance(text, str):
            break
        found.append(text)
    return found


def _plain(spec: dict[str, Any], marks: Mapping[int, AddedToken], source: Path) -> Tokenizer:
    """The tokenizer without its special tokens, which are taken out of ``spec``."""
    model = spec["model"]
    secret = secrets.token_hex(16)
    hidden = {entry.text: f"\uf8ff{secret}{token}" for token, entry in marks.items()}
    vocab = model["vocab"]
    if isinstance(vocab, list):
        model["vocab"] = [[hidden.get(entry[0], entry[0]), *entry[1:]] for entry in vocab]
    else:
        model["vocab"] = {hidden.get(text, text): token for text, token in vocab.items()}
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = hidden.get(model["unk_token"], model["unk_token"])
    if isinstance(model.get("merges"), list):
        model["merges"] = [merge for merge in model["merges"] if _keeps_clear(merge, hidden)]
    spec["added_tokens"] = [entry for entry in spec.get("added_tokens") or () if entry["id"] not in marks]
    spec.update(post_processor=None, truncation=None, padding=None)
    return _built(spec, source)


def _without_first_space(step: Any) -> dict[str, Any] | None:
    """A step in front of the model that puts a space at the beginning of a text, without that; None for any other."""
    if not isinstance(step, dict):
        return None
    if step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first":
        return {**step, "prepend_scheme": "never"}
    inner = step.get("pretokenizers")
    if step.get("type") != "Sequence" or not isinstance(inner, list):
        return None
    changed = [_without_first_space(part) for part in inner]
    if changed.count(None) == len(changed):
        return None
    return {**step, "pretokenizers": [new or old for new, old in zip(changed, inner, strict=True)]}


def _built(spec: Mapping[str, Any], source: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps(spec))
    except Exception as error:
        # The library raises bare Exceptions for whatever it does not like.
        if type(error) is not Exception:
            raise
        raise _damaged(source, f"the tokenizers library says: {error}") from None


def _keeps_clear(merge: Any, hidden: Mapping[str, str]) -> bool:
    """Whether a merge neither makes a special token nor needs one."""
    pair = merge.split(" ", 1) if isinstance(merge, str) else merge
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        return True
    return not hidden.keys() & {*pair, "".join(pair)}


def _damaged(source: Path, what: str) -> ModelFileError:
    return ModelFileError(f"{source} is damaged: {what}. Fetch it again.")
