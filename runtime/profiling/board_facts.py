"""Name the class of a board: boards with the same facts are as fast as each other, so that one of them is profiled."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
from msgspec import Meta

from hyps.runtime.bundle.records.fields import Positive

#: A line of text about a board, as its firmware and its kernel give it.
FactText = Annotated[str, Meta(max_length=120)]
#: The name of a class of boards, which a user may choose.
BoardClass = Annotated[str, Meta(min_length=1, max_length=300)]


class BoardFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The facts of a board that its speed depends on, and the version of onnxruntime there.

    ``model`` is the firmware's name of the board, empty on most computers. ``machine`` is the kernel's name of the kind of
    processor, ``cpu`` the processor's own. ``memory_bytes`` is all of the memory that the system has.
    """

    model: FactText
    machine: FactText
    cpu: FactText
    cores: Annotated[int, Meta(ge=1, le=65_536)]
    memory_bytes: Positive
    onnxruntime: FactText

    @property
    def board_class(self) -> str:
        """The class of the board: ``Raspberry Pi 4 Model B Rev 1.4, 4 x cortex-a72, 4 GiB, onnxruntime 1.32``.

        Firmware keeps a part of the memory, so that the size is rounded up to a power of two.
        """
        mebibytes = 1 << max(0, (self.memory_bytes - 1 >> 20).bit_length())
        size = f"{mebibytes >> 10} GiB" if mebibytes >= 1024 else f"{mebibytes} MiB"
        version = ".".join(self.onnxruntime.split(".")[:2])
        name = [self.model] if self.model else []
        return ", ".join([*name, f"{self.cores} x {self.cpu or self.machine}", size, f"onnxruntime {version}"])


def this_board() -> BoardFacts:
    """Return the facts of this device. Raises `DeviceError` where the kernel is not Linux."""
    import onnxruntime as ort

    from hyps.runtime.device.available_memory import available_memory
    from hyps.runtime.device.probes import board, processor

    cores = processor()
    return BoardFacts(
        model=(board() or "")[:120],
        machine=os.uname().machine[:120],
        cpu=cores.cpu[:120],
        cores=cores.cores,
        memory_bytes=available_memory().total_bytes,
        onnxruntime=ort.__version__[:120],
    )
