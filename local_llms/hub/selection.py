"""Which files of a repository make up a model: names go in, names come out.

A model is one GGUF file, or one in several parts; a folder as transformers reads it (``config.json``, and
``model.safetensors`` or an index of shards); a checkpoint of LitGPT (``lit_model.pth``); an adapter of PEFT
(``adapter_config.json``), or a P-tuning prefix, whose files are called as a model's; or a single file of weights, such
as a ``.pth`` of RWKV. Weights as safetensors are preferred to pickles, and nothing that is program code is ever chosen.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from local_llms.errors import DownloadError, ModelFileError
from local_llms.hub.names import HubName, all_parts, check_file, check_path

Want = Literal["model", "adapter"]
"""What is looked for in a repository that may have both."""

MOST_INDEX_BYTES = 64 << 20

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Of a folder of transformers, the best first, as that library looks for them."""
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_CONFIGURATION = ("config.json", "generation_config.json", "chat_template.json", "model_config.yaml", "lit_config.json")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "*vocab*.txt",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "*.jinja",
)
_SINGLE = (".pth", ".pt", ".safetensors", ".bin")
_NO_MODEL = ("optimizer.*", "scheduler.*", "training_args.*", "rng_state*", "non_lora_trainables.*", "random_states*")


@dataclass(frozen=True, slots=True)
class Selection:
    """The files of a model. Where it is no ``folder``, the first one is what is loaded.

    ``index`` is the one of the files that names further ones: the shards of the weights.
    """

    files: tuple[str, ...]
    folder: bool = False
    index: str | None = None


def gguf_models(files: Collection[str]) -> list[str]:
    """The GGUF models among a repository's files; of one in several parts, the first."""
    return sorted(file for file in files if file.lower().endswith(".gguf") and _is_model(file))


def single_weights(files: Collection[str]) -> list[str]:
    """The files that are a model each, in other formats than GGUF; none where the files are one model as a folder."""
    if folders(files):
        return []
    return sorted(
        file
        for file in files
        if file.lower().endswith(_SINGLE)
        and not any(fnmatchcase(file.rpartition("/")[2], pattern) for pattern in _NO_MODEL)
        and _is_model(file)
    )


def folders(files: Collection[str]) -> list[Selection]:
    """The model and the adapter that the repository as a folder is, the model first."""
    found = [_folder(files), _adapter(files)]
    return [selection for selection in found if selection is not None]


def choose(name: HubName, files: Collection[str], want: Want) -> Selection:
    """What a repository's name means, without a file: the one model in it.

    Raises DownloadError, which lists the choices where there are several.
    """
    found = the_one(files, want)
    if found is not None:
        return found
    several = gguf_models(files) or single_weights(files)
    if not several:
        raise DownloadError(
            f"{name.repository} has no model that can be loaded: no GGUF file, no config.json with weights, no "
            "adapter and no .pth file in it. Look for a repository that has the model as GGUF or as safetensors."
        )
    shown = ", ".join(several[:20]) + (", …" if len(several) > 20 else "")
    raise DownloadError(f"{name.repository} has several models; name one, such as {name}:{several[0]}. It has {shown}.")


def the_one(files: Collection[str], want: Want) -> Selection | None:
    """The one model, or adapter, that these files are; None where that is not one.

    A single GGUF file goes before a folder, and a folder before files that can be told by their names.
    """
    if want == "adapter" and (adapter := _adapter(files)) is not None:
        return adapter
    ggufs = gguf_models(files)
    if len(ggufs) == 1:
        return Selection(all_parts(ggufs[0]))
    if want == "adapter" and (prefix := _prefix(files)) is not None:
        return prefix
    whole = folders(files)
    if whole:
        return whole[0]
    single = single_weights(files) if not ggufs else []
    return Selection((single[0],)) if len(single) == 1 else None


def with_shards(selection: Selection, index: bytes, files: Collection[str]) -> Selection:
    """The selection with the files that its index names. Raises ModelFileError where the index is not sound."""
    try:
        weights = json.loads(index)["weight_map"]
        shards = sorted({check_path(file) for file in weights.values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{selection.index} is no index of weights as transformers writes them.") from error
    for shard in shards:
        if shard not in files:
            raise ModelFileError(f"{selection.index} names {shard}, and there is no such file beside it.")
        if not shard.endswith((".safetensors", ".bin")):
            raise ModelFileError(f"{selection.index} names {shard}, which can hold no weights.")
    if not shards:
        raise ModelFileError(f"{selection.index} names no file.")
    return Selection((*selection.files, *shards), selection.folder, None)


def _folder(files: Collection[str]) -> Selection | None:
    """A model of transformers or LitGPT whose files lie at the top of the repository."""
    weights = next((file for file in _WEIGHTS if file in files), None) if "config.json" in files else None
    if weights is None and "lit_model.pth" in files:
        weights = "lit_model.pth"
    if weights is None:
        return None
    index = weights if weights.endswith(".index.json") else None
    return Selection((weights, *_matching(files, _CONFIGURATION + _TOKENIZER)), True, index)


def _adapter(files: Collection[str]) -> Selection | None:
    weights = next((file for file in _ADAPTER_WEIGHTS if file in files), None)
    if weights is None or "adapter_config.json" not in files:
        return None
    return Selection((weights, "adapter_config.json", *_matching(files, _TOKENIZER)), True)


def _prefix(files: Collection[str]) -> Selection | None:
    """A P-tuning prefix: its weights have the names of a model's, and their configuration may be missing."""
    weights = next((file for file in _WEIGHTS if file in files), None)
    if weights is None:
        return None
    index = weights if weights.endswith(".index.json") else None
    return Selection((weights, *_matching(files, ("config.json",))), True, index)


def _matching(files: Collection[str], patterns: tuple[str, ...]) -> list[str]:
    return sorted(file for file in files if "/" not in file and any(fnmatchcase(file, known) for known in patterns))


def _is_model(file: str) -> bool:
    try:
        check_file(file)
    except ValueError:
        return False
    return True
