"""Give the cluster's readers damaged frames and messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hyps.runtime.bundle.records.tensors import TensorRecord
from hyps.runtime.cluster.protocol import messages
from hyps.runtime.cluster.protocol.assembler import Assembler
from hyps.runtime.cluster.protocol.frames import Key, Rejection, encode_tensor
from hyps.runtime.cluster.protocol.withdrawal import Withdraw, Withdrawn
from hyps.runtime.cluster.worker.withdrawals import Withdrawals
from hyps.runtime.device.link_rates import LinkRates
from hyps.runtime.profiling.board_facts import BoardFacts
from hyps.runtime.profiling.profile_file import Quartiles, ThreadTimes
from tests.fuzz.mutation import damaged_json
from tests.fuzz.target import Read, Target

_SHA256, _ID = "0" * 64, "0" * 32
_KEY = Key(job=_ID, sub_bundle=0, attempt=0)
_RECORD = TensorRecord(dtype="float32", shape=(1, 3, 8, 8))
_GROWN_BYTES = 20_000_000
_BOARD = BoardFacts(model="Pi", machine="aarch64", cpu="a72", cores=4, memory_bytes=1 << 32, onnxruntime="1.32.0")
_LINK = LinkRates(up_bytes_per_s=10**7, down_bytes_per_s=10**7, latency_s=0.001)
_RUN = Quartiles(lower=0.1, median=0.2, upper=0.3)
_TIMES = ThreadTimes(threads=1, runs=3, run_s=_RUN, open_s=_RUN, stored_s=None, read_bytes=0, peak_bytes=0)
_ENERGY = messages.BoardEnergy(seconds=1.0, joules=1.5, idle_watts=1.0, estimated=True, source="s", machine="0" * 16)
_MESSAGES = (
    messages.WorkerState(online=True, session=_ID, memory_bytes=1 << 30, threads=4, loaded=(0, 1), problem="none"),
    messages.WorkerState(online=True, session=_ID, board=_BOARD, board_class="pi4", link=_LINK),
    messages.Orders(
        epoch=1, url="http://x", token="t", sub_bundles=(messages.SubBundleOrder(number=0, sha256=_SHA256, size_bytes=9),)
    ),
    messages.Failed(key=_KEY, input=False, reason="r"),
    messages.Timed(key=_KEY, compute_s=0.5, steps_s=(0.25, 0.25)),
    messages.Profiled(steps=(messages.StepTimes(key=_SHA256, times=_TIMES),)),
    messages.Pulse(
        session=_ID,
        resident_bytes=1,
        queue=0,
        energy=_ENERGY,
        below={"w0": _ENERGY},
    ),
    Withdraw(key=_KEY),
    Withdrawn(key=_KEY, computed=True),
    messages.Submit(job=_ID, bundle=_SHA256, exact=True),
    messages.SendInputs(job=_ID),
    messages.Refused(job=_ID, reason="r"),
)
_DECODERS: tuple[Callable[[bytes], object], ...] = (
    messages.decode_worker_message,
    messages.decode_client_message,
    messages.decode_reply,
    lambda payload: messages.decode_message(payload, messages.WorkerState),
    Withdrawals().take,
    lambda payload: messages.decode_message(payload, messages.Orders),
)


def _frame_seeds(scratch: Path) -> Sequence[bytes]:
    data = memoryview(bytes(range(256)) * 3)
    return [
        frame
        for compress in (False, True)
        for frame in encode_tensor(_KEY, "x", _RECORD, data[: _RECORD.nbytes], 256, compress=compress)
    ]


def _frame_reader(scratch: Path) -> Read:
    assembler: Assembler[str] = Assembler(lambda sender, key, tensor: _RECORD, limit_bytes=1 << 20)

    def read(content: bytes) -> None:
        assembler.add("w", content)

    return read


def _message_seeds(scratch: Path) -> Sequence[bytes]:
    return [messages.encode_message(message) for message in _MESSAGES]


def _message_reader(scratch: Path) -> Read:
    def read(content: bytes) -> None:
        for decode in _DECODERS:
            try:
                decode(content)
            except Rejection:
                continue

    return read


TARGETS: Mapping[str, Target] = {
    "frame": Target(seeds=_frame_seeds, reader=_frame_reader, mendable=(), grown_bytes=_GROWN_BYTES),
    "message": Target(
        seeds=_message_seeds, reader=_message_reader, mendable=(), damaged=damaged_json, grown_bytes=_GROWN_BYTES
    ),
}
