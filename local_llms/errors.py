"""Every error that this package raises on purpose.

::

    LocalLLMError
    ├── OptionError                an option has a wrong name or an impossible value
    │   └── UnknownOption          no such option; names the nearest one
    ├── MissingDependency          a library is not installed (also an ImportError); carries the pip line
    ├── CatalogError               a catalog file has a mistake; names the file and the key
    ├── ModelNotFound              no model, template or file of that name; names the nearest one
    ├── ModelFileError             a file is not a sound model: missing, empty, truncated, damaged
    │   ├── ModelLoadError         the file is sound, but the library could not load it
    │   └── AdapterError           an adapter is missing or damaged, or does not fit the model
    ├── UnsupportedFeature         this model or backend cannot do what was asked
    ├── DownloadError              a file could not be fetched
    │   ├── ChecksumMismatch       what arrived is not what the catalog promises
    │   └── OfflineError           the network is needed and is switched off or out of reach
    ├── ConstraintError            no answer can be held to this schema, regex, choice or grammar
    ├── PromptError                a prompt cannot be built
    │   ├── EmptyPrompt            nothing to answer
    │   ├── TemplateError          a template is malformed, raises, or takes too long or too much
    │   └── ContextOverflow        prompt and answer do not fit; carries both numbers
    ├── EngineError                a request could not be served
    │   ├── EngineBusy             the queue is full; try again
    │   ├── EngineClosed           the model was closed
    │   ├── EngineForked           the model was loaded in a parent process
    │   ├── RequestCancelled       the caller cancelled the request (also a CancelledError of concurrent.futures)
    │   ├── DeadlineExceeded       the request's time was over (also a TimeoutError)
    │   ├── NoToolCall             an answer that had to call a tool calls none
    │   ├── AnswerCut              an answer reached its most tokens before its schema or grammar was fulfilled
    │   └── DecodeError            the backend failed while computing
    │       └── CacheFull          the KV cache has no room; the engine preempts, so a caller seldom sees it
    └── CallbackError              a token callback raised

An error's text says what was wrong and what to do. ``retryable`` is true where the same call may succeed later.
None of them derives from ValueError, since pydantic would swallow such an error into its own.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable
from typing import Any


class LocalLLMError(Exception):
    """Base of all errors of this package. They can be pickled, as processes that work for others send them."""

    retryable: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[LocalLLMError], args: tuple[Any, ...], state: dict[str, Any]) -> LocalLLMError:
    """The error that was pickled, without what its constructor takes."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class OptionError(LocalLLMError, TypeError):
    """An option has an impossible value, or two options contradict each other."""


class UnknownOption(OptionError):
    """There is no option of that name."""

    def __init__(self, name: str, known: Iterable[str], where: str) -> None:
        """``name`` is what was given, ``known`` the options that ``where`` takes."""
        self.name = name
        options = [*known]
        here = _ELSEWHERE.get(name)
        hint = f" It is called {here!r} here." if here in options else suggestion(name, options)
        super().__init__(f"{where} has no option {name!r}.{hint}")


_ELSEWHERE = {
    "batch_size": "max_parallel",
    "cache_type_k": "cache_dtype",
    "device_map": "device",
    "do_sample": "temperature",
    "keep_alive": "idle_unload",
    "load_in_4bit": "quantization",
    "load_in_8bit": "quantization",
    "lora_path": "adapter",
    "max_length": "max_tokens",
    "max_new_tokens": "max_tokens",
    "model_id": "model",
    "model_path": "model",
    "n_ctx": "context_length",
    "n_parallel": "max_parallel",
    "n_predict": "max_tokens",
    "n_threads": "threads",
    "num_ctx": "context_length",
    "num_gpu": "gpu_layers",
    "num_predict": "max_tokens",
    "num_thread": "threads",
    "repeat_penalty": "repetition_penalty",
    "stop_sequences": "stop",
    "torch_dtype": "dtype",
}
"""What llama.cpp, its Python and LangChain wrappers, Ollama and transformers call an option → its name here."""


class MissingDependency(LocalLLMError, ImportError):
    """A library that this call needs is not installed."""

    def __init__(self, library: str, *, extra: str, purpose: str) -> None:
        """``library`` is the distribution's name, ``extra`` the extra of this package that brings it."""
        self.library = library
        super().__init__(f'{purpose} needs the library {library}: pip install "local-llms[{extra}]"')


class CatalogError(LocalLLMError):
    """A file of the catalog has a mistake."""


