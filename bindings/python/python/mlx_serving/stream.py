"""An answer token by token, for threads and for event loops."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._loops import LoopMailbox, running_mailbox
from .results import FinishReason, Token, Usage, _finish_reason, _usage

if TYPE_CHECKING:
    from krserve_native._native import Engine, Generation

__all__ = ["Stream"]


class Stream(Iterator[Token], AsyncIterator[Token]):
    """An iterator and an async iterator over the tokens of one answer, which is computed from the start, a little ahead of its reader.

    Closing it, leaving its context, or dropping it cancels what is left. So does canceling the task that waits for it.
    """

    # Set before anything can fail: __del__ looks at it.
    _mailbox: LoopMailbox | None = None
    _canceled = False

    def __init__(self, engine: Engine, args: dict[str, Any]) -> None:
        mailbox = running_mailbox()
        self._generation: Generation = engine.start(args, mailbox.native if mailbox is not None else None)
        self._tokens: deque[Token] = deque()
        self._ended = False
        self._summary: dict[str, Any] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timed = args.get("timeout_ms") is not None
        if mailbox is not None:
            self._enter(mailbox)

    @property
    def usage(self) -> Usage | None:
        """Tokens and times, once the answer has ended by itself."""
        return None if self._summary is None else _usage(self._summary)

    @property
    def finish_reason(self) -> FinishReason | None:
        """stop or length, once the answer has ended by itself; None for a canceled one."""
        return None if self._summary is None else _finish_reason(self._summary)

    def cancel(self) -> None:
        """Cancels what is left. Tokens that have not been read are dropped; whoever waits for one finds the end."""
        self._canceled = True
        self._generation.cancel()
        self._tokens.clear()
        self._finish()

    def close(self) -> None:
        """Does the same as cancel."""
        self.cancel()

    async def aclose(self) -> None:
        """Does the same as cancel."""
        self.cancel()

    # A thread.

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Token:
        while True:
            try:
                return self._tokens.popleft()
            except IndexError:  # Or another thread was quicker.
                self._fill()

    def _fill(self) -> None:
        """Waits for tokens."""
        if self._ended:
            raise StopIteration
        try:
            tokens = self._generation.wait()
        except BaseException:
            self.cancel()
            raise
        if not tokens:
            self._end()
            raise StopIteration
        if self._canceled:
            raise StopIteration
        # Even if another thread has found the end meanwhile: these came before it.
        self._tokens.extend(tokens)

    # An event loop.

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Token:
        if not self._tokens and not await self._more():
            raise StopAsyncIteration
        return self._tokens.popleft()

    async def _more(self) -> bool:
        """Waits for tokens, outside of the thread's way; false at the end."""
        if self._ended:
            return False
        if self._waiter is not None:
            raise RuntimeError("another task waits for this stream; a stream has one reader")
        try:
            mailbox = self._mailbox
            loop = asyncio.get_running_loop()
            if mailbox is None or mailbox.loop is not loop:
                mailbox = self._move()
            while True:
                tokens = self._generation.take()
                if tokens:
                    self._tokens.extend(tokens)
                    return True
                if tokens is not None:
                    self._end()
                    return False
                self._waiter = loop.create_future()
                mailbox.waiting.add(self)
                timer = self._alarm(loop) if self._timed else None
                try:
                    await self._waiter
                finally:
                    self._waiter = None
                    mailbox.waiting.discard(self)
                    if timer is not None:
                        timer.cancel()
                # Who woke it has taken what came.
                if self._tokens:
                    return True
                if self._ended:
                    return False
        except BaseException:
            self.cancel()
            raise

    async def _remaining(self) -> list[Token]:
        """Everything that is still to come."""
        rest: list[Token] = []
        while self._tokens or await self._more():
            rest.extend(self._tokens)
            self._tokens.clear()
        return rest

    def _deliver(self) -> None:
        """Takes what has come for the task that waits. The loop calls it."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        try:
            tokens = self._generation.take()
        except BaseException as error:
            waiter.set_exception(error)
            return
        if tokens is None:
            return
        if tokens:
            self._tokens.extend(tokens)
        else:
            self._end()
        waiter.set_result(None)

    def _alarm(self, loop: asyncio.AbstractEventLoop) -> asyncio.TimerHandle:
        """Has the stream looked at when the answer's time is over: no step tells of that."""
        remaining = self._generation.remaining()
        return loop.call_later((remaining or 0.0) + 0.001, self._deliver)

    # Its loop.

    def _enter(self, mailbox: LoopMailbox) -> None:
        mailbox.enter(self)
        self._mailbox = mailbox

    def _move(self) -> LoopMailbox:
        """Goes to the loop that reads it, which is not the one that it was started in."""
        mailbox = running_mailbox()
        assert mailbox is not None
        self._leave()
        self._generation.deliver_to(mailbox.native)
        self._enter(mailbox)
        return mailbox

    def _leave(self) -> None:
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            mailbox.leave(self)

    def _end(self) -> None:
        self._summary = self._generation.summary()
        self._finish()

    def _finish(self) -> None:
        self._ended = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self._release(waiter)
        self._leave()

    @staticmethod
    def _release(waiter: asyncio.Future[None]) -> None:
        loop = waiter.get_loop()

        def end() -> None:
            if not waiter.done():
                waiter.set_result(None)

        try:
            loop.call_soon_threadsafe(end)
        except RuntimeError:
            pass  # The loop is closed, and nobody waits.

    # Its end.

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cancel()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        # The native part cancels when it is dropped.
        self._leave()
