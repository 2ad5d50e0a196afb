"""A model without weights that is loaded through the real door: for tests of whatever stands on ``load_model``."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from local_llms import backends
from local_llms.backends.base import Backend, LoadOptions
from local_llms.catalog import find_template
from local_llms.errors import ModelFileError
from local_llms.testing.scripted import ScriptedBackend

Make = Callable[[], ScriptedBackend]
SUFFIX = ".scripted"


@dataclass
class ScriptedModel:
    """A path that ``load_model`` and the adapters take as ``model=``, and what has been loaded from it so far."""

    path: str
    make: Make
    template: str | None
    backends: list[ScriptedBackend] = field(default_factory=list)
    """Every backend that was loaded, in order: one, unless the weights were freed and loaded again."""
    options: list[LoadOptions] = field(default_factory=list)
    """What each of them was loaded with."""

    def __fspath__(self) -> str:
        return self.path

    @property
    def backend(self) -> ScriptedBackend:
        """The backend that was loaded last."""
        return self.backends[-1]


class _ScriptedModels:
    """The backend module that serves the models that are in use now."""

    NAME = "scripted"
    READS = "scripted models of tests"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[Path, ScriptedModel] = {}

    def add(self, model: ScriptedModel) -> None:
        with self._lock:
            self._models[Path(model.path).resolve()] = model

    def remove(self, model: ScriptedModel) -> None:
        with self._lock:
            del self._models[Path(model.path).resolve()]

    def claims(self, path: Path) -> str | None:
        """Files that ``scripted_model`` made."""
        return "the file is a scripted model" if path.suffix == SUFFIX else None

    def load(self, path: Path, options: LoadOptions) -> Backend:
        """A new backend; ``context_length`` of the options is kept to, and the template is the "file's own"."""
        model = self._models.get(path.resolve())
        if model is None:
            raise ModelFileError(f"{path} is a scripted model of a test that has ended.")
        backend = model.make()
        if options.context_length is not None:
            backend.tell(context_length=options.context_length)
        if model.template is not None:
            backend.tell(chat_template=find_template(model.template)[1].source)
        model.backends.append(backend)
        model.options.append(options)
        return backend


_models = _ScriptedModels()


@contextmanager
def scripted_model(
    make: Make | ScriptedBackend = ScriptedBackend, *, template: str | None = "chatml", name: str = "model"
) -> Iterator[ScriptedModel]:
    """A model to load inside the block, wherever ``model=`` is taken.

    ::

        with scripted_model(lambda: ScriptedBackend(say("Hello"))) as model, load_model(model) as loaded:
            assert loaded.generate("Hi").text == "Hello"
            assert len(model.backends) == 1

    ``make`` gives a backend each time the weights are loaded; a backend itself can be loaded once. ``template``: name
    of the catalog's template that the model file "carries"; None for a file without one. ``name``: of the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}{SUFFIX}"
        path.write_bytes(b"scripted")
        model = ScriptedModel(str(path), _once(make) if isinstance(make, ScriptedBackend) else make, template)
        backends.register(_models)
        _models.add(model)
        try:
            yield model
        finally:
            _models.remove(model)


def _once(backend: ScriptedBackend) -> Make:
    left = [backend]

    def make() -> ScriptedBackend:
        if not left:
            raise ModelFileError("This scripted backend was loaded already. Give scripted_model() a function instead.")
        return left.pop()

    return make
