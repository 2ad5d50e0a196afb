"""Reads LoRA adapters as the PEFT library saves them: a folder with a configuration and the weights.

``adapter_config.json`` and ``adapter_model.safetensors``, or ``adapter_model.bin`` as in 2023. Layout and strengths:
src/peft/utils/save_and_load.py and src/peft/tuners/lora/layer.py of PEFT. Configurations of 2023, such as
alpaca-lora's, have fewer keys; what is missing has the value that it had then.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_llms.errors import AdapterError, ModelFileError
from local_llms.hub.pickles import as_safetensors, peek
from local_llms.hub.safetensors_file import SafetensorsFile, read_safetensors

CONFIG = "adapter_config.json"
WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"

_PREFIX = "base_model.model."
_HALVES = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_A.default.weight": "a",
    ".lora_B.default.weight": "b",
    ".lora_embedding_A": "a",
    ".lora_embedding_B": "b",
}
_COPY = ".base_layer."
_REFUSED = {
    "use_dora": "DoRA",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "arrow_config": "a router of several LoRAs (Arrow)",
    "lora_bias": "a LoRA with biases (lora_bias)",
    "enable_lora": "a LoRA of merged layers (enable_lora)",
    "alora_invocation_tokens": "an activated LoRA",
    "layer_replication": "a LoRA over repeated layers (layer_replication)",
    "target_parameters": "a LoRA of parameters that are no layers (target_parameters)",
    "trainable_token_indices": "a LoRA with tokens of its own (trainable_token_indices)",
}
"""Keys of a configuration that change what an adapter computes, and are not understood here."""
_OTHER_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin a training (``init_lora_weights``) that take something out of the base's weights first."""
_VOCABULARY = ("embed_tokens", "lm_head", "embed_in", "embed_out", "wte", "word_embeddings", "output_layer")
"""What models call the matrices that have a row for each token."""


@dataclass(frozen=True, slots=True)
class LoraModule:
    """One changed matrix W: at scale 1 it becomes W + strength * B A, with the stored tensors ``b`` and ``a``."""

    a: str
    b: str
    strength: float
    embedding: bool
    """Whether it is a table of embeddings: then A has a column, and not a row of W an output, for each token."""


@dataclass(frozen=True, slots=True)
class PeftAdapter:
    """A LoRA in a PEFT folder.

    ``modules``: by the module's name in the model, such as "model.layers.0.self_attn.q_proj". ``whole``: weights that
    are replaced, by name; their stored names. ``copies``: weights of the model itself that PEFT saved beside changed
    embeddings, likewise. ``config`` is the configuration as it was read.
    """

    path: Path
    config: Mapping[str, Any]
    weights: SafetensorsFile
    modules: Mapping[str, LoraModule]
    whole: Mapping[str, str]
    copies: Mapping[str, str]

    @property
    def base(self) -> str:
        """What its configuration calls the model that it was trained on; "" where it does not tell."""
        name = self.config.get("base_model_name_or_path")
        return name if isinstance(name, str) else ""


def is_peft(path: Path) -> bool:
    """Whether it is a folder that PEFT could have written."""
    return (path / CONFIG).is_file()


def changes_vocabulary(path: Path) -> bool:
    """Whether a PEFT folder brings whole weights of its own, such as embeddings of new tokens.

    Such an adapter is no change beside the weights of a model, and cannot be chosen per request. Reads names only.
    False for whatever is no PEFT folder. Raises AdapterError for a damaged one.
    """
    if not is_peft(path):
        return False
    if read_peft_config(path).get("modules_to_save"):
        return True
    if (path / WEIGHTS).is_file():
        names = list(_read(path / WEIGHTS).tensors)
        return any(name.split(".")[-2:-1] == [part] for name in names for part in _VOCABULARY)
    return any(f".{name}.weight".encode() in peek(path / PICKLE) for name in _VOCABULARY)


