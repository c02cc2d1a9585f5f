"""Fixtures of the profiling tests: a real bundle's profile, and made-up measurements."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyps.runtime.profiling.measure_steps import profile_steps
from hyps.runtime.profiling.profile_file import StepProfileFile


@pytest.fixture(scope="session")
def layers_profile(layers: Path) -> StepProfileFile:
    """The profile of the CIFAR-10 network cut after every layer, with one thread."""
    return profile_steps(layers, (1,), 3)
