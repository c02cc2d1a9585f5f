"""Sections of ``docs/early-exits.md``: beta between exits, weights of classes, slow storage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.bench.document import markdown
from tests.bench.exits_results import BetaResults, BetaRun, StorageRow, StorageRun, WeightedRun
from tests.bench.tables import Grid

BETAS = """\
The report's validation (its chapter 4): every exit costs 1, and beta between exits i and i + 1 is the reciprocal of the
difference of their losses (equation 4.1). Images should then end between exits i and i + 1 on average. The goal is that
every mean lies between. The equation does not say which loss, and a right answer is worth beta: only with the error rate do
both sides have one unit, and beta is where stopping all images at i, and all at i + 1, are worth the same. Where the deeper
exit's loss is larger, beta is negative: it punishes right answers, and images end at exit 1.

*Optimum* is found by backward induction. *Possible* are the betas of the plot for which the optimum's mean lies between the
two exits: where there are none, no choice of beta meets the goal for this network. *DQN* is the mean of the seeds printed;
it is trained for positive betas by the error rate alone."""
CLASSES = """\
The report's future work: errors on one class cost more. Every exit costs 1; beta is that between exits 1 and 2 by the error
rate, times 10 for the class whose errors fall most from exit 2 to the last on the images that policies are fitted to. Rates
of errors are of the test images, the mean of the seeds printed. A first try, 3 seeds, with class 3 and beta between exits 2
and 3, changed its errors from 46.9 to 45.6 %."""
STORAGE = """\
`hypsc exits attach` gives exits to networks with weights from a seed, fitted to 120 photographs of CIFAR-10, so that
accuracy means nothing here. Bundles for one thread run on storage of 60 MB/s (control groups). Before each inference the
kernel forgets the bundle's files, as a device would whose memory is the budget. Medians of 3 inferences after the first.

*Skipped* is the part of the whole schedule that an inference leaves out: of the bytes that the plan reads, of those that
the kernel read, and of the seconds. *Expected* seconds are the plan's bytes at 60 MB/s and the seconds of the same
inference with all files cached (-: not measured, so that no computing is expected). The goal is that bytes are skipped as
planned, and seconds as expected, within 5 % of the whole schedule's. VGG16 has a quarter of its weights as its budget; a
quarter of ResNet50's is less than Python takes."""
#: What may be skipped more or less than planned, as a part of the whole schedule.
WITHIN = 0.05


