"""A GGUF file, unpacked into a network of the transformers library. Only where it is asked for by ``backend=``.

llama.cpp runs such files in a fraction of the memory; this way serves to compare the two, or to use an adapter that is
a PEFT folder. The library's own reader unpacks the weights and translates the tokenizer.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_llms.backends.base import LoadOptions
from local_llms.backends.transformers.parts import Parts
from local_llms.backends.transformers.quiet import quiet
from local_llms.backends.transformers.tokenizer_facts import AddedToken, TokenizerFacts
from local_llms.backends.transformers.tokenizer_json import JsonVocabulary
from local_llms.errors import ModelFileError, UnsupportedFeature
from local_llms.hub.gguf import GGUFHeader
from local_llms.hub.gguf_check import check_gguf

if TYPE_CHECKING:
    import torch

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
"""Types of tokens (ggml-org/llama.cpp: include/llama.h, ``llama_token_type``)."""

_REFUSALS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)
"""What the library raises for a file that it cannot translate."""


def claims(path: Path) -> str | None:
    """A file that begins like a GGUF file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return "it begins like a GGUF file" if file.read(4) == b"GGUF" else None


def load(path: Path, options: LoadOptions) -> Parts:
    """Read a file. Raises ModelFileError, OptionError, UnsupportedFeature and MissingDependency."""
    from local_llms.backends.transformers.building import build

    header = check_gguf(path)
    with _alone(path) as folder, quiet(), _no_bars():
        config, tensors = _unpack(folder, header)
        vocabulary = _vocabulary(folder, header)
    return build(
        path,
        config,
        tensors,
        vocabulary,
        options,
        stored="float32",
        end_ids=frozenset(_numbers(header, "eos_token_id", "eot_token_id")),
    )


_NAME = "model.gguf"


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """A folder with nothing but the file in it: what lies beside it is not meant."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / _NAME).symlink_to(path.resolve())
        yield folder


@contextmanager
def _no_bars() -> Iterator[None]:
    """The library's older reader of GGUF files shows its progress whether or not bars are switched off."""
    from transformers import modeling_gguf_pytorch_utils as reader

    shown = reader.tqdm
    reader.tqdm = functools.partial(shown, disable=True)
    try:
        yield
    finally:
        reader.tqdm = shown


def _unpack(folder: Path, header: GGUFHeader) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Configuration and weights, as the library names them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.quantization_config import GgufConfig

    try:
        settings = AutoConfig.from_pretrained(folder, gguf_file=_NAME, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            config=settings,
            gguf_file=_NAME,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            local_files_only=True,
        )
    except ImportError:
        raise
    except _REFUSALS as error:
        raise UnsupportedFeature(
            f"{header.path}: the transformers library cannot read a GGUF file of the architecture "
            f"{header.architecture!r}: {error}. Leave backend= out: llama.cpp runs it."
        ) from error
    return settings.to_dict(), model.state_dict()


def _vocabulary(folder: Path, header: GGUFHeader) -> JsonVocabulary:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=_NAME, local_files_only=True)
        spec = json.loads(tokenizer.backend_tokenizer.to_str())
    except _REFUSALS as error:
        raise UnsupportedFeature(
            f"{header.path}: the transformers library cannot read this file's tokenizer: {error}. Leave backend= out: "
            "llama.cpp runs it."
        ) from error
    texts = header.strings("tokenizer.ggml.tokens")
    kinds = header.numbers("tokenizer.ggml.token_type").tolist()
    if kinds and len(kinds) != len(texts):
        raise ModelFileError(f"{header.path} is damaged: it has {len(texts)} tokens and {len(kinds)} types of tokens.")
    marks = {_UNKNOWN: True, _CONTROL: True, _USER_DEFINED: False}
    added = {
        token: AddedToken(text, marks[kind])
        for token, (text, kind) in enumerate(zip(texts, kinds, strict=False))
        if kind in marks
    }
    adds = header.metadata.get("tokenizer.ggml.add_bos_token")
    template = header.metadata.get("tokenizer.chat_template")
    facts = TokenizerFacts(
        bos=_text(texts, _numbers(header, "bos_token_id")),
        eos=_text(texts, _numbers(header, "eos_token_id")),
        adds_bos=adds if isinstance(adds, bool) else None,
        chat_template=template if isinstance(template, str) else None,
        added=added,
    )
    return JsonVocabulary(spec, facts, header.path)


def _numbers(header: GGUFHeader, *names: str) -> list[int]:
    found = (header.metadata.get(f"tokenizer.ggml.{name}") for name in names)
    return [value for value in found if type(value) is int]


def _text(texts: list[str], ids: list[int]) -> str | None:
    return texts[ids[0]] if ids and 0 <= ids[0] < len(texts) else None
