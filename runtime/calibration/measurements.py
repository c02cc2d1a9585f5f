"""Measure this device: its memory, its storage, its compute rates, and the memory of the runtime itself.

Kaboubi (section 4.2.3.1) loads ever larger layers on a board until one fails, and takes that for the threshold. Here nothing
has to fail: the kernel says how much memory is available (a process may test it: `hyps.runtime.device.memory_probe`), a
process of the runtime shows how much of it the runtime needs, and the rest is for the network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hyps.runtime.device.available_memory import AvailableMemory, available_memory
from hyps.runtime.device.link_rates import HubMeasurements
from hyps.runtime.device.memory_probe import PIECE_BYTES, obtainable_bytes
from hyps.runtime.device.probes import Processor, StorageProbe, board, processor, storage
from hyps.runtime.errors import DeviceError

if TYPE_CHECKING:
    from hyps.runtime.calibration.baseline import Baseline
    from hyps.runtime.calibration.power import PowerProbe
    from hyps.runtime.calibration.rates import Rates
    from hyps.runtime.calibration.step_costs import StepCosts

HUB_STAGE = "the link to the hub"
#: `measure` announces each of these before it begins. The hub comes early, so that a wrong address is said at once.
MEASURING_STAGES = ("memory", HUB_STAGE, "storage", "compute", "the runtime's own memory", "power")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMeasurements:
    """The measured facts of a device; ``board`` is the firmware's name of it, ``folder`` is on the measured storage.

    ``decompression_bytes_per_s`` is None where zstandard is not installed, ``power`` where no meter or sensor shows it, and
    ``hub`` where none was named.
    """

    board: str | None
    memory: AvailableMemory
    folder: Path
    storage: StorageProbe
    processor: Processor
    rates: Rates
    steps: StepCosts
    decompression_bytes_per_s: int | None
    baseline: Baseline
    power: PowerProbe | None
    hub: HubMeasurements | None = None


def measure(
    folder: Path,
    *,
    test_memory: bool,
    announce: Callable[[str], None],
    meter: str | None = None,
    probe_hub: Callable[[], HubMeasurements] | None = None,
) -> DeviceMeasurements:
    """Measure this device in 10 to 30 s, and its power in half a minute more; storage is measured in ``folder``.

    With ``test_memory`` a process takes the available memory once. ``meter`` is a command that prints watts, ``probe_hub``
    measures the link to a hub and messages. Raises `DeviceError` where something cannot be measured, `EnergyError` for a
    meter that does not work, and `HubError` where the link cannot be measured.
    """
    stages = iter(measuring_stages(with_hub=probe_hub is not None))
    announce(next(stages))
    memory = available_memory()  # before this process takes some of it by its imports
    memory = obtainable_memory(memory) if test_memory else memory
    hub = None
    if probe_hub:
        announce(next(stages))
        hub = probe_hub()
    announce(next(stages))
    disk = storage(folder)
    from hyps.runtime.calibration.baseline import baseline
    from hyps.runtime.calibration.decompression import decompression_bytes_per_s
    from hyps.runtime.calibration.power import power
    from hyps.runtime.calibration.rates import conv_by_threads, rates
    from hyps.runtime.calibration.step_costs import step_costs

    announce(next(stages))
    cores = processor()
    speed = rates(cores.cores, cores.cache_bytes, memory.available_bytes)
    steps = step_costs(speed.threads)
    decompressed = decompression_bytes_per_s()
    announce(next(stages))
    own = baseline(speed.threads, memory.total_bytes)
    announce(next(stages))
    watts = power(cores.cores, meter, lambda threads: conv_by_threads((threads,), rounds=1))
    return DeviceMeasurements(
        board=board(),
        memory=memory,
        folder=folder,
        storage=disk,
        processor=cores,
        rates=speed,
        steps=steps,
        decompression_bytes_per_s=decompressed,
        baseline=own,
        power=watts,
        hub=hub,
    )


def measuring_stages(*, with_hub: bool) -> tuple[str, ...]:
    """Return the names of what `measure` announces, in order."""
    return tuple(stage for stage in MEASURING_STAGES if with_hub or stage != HUB_STAGE)


def obtainable_memory(memory: AvailableMemory) -> AvailableMemory:
    """Return the memory that a process could take: all that is available, or less.

    Raises `DeviceError` if it could take none.
    """
    obtained_bytes = obtainable_bytes(memory.available_bytes)
    if obtained_bytes == 0:
        problem = "a process that tried to take the available memory got none"
        raise DeviceError(problem, "stop other programs here, then try again")
    if obtained_bytes + PIECE_BYTES > memory.available_bytes:
        return dataclasses.replace(memory, bound=f"{memory.bound} (a process took all of it)")
    bound = "a process that took all it could in a minute"
    return dataclasses.replace(memory, available_bytes=obtained_bytes, bound=bound)
