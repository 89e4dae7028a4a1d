"""Work that takes long, beside an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

_T = TypeVar("_T")


async def beside(work: Callable[[], _T]) -> _T:
    """Runs work on a thread that nobody joins: asyncio.to_thread's are waited for by the end of the loop and of the interpreter, which a
    download that hangs would hold up."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_T] = loop.create_future()

    def settle(set_outcome: Callable[[], None]) -> None:
        if not outcome.done():
            set_outcome()

    def run() -> None:
        try:
            set_outcome = partial(outcome.set_result, work())
        except BaseException as error:
            set_outcome = partial(outcome.set_exception, error)
        try:
            loop.call_soon_threadsafe(settle, set_outcome)
        except RuntimeError:
            pass  # The loop is closed, and nobody waits.

    threading.Thread(target=run, name="mlx-serving", daemon=True).start()
    return await outcome
