"""Define what the REST interface accepts and returns; its OpenAPI description is generated from these classes.

A *sub-bundle* is called ``share`` here: the field names are part of the interface and stay.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

#: A name that is also a file's or a folder's name.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
NameText = Annotated[str, Field(min_length=1, max_length=100, pattern=NAME_PATTERN)]


class Schema(BaseModel):
    """The base of all schemas; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class TargetView(Schema):
    """A device that `hypsc` can compile for."""

    name: str = Field(description="The target's name, as `hypsc --target` takes it.")
    title: str = Field(description="The device's full name.")
    memory_bytes: int = Field(description="The device's memory in bytes.")
    budget_bytes: int = Field(description="The bytes that the whole runtime process may hold resident.")
    cores: int = Field(description="The number of processor cores.")


class ModelFile(Schema):
    """A file of an uploaded model."""

    name: str = Field(description="The file's name.")
    size_bytes: int = Field(description="The file's size in bytes.")


class ModelLine(Schema):
    """An uploaded model."""

    name: str = Field(description="The model's name.")
    files: list[ModelFile] = Field(description="The .onnx file, its external data and its labels.")
    size_bytes: int = Field(description="The size of all files in bytes.")


class BuildRequest(Schema):
    """A request to compile a model for a target, a budget, or the connected workers.

    Without `target` and `memory_bytes` the budget is that of the smallest connected worker.
    """

    target: NameText | None = Field(default=None, description="The device to compile for; GET /api/targets lists them.")
    memory_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 45)] | None = Field(
        default=None, description="The budget in bytes; it replaces the target's own."
    )
    workers: bool = Field(default=False, description="Whether the bundle must also fit the smallest connected worker.")
    split: Literal["auto", "mandatory", "pooling", "layers"] = Field(
        default="auto",
        description="Where to cut: least time, only where the budget requires it, after poolings, or after layers.",
    )
    preprocess: Literal["imagenet", "imagenet-caffe", "tf", "cifar10", "raw"] | None = Field(
        default=None, description="How a photograph becomes the model's input; null for a model that takes tensors only."
    )
    dry_run: bool = Field(default=False, description="Whether to plan only and write no bundle.")
    bundle: NameText | None = Field(default=None, description="The bundle's name; the model's name if null.")


class ReasonView(Schema):
    """Why a partition starts where it does."""

    kind: str = Field(description="What required the cut, in a word, such as `mandatory` or `optional`.")
    text: str = Field(description="The reason in words.")


class PartitionLine(Schema):
    """A partition of a plan or of a bundle."""

    name: str = Field(description="The partition's name, which begins with its number.")
    operators: list[str] = Field(description="The names of its operators, in order.")
    inputs: list[str] = Field(description="The tensors that it reads.")
    outputs: list[str] = Field(description="The tensors that it computes.")
    weight_bytes: int = Field(description="The bytes of its weights.")
    activation_bytes: int = Field(description="The largest sum of live activation bytes while it runs.")
    peak_bytes: int = Field(description="The predicted peak of the whole process while it runs.")
    leaving_bytes: int = Field(description="The bytes of the tensors that are live after it.")
    reason: ReasonView | None = Field(description="Why the network is cut before it.")


class PlanView(Schema):
    """The result of planning: the partitions, their memory and their time."""

    budget_bytes: int = Field(description="The budget that the plan keeps.")
    peak_bytes: int = Field(description="The highest predicted peak of all partitions.")
    whole_peak_bytes: int = Field(description="The predicted peak of the model run as one partition.")
    smallest_budget_bytes: int = Field(description="The smallest budget for which the model can be compiled.")
    latency_s: float = Field(description="The estimated seconds for one input on the target.")
    exact: bool = Field(description="Whether the results equal the whole model's, bit for bit.")
    inexact_reason: str | None = Field(description="Why the results may differ in the last bits; null if exact.")
    partitions: list[PartitionLine] = Field(description="The partitions, in the order in which they run.")


