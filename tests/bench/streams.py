"""A stream of images through the cluster: several in flight, outputs in the order of the inputs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from numpy.typing import NDArray

from hyps.runtime.cluster.client import ClusterEngine
from hyps.runtime.executor import Outputs
from tests.runtime.cluster.devices import Devices


def stream(devices: Devices, inputs: Iterable[Mapping[str, NDArray[Any]]], window: int = 8) -> Iterator[Outputs]:
    """As many engines as images in flight, each on a thread of its own; to go when `ClusterEngine` has streams."""
    local = threading.local()
    with ExitStack() as stack, ThreadPoolExecutor(window) as pool:

        def run(each: Mapping[str, NDArray[Any]]) -> Outputs:
            if not hasattr(local, "engine"):
                local.engine = devices.engine()
                stack.callback(local.engine.close)
            engine: ClusterEngine = local.engine
            return engine.run(each)

        under_way: deque[Future[Outputs]] = deque()
        try:
            for each in inputs:
                under_way.append(pool.submit(run, each))
                if len(under_way) >= window:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()
