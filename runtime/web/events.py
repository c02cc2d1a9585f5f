"""What happens, told to every page that is open: server-sent events (HTML standard, section 9.2)."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable

from pydantic import BaseModel, TypeAdapter

from hyps.runtime.web.schemas import StatusView

#: Pages at a time; who does not read is dropped after so many events, and begins anew.
_MOST_READERS, _MOST_BEHIND = 50, 256
_PING_S = 5.0
#: A status at most so often; one in which only times and sizes are others, less often.
_STATUS_S, _QUIET_S = 0.1, 1.0
log = logging.getLogger(__name__)


def event(kind: str, data: BaseModel | list[BaseModel] | object) -> bytes:
    """An event's bytes; ``data`` is JSON without line breaks."""
    text = TypeAdapter(type(data)).dump_json(data) if not isinstance(data, BaseModel) else data.model_dump_json().encode()
    return b"event: " + kind.encode() + b"\ndata: " + text + b"\n\n"


class Events:
    """``publish`` is for any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readers: set[asyncio.Queue[bytes | None]] = set()

    @property
    def full(self) -> bool:
        """There are as many readers as there may be."""
        return len(self._readers) >= _MOST_READERS

    def publish(self, kind: str, data: object) -> None:
        """Tell everybody."""
        if self._loop and self._readers:
            self._loop.call_soon_threadsafe(self._tell, event(kind, data))

    async def read(self, first: Callable[[], list[bytes]]) -> AsyncIterator[bytes]:
        """All events from now on; ``first`` makes those that a new page begins with."""
        self._loop = asyncio.get_running_loop()
        events: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_BEHIND)
        self._readers.add(events)
        try:
            for each in await asyncio.to_thread(first):
                yield each
            while True:
                try:
                    found = await asyncio.wait_for(events.get(), _PING_S)
                except TimeoutError:
                    found = b": ping\n\n"
                if found is None:
                    return
                yield found
        finally:
            self._readers.discard(events)

    def close(self) -> None:
        """Send everybody away."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._end)

    def _tell(self, payload: bytes) -> None:
        for events in [*self._readers]:
            if events.full():  # it begins anew
                self._readers.discard(events)
                events.get_nowait()
                events.put_nowait(None)
            else:
                events.put_nowait(payload)

    def _end(self) -> None:
        for events in [*self._readers]:
            if events.full():
                events.get_nowait()
            events.put_nowait(None)


class Pump:
    """Publishes the status when something changed; ``poke`` is for any thread, and quick."""

    def __init__(self, events: Events, status: Callable[[], StatusView]) -> None:
        self._events, self._status = events, status
        self._changed, self._over = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def poke(self) -> None:
        """Something may be other than before."""
        self._changed.set()

    def close(self) -> None:
        """End."""
        self._over = True
        self._changed.set()

    def _run(self) -> None:
        said, said_at = "", 0.0
        while not self._over:
            self._changed.wait(_QUIET_S)  # a page that hears nothing takes the boards for gone
            self._changed.clear()
            now = time.monotonic()
            try:
                status = self._status()
                if (key := _without_figures(status)) != said or now - said_at > _QUIET_S / 2:
                    said, said_at = key, now
                    self._events.publish("status", status)
            except Exception:  # pages without news take all boards for gone
                log.exception("a bug: no status for the pages")
            time.sleep(_STATUS_S)


def _without_figures(status: StatusView) -> str:
    left_out = {"seen_s", "resident_bytes", "queue", "computed_per_s"}
    return status.model_dump_json(exclude={"answered_per_s": True, "workers": {"__all__": left_out}})