def grid(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    return markdown(Grid(title="", columns=columns, rows=tuple(rows)))


def beta_lines(results: BetaResults) -> Iterator[str]:
    """Yield the table of betas, and how many means are where they should be."""
    runs = results.runs
    names = tuple(dict.fromkeys(name for run in runs for name in run.mean_exit))
    rows = [
        (
            f"{run.loss}: {run.place} and {run.place + 1}",
            f"{run.beta:.4g}",
            *(_mean_exit(run, name) for name in names),
            ", ".join(f"{seed:.2f}" for seed in run.dqn_seeds) or "-",
            _possible(results, run.place),
        )
        for run in runs
    ]
    yield grid(("loss, exits", "beta", *names, "DQN's seeds", "possible"), rows)
    for loss in dict.fromkeys(run.loss for run in runs):
        chosen = [run for run in runs if run.loss == loss]
        measured = {name: [run for run in chosen if name in run.mean_exit] for name in names}
        inside = {name: sum(_is_between(run, name) for run in each) for name, each in measured.items() if each}
        counts = ", ".join(f"{name} {count} of {len(measured[name])}" for name, count in inside.items())
        yield f"Between the two exits, beta from the {loss}: {counts}."
    met = all(_is_between(run, name) for run in runs for name in run.mean_exit)
    highest = max(mean for _, mean, _ in results.curve)
    places = range(1, max(run.place for run in runs) + 1)
    impossible = [f"{place} and {place + 1}" for place in places if _possible(results, place) == "none"]
    yield f"The goal is {'met' if met else 'missed'}. For the largest beta the optimum's mean exit is {highest:.2f}" + (
        f": no beta makes it end between exits {', '.join(impossible)}, which are as accurate as those before."
        if impossible
        else "."
    )
    yield "![The mean exit by beta](early-exits/betas.svg)"


def _is_between(run: BetaRun, name: str) -> bool:
    return run.place <= run.mean_exit[name] <= run.place + 1


def _mean_exit(run: BetaRun, name: str) -> str:
    if name not in run.mean_exit:
        return "-"
    mean = f"{run.mean_exit[name]:.2f}"
    return mean if _is_between(run, name) else f"{mean}, outside"


def _possible(results: BetaResults, place: int) -> str:
    betas = [beta for beta, mean, _ in results.curve if place <= mean <= place + 1]
    if not betas:
        return "none"
    return f"{min(betas):.3g} to {max(betas):.3g}"


def class_lines(runs: Sequence[WeightedRun]) -> Iterator[str]:
    """Yield the errors without and with a weight, and whether those of the weighted class fall."""
    rows = [
        (
            f"{run.weight:g} on class {run.weighted_class}",
            f"{run.class_errors:.2%}",
            ", ".join(f"{seed:.2%}" for seed in run.seeds),
            f"{run.other_errors:.2%}",
            f"{run.mean_exit:.2f}",
        )
        for run in runs
    ]
    yield grid(("weight", "errors of the class", "its seeds", "errors of the others", "mean exit"), rows)
    plain, weighted = runs[0].class_errors, runs[-1].class_errors
    yield f"Errors of the weighted class change by {100 * (weighted - plain):+.2f} points."


def storage_lines(runs: Sequence[StorageRun]) -> Iterator[str]:
    """Yield a table for each bundle, and whether exits skip bytes and seconds as they should."""
    for run in runs:
        rates = f", exit rates {', '.join(f'{rate:g}' for rate in run.rates)}" if run.rates else ""
        yield f"**{run.network}**, {run.weight_bytes / 1e6:.0f} MB of weights in {run.budget_bytes / 1e6:.0f} MB{rates}"
        yield grid(_STORAGE_COLUMNS, [_storage_row(run, row) for row in run.rows])
        attached = f"; attaching took {run.attach_s:.0f} s" if run.attach_s else ""
        attached += f" and {run.attach_peak_bytes / 1e6:.0f} MB" if run.attach_peak_bytes else ""
        yield f"Peak {run.peak_bytes / 1e6:.0f} MB{attached}. {_verdict(run)}"
    pairs = [(a, b) for a in runs for b in runs if a.network == b.network and not a.rates and b.rates]
    for plain, rated in pairs:
        yield (
            f"{plain.network} compiled with exit rates reads {rated.expected_bytes / 1e6:.1f} MB an inference in the mean; "
            f"compiled without, {plain_expected(plain, rated.rates) / 1e6:.1f} MB."
        )


_STORAGE_COLUMNS = (
    "ends at",
    "plan reads, MB",
    "read, MB",
    "s",
    "cached, s",
    "skipped by plan",
    "bytes",
    "expected",
    "seconds",
)


def plain_expected(run: StorageRun, rates: Sequence[float]) -> float:
    """Return the bytes that the plan of a bundle reads in the mean, if inferences end at the exits at these rates."""
    parts = [*rates, 1 - sum(rates)]
    return sum(part * row.planned_bytes for part, row in zip(parts, run.rows, strict=True))


def _expected_s(run: StorageRun, row: StorageRow) -> float:
    return row.planned_bytes / run.read_bytes_per_s + (row.computing_s or 0.0)


def _skipped(run: StorageRun, row: StorageRow) -> tuple[float, float, float, float]:
    """Return the parts that are skipped: bytes by the plan, bytes as read, seconds as expected, seconds as measured."""
    whole = run.rows[-1]
    return (
        1 - row.planned_bytes / whole.planned_bytes,
        1 - row.storage_bytes / whole.storage_bytes,
        1 - _expected_s(run, row) / _expected_s(run, whole),
        1 - row.seconds / whole.seconds,
    )


def _storage_row(run: StorageRun, row: StorageRow) -> tuple[str, ...]:
    cached = "-" if row.computing_s is None else f"{row.computing_s:.2f}"
    figures = (f"{row.planned_bytes / 1e6:.1f}", f"{row.storage_bytes / 1e6:.1f}", f"{row.seconds:.2f}", cached)
    return (row.exit, *figures, *(f"{part:.1%}" for part in _skipped(run, row)))


def _verdict(run: StorageRun) -> str:
    found = [_skipped(run, row) for row in run.rows[:-1]]
    of_bytes, of_seconds = max(abs(a - b) for a, b, _, _ in found), max(abs(c - d) for _, _, c, d in found)
    is_met = max(of_bytes, of_seconds) <= WITHIN
    return (
        f"At most {100 * of_bytes:.1f} points of bytes and {100 * of_seconds:.1f} of seconds from that: "
        f"the goal is {'met' if is_met else 'missed'}."
    )
