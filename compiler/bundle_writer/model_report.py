"""Write and read ``report.json``: figures of the whole model, for the report of a bundle that was compiled from it.

Only ``hypsc report`` and ``hypsc plot`` read it. The manifest does not list it, so a device need not have it. Like every
file of a bundle it is not trusted: its size is bounded, its types are checked, and a hash ties it to its manifest.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from hyps.compiler.analysis import Analysis, SplitPoint, TypeRow
from hyps.passes.planning.plan import Plan
from hyps.runtime.bundle.manifest import MANIFEST_NAME, REPORT_NAME
from hyps.runtime.bundle.records.fields import Count, Record
from hyps.runtime.bundle.report_file import REPORT_LIMIT_BYTES, ReportFile, sealed_report
from hyps.runtime.errors import BundleError


class ModelReport(Record, frozen=True, kw_only=True):
    """The figures of a model before it was cut.

    ``names``, ``output_bytes`` and ``live_bytes`` have one entry per operator, in the model's own order; ``output_bytes``
    are the bytes that the operator writes. ``latency_s`` and ``storage_latency_s`` are the plan's estimated times,
    ``changes`` are its changes to operators, and ``inexact_reason`` is the plan's; without a plan they are None or empty.
    ``smallest_budget_bytes`` is the
    plan's, if there is one. The other figures are those of `hyps.compiler.analysis.Analysis`.
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
    inexact_reason: str | None = None
    storage_latency_s: float | None = None


def model_report(analysed: Analysis, plan: Plan | None) -> ModelReport:
    """Return the report of an analysed model, with the changes of its plan."""
    return ModelReport(
        multiply_adds=analysed.multiply_adds,
        process_bytes=analysed.process_bytes,
        start_bytes=analysed.start_bytes,
        resident_bytes=analysed.resident_bytes,
        peak_bytes=analysed.whole_peak_bytes,
        smallest_budget_bytes=analysed.smallest_budget_bytes,
        latency_s=plan.latency_s if plan else None,
        names=tuple(row.name for row in analysed.operators),
        output_bytes=tuple(row.activation_bytes for row in analysed.operators),
        live_bytes=tuple(row.live_bytes for row in analysed.operators),
        splits=analysed.splits,
        types=analysed.types,
        changes=tuple(f"{change.operator} is {change.what}: {change.why}" for change in plan.changes) if plan else (),
        inexact_reason=plan.inexact_reason if plan else None,
        storage_latency_s=plan.storage_latency_s if plan else None,
    )


def encode_model_report(report: ModelReport, manifest: bytes) -> bytes:
    """Return the file for the bundle whose manifest has these bytes."""
    return sealed_report(msgspec.json.encode(report), manifest)


def read_model_report(bundle: Path) -> ModelReport | None:
    """Return the report of a bundle whose manifest is readable, or None if the bundle has none.

    Raises `BundleError` for a file that is damaged or belongs to another bundle.
    """
    path = bundle / REPORT_NAME
    remedy = "compile the model again, or remove the file to have the report without the whole model"
    try:
        if not path.is_symlink() and not path.exists():
            return None
        if path.is_symlink() or not path.is_file() or path.stat().st_size > REPORT_LIMIT_BYTES:
            raise BundleError(f"{path} is not a regular file of at most {REPORT_LIMIT_BYTES} bytes; {remedy}")
        file = msgspec.json.decode(path.read_bytes(), type=ReportFile)
        if not file.belongs_to((bundle / MANIFEST_NAME).read_bytes()):
            raise BundleError(f"{path} was changed, or belongs to another bundle; {remedy}")
        report = msgspec.json.decode(file.whole, type=ModelReport)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}; {remedy}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: {error}; {remedy}") from None
    count = len(report.names)
    is_consistent = {count} == {len(report.output_bytes), len(report.live_bytes)}
    if not is_consistent or any(each.position > count for each in report.splits):
        raise BundleError(f"{path}: its figures do not match its operators; {remedy}")
    return report
