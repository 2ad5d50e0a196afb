"""The way back: events from the engine's thread to whoever reads them, sync or async."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from local_llms.errors import CallbackError, DeadlineExceeded, RequestCancelled
from local_llms.types import Completion, TokenEvent


class Observer(Protocol):
    """What a reader may attach to a stream; ``callbacks.TokenCallback`` is one."""

    def on_start(self, prompt_tokens: int) -> None:
        """Called once, when the request was queued."""

    def on_token(self, event: TokenEvent) -> None:
        """Called for every token."""

    def on_end(self, completion: Completion) -> None:
        """Called once, after the last token."""

    def on_error(self, error: BaseException) -> None:
        """Called once, instead of ``on_end``."""


class Channel:
    """The part of a stream that the engine holds. Its methods may be called from any thread.

    A reader that waits is woken at most once until it has read, so a slow reader costs the engine nothing; one that
    waits for the whole answer is woken once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: deque[TokenEvent] = deque()
        self._wake: Callable[[], object] | None = None
        self._wake_for_tokens = False
        self._outcome: Completion | BaseException | None = None

    def push(self, event: TokenEvent) -> None:
        """Add a token."""
        wake = None
        with self._lock:
            self._events.append(event)
            if self._wake_for_tokens:
                wake, self._wake = self._wake, None
                self._wake_for_tokens = False
        if wake is not None:
            wake()

    def close(self, outcome: Completion | BaseException) -> None:
        """End the stream with an answer or an error. Only the first outcome counts."""
        with self._lock:
            if self._outcome is None:
                self._outcome = outcome
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    @property
    def outcome(self) -> Completion | BaseException | None:
        """The answer or the error; None while the request is under way."""
        return self._outcome

    def next_event(self) -> TokenEvent | None:
        """The oldest unread token, or None where there is none now."""
        with self._lock:
            return self._events.popleft() if self._events else None

    def arrange_wake(self, wake: Callable[[], object], *, for_tokens: bool) -> bool:
        """Have ``wake`` called once when there is something to read; False where there is something already."""
        with self._lock:
            if self._outcome is not None or (for_tokens and self._events):
                return False
            self._wake, self._wake_for_tokens = wake, for_tokens
            return True


class Stream:
    """The tokens of one request, as they come.

    Read it with ``for``, with ``async for``, or take the whole answer with ``result()`` or ``await aresult()``. Leaving
    a ``with`` block, ``cancel()`` and dropping the object all stop the computing within one token.
    """

    def __init__(
        self,
        channel: Channel,
        cancel: Callable[[], None],
        *,
        deadline: float | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        """``cancel`` tells the engine to stop; ``deadline`` is a time of ``time.monotonic``."""
        self._channel = channel
        self._cancel = cancel
        self._deadline = deadline
        self._observers = tuple(observers)
        self._reported = False

    def announce(self, prompt_tokens: int) -> None:
        """Tell the observers that the request was queued."""
        for observer in self._observers:
            self._call(observer.on_start, prompt_tokens)

    @property
    def completion(self) -> Completion | None:
        """The whole answer; None until the request has ended well."""
        outcome = self._channel.outcome
        return outcome if isinstance(outcome, Completion) else None

    def cancel(self) -> None:
        """Stop computing. Reading on raises RequestCancelled. Does nothing once the request has ended."""
        if self._channel.outcome is None:
            self._channel.close(RequestCancelled("The request was cancelled."))
            self._cancel()

    def result(self) -> Completion:
        """Wait for the whole answer. Raises what went wrong, DeadlineExceeded or RequestCancelled among it."""
        if self._observers:
            for _ in self:
                pass
        while self._channel.outcome is None:
            self._wait(for_tokens=False)
        return self._end()

    async def aresult(self) -> Completion:
        """Like ``result``, without blocking the event loop. A cancelled task cancels the request."""
        try:
            if self._observers:
                async for _ in self:
                    pass
            while self._channel.outcome is None:
                await self._await(for_tokens=False)
        except BaseException:
            self.cancel()
            raise
        return self._end()

    def __iter__(self) -> Iterator[TokenEvent]:
        try:
            while True:
                event, ended = self._next()
                if event is not None:
                    yield event
                elif ended:
                    break
                else:
                    self._wait(for_tokens=True)
            self._end()
        finally:
            self.cancel()

    async def __aiter__(self) -> AsyncIterator[TokenEvent]:
        try:
            while True:
                event, ended = self._next()
                if event is not None:
                    yield event
                elif ended:
                    break
                else:
                    await self._await(for_tokens=True)
            self._end()
        finally:
            self.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        self.cancel()

    def _end(self) -> Completion:
        """The answer, or raise the error; observers hear of either once."""
        outcome = self._channel.outcome
        if isinstance(outcome, Completion):
            self._report("on_end", outcome)
            return outcome
        error = outcome if outcome is not None else RequestCancelled("The request was cancelled.")
        self._report("on_error", error)
        raise error

    def _next(self) -> tuple[TokenEvent | None, bool]:
        """The oldest unread token, or None and whether the stream has ended."""
        # The outcome comes after the last token, so looking at it first misses none.
        ended = self._channel.outcome is not None
        event = self._channel.next_event()
        if event is not None:
            for observer in self._observers:
                self._call(observer.on_token, event)
        return event, ended

    def _report(self, method: str, value: object) -> None:
        if self._reported:
            return
        self._reported = True
        for observer in self._observers:
            self._call(getattr(observer, method), value)

    def _call(self, method: Callable[..., object], value: object) -> None:
        try:
            method(value)
        except Exception as error:
            self.cancel()
            name = getattr(method, "__qualname__", repr(method))
            raise CallbackError(f"The token callback {name} raised {type(error).__name__}: {error}") from error

    def _remaining(self) -> float | None:
        return None if self._deadline is None else self._deadline - time.monotonic()

    def _give_up(self) -> None:
        self._channel.close(DeadlineExceeded("The request was not finished in the time that timeout= gave it."))
        self._cancel()

    def _wait(self, *, for_tokens: bool) -> None:
        arrived = threading.Event()
        if self._channel.arrange_wake(arrived.set, for_tokens=for_tokens):
            remaining = self._remaining()
            if not arrived.wait(None if remaining is None else max(remaining, 0.0)):
                self._give_up()

    async def _await(self, *, for_tokens: bool) -> None:
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(_resolve, arrived)
            except RuntimeError:
                # The loop was closed under its reader: nobody is left to wake.
                self._cancel()

        if not self._channel.arrange_wake(wake, for_tokens=for_tokens):
            return
        try:
            await asyncio.wait_for(arrived, self._remaining())
        except TimeoutError:
            self._give_up()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
