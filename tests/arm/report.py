"""The table of ``make test-arm``: what each row measured is kept in ``build/arm/records``, the page in ``docs/arm.md``."""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tests.arm.board import CARD_BYTES_PER_S, CORES
from tests.arm.parts import CACHE, run
from tests.arm.rows import TOLERANCE, Record, Row
from tests.repository import ROOT

PAGE = ROOT / "docs" / "arm.md"
_RECORDS = CACHE / "records"
_COLUMNS = ("budget", "predicted", "peak", "anon", "file", "read", "run read", "faults", "s", "run s", "deviation")
_WHAT = {"inside": "one file", "mapped": "mapped", "lean": "lean", "bundle": "bundle"}

_TEXT = """# VGG16 on emulated boards

Written by `make test-arm` (measured {first} to {last}); do not edit. On demand, not in CI: it takes longer than ten minutes.
`make test-arm FAST=1` checks small networks on small boards in a few minutes.

The boards are QEMU's `virt` machine with {cores} cortex-a53 cores under software emulation, without swap, with Debian's own
kernel. Their limits of memory are real, their speed is not: compare times within the table alone. Both disks (root and
weights) share a throttle of {rate:.0f} MB/s, a microSD card's rate. The runtime wheel is installed with the aarch64
wheels of its requirements, and no other program runs: {available}.

Boards: {versions}.
Host: {host}.

```
{table}```

- *one file*: the whole model, weights inside the .onnx, onnxruntime's default session. *mapped*: the whole model, weights in
  a file of their own, no prepacking. *lean*: the same without arena and memory patterns, as a bundle is run: the best that a
  user can pick without HyPS. *overcommit*: with `vm.overcommit_memory=1`, which a board's owner must set. *bundle*:
  `hyps-run BUNDLE IMAGE --json --profile`, which checks the weights as it reads them.
- *board* is MiB given to QEMU. All other memory is in MB (10^6 bytes). *predicted*: by the compiler, calibrated on x86-64.
  *peak*: VmHWM of the process. *anon* and *file*: at the largest of the samples taken four times a second.
- *read*: MB that both disks delivered from the process's start to its end, Python and libraries (about 40 MB) included;
  *run read*: what the inference alone read. *faults*: how often the process waited for a page from a disk.
- *s*: seconds from the process's start to its end; *run s*: of the inference alone. Two boards ran at a time on the host.
  Where memory is smaller than the weights the mapped model takes two to three times as long, though it reads and waits no
  more often than on 1024 MB; the cause was not looked for, and may be the emulation.
- *deviation*: largest difference from the whole model on x86-64, over the largest output ({tolerance:.0e} is allowed).

## What the highest optimisation level changes

A bundle's steps are optimised at `ORT_ENABLE_EXTENDED`, `hyps-run tune` optimises them at `ORT_ENABLE_ALL`
([As fast as onnxruntime](guide/speed.md)). Measured with onnxruntime 1.32.0 on boards with cortex-a53 and cortex-a76 cores:
whole models, one input, without prepacking. Both processors got the same operators and gave the same bits.

| network | what is other at ALL | its output |
|---|---|---|
| SqueezeNet, CIFAR-10, ViT tiny | nothing | the same bits |
| MobileNetV2 | 10 of 52 Conv become FusedConv, which adds the shortcut | differs by 3e-6 of the largest |
| MobileNetV2 in 8 bits | 52 QLinearConv and the average pool have channels last; 2 Transpose | the same bits |

- No operator is of `com.microsoft.nchwc`, the layout on x86-64. So `hyps-run tune` says of the first two rows in one line
  that onnxruntime has no faster layout, ends with exit code 2, and writes nothing. Nor does it keep the fused additions:
  they are no layout, and would change bits.
- It tunes the network in 8 bits. The tuned bundle gives the bits of the untuned one. Whether that is faster on a real board
  was not measured.
- Bundles with an arena, with onnxruntime's default options and with compressed weights give, bit for bit, what the whole
  model gives on the board with the same options. Each stays below its predicted peak. So does a
  bundle for pictures (`--interface c`), whose answers are the same as with numpy. Emulated, weights are decompressed at
  160 MB/s, which says little of a real board.
- Float networks differ by 4e-7 to 7e-6 from x86-64. The network in 8 bits gives other numbers on x86-64 processors that have
  AVX2 and no VNNI: there onnxruntime adds pairs of 8-bit products in 16 bits, which overflow. With
  `session.x64quantprecision=1` these processors give the board's bits.

`make test-arm FAST=1` checks all of this but MobileNetV2, SqueezeNet and ViT tiny, on cortex-a53.
"""


def save_record(record: Record) -> None:
    """Keep a row's measurement."""
    _RECORDS.mkdir(parents=True, exist_ok=True)
    (_RECORDS / f"{record.key}.json").write_bytes(msgspec.json.encode(record))


def load_records(rows: Sequence[Row]) -> dict[str, Record]:
    """The last measurement of each row that has one, by key."""
    paths = {row.key: _RECORDS / f"{row.key}.json" for row in rows}
    return {key: msgspec.json.decode(path.read_bytes(), type=Record) for key, path in paths.items() if path.exists()}


def write_page(rows: Sequence[Row], records: Mapping[str, Record], versions: Mapping[str, str]) -> str:
    """Write the page; the table alone is returned."""
    table = _table(rows, records)
    dates = sorted(record.date for record in records.values())
    measured = [row for row in rows if row.key in records and records[row.key].seconds]
    available = {row.memory_mib: records[row.key].available_bytes for row in measured}
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(
        _TEXT.format(
            first=dates[0],
            last=dates[-1],
            cores=CORES,
            rate=CARD_BYTES_PER_S / 1e6,
            available=", ".join(f"{count / 1e6:.0f} MB are free on {memory}" for memory, count in available.items()),
            versions=", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
            host=_host(),
            table=table,
            tolerance=TOLERANCE,
        )
    )
    return table


def _table(rows: Sequence[Row], records: Mapping[str, Record]) -> str:
    table = Table(box=None, title="VGG16 (553 MB of weights); memory and reads in MB", title_justify="left")
    for column in ("board", "what", "result", *_COLUMNS):
        table.add_column(column, no_wrap=True, justify="right" if column in _COLUMNS else "left")
    for row in rows:
        if row.key in records:
            record = records[row.key]
            table.add_row(str(row.memory_mib), _what(row), record.result, *_cells(row, record))
    file = io.StringIO()
    Console(file=file, width=150, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _what(row: Row) -> str:
    return (
        _WHAT[row.mode] + (", overcommit" if row.overcommit else "") + (f", {row.images} images" if row.images > 1 else "")
    )


def _cells(row: Row, record: Record) -> list[str]:
    budget = str(row.budget_mb) if row.budget_mb else ""
    if not record.seconds:  # skipped
        return [budget, *[""] * (len(_COLUMNS) - 1)]
    sizes = (record.predicted_bytes, record.peak_bytes, record.anonymous_bytes, record.file_bytes, record.read_bytes)
    return [
        budget,
        *("" if nbytes is None else f"{nbytes / 1e6:.1f}" for nbytes in (*sizes, record.run_read_bytes)),
        str(record.major_faults),
        f"{record.seconds:.0f}",
        "" if record.run_s is None else f"{record.run_s:.0f}",
        "" if record.deviation is None else f"{record.deviation:.0e}",
    ]


def _host() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} cores of {cpu}, {run('qemu-system-aarch64', '--version').splitlines()[0]}"
