"""Define when a cluster decodes."""

from __future__ import annotations

from typing import Literal

#: Decode missing shards as soon as possible, when they are late, or only when their workers are lost.
Hedge = Literal["always", "late", "never"]