class Build(Schema):
    """A compilation, which runs in its own process."""

    id: str = Field(description="The compilation's identifier.")
    model: str = Field(description="The name of the model that is compiled.")
    state: Literal["running", "done", "failed", "cancelled"] = Field(description="Whether it runs, and how it ended.")
    dry_run: bool = Field(description="Whether it only plans.")
    bundle: str | None = Field(description="The name of the bundle; null for a dry run.")
    message: str | None = Field(default=None, description="Why it failed, in one line.")
    plan: PlanView | None = Field(default=None, description="The plan, once it is done.")
    began_at: float = Field(description="When it was requested, in seconds since 1970.")
    seconds: float = Field(description="How long it ran; 0 until it ends.")


class BundleLine(Schema):
    """A bundle in the library."""

    name: str = Field(description="The bundle's name.")
    model: str = Field(description="The name of the model that it was compiled from.")
    target: str = Field(description="The target that it was compiled for; `custom` for a plain budget.")
    budget_bytes: int = Field(description="The budget that it keeps, in bytes.")
    steps: int = Field(description="The number of its steps.")
    size_bytes: int = Field(description="The size of its files in bytes.")
    served: bool = Field(description="Whether the manager serves it now.")


class BundleView(BundleLine):
    """A bundle with its partitions."""

    partitions: list[PartitionLine] = Field(description="The partitions, in the order in which they run.")
    photographs: bool = Field(description="Whether it takes photographs as well as tensors.")
    labels: int = Field(description="The number of its class labels; 0 without labels.")


class Served(Schema):
    """The bundle to serve."""

    bundle: NameText = Field(description="The bundle's name; GET /api/bundles lists them.")


class Homes(Schema):
    """The workers that shall hold each sub-bundle."""

    homes: dict[str, list[str]] | None = Field(
        description="The names of the workers by the sub-bundle's number; null lets the manager place all of them."
    )


class WorkerView(Schema):
    """A worker, usually a board. It reports twice a second."""

    name: str = Field(description="The worker's name.")
    online: bool = Field(description="Whether the manager counts it as connected.")
    seen_s: float = Field(description="Seconds since its last message.")
    memory_bytes: int = Field(description="Its memory budget in bytes.")
    resident_bytes: int = Field(description="The bytes that its process holds resident.")
    macs_per_s: int = Field(description="Its measured speed in multiply-adds per second; 0 if not measured.")
    computed_per_s: float = Field(description="Sub-bundles that it computed per second, over the last ten seconds.")
    leases: int = Field(description="Inputs that it was sent and has not answered.")
    queue: int = Field(description="Messages that it has received and not read.")
    loading: list[int] = Field(description="The numbers of the sub-bundles that it is loading.")
    loaded: list[int] = Field(description="The numbers of the sub-bundles that it has loaded.")
    group: int = Field(description="The number of workers in the group that it manages; 0 for a single worker.")
    set_aside: bool = Field(description="Whether it is not used because its answers were wrong or it cannot load.")
    drained: bool = Field(description="Whether the operator keeps sub-bundles away from it.")
    problem: str | None = Field(description="What is wrong with it, in one line.")
    queues: list[int] = Field(
        description="How often, in the last minute, 0, 1, ... 9, or 10 and more inputs waited for it or were at it."
    )
    link_s: float | None = Field(description="The median seconds that its results travel; null if not known.")
    message_s: float | None = Field(
        description="The seconds that it works for a message that it receives or sends; null if not known."
    )


class ShareView(Schema):
    """A sub-bundle: the consecutive steps `start` to `stop` - 1, and the workers that hold them."""

    number: int = Field(description="The sub-bundle's number.")
    start: int = Field(description="Its first step.")
    stop: int = Field(description="The step after its last.")
    first: str = Field(description="The name of its first partition.")
    last: str = Field(description="The name of its last partition.")
    homes: dict[str, str] = Field(description="The state of its copy on each worker, by the worker's name.")
    waiting: int = Field(description="The number of jobs that wait for it.")
    dealt: bool = Field(description="Whether its workers share its inputs, each input going to one of them.")
    replaced: bool = Field(description="Whether no worker holds it and its result is decoded from others.")
    service_s: dict[str, float] = Field(description="The median seconds that each worker took for an input.")


