"""Send the manager's events to every open page as server-sent events (HTML standard, section 9.2).

This is hand-written: sse-starlette would replace only 10 lines, the event's format and the ping; the bounded queues would
stay.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable

from pydantic import BaseModel, TypeAdapter

from hyps.runtime.web.errors import Busy
from hyps.runtime.web.schemas import StatusView

#: The most pages at a time, and the most events that wait for one page; a slower page is dropped and connects again.
_MOST_READERS, _MOST_WAITING = 50, 256
#: Seconds of silence after which a ping shows that the connection is alive.
_PING_S = 5.0
#: Least seconds between two statuses, and between two that differ only in times and sizes.
_STATUS_S, _QUIET_S = 0.1, 1.0
_log = logging.getLogger(__name__)


def event(kind: str, data: BaseModel | list[BaseModel] | object) -> bytes:
    """Return an event's bytes; ``data`` becomes JSON on one line."""
    text = TypeAdapter(type(data)).dump_json(data) if not isinstance(data, BaseModel) else data.model_dump_json().encode()
    return b"event: " + kind.encode() + b"\ndata: " + text + b"\n\n"


class Events:
    """The pages that follow the events. `publish` and `close` may be called on any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readers: set[asyncio.Queue[bytes | None]] = set()

    def join(self) -> asyncio.Queue[bytes | None]:
        """Add a page, and return its queue for `read`. Raises `Busy` if there are too many."""
        self._loop = asyncio.get_running_loop()
        if len(self._readers) >= _MOST_READERS:
            raise Busy("too many pages are open; close one and reload")
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_WAITING)
        self._readers.add(queue)
        return queue

    def leave(self, queue: asyncio.Queue[bytes | None]) -> None:
        """Remove a page."""
        self._readers.discard(queue)

    def publish(self, kind: str, data: object) -> None:
        """Send an event to every page."""
        if self._loop and self._readers:
            self._loop.call_soon_threadsafe(self._put, event(kind, data))

    async def read(self, queue: asyncio.Queue[bytes | None], first: Callable[[], list[bytes]]) -> AsyncIterator[bytes]:
        """Yield the events that `first` returns, then all that are published; nothing is missed between the two."""
        try:
            for payload in await asyncio.to_thread(first):
                yield payload
            while True:
                try:
                    published = await asyncio.wait_for(queue.get(), _PING_S)
                except TimeoutError:
                    published = b": ping\n\n"
                if published is None:
                    return
                yield published
        finally:
            self.leave(queue)

    def close(self) -> None:
        """End all streams."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._end)

    def _put(self, payload: bytes) -> None:
        for queue in [*self._readers]:
            if queue.full():
                self._readers.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(payload)

    def _end(self) -> None:
        for queue in [*self._readers]:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)


class Pump:
    """A thread that publishes the status after a change. `poke` may be called on any thread and does not wait."""

    def __init__(self, events: Events, status: Callable[[], StatusView]) -> None:
        self._events, self._status = events, status
        self._changed, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def poke(self) -> None:
        """Say that the status may have changed."""
        self._changed.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._changed.set()

    def _run(self) -> None:
        published, published_at = "", 0.0
        while not self._closed:
            self._changed.wait(_QUIET_S)  # a page that hears nothing shows the boards as gone
            self._changed.clear()
            now = time.monotonic()
            try:
                status = self._status()
                if (key := _without_figures(status)) != published or now - published_at > _QUIET_S / 2:
                    published, published_at = key, now
                    self._events.publish("status", status)
            except Exception:  # the thread must go on: pages without a status show all boards as gone
                _log.exception("a bug: no status for the pages")
            time.sleep(_STATUS_S)


def _without_figures(status: StatusView) -> str:
    """Return the status as text, without the times, sizes and rates that change all the time."""
    figures = {"seen_s", "resident_bytes", "queue", "computed_per_s"}
    return status.model_dump_json(exclude={"answered_per_s": True, "workers": {"__all__": figures}})