def read_peft(path: Path, *, extra: str) -> PeftAdapter:
    """Read a PEFT folder; of the weights, the names and shapes.

    ``extra``: the extra of this package that brings torch, which weights from 2023 need. Raises AdapterError where it
    is no LoRA, incomplete or damaged, MissingDependency, and DownloadError where the cache has no room for the weights.
    """
    if not path.is_dir():
        raise AdapterError(f"{path} is no PEFT folder. Give the folder that {CONFIG} lies in.")
    config = read_peft_config(path)
    weights = _weights(path, extra)
    halves: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    copies: dict[str, str] = {}
    for stored in weights.tensors:
        name = stored.removeprefix(_PREFIX)
        ending = next((ending for ending in _HALVES if name.endswith(ending)), None)
        if _COPY in name:
            copies[name.replace(_COPY, ".")] = stored
        elif ending is None:
            whole[name.replace(".modules_to_save.default.", ".").replace(".modules_to_save.", ".")] = stored
        else:
            halves.setdefault(name.removesuffix(ending), {})[_HALVES[ending]] = stored
    if not halves and not whole:
        raise AdapterError(
            f"{weights.path} holds no weights, as PEFT wrote it in 2023 when a model was saved in the wrong way. Look "
            "for another copy of the adapter."
        )
    modules = {name: _module(path, name, both, weights, config) for name, both in halves.items()}
    return PeftAdapter(path, config, weights, modules, whole, copies)


def read_peft_config(path: Path) -> dict[str, Any]:
    """The configuration of a PEFT folder. Raises AdapterError where it is damaged or of a kind that is not computed."""
    file = path / CONFIG
    try:
        if file.stat().st_size > 1 << 20:
            raise AdapterError(f"{file} is far too large for a configuration. Fetch the adapter again.")
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise AdapterError(f"{path} is no adapter: it has no {CONFIG}. Give a PEFT folder.") from None
    except OSError as error:
        raise AdapterError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{file} is damaged: {error}. Fetch the adapter again.") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if not isinstance(config, dict) or kind != "LORA":
        raise AdapterError(f"{path} is an adapter of the type {kind!r}, and only 'LORA' can be used.")
    for key, what in _REFUSED.items():
        if config.get(key):
            raise AdapterError(
                f"{path} is {what}, which cannot be computed here. Give an ordinary LoRA, or merge it into its model "
                "and give that."
            )
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(_OTHER_BASES):
        raise AdapterError(
            f"{path} was begun with {begun!r}, which changes the weights of its base, so over the base itself it would "
            "answer wrongly. Save it once more as an ordinary LoRA (path_initial_model_for_weight_conversion in PEFT), "
            "or merge it into its model and give that."
        )
    return config


def _weights(path: Path, extra: str) -> SafetensorsFile:
    if (path / WEIGHTS).is_file():
        return _read(path / WEIGHTS)
    if not (path / PICKLE).is_file():
        raise AdapterError(f"{path} has neither {WEIGHTS} nor {PICKLE}: the adapter is incomplete. Fetch it again.")
    try:
        return _read(as_safetensors(path / PICKLE, extra=extra))
    except ModelFileError as error:
        raise AdapterError(str(error)) from error


def _read(file: Path) -> SafetensorsFile:
    try:
        return read_safetensors(file)
    except ModelFileError as error:
        raise AdapterError(str(error)) from error


def _module(
    path: Path, name: str, both: Mapping[str, str], weights: SafetensorsFile, config: Mapping[str, Any]
) -> LoraModule:
    if len(both) != 2:
        raise AdapterError(f"{path} is damaged: {name} has only one of its two matrices. Fetch the adapter again.")
    a, b = weights.tensors[both["a"]].shape, weights.tensors[both["b"]].shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or 0 in (*a, *b):
        raise AdapterError(f"{path}: the matrices of {name} have the shapes {a} and {b}, which do not go together.")
    rank = a[0]
    alpha = _pattern(path, config, "alpha_pattern", name, config.get("lora_alpha", 8))
    divisor = math.sqrt(rank) if config.get("use_rslora") else rank
    return LoraModule(both["a"], both["b"], alpha / divisor, both["a"].endswith("lora_embedding_A"))


def _pattern(path: Path, config: Mapping[str, Any], key: str, module: str, default: Any) -> float:
    """A number of the configuration that may differ between modules: the first pattern that a module's name ends in.

    PEFT takes them as regular expressions. One from a stranger could run without end, so only plain names are taken.
    """
    value = default
    patterns = config.get(key) or {}
    for pattern, own in patterns.items() if isinstance(patterns, dict) else ():
        plain = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not re.fullmatch(r"[\w.\-]+", plain):
            raise AdapterError(f"{path / CONFIG}: {key} has the pattern {pattern!r}; only names of modules are taken.")
        if module == plain or module.endswith(f".{plain}"):
            value = own
            break
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise AdapterError(f"{path / CONFIG} is damaged: lora_alpha is {value!r} for {module}. Fetch it again.")
    return float(value)
