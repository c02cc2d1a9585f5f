"""Name the vector instructions of this processor, by which onnxruntime chooses its kernels and layouts."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

#: The flags of x86 processors by which MLAS chooses kernels (onnxruntime, ``mlas/lib/platform.cpp``).
_X86 = re.compile(r"avx|avx2|fma|f16c|avx_vnni\w*|avx512\w*|amx_\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionSet:
    """A kind of processor: ``machine`` is the kernel's name for it, ``features`` are its vector instructions, sorted."""

    machine: str
    features: tuple[str, ...]

    @property
    def saturates(self) -> bool:
        """Whether onnxruntime adds two products of unsigned by signed 8-bit numbers in 16 bits, which saturate.

        It does on x86 processors without VNNI (onnxruntime's documentation, *Quantize ONNX models*, U8S8 and saturation).
        """
        return self.machine == "x86_64" and bool(self.features) and not any("vnni" in feature for feature in self.features)


def instruction_set() -> InstructionSet:
    """Return this machine's instruction set, from ``/proc/cpuinfo``; without that file no features are known."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = match[1].split() if match else []
    machine = os.uname().machine
    chosen = {flag for flag in flags if machine not in ("x86_64", "AMD64") or _X86.fullmatch(flag)}
    return InstructionSet(machine=machine, features=tuple(sorted(chosen)))
