"""``make test-arm``: VGG16 whole and in bundles on emulated boards of 1024, 512 and 256 MB; keeps the table in docs/arm.md.

python -m tests.arm.main [ROW ...]    runs these rows alone; the others stay as they were measured last
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed

from rich.console import Console

from tests.arm.networks import Network
from tests.arm.parts import Parts, make_parts
from tests.arm.report import load_records, save_record, write_page
from tests.arm.rows import Record, Row, execute, judge, now, prepare
from tests.repository import BIN

NETWORK = Network("vgg16")
ROWS = (
    Row(memory_mib=1024, mode="inside", expected="killed"),
    Row(memory_mib=1024, mode="mapped"),
    Row(memory_mib=1024, mode="bundle", budget_mb=512),
    Row(memory_mib=512, mode="mapped", expected="fails"),
    Row(memory_mib=512, mode="mapped", overcommit=True),
    Row(memory_mib=512, mode="lean"),
    Row(memory_mib=512, mode="bundle", budget_mb=256),
    Row(memory_mib=256, mode="lean", expected="fails"),
    Row(memory_mib=256, mode="lean", overcommit=True),
    Row(memory_mib=256, mode="bundle", budget_mb=128),
    Row(memory_mib=256, mode="lean", overcommit=True, images=8),
    Row(memory_mib=256, mode="bundle", budget_mb=128, images=8),
)
#: Two boards at a time cost this machine's two cores no more time than one.
BOARDS_AT_ONCE = 2

out = Console(width=150, highlight=False)


def main(keys: list[str]) -> int:
    """Run the rows of these keys, or all; 1 when something came out otherwise than it must."""
    if unknown := set(keys) - {row.key for row in ROWS}:
        sys.exit(f"no row {', '.join(sorted(unknown))}; there are: {', '.join(row.key for row in ROWS)}")
    rows = [row for row in ROWS if not keys or row.key in keys]
    if not _has_batch():
        for row in (row for row in rows if row.images > 1):
            save_record(Record(key=row.key, result="skipped: no --batch yet", date=now()))
        rows = [row for row in rows if row.images == 1]
    parts = make_parts()
    out.print(f"boards with {', '.join(f'{name} {version}' for name, version in sorted(parts.versions.items()))}")
    for row in rows:
        prepare(row, NETWORK)  # here, because boards run in parallel and share disks
    NETWORK.reference()
    with ThreadPoolExecutor(BOARDS_AT_ONCE) as pool:
        for done in as_completed([pool.submit(_measure, row, parts) for row in rows]):
            record = done.result()
            out.print(f"{record.key:30} {record.result}, {record.seconds:.0f} s {' '.join(record.wrong)}")
    records = load_records(ROWS)
    out.print(write_page(ROWS, records, parts.versions))
    return 1 if any(record.wrong for record in records.values()) else 0


def _measure(row: Row, parts: Parts) -> Record:
    outcome = execute(row, NETWORK, parts)
    record = judge(row, outcome, prepare(row, NETWORK).predicted_bytes, NETWORK.reference())
    save_record(record)
    return record


def _has_batch() -> bool:
    """Whether the runtime can run several images partition by partition."""
    return "--batch" in subprocess.run([BIN / "hyps-run", "--help"], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
