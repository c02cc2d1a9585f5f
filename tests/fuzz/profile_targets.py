"""Give the readers of step profiles damaged files, and those of steps' contents damaged partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hyps.runtime.bundle.integrity import read_manifest
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.profiling.measure_steps import profile_steps
from hyps.runtime.profiling.profile_database import ProfileDatabase
from hyps.runtime.profiling.profile_file import read_step_profile
from hyps.runtime.profiling.step_content import step_contents
from hyps.runtime.profiling.step_seconds import ProfiledSeconds
from tests.fuzz.compiler_targets import small_bundle
from tests.fuzz.mutation import damaged_json
from tests.fuzz.target import Read, Target


def _profile_seeds(scratch: Path) -> Sequence[bytes]:
    return [msgspec.json.encode(profile_steps(small_bundle(scratch), (1,), 1))]


def _profile_reader(scratch: Path) -> Read:
    """Return a function that imports a damaged profile into a database, and predicts its steps."""
    path, base = scratch / "profile.json", scratch / "profiles.sqlite"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        profile = read_step_profile(path)
        base.unlink(missing_ok=True)
        database = ProfileDatabase(base)
        try:
            database.import_file(profile)
            measured = database.measurements()
        finally:
            database.close()
        known = ProfiledSeconds(measured)
        for each in measured:
            known.seconds_of(each.content, profile.board_class)
        known.regression(profile.board_class).predict(measured[0].content)

    return read


def _partition_seeds(scratch: Path) -> Sequence[bytes]:
    bundle = small_bundle(scratch)
    return [(bundle / step.model.path).read_bytes() for step in read_manifest(bundle).steps]


def _partition_reader(scratch: Path) -> Read:
    manifest = read_manifest(small_bundle(scratch))
    step = manifest.steps[0]

    def read(content: bytes) -> None:
        path = scratch / step.model.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        model = msgspec.structs.replace(step.model, size_bytes=len(content))
        damaged = msgspec.structs.replace(manifest, steps=(msgspec.structs.replace(step, model=model),))
        step_contents(scratch, damaged)

    return read


TARGETS: Mapping[str, Target] = {
    "profile": Target(seeds=_profile_seeds, reader=_profile_reader, mendable=(RuntimeFault,), damaged=damaged_json),
    "partition": Target(seeds=_partition_seeds, reader=_partition_reader, mendable=(RuntimeFault,)),
}
