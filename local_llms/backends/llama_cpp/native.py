"""A model and a context of llama.cpp: how they come to life, who may use them, and how they end."""

from __future__ import annotations

import ctypes
import os
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import llama_cpp.llama_cpp as lib

from local_llms.backends.base import LoadOptions
from local_llms.backends.llama_cpp.compute import compute
from local_llms.backends.llama_cpp.logs import Listening, install
from local_llms.cores import usable_cores
from local_llms.errors import EngineClosed, EngineForked, ModelLoadError, OptionError
from local_llms.hub.gguf import GGUFHeader

_GPU_BUILD = (
    "Install a llama-cpp-python that is built for it, for example with "
    'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir llama-cpp-python.'
)
_CACHE_TYPES = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0, "f32": lib.GGML_TYPE_F32}


@dataclass(frozen=True, slots=True)
class ContextPlan:
    """The sizes of a context.

    ``tokens``: cells of the KV cache. ``batch``: the most tokens of one call. ``embeddings``: whether the context gives
    vectors (with ``pooling`` as llama.cpp numbers it, -1 for the model's own) rather than logits. ``interruptible``:
    whether ``interrupt`` may stop a computation, which leaves a recurrent state in ruins.
    """

    tokens: int
    sequences: int
    batch: int
    embeddings: bool = False
    pooling: int = -1
    interruptible: bool = True


class Native:
    """The pointers to a model and its context, freed once.

    Used as a context manager around every call of llama.cpp: entering raises EngineClosed after ``close`` and
    EngineForked in a forked child, and ``close`` waits for those who are inside. Any number of threads may be inside.
    """

    def __init__(self, header: GGUFHeader, options: LoadOptions) -> None:
        """Load the weights. Raises ModelLoadError and OptionError."""
        install()
        self.device, layers = _device(options)
        self.threads = options.threads or usable_cores()
        self._options = options
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False
        # The abort callback runs between any two operations of a computation. Written in Python it would wait for the
        # interpreter's lock a thousand times per token. C's strlen reads a flag just as well: the length of the text
        # at that address, 1 or 0, is the answer to "abort?".
        self._flag = (ctypes.c_ubyte * 2)(0, 0)
        self.model: Any = None
        self.context: Any = None
        self.memory: Any = None
        with Listening() as heard:
            lib.llama_backend_init()
            params = lib.llama_model_default_params()
            params.n_gpu_layers = layers
            if self.device == "cpu":
                self._no_devices = (ctypes.c_void_p * 1)(None)
                params.devices = ctypes.cast(self._no_devices, ctypes.c_void_p)
            self.model = lib.llama_model_load_from_file(os.fsencode(header.path), params)
            if not self.model:
                raise ModelLoadError(f"llama.cpp could not load {header.path}{heard.last_words()}")
        self.vocab: Any = lib.llama_model_get_vocab(self.model)

    def open_context(self, plan: ContextPlan) -> None:
        """Make the context. Raises ModelLoadError, mostly for want of memory; the weights are freed then."""
        params = lib.llama_context_default_params()
        params.n_ctx = plan.tokens
        params.n_batch = params.n_ubatch = plan.batch
        params.n_seq_max = plan.sequences
        params.n_outputs_max = 0
        params.n_outputs_max_per_seq = 0
        params.n_threads = params.n_threads_batch = self.threads
        params.kv_unified = True
        # Its kernels for the CPU round to float16 whatever the cache holds.
        exact = self._options.cache_dtype == "f32"
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED if exact else lib.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.type_k = params.type_v = _CACHE_TYPES[self._options.cache_dtype]
        # A sliding window that drops old cells could not be cut back to a kept prefix.
        params.swa_full = True
        params.offload_kqv = params.op_offload = self.device != "cpu"
        params.embeddings = plan.embeddings
        params.pooling_type = plan.pooling
        with Listening() as heard:
            self.context = lib.llama_init_from_model(self.model, params)
            if not self.context:
                self.close()
                raise ModelLoadError(
                    f"llama.cpp could not make a context of {plan.tokens} tokens (cache_tokens, cache_dtype) for the "
                    f"model{heard.last_words()}"
                )
            if plan.interruptible:
                strlen = ctypes.cast(ctypes.CDLL(None).strlen, lib.ggml_abort_callback)
                lib.llama_set_abort_callback(self.context, strlen, ctypes.addressof(self._flag))
        self.memory = lib.llama_get_memory(self.context)

    def __enter__(self) -> Native:
        self.check_process()
        with self._changed:
            self.check_open()
            self._inside += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._inside -= 1
            if self._closed:
                self._changed.notify_all()

    def check_process(self) -> None:
        """Raise EngineForked in a child of the process that loaded the model."""
        if os.getpid() != self._pid:
            raise EngineForked(
                "The model was loaded before this process was forked, and llama.cpp's threads do not live in a fork. "
                'Load it here with load_model(), or start processes with the method "spawn".'
            )

    def check_open(self) -> None:
        """Raise EngineClosed after ``close``."""
        if self._closed:
            raise EngineClosed("The model was closed. Load it again with load_model().")

    def interrupt(self) -> None:
        """Stop the computation that runs, if one does, within some milliseconds (on the CPU only)."""
        self._flag[0] = 1

    def begin(self) -> None:
        """Forget an interruption that came between two computations."""
        with self._changed:
            if not self._closed:
                self._flag[0] = 0

    def decode(self, batch: Any) -> tuple[int, Listening]:
        """Compute a batch in the computing thread: llama.cpp's code, 0 for success, and what it said."""
        return compute(lambda: self._decode(batch))

    def _decode(self, batch: Any) -> tuple[int, Listening]:
        with Listening() as heard:
            return lib.llama_decode(self.context, batch), heard

    def close(self) -> None:
        """Interrupt what runs, wait for those inside, and free everything. Does nothing twice or in a fork."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self.interrupt()
            while self._inside:
                self._changed.wait()
        with Listening():
            if self.context:
                lib.llama_free(self.context)
            if self.model:
                lib.llama_model_free(self.model)
        self.context = self.model = None


def _device(options: LoadOptions) -> tuple[str, int]:
    """Where to compute, and how many layers lie on the GPU (-1: all). Raises OptionError for what cannot be."""
    gpu = "cpu"
    if lib.llama_supports_gpu_offload():
        gpu = "cuda" if b"CUDA" in lib.llama_print_system_info() else "gpu"
    if options.device == "cuda" and gpu != "cuda":
        raise OptionError(f'device="cuda": the installed llama.cpp has no CUDA. {_GPU_BUILD} Or use device="auto".')
    if options.gpu_layers and options.device == "cpu":
        raise OptionError(f'gpu_layers={options.gpu_layers} contradicts device="cpu": leave out one of them.')
    if options.gpu_layers and gpu == "cpu":
        raise OptionError(f"gpu_layers={options.gpu_layers}: the installed llama.cpp has no GPU support. {_GPU_BUILD}")
    if options.device == "cpu" or options.gpu_layers == 0 or gpu == "cpu":
        return "cpu", 0
    return gpu, -1 if options.gpu_layers is None else options.gpu_layers
