"""The whole model, for the report of a bundle that was made of it: ``report.json`` beside the manifest.

Only ``hypsc report`` and ``hypsc plot`` read it. The manifest does not list it, so that a device need not have it. Like all
of a bundle it is not trusted: it is bounded, its types are checked, and it says by a hash which manifest it belongs to.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, Literal

import msgspec

from hyps.compiler.analysis import Analysis, SplitPoint, TypeRow
from hyps.passes.planning.plan import Plan
from hyps.runtime.bundle.manifest import MANIFEST_NAME, REPORT_NAME, Count, Record, Sha256
from hyps.runtime.errors import BundleError

VERSION: Final = 1
#: That of 100,000 operators with long names stays below this many bytes.
REPORT_LIMIT_BYTES = 64 << 20


class WholeModel(Record, frozen=True, kw_only=True):
    """A model before it was cut. ``names`` to ``live_bytes`` have an entry for each operator, in the model's own order.

    ``output_bytes`` are what it puts out; the other figures are those of `hyps.compiler.analysis.Analysis`.
    ``latency_s`` is what the plan is estimated to take, ``changes`` what it made of operators; empty without a plan. With
    one, ``smallest_budget_bytes`` is what `hyps.passes.planning.plan.Plan` has.
    """

    multiply_adds: Count
    process_bytes: Count
    start_bytes: Count
    resident_bytes: Count
    peak_bytes: Count
    smallest_budget_bytes: Count | None
    latency_s: float | None
    names: tuple[str, ...]
    output_bytes: tuple[Count, ...]
    live_bytes: tuple[Count, ...]
    splits: tuple[SplitPoint, ...]
    types: tuple[TypeRow, ...]
    changes: tuple[str, ...]


class _File(Record, frozen=True, kw_only=True):
    """The file: ``sha256`` is that of the manifest's bytes followed by those of ``whole``."""

    version: Literal[1]
    sha256: Sha256
    whole: msgspec.Raw


def whole_model(found: Analysis, plan: Plan | None) -> WholeModel:
    """What is told of an analysed model, and of what its plan changed in it."""
    return WholeModel(
        multiply_adds=found.multiply_adds,
        process_bytes=found.process_bytes,
        start_bytes=found.start_bytes,
        resident_bytes=found.resident_bytes,
        peak_bytes=found.whole_peak_bytes,
        smallest_budget_bytes=found.smallest_budget_bytes,
        latency_s=plan.latency_s if plan else None,
        names=tuple(row.name for row in found.operators),
        output_bytes=tuple(row.activation_bytes for row in found.operators),
        live_bytes=tuple(row.live_bytes for row in found.operators),
        splits=found.splits,
        types=found.types,
        changes=tuple(f"{change.operator} is {change.what}: {change.why}" for change in plan.changes) if plan else (),
    )


def encode_whole(whole: WholeModel, manifest: bytes) -> bytes:
    """The file for the bundle whose manifest has these bytes."""
    body = msgspec.json.encode(whole)
    digest = hashlib.sha256(manifest + body).hexdigest()
    return msgspec.json.encode(_File(version=VERSION, sha256=digest, whole=msgspec.Raw(body))) + b"\n"


def read_whole(bundle: Path) -> WholeModel | None:
    """The whole model of a bundle whose manifest is readable; None where it was compiled without, or copied without.

    Raises `BundleError` for a file that is damaged or another bundle's.
    """
    path = bundle / REPORT_NAME
    mend = "compile the model again, or remove the file to have the report without the whole model"
    try:
        if not path.is_symlink() and not path.exists():
            return None
        if path.is_symlink() or not path.is_file() or path.stat().st_size > REPORT_LIMIT_BYTES:
            raise BundleError(f"{path} is no plain file of at most {REPORT_LIMIT_BYTES} bytes; {mend}")
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        digest = hashlib.sha256((bundle / MANIFEST_NAME).read_bytes() + bytes(file.whole)).hexdigest()
        if file.sha256 != digest:
            raise BundleError(f"{path} was changed, or is another bundle's; {mend}")
        whole = msgspec.json.decode(file.whole, type=WholeModel)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}; {mend}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: {error}; {mend}") from None
    count = len(whole.names)
    if {count} != {len(whole.output_bytes), len(whole.live_bytes)} or any(each.position > count for each in whole.splits):
        raise BundleError(f"{path}: its lists do not go together; {mend}")
    return whole
