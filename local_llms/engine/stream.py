"""The answer to one request, as its reader sees it, sync or async."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from local_llms.engine.channel import Channel, Outcome
from local_llms.errors import CallbackError, DeadlineExceeded, EngineForked, RequestCancelled
from local_llms.types import Completion, TokenEvent

logger = logging.getLogger("local_llms.engine")


class Observer(Protocol):
    """What a reader may attach to a stream; ``callbacks.TokenCallback`` is one."""

    def on_start(self, prompt_tokens: int) -> None:
        """Called once, when the request has been queued."""

    def on_token(self, event: TokenEvent) -> None:
        """Called for every token."""

    def on_end(self, completion: Completion) -> None:
        """Called once, after the last token."""

    def on_error(self, error: BaseException) -> None:
        """Called once, instead of ``on_end``."""


class Stream:
    """The tokens of one request, as they come.

    Read it with ``for``, with ``async for``, or take the whole answer with ``result()`` or ``await aresult()``. Leaving
    a loop or a ``with`` block, ``cancel()`` and dropping the object all stop the computing within one token.

    Tokens are handed out once: a second loop goes on where the first one ended. ``result()`` may be called as often as
    you like. Only observers make it read the tokens; without them they can still be read afterwards.
    """

    def __init__(
        self,
        channel: Channel,
        stop_computing: Callable[[], None],
        *,
        deadline: float | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        """``stop_computing`` tells the engine; ``deadline`` is a time of ``time.monotonic``."""
        self._process = os.getpid()
        self._channel = channel
        self._stop_computing = stop_computing
        self._deadline = deadline
        self._observers = tuple(observers)
        self._reported = False
        self._callback_error: CallbackError | None = None

    @property
    def completion(self) -> Completion | None:
        """The whole answer; None until the request has ended well."""
        outcome = self._outcome
        return outcome if isinstance(outcome, Completion) else None

    @property
    def _outcome(self) -> Outcome | None:
        # The engine may be done before a callback fails over a token of its answer; the failure counts all the same.
        return self._callback_error or self._channel.outcome

    def cancel(self) -> None:
        """Stop computing. Reading on raises RequestCancelled. Does nothing once the request has ended."""
        if self._outcome is None:
            self._give_up(RequestCancelled("The request was cancelled."))

    def result(self) -> Completion:
        """Wait for the whole answer. Raises what went wrong, DeadlineExceeded or RequestCancelled among it."""
        if self._observers:
            for _ in self:
                pass
        try:
            while self._outcome is None:
                self._wait(for_tokens=False)
            return self._end()
        finally:
            self._leave()

    async def aresult(self) -> Completion:
        """Like ``result``, without blocking the event loop. A cancelled task cancels the request."""
        if self._observers:
            async for _ in self:
                pass
        try:
            while self._outcome is None:
                await self._await(for_tokens=False)
            return self._end()
        finally:
            self._leave()

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
            self._leave()

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
            self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def __del__(self) -> None:
        self.cancel()

    def begin(self, prompt_tokens: int) -> None:
        """Tell the observers that the request was queued. Raises CallbackError."""
        for observer in self._observers:
            try:
                observer.on_start(prompt_tokens)
            except Exception as error:
                raise self._callback_failed("on_start", error) from error

    def _next(self) -> tuple[TokenEvent | None, bool]:
        """The oldest unread token, or None and whether the stream has ended."""
        # The outcome comes after the last token, so looking at it first misses none.
        ended = self._outcome is not None
        if self._callback_error is not None:
            return None, ended
        event = self._channel.next_event()
        if event is not None:
            for observer in self._observers:
                try:
                    observer.on_token(event)
                except Exception as error:
                    raise self._callback_failed("on_token", error) from error
        return event, ended

    def _end(self) -> Completion:
        """The answer, or raise the error; observers hear of either once."""
        outcome = self._outcome
        if isinstance(outcome, Completion):
            self._report_end(outcome)
            return outcome
        error = outcome if outcome is not None else RequestCancelled("The request was cancelled.")
        self._report_error(error)
        raise error

    def _leave(self) -> None:
        """The reader goes, maybe early: nothing more is computed, and the observers know that it is over."""
        self.cancel()
        outcome = self._outcome
        # The answer may have been complete before its reader went, but the observers have not seen it all.
        left = RequestCancelled("The answer was not read to its end.")
        self._report_error(outcome if isinstance(outcome, BaseException) else left)

    def _report_end(self, completion: Completion) -> None:
        if self._reported:
            return
        self._reported = True
        failure: Exception | None = None
        for observer in self._observers:
            try:
                observer.on_end(completion)
            except Exception as error:
                failure = failure or error
                logger.debug("A token callback raised in on_end", exc_info=True)
        if failure is not None:
            raise _callback_error("on_end", failure) from failure

    def _report_error(self, error: BaseException) -> None:
        if self._reported:
            return
        self._reported = True
        for observer in self._observers:
            try:
                observer.on_error(error)
            except Exception:
                # The request's own error is the one that its reader must see.
                logger.exception("A token callback raised in on_error")

    def _callback_failed(self, method: str, error: Exception) -> CallbackError:
        """End the request, and tell every observer."""
        failure = _callback_error(method, error)
        self._callback_error = failure
        self._give_up(failure)
        self._report_error(failure)
        return failure

    def _give_up(self, error: BaseException) -> None:
        """End the stream with an error of the reader's side, and have the engine stop."""
        if os.getpid() == self._process:
            self._channel.close(error)
            self._stop_computing()

    def _out_of_time(self) -> None:
        self._give_up(DeadlineExceeded("The request was not finished in the time that timeout= gave it."))

    def _remaining(self) -> float | None:
        """Seconds until the deadline, at least 0, and no more than a lock can wait."""
        if os.getpid() != self._process:
            raise EngineForked("The request belongs to the process that this one was forked from; ask again here.")
        if self._deadline is None:
            return None
        return min(max(self._deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)

    def _wait(self, *, for_tokens: bool) -> None:
        remaining = self._remaining()
        arrived = threading.Event()
        self._channel.call_when_ready(arrived.set, for_tokens=for_tokens)
        if not arrived.wait(remaining):
            self._out_of_time()

    async def _await(self, *, for_tokens: bool) -> None:
        remaining = self._remaining()
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(_resolve, arrived)
            except RuntimeError:
                # The loop was closed under its reader: nobody is left to wake.
                self.cancel()

        self._channel.call_when_ready(wake, for_tokens=for_tokens)
        try:
            # Not wait_for: before Python 3.12 it can lose the cancelling of its task.
            async with asyncio.timeout(remaining):
                await arrived
        except TimeoutError:
            self._out_of_time()


def _callback_error(method: str, error: Exception) -> CallbackError:
    return CallbackError(f"The token callback's {method} raised {type(error).__name__}: {error}")


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
