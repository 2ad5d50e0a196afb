"""Folders in the original layouts of ChatGLM, written from small weights, for tests.

The real vocabularies are not at hand; those written here are trained on a few sentences, or read off another tokenizer.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

TEXT = """Once upon a time, there was a little girl named Lily. She loved to play with her dog in the park, every day.
One day she found a big red ball. "What a nice ball!" said Lily, and she ran home to show it to her mom and dad.
你好，我是人工智能助手。很高兴见到你，欢迎问我任何问题。晚上睡不着应该怎么办？
def main():
    print('hello world')  # greeting, 1 + 1 = 2
"""

ICE_MARKERS = ("[gMASK]", "<sop>", "<eop>", "[MASK]", "[sMASK]")
WHITESPACE = ("<n>", "<|tab|>", *(f"<|blank_{length}|>" for length in range(2, 81)))


def write_pieces(
    path: Path, size: int, *, control: tuple[str, ...] = (), user: tuple[str, ...] = (), nfkc: bool = False
) -> None:
    """Train a SentencePiece model with byte fallback. Control pieces get the ids from 1 on."""
    import sentencepiece

    written = io.BytesIO()
    base = {"unk_id": 0, "bos_id": -1, "eos_id": -1} if control else {"unk_id": 0, "bos_id": 1, "eos_id": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines() * 4),
        model_writer=written,
        vocab_size=size,
        model_type="unigram" if control else "bpe",
        byte_fallback=True,
        control_symbols=list(control),
        user_defined_symbols=list(user),
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc" if nfkc else "identity",
        remove_extra_whitespaces=nfkc,
        minloglevel=2,
        **base,
    )
    path.write_bytes(written.getvalue())


def write_ranks(path: Path, ranks: Mapping[bytes, int]) -> None:
    """A list of ranks as GLM-4's ``tokenizer.model`` is."""
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items())
    path.write_bytes(b"".join(lines))


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], *, parts: int = 1) -> Path:
    """config.json and weights: as safetensors in one file, or as PyTorch files in so many parts."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "chatglm", "auto_map": {"AutoModel": "x.Y"}, **config})
    )
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    if parts == 1:
        save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    import torch

    table = {}
    for part in range(parts):
        file = f"pytorch_model-{part + 1:05}-of-{parts:05}.bin"
        names = list(arrays)[part::parts]
        torch.save({name: torch.tensor(arrays[name]) for name in names}, folder / file)
        table.update(dict.fromkeys(names, file))
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return folder
