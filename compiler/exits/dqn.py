"""Learn a policy by deep Q-learning with experience replay (Seifeddine, section 3.4.2), and export it as ONNX.

This module needs stable-baselines3 and torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from hyps.compiler.exits.environment import ExitEnvironment
from hyps.compiler.exits.rewards import Episodes
from hyps.compiler.progress import Advance
from hyps.runtime.exits.state import ExitAction, ProbabilityOrder

#: Two hidden layers of so many neurons, and the decay of their weights. On some thousand recorded inputs, a network twice as
#: wide without decay learned the inputs by heart, and lost a sixth of the value on others.
HIDDEN, WEIGHT_DECAY = (32, 32), 1e-3


@dataclass(frozen=True, slots=True)
class LearnedValues:
    """A network from `state_vector` to the value of each action: pairs of weight [out, in] and bias, ReLU between."""

    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    order: ProbabilityOrder

    def torch_module(self) -> nn.Sequential:
        """Return the network in torch."""
        modules: list[nn.Module] = []
        for weight, bias in self.layers:
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.weight.data, linear.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
            modules += [linear, nn.ReLU()]
        return nn.Sequential(*modules[:-1])

    def to_onnx(self) -> ModelProto:
        """Return the network as ONNX: input ``state`` [1, n], output ``values`` [1, 3], in the order of `ExitAction`."""
        nodes, weights, value = [], [], "state"
        for number, (weight, bias) in enumerate(self.layers, start=1):
            names = [f"layer{number}.weight", f"layer{number}.bias"]
            weights += [numpy_helper.from_array(array, name) for array, name in zip((weight, bias), names, strict=True)]
            is_last = number == len(self.layers)
            out = "values" if is_last else f"layer{number}"
            nodes.append(helper.make_node("Gemm", [value, *names], [out], transB=1))
            if not is_last:
                nodes.append(helper.make_node("Relu", [out], [f"relu{number}"]))
                out = f"relu{number}"
            value = out
        width = self.layers[0][0].shape[1]
        graph = helper.make_graph(
            nodes,
            "exit_policy",
            [helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, width])],
            [helper.make_tensor_value_info("values", TensorProto.FLOAT, [1, len(ExitAction)])],
            weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        checker.check_model(model, full_check=True)
        return model


class _EpisodeLimit(BaseCallback):  # type: ignore[misc]
    """Stop after so many episodes, and count them."""

    def __init__(self, episodes: int, advance: Advance) -> None:
        super().__init__()
        self._left, self._advance = episodes, advance

    def _on_step(self) -> bool:
        if self.locals["dones"][0]:
            self._left -= 1
            self._advance(1)
        return self._left > 0


def learn_values(
    episodes: Episodes,
    order: ProbabilityOrder,
    count: int = 10_000,
    seed: int = 0,
    advance: Advance = lambda done: None,
) -> LearnedValues:
    """Learn the value of each action in ``count`` episodes; ``advance`` is called after each.

    The replay memory holds every step. Rewards are not discounted, so that a value is that of the whole inference.
    """
    torch.set_num_threads(1)
    environment = ExitEnvironment(episodes, order)
    most_steps = count * (len(episodes.recorded.names) - 1)
    agent = DQN(
        "MlpPolicy",
        environment,
        learning_rate=lambda left: 1e-5 + 1e-3 * max(0.0, left),
        buffer_size=most_steps,
        learning_starts=500,
        batch_size=256,
        gamma=1.0,
        train_freq=4,
        gradient_steps=1,
        target_update_interval=200,
        exploration_fraction=0.4,
        exploration_final_eps=0.05,
        policy_kwargs={"net_arch": list(HIDDEN), "optimizer_kwargs": {"weight_decay": WEIGHT_DECAY}},
        seed=seed,
        device="cpu",
    )
    agent.learn(most_steps, callback=_EpisodeLimit(count, advance))
    return LearnedValues(_unstandardised(cast(Any, agent.q_net).q_net, environment), order)


def _unstandardised(
    network: nn.Sequential, environment: ExitEnvironment
) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]:
    """Return the layers of a network whose first includes the standardisation of observations.

    Numbers that never varied get the weight 0.
    """
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    pairs = [(each.weight.detach().double().numpy(), each.bias.detach().double().numpy()) for each in linear]
    weight, bias = pairs[0]
    scaled = weight / environment.scale
    pairs[0] = scaled, bias - scaled @ environment.mean
    return tuple((first.astype(np.float32), second.astype(np.float32)) for first, second in pairs)
