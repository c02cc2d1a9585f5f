"""Define what an operator chooses for a cluster, and how long its manager waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hyps.runtime.cluster.codes.options import Hedge
from hyps.runtime.cluster.codes.served import outvoted

if TYPE_CHECKING:
    from hyps.runtime.cluster.manager.energy import OwnBoard
    from hyps.runtime.cluster.placement.choice import PlacementObjective


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The waiting times of one manager, in seconds.

    - ``settle_s``: after a worker came or went, before the bundle is placed: more may follow.
    - ``startup_s``: after the start, in which a job waits for the first worker; later it is refused.
    - ``silence_s``: after the hub was gone, until a worker that has said nothing counts as lost. A worker's keepalive and
      the time to connect again fit in.
    - ``load_retry_s``: until a worker that could not load a sub-bundle is asked to try again.
    - ``obey_s``: until a worker that has not answered its orders is set aside.
    - ``load_s``: until a worker that has not loaded its sub-bundles is set aside, without the time that their files take.
    - ``status_expiry_s``: until the hub forgets the last status, so that nobody believes that of a manager that is gone.
    """

    settle_s: float = 2.0
    startup_s: float = 5.0
    silence_s: float = 15.0
    load_retry_s: float = 5.0
    obey_s: float = 20.0
    load_s: float = 180.0
    status_expiry_s: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """An operator's choices for one cluster.

    Each sub-bundle is on ``replicas`` workers, and the first result wins; with ``votes``, as many results are compared. The
    shards of a code that finds as many wrong results are on one worker each, and compared with its parity shards.
    Only ``safe`` workers may see the model's inputs; None allows all. A worker has ``lease_s`` seconds for a sub-bundle.
    With ``compress``, tensors travel compressed. ``placement``: "pipeline" has one worker for each step; "best" has
    data-parallel replicas, too, where a stream is faster with them. ``objective`` is what the placement is best for.
    ``rebalance``: whether runs of steps move when measured speeds say that others are better, or the manager only says so.
    What workers measure is kept in the database ``profiles``, if there is one.
    ``own_board`` follows the energy of the manager's own board.

    Any ``tolerate`` workers may be lost where a bundle has codes for so many, and elsewhere by so many more copies. A coded
    group's missing shards are decoded when they are lost and, by ``hedge``, as soon as they can be (always), when they are
    ``straggler_s`` seconds late (late; None: by what groups took before), or only then (never). With ``exact``, no result is
    decoded: parity shards are not used.
    """

    least_workers: int = 1
    replicas: int = 1
    votes: int = 1
    safe: frozenset[str] | None = None
    lease_s: float = 120.0
    compress: bool = False
    placement: Literal["pipeline", "best"] = "pipeline"
    objective: PlacementObjective = "throughput"
    rebalance: Literal["off", "advise", "on"] = "off"
    profiles: Path | None = None
    own_board: OwnBoard | None = None
    tolerate: int = 0
    hedge: Hedge = "late"
    straggler_s: float | None = None
    exact: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)

    @property
    def margin(self) -> int:
        """How many results more than a code needs must agree, so that they stand in for a vote."""
        return outvoted(self.votes)

    @property
    def copies(self) -> int:
        """The number of workers that hold each sub-bundle that is not a shard of a coded group."""
        return max(self.replicas, self.votes, self.tolerate + 1)
