"""Hold the sub-bundles that a worker has loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hyps.runtime.cluster.protocol.messages import Orders, SubBundleOrder, shorten
from hyps.runtime.cluster.scheduling.lifecycle import Event, LifeCycle
from hyps.runtime.cluster.transfer.file_cache import FileCache
from hyps.runtime.cluster.worker.runner import Backend, SubBundleRunner
from hyps.runtime.errors import RuntimeFault
from hyps.runtime.units import megabytes

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class LoadedSubBundle:
    """A loaded sub-bundle; ``busy`` counts the inputs that are being computed."""

    sha256: str
    runner: SubBundleRunner
    life: LifeCycle
    busy: int = 0


class LoadedSubBundles:
    """The sub-bundles of one worker by number; ``problem`` says why the last one that is missing could not be kept.

    ``say`` gets a line for the operator for each that is loaded or given back.
    """

    def __init__(self, name: str, backend: Backend, cache: FileCache, say: Callable[[str], None]) -> None:
        self._name, self._backend, self._cache, self._say = name, backend, cache, say
        self._loaded: dict[int, LoadedSubBundle] = {}
        self._last_computed: int | None = None
        self.problem: str | None = None

    def __contains__(self, number: int) -> bool:
        """Return whether a sub-bundle is loaded."""
        return number in self._loaded

    def get(self, number: int) -> LoadedSubBundle | None:
        """Return a sub-bundle, or None if it is not loaded."""
        return self._loaded.get(number)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of those that are loaded, in order."""
        return tuple(sorted(self._loaded))

    def load(self, orders: Orders, order: SubBundleOrder) -> LoadedSubBundle | None:
        """Fetch and load a sub-bundle; return None if that is not possible, and note the problem."""
        life = LifeCycle(f"sub-bundle {order.number}")
        life.apply(Event.PLACE)
        life.apply(Event.LOAD)
        try:
            runner = self._backend.open(self._cache.fetch(orders, order))
        except RuntimeFault as fault:
            self.problem = shorten(fault)
            _log.error("cannot load sub-bundle %d: %s", order.number, fault)
            return None
        life.apply(Event.LOADED)
        steps = runner.manifest.steps
        names = steps[0].name if len(steps) == 1 else f"{steps[0].name} to {steps[-1].name}"
        weight_bytes = sum(step.weights.size_bytes for step in steps if step.weights)
        self._say(f"{self._name} holds sub-bundle {order.number}: {names}, {megabytes(weight_bytes)} of weights")
        loaded = self._loaded[order.number] = LoadedSubBundle(sha256=order.sha256, runner=runner, life=life)
        return loaded

    def give_back(self, ordered: Mapping[int, SubBundleOrder]) -> None:
        """Unload every sub-bundle that is not ordered any more, or whose files have changed."""
        for number in [*self._loaded]:
            if number not in ordered or ordered[number].sha256 != self._loaded[number].sha256:
                self._unload(number)
                self._say(f"{self._name} gave sub-bundle {number} back")

    def unload_faulty(self) -> None:
        """Unload every sub-bundle that computes no more, and note the problem."""
        for number, loaded in [*self._loaded.items()]:
            if loaded.runner.fault:
                self.problem = shorten(loaded.runner.fault)
                _log.error("sub-bundle %d is lost: %s", number, loaded.runner.fault)
                self._unload(number)

    def take_turn(self, number: int) -> None:
        """Note that a sub-bundle computes next; if another did so last, it makes room."""
        if self._last_computed not in (None, number) and self._last_computed in self._loaded:
            self._loaded[self._last_computed].runner.make_room()
        self._last_computed = number

    def _unload(self, number: int) -> None:
        loaded = self._loaded.pop(number)
        loaded.life.apply(Event.LOSE)
        loaded.runner.close()
        self._last_computed = None if self._last_computed == number else self._last_computed
