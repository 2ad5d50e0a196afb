"""``local-llms chat``: a conversation."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from local_llms.cli.console import Given, err, show_error, write_stream
from local_llms.cli.thoughts import texts_of
from local_llms.errors import PromptError
from local_llms.types import Message

if TYPE_CHECKING:
    from local_llms.models import LoadedModel


def chat(
    loading: Given,
    call: Given,
    model: Annotated[str | None, typer.Argument(help="A name of the catalog, or a file.")] = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
) -> None:
    """Talk with a model. /reset starts anew, /exit or Ctrl-D ends; Ctrl-C stops an answer.

    Lines piped to standard input are answered one after the other.
    """
    from local_llms.models import load_model

    with load_model(model, **loading) as loaded:
        if sys.stdin.isatty():
            err().print(f"{loaded.info.name}. /reset starts anew, /exit ends.", style="dim")
        _converse(Conversation(loaded, system, dict(call)))


class Conversation:
    """The turns so far, and the model that continues them."""

    def __init__(self, model: LoadedModel, system: str | None, options: dict[str, Any]) -> None:
        self._model = model
        self._options = options
        self._first = [Message("system", system)] if system else []
        self.turns = list(self._first)

    def reset(self) -> None:
        """Forget everything but the system message."""
        self.turns = list(self._first)

    def ask(self, text: str) -> None:
        """Write the answer to one more question; an interrupted answer is kept as far as it came.

        Raises PromptError, and leaves the conversation as it was, where the question does not fit.
        """
        question = Message("user", text)
        answer: list[str] = []
        thought: list[str] = []
        with self._model.stream([*self.turns, question], **self._options) as stream:
            try:
                write_stream(texts_of(stream, thought), answer)
            except KeyboardInterrupt:
                err().print("\nStopped.", style="dim")
        self.turns += [question, Message("assistant", "".join(answer), reasoning="".join(thought))]


def _converse(conversation: Conversation) -> None:
    interactive = sys.stdin.isatty()
    while (line := _read(interactive)) is not None:
        text = line.strip()
        if text == "/exit":
            return
        if text == "/reset":
            conversation.reset()
            err().print("The conversation starts anew.", style="dim")
        elif re.fullmatch(r"/[a-z]+", text):
            err().print(f"There is no command {text}: there are /reset and /exit.", style="dim")
        elif text:
            try:
                conversation.ask(text)
            except PromptError as error:
                if not interactive:
                    raise
                show_error(error)


def _read(interactive: bool) -> str | None:
    """The next line; None at the end."""
    if not interactive:
        return sys.stdin.readline() or None
    try:
        return input("> ")
    except EOFError:
        return None
