"""Quantum-Train weights for any torch module that somebody else trains, such as the TD3 policy of the main agent.

Whoever trains the module sees an ordinary one with ordinary gradients. In place of its optimiser stands this: the
gradient of the weights is carried on to the angles and the mapping model, these take the step, and the module gets the
weights that they generate now. Target networks, published versions and exports hold plain weights and need no QPU.

Axis legend: M weights, T tensors of the module.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from learner.optimizers import adam_of
from learner.quantum_train.config import GeneratorConfig
from learner.quantum_train.generator import WeightGenerator
from learner.quantum_train.sources import ProbabilitySource


class GeneratedWeights:
    """Generator and optimiser of a module's weights; ``zero_grad`` and ``step`` as of a torch optimiser.

    Every tensor of the module keeps the spread that its own initialisation gave it: one width for all layers, as in the
    source's small policies, would drown the signal of wide ones. A tensor whose initialisation is one number throughout
    (the gains of a normalisation, a layer of zeros) has no spread to keep and means something by its value: it is
    trained directly.

    Weights are dealt out in a fixed random order instead of that of the module's parameters. Neighbours in a tensor
    share most of their binary digits: in order, the units of a layer come out alike, wide layers add them up, and a
    policy starts at the flat ends of its tanh (docs/dist-qtrl.md).

    The generator computes on the CPU; the module may be elsewhere.

    Args:
        module: its parameters that require a gradient are generated from now on.
        config: circuit and mapping; ``max_qubits`` keeps registers small where there are many weights.
        learning_rates: Adam's for the angles and for the mapping model.
        seed: of the generator's start and of the order.
        source: where probabilities come from; default: exact simulation.
        direct_learning_rate: Adam's for tensors that are trained directly; default: that of the mapping model.

    Raises:
        ValueError: if the module has nothing to generate.
    """

    def __init__(
        self,
        module: nn.Module,
        config: GeneratorConfig,
        *,
        learning_rates: tuple[float, float],
        seed: int,
        source: ProbabilitySource | None = None,
        direct_learning_rate: float | None = None,
    ) -> None:
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._direct = [parameter for parameter in trained if _is_constant(parameter)]
        self._parameters = [parameter for parameter in trained if not _is_constant(parameter)]
        self._sizes = [parameter.numel() for parameter in self._parameters]
        self.generator = WeightGenerator(sum(self._sizes), config, seed=seed, source=source)
        self._order = torch.randperm(self.num_weights, generator=torch.Generator().manual_seed(seed + 1))
        of_circuit, of_mapping = learning_rates
        groups = [([self.generator.angles], of_circuit), (list(self.generator.mapping.parameters()), of_mapping)]
        if self._direct:
            groups.append((self._direct, of_mapping if direct_learning_rate is None else direct_learning_rate))
        self._optimizer = adam_of(groups)
        with torch.no_grad():
            self.tensor_scales = self._matching_scales(self.generator()[self._order])
        self._weights: Tensor | None = None
        self.fill()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """As of a torch optimiser: angles, then mapping, then what is trained directly."""
        groups: list[dict[str, Any]] = self._optimizer.param_groups
        return groups

    @property
    def state(self) -> Any:
        """As of a torch optimiser."""
        return self._optimizer.state

    @property
    def num_weights(self) -> int:
        """Generated numbers M."""
        return self.generator.num_weights

    @property
    def num_trained(self) -> int:
        """Numbers that Adam moves: angles, mapping model, and what is trained directly."""
        return self.generator.num_trainable + sum(parameter.numel() for parameter in self._direct)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the module's gradients."""
        for parameter in [*self._parameters, *self._direct]:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def step(self) -> None:
        """Carry the module's gradients to angles and mapping, step there, generate anew."""
        gradient = torch.cat([_gradient_of(parameter) for parameter in self._parameters])
        for parameter in self.generator.parameters():
            parameter.grad = None
        if self._weights is None:
            self._weights = self._generate()
        self._weights.backward(gradient)  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.fill()

    def fill(self) -> None:
        """Give the module the weights of the present angles and mapping."""
        # Kept with its graph: the next step takes the gradient where the module's weights are, without asking again.
        self._weights = self._generate()
        with torch.no_grad():
            parts = torch.split(self._weights.detach(), self._sizes)
            for parameter, part in zip(self._parameters, parts, strict=True):
                parameter.copy_(part.view(parameter.shape))

    def state_dict(self) -> dict[str, Any]:
        """Generator, scales and optimiser."""
        return {
            "generator": self.generator.state_dict(),
            "tensor_scales": self.tensor_scales,
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave, and fill the module."""
        self.generator.load_state_dict(state["generator"])
        self.tensor_scales = state["tensor_scales"].clone()
        self._optimizer.load_state_dict(state["optimizer"])
        self.fill()

    def _generate(self) -> Float[Tensor, "M"]:
        weights: Tensor = self.generator()[self._order]
        return weights * self.tensor_scales.repeat_interleave(torch.tensor(self._sizes))

    def _matching_scales(self, generated: Float[Tensor, "M"]) -> Float[Tensor, "T"]:
        # A tensor of few numbers may come out near zero; the floor keeps its scale, and so its steps, in bounds.
        floor = 0.1 * _spread(generated) + 1e-12
        parts = torch.split(generated, self._sizes)
        pairs = zip(self._parameters, parts, strict=True)
        return torch.stack(
            [_spread(parameter).cpu() / torch.maximum(_spread(part), floor) for parameter, part in pairs]
        )


def _spread(values: Tensor) -> Tensor:
    """Root mean square."""
    spread: Tensor = values.detach().square().mean().sqrt()
    return spread


def _is_constant(parameter: nn.Parameter) -> bool:
    """Whether the tensor is one number throughout; a single drawn number is not known to be meant."""
    first = parameter.detach().reshape(-1)[0]
    is_single = parameter.numel() == 1 and float(first) not in (0.0, 1.0)
    return not is_single and bool((parameter.detach() == first).all())


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    return torch.zeros(parameter.numel()) if parameter.grad is None else parameter.grad.reshape(-1).cpu()
