"""A device whose storage is slower than decompression gets weights sooner if they are compressed."""

from __future__ import annotations

import pytest

from hyps.passes.calibration import calibrated, calibrated_bytes
from hyps.passes.device import DeviceRates

PART = calibrated("compressed_part")


@pytest.mark.parametrize(
    ("storage", "decompression", "memory", "expected", "cached"),
    [
        (22e6, 100e6, 1e9, 22e6 / PART, 100e6),  # storage is the bound, and decompression that of cached weights
        (90e6, 100e6, 1e9, 100e6, 100e6),  # decompression is the bound
        (90e6, 2e9, 1e9, 90e6 / PART, 1e9),
        (100e6, 100e6, 1e9, 100e6, 1e9),  # nothing is gained, so weights are stored as they are
        (500e6, 100e6, 1e9, 500e6, 1e9),
    ],
)
def test_rates(storage: float, decompression: float, memory: float, expected: float, cached: float) -> None:
    device = DeviceRates(storage_bytes_per_s=storage, decompression_bytes_per_s=decompression, memory_bytes_per_s=memory)
    assert (device.weights_bytes_per_s, device.cached_weights_bytes_per_s) == (storage, memory)
    compressed = device.with_compressed_weights()
    assert (compressed.weights_bytes_per_s, compressed.cached_weights_bytes_per_s) == pytest.approx((expected, cached))
    assert compressed.compresses_weights == (storage < decompression)
    more = calibrated_bytes("decompressor_bytes") if compressed.compresses_weights else 0
    assert compressed.process_bytes == device.process_bytes + more
    assert compressed.start_bytes == device.start_bytes + more
