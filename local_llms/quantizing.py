"""Store a model's weights smaller, as a file."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from local_llms.backends.llama_cpp.quantizer import FORMS, form_of, largest_size, main_type, quantize_to, quantized
from local_llms.errors import OptionError
from local_llms.hub import check_gguf
from local_llms.hub.cache import sync_file, sync_folder
from local_llms.hub.progress import Progress, default_progress
from local_llms.hub.storage import no_room, storage_errors
from local_llms.resolve import ModelName, find_source

__all__ = ["quantize"]


def quantize(
    model: ModelName,
    to: str,
    *,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a GGUF model in another form, and return the file.

    ``model``: a name of the catalog, a file, or a place on the hub. ``to``: "int8" (Q8_0), "int4" (Q4_0), or a form of
    llama.cpp's such as "q4_k_m". ``output``: the file to write; without it the file lies in the cache, where
    ``load_model(model, quantization=…)`` looks too. ``progress`` hears of the work; by default a bar shows it where
    standard error is a terminal. The file gets its name when it is complete.

    Raises OptionError for an unknown form, or where the model has that form or ``output`` exists already and
    ``overwrite`` is false; ModelFileError where the file is no sound GGUF model or llama.cpp cannot do it;
    DownloadError where there is no room; and what finding the model raises.
    """
    form = form_of(to)
    header = check_gguf(find_source(model, None).path())
    if main_type(header) == FORMS[form].tensors:
        raise OptionError(f"{header.path} is stored as {main_type(header)} already. Choose another form.")
    progress = progress or default_progress("Quantizing")
    if output is None:
        return quantized(header, form, progress).path
    target = Path(output).expanduser().absolute()
    if target.exists() and not overwrite:
        raise OptionError(f"{target} exists already. Name another file, or allow to overwrite it.")
    if not target.parent.is_dir():
        raise OptionError(f"There is no folder {target.parent}. Make it first, or name another file.")
    with storage_errors(target.name, target.parent, "output"):
        need, free = largest_size(header, form), shutil.disk_usage(target.parent).free
        if free < need:
            what = f"{need / 1e6:.0f} MB are needed, and {free / 1e6:.0f} MB are free"
            raise no_room(target.name, target.parent, what, "output")
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as scratch:
            draft = Path(scratch) / target.name
            quantize_to(header, draft, form, progress)
            sync_file(draft)
            os.replace(draft, target)
            sync_folder(target.parent)
    return target