class MoveView(Schema):
    """A change of the runs of steps under load."""

    ago_s: float = Field(description="Seconds since it was decided.")
    reason: str = Field(description="The figures that it was decided by.")
    before_per_s: float = Field(description="Jobs answered per second before it.")
    predicted_per_s: float = Field(description="The throughput of a full stream that was predicted.")
    after_per_s: float | None = Field(description="Jobs answered per second after it; null until that is measured.")


class RebalancingView(Schema):
    """Whether other runs of steps would be faster, by measured speeds."""

    mode: str = Field(description="`on`, `advise` or `off`.")
    reason: str = Field(description="Why steps stay or move.")
    present_per_s: float = Field(description="The present throughput of a full stream; 0 until all steps are measured.")
    best_per_s: float = Field(description="The best throughput of a full stream; 0 until all steps are measured.")
    bottleneck: str = Field(description="The name of the busiest worker, or empty.")
    phase: str | None = Field(description="The phase of the move under way: `loading`, `draining` or `settling`.")
    moves: list[MoveView] = Field(description="The last moves.")


class BoardPowerView(Schema):
    """The power of one board over the last minute."""

    name: str = Field(description="The worker's name, `manager`, or `manager and hub`.")
    watts: float = Field(description="Its average power.")
    idle_watts: float = Field(description="Its power without work.")
    estimated: bool = Field(description="Whether the figures are an estimate from idle and busy watts.")
    source: str = Field(description="Where the figures are from.")
    counted_with: str | None = Field(description="The board on the same machine whose figures hold this one's energy, too.")


class EnergyView(Schema):
    """What the boards take, and what one inference costs, over the last minute."""

    seconds: float = Field(description="The seconds that the figures cover.")
    answered: int = Field(description="The number of jobs answered in these seconds.")
    watts: float = Field(description="The average power of all boards that are known.")
    idle_watts: float = Field(description="The power of these boards without work.")
    static_joules: float | None = Field(
        description="The joules of one inference that the boards take without work, too; null if none was answered."
    )
    dynamic_joules: float | None = Field(description="The other joules of one inference; null if none was answered.")
    boards: list[BoardPowerView] = Field(description="The boards whose power is known.")
    unknown: list[str] = Field(description="The boards whose power is not known.")


class CodesView(Schema):
    """The work of codes since this bundle is served."""

    decoded: dict[str, int] = Field(description="How often each coded operator was decoded.")
    late: dict[str, int] = Field(description="How often a worker's shard was decoded because it was late, by worker.")
    wrong: dict[str, int] = Field(description="How many wrong answers the parity check found, by worker.")
    withdrawn: dict[str, int] = Field(description="How many answers a worker did not send as nobody needed them, by worker.")
    spared: dict[str, int] = Field(description="How many of the withdrawn answers it did not compute either, by worker.")
    coverage: list[str] = Field(description="Which boards may be lost, in words.")


class ExitsView(Schema):
    """Where the jobs ended that were answered since this bundle is served."""

    answered: dict[str, int] = Field(description="How many jobs each exit answered, in the order of the exits' depth.")
    begun: dict[str, int] = Field(description="How many offloaded jobs began behind each exit.")
    offloaded: dict[str, int] = Field(description="How many jobs' rests a tier above computed, by tier.")
    fell_back: int = Field(description="How many rests went up, and were computed here after all.")


