"""What the REST interface takes and answers: its OpenAPI description is made of these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NameText = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Schema(BaseModel):
    """Base: nothing unknown is taken."""

    model_config = ConfigDict(extra="forbid")


class TargetView(Schema):
    """A device that 'hypsc' knows."""

    name: str
    title: str
    memory_bytes: int
    budget_bytes: int
    cores: int


class ModelFile(Schema):
    """A file of a model."""

    name: str
    size_bytes: int


class ModelLine(Schema):
    """A model that was uploaded."""

    name: str
    files: list[ModelFile]
    size_bytes: int


class BuildRequest(Schema):
    """Compile for a target, a budget, or both; with ``workers``, and without either, the smallest connected one's budget.

    ``dry_run``: plan only.
    """

    target: NameText | None = None
    memory_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 45)] | None = None
    workers: bool = False
    split: Literal["auto", "mandatory", "pooling", "layers"] = "auto"
    preprocess: Literal["imagenet", "imagenet-caffe", "tf", "cifar10", "raw"] | None = None
    dry_run: bool = False
    bundle: NameText | None = None


class PartitionLine(Schema):
    """A partition of a plan or a bundle."""

    name: str
    operators: list[str]
    inputs: list[str]
    outputs: list[str]
    weight_bytes: int
    activation_bytes: int
    peak_bytes: int
    leaving_bytes: int
    reason: str


class PlanView(Schema):
    """What compiling came to; ``exact``: bit for bit the whole model's results."""

    budget_bytes: int
    peak_bytes: int
    whole_peak_bytes: int
    smallest_budget_bytes: int
    latency_s: float
    exact: bool
    inexact_reason: str | None
    partitions: list[PartitionLine]


class Build(Schema):
    """A compilation, in a process of its own."""

    id: str
    model: str
    state: Literal["running", "done", "failed", "cancelled"]
    dry_run: bool
    bundle: str | None
    message: str | None = None
    plan: PlanView | None = None
    began_at: float
    seconds: float


class BundleLine(Schema):
    """A bundle."""

    name: str
    model: str
    target: str
    budget_bytes: int
    steps: int
    size_bytes: int
    served: bool


class BundleView(BundleLine):
    """A bundle and its partitions; ``photographs``: it takes images, not tensors alone."""

    partitions: list[PartitionLine]
    photographs: bool
    labels: int


class Served(Schema):
    """The bundle to serve."""

    bundle: NameText


class Homes(Schema):
    """The workers that hold each share, by its number; None: as the manager thinks best."""

    homes: dict[str, list[str]] | None


class WorkerView(Schema):
    """A board. ``seen_s``: seconds since it said anything, which it does twice a second."""

    name: str
    online: bool
    seen_s: float
    memory_bytes: int
    resident_bytes: int
    macs_per_s: int
    computed_per_s: float
    leases: int
    queue: int
    loading: list[int]
    loaded: list[int]
    group: int
    set_aside: bool
    drained: bool
    problem: str | None


class ShareView(Schema):
    """A run of steps, ``start`` to ``stop`` - 1, and how far each worker is with it."""

    number: int
    start: int
    stop: int
    first: str
    last: str
    homes: dict[str, str]
    waiting: int


class StatusView(Schema):
    """How the cluster is."""

    model: str | None
    bundle: str | None
    state: Literal["serving", "starting", "idle"]
    problem: str | None
    hub: bool
    jobs: int
    answered: int
    answered_per_s: float
    workers: list[WorkerView]
    shares: list[ShareView]


class ScoredView(Schema):
    """A class with its probability; no score where it is no finite number."""

    index: int
    label: str | None
    score: float | None


class SpanView(Schema):
    """A share of a job at a worker; seconds since the manager accepted the job (`hyps.runtime.cluster.scheduling.trace`)."""

    share: int
    worker: str
    first: str
    last: str
    sent_s: float
    compute_s: float | None
    begun_s: float | None
    done_s: float | None
    steps_s: list[float]


class JobView(Schema):
    """An input that is computed by the bundle that was served when it came."""

    id: str
    name: str
    bundle: str
    state: Literal["waiting", "running", "done", "failed"]
    reason: str | None = None
    top: list[ScoredView] = []
    submitted_at: float
    seconds: float | None = None
    spans: list[SpanView] = []


class Problem(Schema):
    """Why a request was not served, and what to do."""

    detail: str
