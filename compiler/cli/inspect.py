"""``hypsc inspect``: print a bundle's contents and check that its files are complete."""

from __future__ import annotations

from collections.abc import Iterator

from hyps.compiler.cli import options
from hyps.compiler.cli.console import Console, counted, fact, print_json
from hyps.compiler.cli.steps import groups_table, reason_lines, step_groups, steps_table
from hyps.compiler.verdict import code_facts, exit_facts
from hyps.runtime.bundle.integrity import check_files, read_manifest
from hyps.runtime.bundle.manifest import Manifest, Preprocess
from hyps.runtime.terminal.console import show
from hyps.runtime.units import megabytes


def inspect_command(
    bundle: options.BundleArgument,
    steps: options.StepsOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    json: options.JsonOption = False,
) -> None:
    """Print a bundle's contents, and check its files' sizes and sha256."""
    console = Console(quiet=quiet, verbose=verbose)
    manifest = read_manifest(bundle)
    with console.progress("checking the sha256 of every file", None):
        check_files(bundle, manifest)
    console.explain(reason_lines(step_groups(manifest.steps)))
    if json:
        print_json(manifest)
    else:
        show(_contents(manifest, every_step=steps))


def _contents(manifest: Manifest, *, every_step: bool) -> Iterator[str]:
    model, target = manifest.model, manifest.target
    yield from fact("model", model.name)
    yield from fact("parameters", f"{model.parameters:,} ({megabytes(model.weight_bytes)} of weights)")
    yield from fact("target", f"{target.name}, {counted(target.threads, 'thread')}, {target.planned_library}")
    peak = max(step.peak_bytes for step in manifest.steps)
    yield from fact("peak", f"{megabytes(peak)} of {megabytes(manifest.budget_bytes)} (predicted)")
    yield from fact("answers", "bit for bit the whole model's" if manifest.exact else "not bit for bit the whole model's")
    for kind, names in (("input", manifest.inputs), ("output", tuple(output.name for output in manifest.outputs))):
        for name in names:
            record = manifest.tensors[name]
            yield from fact(kind, f"{name} {record.dtype}{list(record.shape)}")
    for code in code_facts(manifest):
        yield from fact("code", code)
    for text in exit_facts(manifest):
        yield from fact("exit", text)
    recipe = _recipe(manifest.preprocess) if manifest.preprocess else "none; inputs are .npy and .npz files"
    yield from fact("preprocessing", recipe)
    if manifest.video:
        size = f"{manifest.video.width} x {manifest.video.height} pixels"
        yield from fact("video", f"frames up to {size}; {megabytes(manifest.video.memory_bytes)} of each peak")
    yield from fact("labels", str(len(manifest.labels)) if manifest.labels else "none")
    yield ""
    yield from steps_table(manifest) if every_step else groups_table(step_groups(manifest.steps))


def _recipe(preprocess: Preprocess) -> str:
    """Describe the preprocessing in one line."""
    height, width = preprocess.size
    size = f"{width} x {height}"
    fitted = f"short side to {preprocess.resize}, cropped to {size}" if preprocess.resize else f"stretched to {size}"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (preprocess.mean, preprocess.std))
    scaled = f"(value x {preprocess.scale:.6g} - {mean}) / {std}"
    fitted = f"{preprocess.frames} frames, {fitted}" if preprocess.frames else fitted
    return f"{fitted}, {preprocess.interpolation}; {preprocess.colour}, {scaled}; {preprocess.dtype} {preprocess.layout}"
