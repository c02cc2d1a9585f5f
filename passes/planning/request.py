"""Describe what the user asks of the planner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hyps.passes.device import DeviceRates
from hyps.passes.sharding.layouts import METHODS, Method

CutMode = Literal["auto", "mandatory", "pooling", "layers"]
Policy = Literal["auto", "output", "input", "spatial"]
Tile = Literal["auto", "off"]
HighestTier = Literal["auto", "arena", "lean"]
#: Stands for all outputs that look like exits, in the place of their names.
AUTO_EXITS = ("auto",)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedShard:
    """A horizontal split that the user names: ``operator`` into ``count`` shards by ``method``."""

    operator: str
    method: Method
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedCode:
    """A code that the user asks for: ``parity`` parity shards of ``operator``, which is split by ``method``."""

    operator: str
    parity: int
    method: Method = "output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The limits and options of a plan: a budget in bytes, the thesis's threshold in parameters, or both; the device.

    ``shards`` are split whatever the budget. ``codes`` are given parity shards. With ``tolerate`` so are, by that number,
    all operators that are split by output, and the largest ones (`hyps.passes.planning.coded_splits`). ``policy`` is the one
    method by which other operators may be split, or any.
    ``tile`` allows tiles of rows or heads where ``split`` is ``auto`` and there is a budget. ``tier`` is the highest of the
    tiers in `hyps.runtime.bundle.manifest.SessionRecord` that steps may have, ``auto`` any. ``images`` says that the
    runtime will decode pictures, which takes more memory than reading tensors, and ``video_bytes`` is what decoding a video
    takes while the network runs. ``tunable`` leaves room for the layouts of a
    processor in every step, so that all can be tuned. ``exits`` are the names of outputs at which an inference may end, or
    `AUTO_EXITS`, and ``exit_rates`` the parts of all inferences that end there (`hyps.passes.planning.exits`).
    """

    budget_bytes: int | None = None
    max_params: int | None = None
    split: CutMode = "auto"
    shards: tuple[RequestedShard, ...] = ()
    codes: tuple[RequestedCode, ...] = ()
    tolerate: int = 0
    policy: Policy = "auto"
    tile: Tile = "auto"
    tier: HighestTier = "auto"
    threads: int = 1
    images: bool = False
    video_bytes: int = 0
    tunable: bool = False
    device: DeviceRates = field(default_factory=DeviceRates)
    exits: tuple[str, ...] = ()
    exit_rates: tuple[float, ...] = ()

    @property
    def has_codes(self) -> bool:
        """Whether any operator may have parity shards."""
        return bool(self.codes) or self.tolerate > 0

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods by which operators may be split."""
        return METHODS if self.policy == "auto" else (self.policy,)

    @property
    def process_bytes(self) -> int:
        """The bytes that the runtime's process holds besides weights and activations."""
        return self.device.process_bytes + (self.device.images_bytes if self.images else 0) + self.video_bytes

    @property
    def start_bytes(self) -> int:
        """The most bytes that the runtime's process holds while it starts: no budget can be less."""
        return max(self.device.start_bytes, self.process_bytes)
