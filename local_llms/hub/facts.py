"""What a model's files say of it, found without loading it: from headers and configuration, never from weights."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

from local_llms.errors import ModelFileError
from local_llms.hub.file_facts import FileFacts, main_type
from local_llms.hub.folder_facts import facts_of_folder
from local_llms.hub.ggml import GGMLHeader, probe
from local_llms.hub.ggml_check import check_ggml
from local_llms.hub.gguf import GGUFHeader
from local_llms.hub.gguf_check import check_gguf
from local_llms.hub.gguf_template import jinja_of, template_name
from local_llms.hub.outline import outline_of
from local_llms.hub.pickle_outline import Outline
from local_llms.hub.rwkv_facts import context_of, layers_of, version_of, vocabulary_of

_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")


def facts_of(path: Path) -> FileFacts:
    """The facts of a file or folder; none of a kind that says nothing. Raises ModelFileError for a damaged one."""
    try:
        if path.is_dir():
            return facts_of_folder(path) or _in_folder(path)
        with path.open("rb") as file:
            start = file.read(8)
        # A file that has the name and is something else, such as a web page, is told as such.
        if start[:4] == b"GGUF" or path.suffix == ".gguf":
            return _of_gguf(check_gguf(path))
        if probe(start):
            return _of_ggml(check_ggml(path))
        outline = outline_of(path)
        if version_of({name: tensor.shape for name, tensor in outline.items()}):
            return _of_rwkv(path, outline)
        # One of the files of weights in a folder means the folder.
        return (facts_of_folder(path.parent) if path.suffix in _WEIGHTS else None) or FileFacts()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error


def _of_gguf(header: GGUFHeader) -> FileFacts:
    numbers = {
        key: value if isinstance(value := header.metadata.get(f"{header.architecture}.{key}"), int) else 0
        for key in ("context_length", "block_count", "vocab_size")
    }
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    licence = header.metadata.get("general.license")
    return FileFacts(
        architecture=header.architecture,
        parameters=header.parameters,
        layers=numbers["block_count"],
        vocabulary_size=getattr(tokens, "count", 0) or numbers["vocab_size"],
        quantization=main_type((tensor.type.name, prod(tensor.shape)) for tensor in header.tensors),
        context_length=numbers["context_length"],
        embeds=f"{header.architecture}.pooling_type" in header.metadata,
        licence=licence if isinstance(licence, str) else None,
        chat_template=jinja_of(header),
        template=template_name(header),
    )


def _of_ggml(header: GGMLHeader) -> FileFacts:
    return FileFacts(
        architecture=header.kind,
        parameters=header.parameters,
        layers=header.numbers["layers"],
        vocabulary_size=header.numbers["vocabulary"],
        quantization=main_type((tensor.type.name, prod(tensor.shape)) for tensor in header.tensors),
        context_length=header.numbers.get("context", 0),
    )


def _of_rwkv(path: Path, outline: Mapping[str, Outline]) -> FileFacts:
    shapes = {name: tensor.shape for name, tensor in outline.items()}
    rows = shapes.get("emb.weight", (0,))[0]
    return FileFacts(
        architecture=f"rwkv{version_of(shapes)}",
        parameters=sum(map(prod, shapes.values())),
        layers=len(layers_of(outline)),
        vocabulary_size=rows,
        vocabulary=vocabulary_of(rows) or "",
        quantization=main_type((tensor.type, prod(tensor.shape)) for tensor in outline.values()),
        context_length=context_of(path.name),
    )


def _in_folder(path: Path) -> FileFacts:
    """The facts of the one file of weights in a folder without a configuration, as RWKV's are."""
    found = [facts for file in sorted(path.iterdir()) if file.suffix in _WEIGHTS if (facts := _of_weights(file))]
    return found[0] if len(found) == 1 else FileFacts()


def _of_weights(file: Path) -> FileFacts | None:
    outline = outline_of(file)
    return _of_rwkv(file, outline) if version_of({name: tensor.shape for name, tensor in outline.items()}) else None
