"""Where a model computes, in which numbers, and with how many threads."""

from __future__ import annotations

from pathlib import Path

import torch

from local_llms.backends.base import LoadOptions
from local_llms.cores import usable_cores
from local_llms.errors import OptionError

_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(options: LoadOptions) -> torch.device:
    """The device of a model. Raises OptionError for one that is not there, or options that contradict each other."""
    there = torch.cuda.is_available()
    if options.device == "cuda" and not there:
        raise OptionError(
            'device="cuda": torch finds no CUDA device. Install a torch that is built for it '
            '(https://pytorch.org/get-started/locally), or use device="auto".'
        )
    if options.gpu_layers and (options.device == "cpu" or not there):
        raise OptionError(f"gpu_layers={options.gpu_layers}: there is no GPU to put layers on. Leave it out.")
    if options.device == "cpu" or options.gpu_layers == 0 or not there:
        return torch.device("cpu")
    return torch.device("cuda")


def choose_dtype(options: LoadOptions, device: torch.device, stored: str | None) -> torch.dtype:
    """The number type of the weights: the one asked for, else the checkpoint's where the device computes well in it.

    ``stored`` is the checkpoint's own, such as "bfloat16". A CPU computes in bfloat16 where it has instructions for
    that, and otherwise in float32, which is exact for what is stored.
    """
    if options.dtype is not None:
        if options.dtype not in _TYPES:
            raise OptionError(f"dtype={options.dtype!r}: this backend computes in {', '.join(_TYPES)}.")
        return _TYPES[options.dtype]
    own = _TYPES.get(stored or "", torch.float32)
    if device.type == "cuda":
        return torch.bfloat16 if own is torch.bfloat16 and torch.cuda.is_bf16_supported() else torch.float16
    if own is torch.float32 or not _has_bfloat16():
        return torch.float32
    return torch.bfloat16


def _has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags or " bf16" in flags


def use_threads(options: LoadOptions) -> None:
    """Make torch compute with that many threads when it is called from this thread; by default one per core."""
    count = options.threads or usable_cores()
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
