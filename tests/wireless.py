"""A link that delays and loses packets: few kernels have their own emulator, so a thread carries them between two TAPs.

board's eth0 (TAP) ── thread: waits, draws, forwards ── the switch's port (TAP)
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

_TUNSETIFF, _TAP, _NO_INFORMATION = 0x400454CA, 0x0002, 0x1000
_PACKET_BYTES = 2048
_MOST_WAITING = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wireless:
    """Both directions of a link: seconds of delay, the most jitter (packets stay in order), and the share lost."""

    delay_s: float
    jitter_s: float = 0.0
    loss: float = 0.0


@dataclass(slots=True, kw_only=True)
class Carried:
    """Packets that were carried and lost, both ways."""

    carried: int = 0
    lost: int = 0


def open_tap(name: str) -> int:
    """A TAP device in this thread's network namespace, which lasts as long as its descriptor, returned."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP | _NO_INFORMATION))
    return descriptor


@contextmanager
def joined(ends: tuple[int, int], link: Wireless, seed: int) -> Iterator[Carried]:
    """Carry packets between two TAPs; their descriptors are closed at the end."""
    carried, done = Carried(), threading.Event()
    thread = threading.Thread(target=_carry, args=(ends, link, Random(seed), carried, done))
    thread.start()
    try:
        yield carried
    finally:
        done.set()
        thread.join()
        for end in ends:
            os.close(end)


def _carry(ends: tuple[int, int], link: Wireless, random: Random, carried: Carried, done: threading.Event) -> None:
    ways: dict[int, deque[tuple[float, bytes]]] = {end: deque() for end in ends}
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    while not done.is_set():
        due = min((way[0][0] for way in ways.values() if way), default=time.monotonic() + 0.1)
        readable, _, _ = select.select(ends, (), (), max(0.0, due - time.monotonic()))
        for end in readable:
            packet, way = os.read(end, _PACKET_BYTES), ways[other[end]]
            if random.random() < link.loss or len(way) >= _MOST_WAITING:
                carried.lost += 1
            else:
                at = time.monotonic() + link.delay_s + random.random() * link.jitter_s
                way.append((max(at, way[-1][0]) if way else at, packet))
        for end, way in ways.items():
            while way and way[0][0] <= time.monotonic():
                os.write(end, way.popleft()[1])
                carried.carried += 1