class StatusView(Schema):
    """The state of the cluster."""

    model: str | None = Field(description="The name of the model that is served.")
    bundle: str | None = Field(description="The name of the bundle that is served.")
    state: Literal["serving", "starting", "idle"] = Field(description="`idle` means that no bundle is served.")
    problem: str | None = Field(description="Why nothing can be computed now, and what to do.")
    hub: bool = Field(description="Whether the manager has a connection to the hub.")
    jobs: int = Field(description="The number of jobs under way.")
    answered: int = Field(description="The number of jobs answered since this bundle is served.")
    answered_per_s: float = Field(description="Jobs answered per second, over the last ten seconds.")
    workers: list[WorkerView] = Field(description="The workers, those lost in the last ten minutes included.")
    shares: list[ShareView] = Field(description="The sub-bundles, in the order of their steps.")
    rebalancing: RebalancingView | None = Field(default=None, description="The rebalancing; null while nothing is served.")
    energy: EnergyView | None = Field(default=None, description="The boards' energy; null where no board's is known.")
    codes: CodesView | None = Field(default=None, description="What codes do; null where nothing is coded or copied.")
    exits: ExitsView | None = Field(default=None, description="Where jobs end; null for a bundle without early exits.")


class ScoredView(Schema):
    """A class with its score."""

    index: int = Field(description="The class's number.")
    label: str | None = Field(description="The class's label; null in a bundle without labels.")
    score: float | None = Field(description="The class's score; null where it is not a finite number.")


class SpanView(Schema):
    """The time that one sub-bundle of a job took on one worker, in seconds since the manager accepted the job."""

    share: int = Field(description="The sub-bundle's number.")
    worker: str = Field(description="The worker's name.")
    first: str = Field(description="The name of the sub-bundle's first partition.")
    last: str = Field(description="The name of the sub-bundle's last partition.")
    sent_s: float = Field(description="When the manager sent the first input.")
    compute_s: float | None = Field(description="How long the worker computed, by its own clock.")
    begun_s: float | None = Field(description="When the first output began to arrive.")
    done_s: float | None = Field(description="When the last output had arrived.")
    steps_s: list[float] = Field(description="How long each step took, in order.")


class JobExitView(Schema):
    """The early exit that answered a job."""

    output: str = Field(description="The exit's output.")
    number: int = Field(description="The exit's number, from 1 on.")
    count: int = Field(description="The number of exits, the last one included.")
    confidence: float = Field(description="The highest probability there.")
    steps_not_run: int = Field(description="The steps that were not needed.")
    at: str = Field(description="The tiers above that computed the rest; empty where none did.")


class JobView(Schema):
    """An input and its answer, computed by the bundle that was served when the input came."""

    id: str = Field(description="The job's identifier.")
    name: str = Field(description="The input's name, usually that of its file.")
    bundle: str = Field(description="The bundle that computes it.")
    state: Literal["waiting", "running", "done", "failed", "cancelled"] = Field(description="How far the job is.")
    reason: str | None = Field(default=None, description="Why it failed, in one line.")
    blocked: str | None = Field(
        default=None, description="Why nobody can compute it now, and what to do; null while it proceeds."
    )
    top: list[ScoredView] = Field(default=[], description="The five best classes, the best first.")
    submitted_at: float = Field(description="When it was submitted, in seconds since 1970.")
    exact: bool = Field(default=False, description="Whether nothing of its answer may be decoded.")
    seconds: float | None = Field(default=None, description="How long it took from its start to its answer.")
    decoded: list[str] = Field(default=[], description="The operators with values that were decoded from others.")
    error_bound: float = Field(
        default=0.0, description="The largest error of a decoded value, as a part of its operator's largest value; or 0."
    )
    exit: JobExitView | None = Field(default=None, description="Which exit answered; null without early exits.")
    spans: list[SpanView] = Field(default=[], description="Where the time went, by sub-bundle.")


class Problem(Schema):
    """A refusal."""

    detail: str = Field(description="Why the request was refused, and what to do, in one line.")


class HealthView(Schema):
    """The health of the manager."""

    hub: bool = Field(description="Whether the manager has a connection to the hub.")
