"""A network of boards on one machine: each in a network namespace of its own, at a switch, by a link of 94 Mbit/s each way.

    hub ══╗              ══ a pair of veth devices, each end shaped by tc's token bucket
    w0  ══╬══ bridge     the bridge lies in a namespace, too: the machine's own network is not on it
    w1  ══╝

Packets leave their senders no larger than an Ethernet's (no segmentation offload), so that the interfaces count what a cable
would carry: Ethernet, IP and TCP headers and acknowledgements included. It needs Linux, root, and iproute2.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests.wireless import Carried, Wireless, joined, open_tap

#: What a 100 Mbit/s Ethernet carries in fact.
RATE_BITS_PER_S = 94_000_000
#: Ethernet, IPv4, and TCP with time stamps: before the payload of nearly every packet.
HEADER_BYTES = 14 + 20 + 32
_SUBNET, _DEVICE, _SWITCH = "10.83.0", "eth0", "switch"
_CLONE_NEWNET = 0x40000000
_NAMES = Path("/run/netns")
_numbers = itertools.count()


class NoNetwork(Exception):
    """Why there can be none here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What has gone through a board's interface since it was made."""

    sent_bytes: int
    received_bytes: int
    packets: int

    @property
    def wire_bytes(self) -> int:
        """Both ways, headers included."""
        return self.sent_bytes + self.received_bytes

    @property
    def stream_bytes(self) -> int:
        """Both ways, what TCP carries: without its own headers and those below."""
        return self.wire_bytes - self.packets * HEADER_BYTES

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            sent_bytes=self.sent_bytes + other.sent_bytes,
            received_bytes=self.received_bytes + other.received_bytes,
            packets=self.packets + other.packets,
        )

    def __sub__(self, before: Traffic) -> Traffic:
        return Traffic(
            sent_bytes=self.sent_bytes - before.sent_bytes,
            received_bytes=self.received_bytes - before.received_bytes,
            packets=self.packets - before.packets,
        )


class Network:
    """Boards by name, while `network` lasts; ``carried`` counts the packets of wireless ones."""

    def __init__(self, boards: Sequence[str]) -> None:
        self.boards = tuple(boards)
        self._prefix = f"hyps-{os.getpid()}-{next(_numbers)}-"
        self.carried: dict[str, Carried] = {}

    def namespace(self, board: str) -> str:
        """What the board's namespace is called."""
        return self._prefix + board

    def address(self, board: str) -> str:
        """A board's IPv4 address."""
        return f"{_SUBNET}.{self.boards.index(board) + 1}"

    @contextmanager
    def inside(self, board: str) -> Iterator[None]:
        """This thread, and the threads and processes that it starts, are on that board."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            there = os.open(_NAMES / self.namespace(board), os.O_RDONLY)
            try:
                _set_namespace(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _set_namespace(own)
        finally:
            os.close(own)

    def run(self, board: str, command: str) -> None:
        """Run ip or tc on a board. Raises `subprocess.CalledProcessError`."""
        program, _, rest = command.partition(" ")
        _run(f"{program} -n {self.namespace(board)} {rest}")

    def unplug(self, board: str) -> None:
        """Take a board's cable out of the switch."""
        self.run(_SWITCH, f"ip link set dev {board} down")

    def plug(self, board: str) -> None:
        """Put it in again."""
        self.run(_SWITCH, f"ip link set dev {board} up")

    def shape(self, bits_per_s: int = RATE_BITS_PER_S) -> None:
        """From now on no link carries more, in either direction."""
        for board in self.boards:
            for namespace, device in ((board, _DEVICE), (_SWITCH, board)):
                self.run(namespace, f"tc qdisc replace dev {device} root tbf rate {bits_per_s}bit burst 16kb latency 100ms")

    def traffic(self, board: str) -> Traffic:
        """What the board's interface has counted."""
        with self.inside(board):
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        fields = next(line for line in lines if line.strip().startswith(f"{_DEVICE}:")).partition(":")[2].split()
        received_bytes, received, sent_bytes, sent = (int(fields[index]) for index in (0, 1, 8, 9))
        return Traffic(sent_bytes=sent_bytes, received_bytes=received_bytes, packets=received + sent)


@contextmanager
def network(boards: Sequence[str], wireless: Mapping[str, Wireless] = MappingProxyType({})) -> Iterator[Network]:
    """Make one, its links not yet shaped; nothing of it is left at the end. Raises `NoNetwork`."""
    if os.geteuid() != 0:
        raise NoNetwork("network namespaces need root: run the tests as root")
    if wireless and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise NoNetwork("wireless links need /dev/net/tun: load the kernel's module tun")
    if missing := [program for program in ("ip", "tc") if shutil.which(program) is None]:
        raise NoNetwork(f"needs {missing[0]}: run 'make setup-system' as root (Debian)")
    with ExitStack() as stack:
        made = Network(boards)
        try:
            _make(made, wireless, stack)
        except subprocess.CalledProcessError as error:
            raise NoNetwork(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from None
        yield made


def _make(made: Network, wireless: Mapping[str, Wireless], stack: ExitStack) -> None:
    boards = made.boards
    for name in (_SWITCH, *boards):
        _run(f"ip netns add {made.namespace(name)}")
        stack.callback(_remove, made.namespace(name))
    made.run(_SWITCH, "ip link add name bridge type bridge")
    made.run(_SWITCH, "ip link set bridge addrgenmode none up")
    for number, board in enumerate(boards, start=1):
        if link := wireless.get(board):
            ends = _tap(made, board, _DEVICE), _tap(made, _SWITCH, board)
            made.carried[board] = stack.enter_context(joined(ends, link, seed=number))
        else:
            made.run(_SWITCH, f"ip link add name {board} type veth peer name {_DEVICE} netns {made.namespace(board)}")
        made.run(_SWITCH, f"ip link set dev {board} gso_max_segs 1 addrgenmode none master bridge up")
        made.run(board, f"ip link set {_DEVICE} gso_max_segs 1 addrgenmode none up")
        made.run(board, f"ip address add {_SUBNET}.{number}/24 dev {_DEVICE}")
        made.run(board, "ip link set lo up")


def _tap(made: Network, board: str, device: str) -> int:
    with made.inside(board):
        return open_tap(device)


def _remove(namespace: str) -> None:
    with suppress(subprocess.CalledProcessError):
        _run(f"ip netns delete {namespace}")


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True, text=True)


def _set_namespace(descriptor: int) -> None:
    """`os.setns` of Python 3.12."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
