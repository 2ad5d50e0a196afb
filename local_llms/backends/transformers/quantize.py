"""Weights in 8 or 4 bits, made while loading by the bitsandbytes library, on a CPU as on a GPU."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import torch

from local_llms.errors import MissingDependency, OptionError


def quantization_config(quantization: str, dtype: torch.dtype) -> Any:
    """The library's description of ``quantization``, "int8" or "int4"; computing is done in ``dtype``.

    "int8" is LLM.int8 (Dettmers et al. 2022); "int4" is nf4 with quantized scales (QLoRA, Dettmers et al. 2023).
    Raises MissingDependency and OptionError.
    """
    for library in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(library) is None:
            raise MissingDependency(library, extra="bitsandbytes", purpose=f'quantization="{quantization}"')
    from transformers import BitsAndBytesConfig

    # It says at every single multiplication that it rounds the inputs, which is what was asked for.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    if quantization == "int4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    raise OptionError(f'quantization={quantization!r}: this backend makes "int8" and "int4".')