class ModelNotFound(LocalLLMError, LookupError):
    """No model, template or file goes by that name."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        """``what`` is the kind of thing ("model", "template"), ``known`` the names that exist."""
        self.name = name
        tail = f" {hint}" if hint else ""
        super().__init__(f"There is no {what} {name!r}.{suggestion(name, known)}{tail}")


class ModelFileError(LocalLLMError):
    """A file is not a sound model file."""


class ModelLoadError(ModelFileError):
    """The file passed every check, but the library could not load it."""


class AdapterError(ModelFileError):
    """An adapter is missing or damaged, or was made for another model."""


class UnsupportedFeature(LocalLLMError):
    """The model or its backend cannot do what was asked."""


class DownloadError(LocalLLMError):
    """A file could not be fetched."""

    retryable = True


class ChecksumMismatch(DownloadError):
    """The bytes that arrived are not those that the catalog promises."""


class OfflineError(DownloadError):
    """The network is needed and is switched off or out of reach."""


class ConstraintError(LocalLLMError):
    """A schema, regex, list of choices or grammar is malformed, unsupported or too large, or nothing fits it."""


class PromptError(LocalLLMError):
    """A prompt cannot be built from what was given."""


class EmptyPrompt(PromptError):
    """There is nothing to answer: no text, or no message."""


class TemplateError(PromptError):
    """A template is malformed, raised, or went past its bounds of time or size."""


class ContextOverflow(PromptError):
    """The prompt does not fit into the model's context."""

    def __init__(self, prompt_tokens: int, context_length: int, hint: str) -> None:
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length
        super().__init__(
            f"The prompt has {prompt_tokens} tokens; the context holds {context_length}, of which one at least is "
            f"needed for the answer. {hint}"
        )


class EngineError(LocalLLMError):
    """A request could not be served."""


class EngineBusy(EngineError):
    """The queue of waiting requests is full."""

    retryable = True


class EngineClosed(EngineError):
    """The model was closed."""


class EngineForked(EngineError):
    """The model was loaded in a parent process and cannot be used in a fork of it."""


class RequestCancelled(EngineError, concurrent.futures.CancelledError):
    """The request was cancelled by its caller."""


class DeadlineExceeded(EngineError, TimeoutError):
    """The request was not finished when its time was over."""

    retryable = True


class NoToolCall(EngineError):
    """The calls of an answer were asked for, and it has none."""


class AnswerCut(EngineError):
    """A constrained answer reached ``max_tokens``, or the end of the context, before it was complete.

    ``completion``, a ``types.Completion``, is what there is of it.
    """

    def __init__(self, completion: Any) -> None:
        self.completion = completion
        super().__init__(
            f"The answer was cut after {len(completion.token_ids)} tokens, before it was what its schema or grammar "
            "asks for. Give it more room (max_tokens, context_length), or ask for less."
        )


class DecodeError(EngineError):
    """The backend failed while computing."""


class CacheFull(DecodeError):
    """The KV cache has no room for the tokens of this step."""

    retryable = True


class CallbackError(LocalLLMError):
    """A token callback raised; the original error is its ``__cause__``."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence, with a leading space, that names the nearest of ``known``; "" where none are known.

    Several that are equally near are all named. Where none is near, the sentence tells some that exist.
    """
    names = sorted(set(known))
    if not names:
        return ""
    ranks = {candidate: _rank(name, candidate) for candidate in names}
    near = {candidate: rank for candidate, rank in ranks.items() if rank is not None}
    if near:
        best = [candidate for candidate in near if near[candidate] == min(near.values())]
        *others, last = [repr(candidate) for candidate in sorted(best, key=len)[:3]]
        return f" Did you mean {', '.join(others)}{' or ' if others else ''}{last}?"
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f" Known: {shown}."


def _rank(name: str, candidate: str) -> tuple[int, int, bool, int] | None:
    """How far a candidate is from what was typed, the smaller the nearer; None where it is another name altogether.

    Case and separators count last. Few mistype the beginning of a name; who types no more than the beginning, as
    "temp", made one error and not seven, and who types what stands within, as "minilm", two at the most.
    """
    typed, meant = _folded(name), _folded(candidate)
    most = int(0.45 * max(len(typed), len(meant)))
    # A text of a megabyte is not compared.
    if len(typed) - len(meant) > most:
        return None
    *_, errors = distances = edit_distances(typed, meant)
    differs = (at for at, pair in enumerate(zip(typed, meant, strict=False)) if pair[0] != pair[1])
    common = next(differs, min(len(typed), len(meant)))
    in_beginning = min(distances)
    if in_beginning + 1 < errors and len(typed) >= 3 and in_beginning <= len(typed) // 5:
        return in_beginning + 1, -common, True, 0
    if len(typed) >= 4 and typed in meant:
        return min(errors, 2), -common, True, 0
    exact = edit_distances(name.lower(), candidate.lower())[-1]
    return (errors, -common, False, exact) if errors <= most else None


def _folded(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum()) or name


def edit_distances(one: str, other: str) -> list[int]:
    """Typing errors between ``one`` and each beginning of ``other``, from none of it to all of it.

    Letters that are missing, too many, wrong, or swapped with their neighbour: the optimal string alignment distance
    (Damerau 1964, Wagner and Fischer 1974).
    """
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        current = [row]
        for column, its in enumerate(other, start=1):
            errors = min(last[column] + 1, current[-1] + 1, last[column - 1] + (letter != its))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == its:
                errors = min(errors, before[column - 2] + 1)
            current.append(errors)
        before, last = last, current
    return last
