"""LoRA adapters beside a loaded model: opened once, and set for each decode that names one."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib

from local_llms.backends.base import Adapter
from local_llms.backends.llama_cpp.logs import Listening
from local_llms.backends.llama_cpp.lora_file import check_lora
from local_llms.backends.llama_cpp.native import Native
from local_llms.errors import AdapterError
from local_llms.hub.gguf import GGUFHeader


class Loras:
    """The adapters of one model. Their weights are freed with the model's."""

    def __init__(self, native: Native, base: GGUFHeader) -> None:
        """``base``: the header of the model's file, or of the first of its files."""
        self._native = native
        self._base = base
        self._opened: dict[Path, Any] = {}
        # llama.cpp keeps a list of them with the model, without a lock.
        self._loading = threading.Lock()
        self._current: Adapter | None = None

    def open(self, path: Path) -> None:
        """See ``Backend.open_adapter``. Raises AdapterError."""
        self._native.check_process()
        self._native.check_open()
        if path in self._opened:
            return
        # Reading and converting is of no concern to the loaded model, so it may be closed meanwhile.
        file = check_lora(path, self._base)
        with self._native as native, self._loading:
            if path in self._opened:
                return
            with Listening() as heard:
                pointer = lib.llama_adapter_lora_init(native.model, os.fsencode(file))
            # A NULL pointer is an object like any other, but false.
            if not pointer:
                raise AdapterError(f"llama.cpp could not load the adapter {path}{heard.last_words()}")
            self._opened[path] = pointer

    def check(self, adapter: Adapter | None) -> None:
        """Raise ValueError for an adapter that was not opened."""
        if adapter is not None and adapter.path not in self._opened:
            raise ValueError(f"the adapter {adapter.path} was not opened")

    def use(self, adapter: Adapter | None) -> None:
        """Compute with this one from now on. It was opened, and nothing computes now."""
        if adapter == self._current:
            return
        pointers = [] if adapter is None else [self._opened[adapter.path]]
        scales = [] if adapter is None else [adapter.scale]
        count = len(pointers)
        array = (lib.llama_adapter_lora_p_ctypes * max(count, 1))(*pointers)
        numbers = (ctypes.c_float * max(count, 1))(*scales)
        with Listening():
            refused = lib.llama_set_adapters_lora(self._native.context, array, count, numbers) != 0
        if refused:
            raise AdapterError(f"llama.cpp refused to compute with {adapter}.")
        self._current = adapter
