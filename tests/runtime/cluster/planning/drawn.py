"""Draw small placement problems from a seed: chains and graphs with branches, unlike boards, slow links, little memory."""

from __future__ import annotations

import random

from hyps.runtime.cluster.planning.problem import HUB, Board, Fleet, NetworkLink, PlacedStep, SharedLink, Workload


def drawn_workload(random_: random.Random, steps: int, classes: int) -> Workload:
    """Return steps that read one or two tensors before them; some are shards of one operator."""
    tensor_bytes = {"input": random_.choice([1_000, 50_000, 400_000])}
    made: list[PlacedStep] = []
    while len(made) < steps:
        width = min(random_.choice([1, 1, 1, 2, 3]), steps - len(made))
        known = list(tensor_bytes)
        inputs = (known[-1],) if random_.random() < 0.6 else tuple(random_.sample(known, min(2, len(known))))
        alike = random_.random() < 0.5
        seconds, weights = random_.choice([0.01, 0.1, 0.5]), random_.choice([0, 2_000_000, 30_000_000])
        new = {}
        for _ in range(width):
            name = f"t{len(made)}"
            spread = 1.0 if alike else random_.uniform(0.5, 2)
            made.append(
                PlacedStep(
                    name=f"step{len(made)}",
                    seconds={f"c{number}": seconds * spread * (1 + number) for number in range(classes)},
                    weight_bytes=int(weights * spread),
                    working_bytes=random_.choice([1_000_000, 5_000_000]),
                    inputs=inputs,
                    outputs=(name,),
                )
            )
            new[name] = random_.choice([1_000, 100_000, 900_000]) if not alike else 10_000
        tensor_bytes |= new
    read = {name for step in made for name in step.inputs}
    outputs = tuple(name for step in made for name in step.outputs if name not in read)
    return Workload(
        steps=tuple(made),
        tensor_bytes=tensor_bytes,
        inputs=("input",),
        outputs=outputs,
        sessions_bytes=random_.choice([0, 500_000]),
    )


def drawn_fleet(random_: random.Random, boards: int, classes: int, *, pairs: bool = False) -> Fleet:
    """Return boards of a few kinds: with ``pairs``, some have links of their own, and some share one."""
    kinds = [
        (
            Board(
                name="",
                board_class=f"c{random_.randrange(classes)}",
                memory_bytes=random_.choice([20_000_000, 45_000_000, 100_000_000]),
                storage_bytes_per_s=random_.choice([10e6, 80e6]),
                idle_watts=random_.choice([0.5, 2.0]),
                busy_watts=random_.choice([2.0, 6.0]),
                message_s=random_.choice([0.0, 0.0005, 0.003]),
            ),
            NetworkLink(bytes_per_s=random_.choice([1e6, 11.75e6]), latency_s=random_.choice([0.0003, 0.0088])),
            NetworkLink(bytes_per_s=random_.choice([1e6, 11.75e6]), latency_s=0.0003),
        )
        for _ in range(classes)
    ]
    made: list[Board] = []
    links: dict[tuple[str, str], NetworkLink] = {}
    for number in range(boards):
        kind, up, down = random_.choice(kinds)
        name = f"b{number}"
        made.append(
            Board(
                name=name,
                board_class=kind.board_class,
                memory_bytes=kind.memory_bytes,
                storage_bytes_per_s=kind.storage_bytes_per_s,
                idle_watts=kind.idle_watts,
                busy_watts=kind.busy_watts,
                message_s=kind.message_s,
            )
        )
        links |= {(name, HUB): up, (HUB, name): down}
    shared = []
    if pairs:
        for one in made:
            for other in made:
                if one is not other and random_.random() < 0.3:
                    links[one.name, other.name] = NetworkLink(bytes_per_s=20e6, latency_s=0.0001)
        shared = [SharedLink(name="router", boards=frozenset(b.name for b in made[::2]), bytes_per_s=2e6, duplex=False)]
    return Fleet(boards=tuple(made), links=links, hub_watts=random_.choice([0.0, 3.0]), shared_links=tuple(shared))
