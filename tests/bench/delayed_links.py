"""Relay workers' connections to the hub with heavy-tailed delays, as Hadidi's figure 6.1 shows them for a WLAN.

The thesis states two points: 34 % of the packets arrive within 50 ms of what computing takes, and more than half take longer
than 100 ms. A lognormal delay with a median of 79 ms and a sigma of 1.12 has the first point, and 95 % within half a second.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hyps.runtime.cluster.protocol.frames import MAGIC

MEDIAN_S, SIGMA = 0.079, 1.12
_LONGEST_S, _CHUNK = 3.0, 1 << 16
#: A tensor's chunks come without a pause of so many seconds, and are delayed as one packet; other messages draw no delay.
_PAUSE_S = 0.02


class DelayedLink:
    """A port of this machine that leads to the hub; tensors with ``mark`` in their headers are delayed from `delays` on."""

    def __init__(self, hub_port: int, seed: int, mark: bytes) -> None:
        self._hub_port, self._random, self._mark = hub_port, random.Random(seed), mark
        self.port = 0
        self.delays = False

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._hub_port)
        await asyncio.gather(self._carry(reader, far_writer, late=True), self._carry(far_reader, writer, late=False))

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, late: bool) -> None:
        """Forward in order; bytes of one burst arrive together, after those before them."""
        loop = asyncio.get_running_loop()
        due, last = 0.0, -1.0
        packets: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def send() -> None:
            while True:
                at, data = await packets.get()
                await asyncio.sleep(max(0.0, at - loop.time()))
                target.write(data)
                if not data:
                    target.close()
                    return
                await target.drain()

        sending = asyncio.create_task(send())
        try:
            while data := await source.read(_CHUNK):
                now = loop.time()
                if late and self.delays and MAGIC in data and self._mark in data:
                    if now - last > _PAUSE_S:
                        due = max(due, now + min(_LONGEST_S, self._random.lognormvariate(0, SIGMA) * MEDIAN_S))
                    last = now
                packets.put_nowait((max(due, now), data))
        except OSError:
            pass
        packets.put_nowait((0.0, b""))
        with suppress(OSError):
            await sending


@contextmanager
def delayed_links(hub_port: int, names: list[str], mark: bytes) -> Iterator[dict[str, DelayedLink]]:
    """Yield a link for each worker, served by a thread until the end."""
    links = {name: DelayedLink(hub_port, seed, mark) for seed, name in enumerate(names)}
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def serve() -> None:
        for link in links.values():
            await link.serve()
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield links
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
