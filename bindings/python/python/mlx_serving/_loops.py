"""Wake-ups of event loops: one mailbox a loop, for as long as any stream of it runs."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from krserve_native._native import Mailbox

if TYPE_CHECKING:
    from .stream import Stream


class LoopMailbox:
    """A loop's mailbox. A step of the engine makes its descriptor readable once, whatever came for how many streams."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.native = Mailbox()
        self.loop = loop
        self.waiting: set[Stream] = set()
        self._streams: set[int] = set()
        self._watched = False

    def enter(self, stream: Stream) -> None:
        """Watches the descriptor for as long as a stream is in, from within the loop."""
        self._streams.add(id(stream))
        if not self._watched:
            self.loop.add_reader(self.native.fileno(), self._wake)
            self._watched = True

    def leave(self, stream: Stream) -> None:
        """Lets a stream out, on any thread."""
        self._streams.discard(id(stream))
        if self._streams:
            return
        try:
            # Never at once: a stream may be dropped in the middle of anything.
            self.loop.call_soon_threadsafe(self._unwatch)
        except RuntimeError:
            pass  # The loop is closed and watches nothing.

    def _unwatch(self) -> None:
        if self._watched and not self._streams:
            self.loop.remove_reader(self.native.fileno())
            self._watched = False

    def _wake(self) -> None:
        # Before anything is taken: what comes from now on wakes the loop again.
        self.native.rearm()
        for stream in list(self.waiting):
            stream._deliver()


_mailboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[LoopMailbox]] = weakref.WeakKeyDictionary()
"""Held by their streams and, while these run, by their loops; never from here, because a mailbox holds its loop."""


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def running_mailbox() -> LoopMailbox | None:
    """The mailbox of the loop that runs here, if one does."""
    loop = _running()
    if loop is None:
        return None
    known = _mailboxes.get(loop)
    mailbox = known() if known is not None else None
    if mailbox is None:
        mailbox = LoopMailbox(loop)
        _mailboxes[loop] = weakref.ref(mailbox)
    return mailbox
