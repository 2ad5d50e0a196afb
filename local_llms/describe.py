"""What a loaded model is, and why it is served as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from local_llms.backends.base import BackendInfo
from local_llms.catalog import ModelCard
from local_llms.hub import size_of
from local_llms.resolve import ChosenTemplate


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was loaded, and why so. Lengths in tokens, sizes in bytes."""

    name: str
    path: Path
    architecture: str
    parameters: int
    quantization: str
    size: int
    """Of the files that were loaded. In memory there may be fewer, or more: see ``weight_bytes``."""
    context_length: int
    trained_context_length: int
    template: str | None
    template_reason: str
    backend: str
    backend_reason: str
    device: str
    can_generate: bool
    embedding_size: int | None
    licence: str
    vocabulary: str = ""
    """Which vocabulary it is and why, in words, where the model's file does not carry it."""
    thinks: bool = False
    """Whether its template is of models that can think before they answer."""
    weight_bytes: int | None = None
    """Of the weights as they are computed with, after ``quantization=`` and ``dtype=``; None where the backend does not
    tell."""
    adapter: Path | None = None
    """What is asked without naming another adapter is computed with this one."""


def describe(
    name: str,
    path: Path,
    info: BackendInfo,
    chosen: ChosenTemplate | None,
    card: ModelCard | None,
    backend_reason: str,
    adapter: Path | None,
) -> ModelInfo:
    """Put together what its file, its backend and the catalog tell."""
    return ModelInfo(
        name=name,
        path=path,
        architecture=info.architecture,
        parameters=info.parameters or (card.parameters if card else 0),
        quantization=info.quantization,
        size=size_of(path),
        context_length=info.context_length,
        trained_context_length=info.trained_context_length,
        template=chosen.template.name if chosen else None,
        template_reason=chosen.reason if chosen else "nothing tells which one is right",
        backend=info.backend,
        backend_reason=backend_reason,
        device=info.device,
        can_generate=info.can_generate,
        embedding_size=info.embedding_size,
        licence=card.licence if card else "unknown",
        vocabulary=info.vocabulary,
        thinks=chosen is not None and chosen.template.thinking is not None,
        weight_bytes=info.weight_bytes or None,
        adapter=adapter,
    )
