"""What RWKV weights tell of their model: its version, layers and vocabulary, from names and shapes.

Names as in RWKV's own training program (BlinkDL/RWKV-LM), which rwkv.cpp keeps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

WORLD_SIZE = 65536
PILE_SIZE = 50277
BYTES_SIZE = 256

_MARKS = {
    "7": "blocks.0.att.r_k",
    "6": "blocks.0.att.time_maa_x",
    "5": "blocks.0.att.ln_x.weight",
    "4": "blocks.0.att.time_mix_k",
}
"""Major version → the first weight of a layer that tells it, the newest version first."""
_LAYER = re.compile(r"blocks\.(\d{1,4})\.")
_CONTEXT = re.compile(r"ctx(\d{3,7})")


def version_of(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The version that the names and shapes of the weights tell: "4", "5", "5.1", "5.2", "6" or "7"; else None."""
    major = next((version for version, mark in _MARKS.items() if mark in shapes), None)
    if major != "5":
        return major
    if "blocks.0.att.gate.weight" not in shapes:
        return "5"
    shape = shapes.get("blocks.0.att.time_decay", ())
    return "5.2" if len(shape) > 1 and shape[1] > 1 else "5.1"


def layers_of(names: Mapping[str, object]) -> set[int]:
    """The numbers of the layers that there are weights of."""
    return {int(match[1]) for name in names if (match := _LAYER.match(name))}


def context_of(file_name: str) -> int:
    """The context that a model was trained with, which files have in their names by custom ("ctx4096"); else 0."""
    match = _CONTEXT.search(file_name)
    return int(match[1]) if match else 0


def vocabulary_of(rows: int) -> str | None:
    """The vocabulary of a model with that many tokens, in words; None where its tokenizer has to lie beside it."""
    known = {WORLD_SIZE: "RWKV World", BYTES_SIZE: "single bytes"}
    return f"{known[rows]}, since it has {rows} tokens" if rows in known else None
