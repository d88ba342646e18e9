"""Quantum-Train weights for any torch module that somebody else trains, such as the TD3 policy of the main agent.

Whoever trains the module sees an ordinary one with ordinary gradients. In place of its optimiser stands this: the
gradient of the weights is carried on to the angles and the mapping model, these take the step, and the module gets the
weights that they generate now. Target networks, published versions and exports hold plain weights and need no QPU.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from learner.quantum_train.config import GeneratorConfig
from learner.quantum_train.generator import WeightGenerator
from learner.quantum_train.sources import ProbabilitySource


class GeneratedWeights:
    """Generator and optimiser of a module's weights; ``zero_grad`` and ``step`` as of a torch optimiser.

    Every tensor of the module keeps the spread that its own initialisation gave it: one width for all layers, as in the
    source's small policies, would drown the signal of wide ones.

    Args:
        module: its parameters that require a gradient are generated from now on.
        config: circuit and mapping; ``max_qubits`` keeps registers small where there are many weights.
        learning_rates: Adam's for the angles and for the mapping model.
        seed: of the generator's start.
        source: where probabilities come from; default: exact simulation.

    Raises:
        ValueError: if the module has nothing to train.
    """

    def __init__(
        self,
        module: nn.Module,
        config: GeneratorConfig,
        *,
        learning_rates: tuple[float, float],
        seed: int,
        source: ProbabilitySource | None = None,
    ) -> None:
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._sizes = [parameter.numel() for parameter in self._parameters]
        self.generator = WeightGenerator(sum(self._sizes), config, seed=seed, source=source)
        of_circuit, of_mapping = learning_rates
        self._optimizer = torch.optim.Adam(
            [
                {"params": [self.generator.angles], "lr": of_circuit},
                {"params": list(self.generator.mapping.parameters()), "lr": of_mapping},
            ]
        )
        with torch.no_grad():
            self._scale = self._matching_scale(self.generator())
        self.fill()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """As of a torch optimiser: angles, then mapping."""
        groups: list[dict[str, Any]] = self._optimizer.param_groups
        return groups

    @property
    def state(self) -> Any:
        """As of a torch optimiser."""
        return self._optimizer.state

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the module's gradients."""
        for parameter in self._parameters:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def step(self) -> None:
        """Carry the module's gradients to angles and mapping, step there, generate anew."""
        self._optimizer.zero_grad()
        gradient = torch.cat([_gradient_of(parameter) for parameter in self._parameters])
        (self.generator() * self._scale).backward(gradient)
        self._optimizer.step()
        self.fill()

    def fill(self) -> None:
        """Give the module the weights of the present angles and mapping."""
        with torch.no_grad():
            weights = self.generator() * self._scale
            for parameter, part in zip(self._parameters, torch.split(weights, self._sizes), strict=True):
                parameter.copy_(part.view(parameter.shape))

    def state_dict(self) -> dict[str, Any]:
        """Generator, scale and optimiser."""
        return {
            "generator": self.generator.state_dict(),
            "scale": self._scale,
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave, and fill the module."""
        self.generator.load_state_dict(state["generator"])
        self._scale = state["scale"].clone()
        self._optimizer.load_state_dict(state["optimizer"])
        self.fill()

    def _matching_scale(self, generated: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
        parts: Sequence[Tensor] = torch.split(generated, self._sizes)
        return torch.cat(
            [
                torch.full((parameter.numel(),), float(_spread(parameter) / (_spread(part) + 1e-12)))
                for parameter, part in zip(self._parameters, parts, strict=True)
            ]
        )


def _spread(values: Tensor) -> Tensor:
    """Root mean square."""
    return values.detach().square().mean().sqrt()


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    return torch.zeros(parameter.numel()) if parameter.grad is None else parameter.grad.reshape(-1)
