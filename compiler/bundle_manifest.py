"""Describe a plan, and the partitions that were written for it, as the manifest of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from msgspec import UNSET

from hyps.compiler.errors import OptionError
from hyps.compiler.jobs import Compilation
from hyps.compiler.model_io.load import LoadedModel
from hyps.compiler.preprocessing import read_labels, resolve_preprocess
from hyps.compiler.tolerance import rounds_to_codes
from hyps.compiler.video import video_record
from hyps.passes.graph import Graph
from hyps.passes.onnx_ops import RESHAPES
from hyps.passes.planning.planner import PlannedModel
from hyps.runtime.bundle.exits import exit_records
from hyps.runtime.bundle.manifest import FORMAT_VERSION, Manifest, ModelRecord
from hyps.runtime.bundle.records.preprocessing import Preprocess
from hyps.runtime.bundle.records.steps import Step
from hyps.runtime.bundle.records.target import TargetRecord
from hyps.runtime.bundle.records.tensors import OutputRecord, TensorRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleTensors:
    """The records of a bundle's inputs, outputs and boundary tensors, and what its input and output stand for."""

    records: dict[str, TensorRecord]
    preprocess: Preprocess | None
    labels: tuple[str, ...] | None


def bundle_tensors(job: Compilation, planned: PlannedModel) -> BundleTensors:
    """Return what a manifest says of tensors. Raises `OptionError` for preprocessing or labels that do not fit them."""
    graph = planned.graph
    records = {name: _tensor_record(graph, name) for name in _boundary(planned)}
    return BundleTensors(records=records, preprocess=_preprocess(job, graph, records), labels=_labels(job, graph, records))


def bundle_manifest(
    job: Compilation,
    loaded: LoadedModel,
    planned: PlannedModel,
    tensors: BundleTensors,
    steps: tuple[Step, ...],
    model_sha256: str,
) -> Manifest:
    """Return the manifest of a plan whose partitions are written.

    Raises `OptionError` for a bundle that was planned for the C interface, which cannot run it.
    """
    graph = planned.graph
    manifest = Manifest(
        version=FORMAT_VERSION,
        created_by=f"hyps {version('hyps')}",
        model=ModelRecord(
            name=loaded.name,
            sha256=model_sha256,
            parameters=loaded.parameters,
            weight_bytes=loaded.weight_bytes,
        ),
        target=TargetRecord(
            name=job.target_name,
            threads=job.request.threads,
            onnxruntime=job.request.device.onnxruntime,
            interface="c" if job.request.device.interface == "c" else UNSET,
            power=job.power or UNSET,
        ),
        budget_bytes=planned.plan.budget_bytes,
        huge_pages=planned.plan.huge_pages,
        wide_code=planned.plan.wide_code or UNSET,
        exact=planned.plan.exact,
        is_bounded=False if rounds_to_codes(graph) and not planned.plan.exact else UNSET,
        inputs=graph.inputs,
        outputs=tuple(
            OutputRecord(
                name=name,
                probabilities=ends_in_softmax(graph, name) or name in loaded.classes,
                classes=_classes(loaded, tensors.records, name),
            )
            for name in graph.outputs
        ),
        tensors=tensors.records,
        steps=steps,
        preprocess=tensors.preprocess,
        labels=tensors.labels,
        activations=planned.plan.activations or UNSET,
        codes=planned.codes,
        exits=exit_records(steps, planned.exits, planned.exit_rates),
        video=video_record(job) or UNSET,
    )
    _check_interface(job, manifest)
    return manifest


def _check_interface(job: Compilation, manifest: Manifest) -> None:
    """Raise `OptionError` for a bundle that the C interface cannot run, and that was planned for it."""
    if manifest.target.planned_interface == "c" and (job.custom_ops or not manifest.takes_pictures_alone):
        found = "custom operators" if job.custom_ops else "strings, rare types, or tables that are read by rows"
        raise OptionError(f"the bundle has {found}: not for onnxruntime's C interface; leave --interface c out")


def _boundary(planned: PlannedModel) -> dict[str, None]:
    """Return the names of every tensor that the manifest describes: inputs, outputs, and tensors that cross a cut."""
    crossing = (name for part in planned.plan.partitions for name in (*part.inputs, *part.outputs))
    return dict.fromkeys((*planned.graph.inputs, *crossing, *planned.graph.outputs))


def _tensor_record(graph: Graph, name: str) -> TensorRecord:
    return TensorRecord(dtype=graph.tensors[name].dtype, shape=graph.tensors[name].shape)


def _classes(loaded: LoadedModel, tensors: Mapping[str, TensorRecord], name: str) -> tuple[str, ...]:
    """Return the classes of an output that was a sequence of maps, where there is one for each score."""
    classes = loaded.classes.get(name, ())
    return classes if len(classes) == next(reversed(tensors[name].shape), 0) else ()


def _preprocess(job: Compilation, graph: Graph, records: Mapping[str, TensorRecord]) -> Preprocess | None:
    if job.preprocess is None:
        return None
    if len(graph.inputs) != 1:
        raise OptionError(
            f"--preprocess: the model has {len(graph.inputs)} inputs, and an image is one; leave it out, use .npz files"
        )
    (name,) = graph.inputs
    return resolve_preprocess(job.preprocess, name, records[name], takes_clips=job.video is not None)


def _labels(job: Compilation, graph: Graph, records: Mapping[str, TensorRecord]) -> tuple[str, ...] | None:
    if job.labels is None:
        return None
    shape = records[graph.outputs[0]].shape
    return read_labels(job.labels, max(shape, default=1))


def ends_in_softmax(graph: Graph, output: str) -> bool:
    """Return whether a softmax computes this output, apart from reshaping."""
    writer = {name: operator for operator in graph.operators for name in operator.outputs}
    while output in writer and writer[output].op_type in RESHAPES and writer[output].inputs:
        output = writer[output].inputs[0]
    return output in writer and writer[output].op_type == "Softmax"
