"""A file that llama.cpp would abort on is refused before it sees it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from local_llms.errors import ModelFileError
from local_llms.hub import check_gguf
from tests.unit.hub.raw_gguf import ARRAY, F32, I32, STRING, U32, Raw, Tensor, array, scalar, text


def changed(**keys: tuple[int, bytes] | None) -> Raw:
    """A sound model with other values; ``__`` stands for a dot, None leaves a key out."""
    raw = Raw()
    for name, value in keys.items():
        key = name.replace("__", ".")
        if value is None:
            del raw.keys[key]
        else:
            raw.keys[key] = value
    return raw


def test_a_sound_file_passes(tmp_path: Path) -> None:
    assert check_gguf(Raw().save(tmp_path)).architecture == "llama"


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TOKENS = "tokenizer__ggml__tokens"
SPM = {
    "tokenizer__ggml__model": (STRING, text("llama")),
    "tokenizer__ggml__scores": None,
    "tokenizer__ggml__token_type": None,
}
BERT = {"tokenizer__ggml__model": (STRING, text("bert")), "tokenizer__ggml__bos_token_id": (U32, scalar(U32, 0))}
WRONG = [
    (changed(general__architecture=None), r"general\.architecture is missing"),
    (changed(general__architecture=(U32, scalar(U32, 1))), r"general\.architecture is missing"),
    (changed(general__type=(STRING, text("adapter"))), r"holds no model but something of the type 'adapter'"),
    (Raw(tensors=[]), r"holds no weights"),
    (Raw(tensors=[Tensor("a", (4, 3)), Tensor("a", (32,), 8, 64)]), r"the tensor a comes twice"),
    (Raw(tensors=[Tensor("a", (4, 0))]), r"impossible shape \(4, 0\)"),
    (Raw(tensors=[Tensor("a", (4, 1 << 63))]), r"impossible shape"),
    (Raw(tensors=[Tensor("a", (1 << 62, 1 << 62))]), r"ends at byte"),
    (Raw(tensors=[Tensor("a", (31,), 8)]), r"31 weights, no multiple of the 32 that Q8_0"),
    (Raw(tensors=[Tensor("a", (4, 3), offset=32)]), r"begins at 32 instead of 0"),
    (Raw(tensors=[Tensor("a", (4, 3)), Tensor("b", (32,), 8, 32)]), r"b begins at 32 instead of 64"),
    (Raw(data=bytes(97)), r"the tensor b ends at byte \d+, and the file has \d+"),
    (Raw(data=b""), r"the tensor a ends at byte"),
    (changed(llama__block_count=(U32, scalar(U32, 0))), r"block_count is 0 instead of 1 to 512"),
    (changed(llama__block_count=(U32, scalar(U32, 513))), r"block_count is 513"),
    (
        changed(llama__rope__dimension_count=(U32, scalar(U32, 0))),
        r"dimension_count is 0 instead of an even number from 2 to 2",
    ),
    (changed(llama__rope__dimension_count=(U32, scalar(U32, 1))), r"dimension_count is 1"),
    (changed(llama__rope__dimension_count=(U32, scalar(U32, 4))), r"dimension_count is 4"),
    (changed(llama__attention__layer_norm_rms_epsilon=(F32, scalar(F32, -1.0))), r"epsilon is -1\.0"),
    (changed(llama__attention__layer_norm_rms_epsilon=(F32, scalar(F32, math.nan))), r"epsilon is nan"),
    (changed(llama__pooling_type=(U32, scalar(U32, 5))), r"pooling_type is 5 instead of 0 to 4"),
    (changed(tokenizer__ggml__model=(STRING, text("bert"))), r"bos_token_id is 101, which is none of its 3 tokens"),
    (
        changed(**BERT, tokenizer__ggml__seperator_token_id=(U32, scalar(U32, 3))),
        r"seperator_token_id is 3, which is none",
    ),
    (changed(tokenizer__ggml__model=None), r"no vocabulary"),
    (changed(**{TOKENS: None}), r"tokens is not a list of strings"),
    (changed(**{TOKENS: (ARRAY, array(I32, [1, 2, 3]))}), r"tokens is not a list of strings"),
    (changed(**{TOKENS: (ARRAY, array(STRING, []))}), r"tokens is not a list of strings"),
    (changed(**{TOKENS: (ARRAY, array(STRING, ["a", "b", "a"]))}), r"the same token twice"),
    (changed(**{TOKENS: (ARRAY, array(STRING, ["a", b"a\0b", "c"]))}), r"the same token twice"),
    (changed(**{TOKENS: (ARRAY, array(STRING, ["", "[EMPTY_0]", "c"]))}), r"the same token twice"),
    (
        changed(tokenizer__ggml__scores=(ARRAY, array(F32, [0.0, 0.0]))),
        r"scores is not a list of one float32 for each of 3",
    ),
    (changed(tokenizer__ggml__scores=(F32, scalar(F32, 0.0))), r"scores is not a list"),
    (changed(tokenizer__ggml__token_type=(ARRAY, array(U32, [1, 1, 1]))), r"token_type is not a list of one int32"),
    (
        changed(**SPM, **{TOKENS: (ARRAY, array(STRING, BYTES[:255]))}),
        r"no token for the byte 0xFF \(1 bytes lack one\)",
    ),
]


@pytest.mark.parametrize(("raw", "what"), WRONG, ids=[what for _, what in WRONG])
def test_what_is_wrong_is_named(tmp_path: Path, raw: Raw, what: str) -> None:
    path = raw.save(tmp_path)
    with pytest.raises(ModelFileError) as caught:
        check_gguf(path)
    assert str(path) in str(caught.value)
    assert re.search(what, str(caught.value)), caught.value


@pytest.mark.parametrize(
    "raw",
    [
        changed(tokenizer__ggml__model=(STRING, text("none")), **{TOKENS: None}),
        changed(tokenizer__ggml__scores=None, tokenizer__ggml__token_type=None),
        changed(**SPM, **{TOKENS: (ARRAY, array(STRING, BYTES))}),
        changed(llama__rope__dimension_count=None),
        changed(**BERT, tokenizer__ggml__seperator_token_id=(U32, scalar(U32, 2))),
        changed(llama__attention__key_length=(U32, scalar(U32, 8)), llama__rope__dimension_count=(U32, scalar(U32, 8))),
        Raw(data=bytes(64 + 34 + 1000)),
    ],
)
def test_what_is_unusual_and_sound_passes(tmp_path: Path, raw: Raw) -> None:
    check_gguf(raw.save(tmp_path))


def part(number: int, count: int = 3, **keys: tuple[int, bytes] | None) -> Raw:
    numbers = {"split__no": (U32, scalar(U32, number)), "split__count": (U32, scalar(U32, count))}
    return changed(**numbers, **keys)


def write_parts(folder: Path) -> list[Path]:
    names = [f"model-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    first = part(0).save(folder, names[0])
    no_keys: dict[str, tuple[int, bytes] | None] = {"general__architecture": None, "tokenizer__ggml__model": None}
    return [first, *(part(number, **no_keys).save(folder, names[number]) for number in (1, 2))]


def test_a_model_in_several_files_is_checked_whole(tmp_path: Path) -> None:
    first, second, third = write_parts(tmp_path)
    assert check_gguf(first).metadata["split.count"] == 3
    third.write_bytes(third.read_bytes()[:-10])
    with pytest.raises(ModelFileError, match=r"00003-of-00003.*ends at byte"):
        check_gguf(first)
    third.unlink()
    with pytest.raises(ModelFileError, match=r"1 are missing from its folder, model-00003-of-00003\.gguf first"):
        check_gguf(first)
    third.write_bytes(second.read_bytes())
    with pytest.raises(ModelFileError, match="is part 2 by its content"):
        check_gguf(first)


def test_another_part_than_the_first_leads_to_the_first(tmp_path: Path) -> None:
    _, second, _ = write_parts(tmp_path)
    with pytest.raises(ModelFileError, match=r"Give the first part, model-00001-of-00003\.gguf"):
        check_gguf(second)


def test_a_part_with_another_name_cannot_find_the_others(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"one of 3 parts of a model, and its name does not say which"):
        check_gguf(part(0).save(tmp_path, "renamed.gguf"))
