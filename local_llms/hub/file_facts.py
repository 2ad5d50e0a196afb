"""What is known of a model's files without loading it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileFacts:
    """None, "" or 0 where the files do not tell.

    ``architecture``: as the loaded model is going to call it. ``chat_template``: the Jinja text that they carry.
    ``template``: the catalog's name of the template that a model of this kind was trained with. ``vocabulary``: which
    one it is, in words, where the files do not carry it.
    """

    architecture: str | None = None
    parameters: int = 0
    layers: int = 0
    vocabulary_size: int = 0
    vocabulary: str = ""
    quantization: str | None = None
    context_length: int = 0
    embeds: bool = False
    licence: str | None = None
    chat_template: str | None = None
    template: str | None = None


def main_type(tensors: Iterable[tuple[str, int]]) -> str | None:
    """The number type that most weights have. ``tensors``: type and number of values of each."""
    weights: Counter[str] = Counter()
    for kind, count in tensors:
        weights[kind] += count
    return weights.most_common(1)[0][0] if weights else None
