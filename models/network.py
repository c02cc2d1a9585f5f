"""Describe one entry of the catalogue of networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hyps.models.layers import Compose


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One entry of the catalogue.

    ``parameters`` counts what training would learn, ``statistics`` the running means and variances of batch
    normalisation. A network without ``compose`` is trained and lies in the package as ``<name>.onnx``.
    """

    name: str
    description: str
    parameters: int
    statistics: int = 0
    input_name: str = "image"
    input_dtype: Literal["float32", "int64"] = "float32"
    input_shape: tuple[int, ...] = (1, 3, 224, 224)
    preprocess: Literal["imagenet", "cifar10"] | None = "imagenet"
    compose: Compose | None = None
    quantised_from: str | None = None
    int8_bytes: int = 0

    @property
    def trained(self) -> bool:
        """Whether the weights are learned, so that the classes mean something."""
        return self.compose is None and self.quantised_from is None

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights, running statistics included: float32 unless quantised, then without the scales."""
        return self.int8_bytes or 4 * (self.parameters + self.statistics)
