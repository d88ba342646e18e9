"""What learning sees of the circuit: the surrogate, or on simulators the circuit itself; and how good the surrogate is.

Decides what step B1 fits the surrogate to and what steps B2 and B3 put in the circuit's place. Must never measure a
circuit: stored bits come with the batch, and exact means are computed (learner/exact_circuit.py).

Axis legend: B batch, R rows measured, O observation, A action, P circuit parameters, N bits.
Source: arXiv:2503.09119, Algorithm 1; ``targets``, ``fit_on`` and ``gradient`` other than the default are not in it.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from learner.config import BlockName
from learner.exact_circuit import ExactCircuit
from learner.networks import PolicyNetwork
from learner.surrogate_quality import bit_entropy, fit_quality, gradient_quality, num_measured_rows
from learner.surrogate_training import SurrogateTrainer
from learner.tensor_batch import TensorBatch
from qpu_service.circuit import CircuitShape


class CircuitModel:
    """Stands in for the circuit while training; call it with circuit parameters for differentiable expected bits.

    Args:
        block: a block with a circuit.
        shape: circuit size.
        trainer: of the surrogate; its configuration says what is fitted to what.
        generator: of the learner; draws the jitter, and nothing where there is none.
    """

    def __init__(
        self, block: BlockName, shape: CircuitShape, trainer: SurrogateTrainer, generator: torch.Generator
    ) -> None:
        self.trainer = trainer
        self.config = trainer.config
        self._block = block
        self.shape = shape
        self._generator = generator
        self._exact: ExactCircuit | None = None

    @property
    def exact(self) -> ExactCircuit:
        """The simulated circuit, made when it is first asked for."""
        if self._exact is None:
            self._exact = ExactCircuit(self._block, self.shape)
        return self._exact

    def __call__(self, circuit_parameters: Float[Tensor, "B P"]) -> Float[Tensor, "B N"]:
        """Expected bits in 0..1, differentiable in the circuit parameters."""
        if self.config.gradient == "exact":
            return self.exact.bit_means(circuit_parameters)
        expected: Tensor = self.trainer.surrogate(circuit_parameters)
        return expected

    def fit(self, batch: TensorBatch, policy: PolicyNetwork, target_policy: PolicyNetwork) -> dict[str, Tensor]:
        """Step B1 on one sampled batch.

        Args:
            batch: as sampled.
            policy: whose circuit parameters at s are fitted with ``fit_on=policy``.
            target_policy: the same at s'.

        Returns:
            Metrics; none where no surrogate is trained.
        """
        config = self.config
        if config.gradient == "exact":
            return {}
        circuit_parameters, targets = batch.circuit_parameters, batch.bits
        if config.fit_on == "policy":
            circuit_parameters = self._policy_parameters(batch, policy, target_policy)
        if not config.needs_simulator:
            return {"surrogate_loss": self.trainer.fit(circuit_parameters, targets)}
        means = self.exact.bit_means(circuit_parameters)
        targets = means if config.targets == "bit_means" else targets
        if config.tolerance is None:
            return {"surrogate_loss": self.trainer.fit(circuit_parameters, targets)}
        loss, count = self.trainer.fit_until(circuit_parameters, targets, bit_entropy(means), config.tolerance)
        return {"surrogate_loss": loss, "surrogate_tiny_batches": torch.tensor(float(count))}

    def _policy_parameters(
        self, batch: TensorBatch, policy: PolicyNetwork, target_policy: PolicyNetwork
    ) -> Float[Tensor, "2*B P"]:
        """Circuit parameters that steps B3 and B2 are about to ask for, moved a little in every direction."""
        with torch.no_grad():
            now, later = policy.encode(batch.observation), target_policy.encode(batch.next_observation)
            asked = torch.cat([now[0], later[0]])
        if not self.config.jitter_rad:
            return asked
        noise = torch.randn(asked.shape, generator=self._generator, device=asked.device)
        return asked + self.config.jitter_rad * noise

    def is_measured(self, update_step: int) -> bool:
        """Whether the surrogate is compared with the exact circuit at this update."""
        period = self.config.quality_period_updates
        return self.config.gradient == "surrogate" and period is not None and update_step % period == 0

    def measure(
        self,
        batch: TensorBatch,
        policy: PolicyNetwork,
        value: Callable[[Float[Tensor, "R O"], Float[Tensor, "R A"]], Float[Tensor, ""]],
    ) -> dict[str, Tensor]:
        """Quality of the surrogate on the first few rows of a batch; metrics as in learner/README.md.

        Args:
            batch: as sampled.
            policy: as it is; its circuit parameters of now are where steps B2 and B3 ask the surrogate.
            value: what step B3 climbs, of normalised observations and actions.
        """
        rows = num_measured_rows(self.shape.num_qubits)
        observation, surrogate = batch.observation[:rows], self.trainer.surrogate
        circuit_parameters, links = policy.encode(observation)
        weights = list(policy.pre.parameters()) if circuit_parameters.requires_grad else []
        here = fit_quality(surrogate, self.exact, circuit_parameters.detach())
        return {
            **fit_quality(surrogate, self.exact, batch.circuit_parameters[:rows]),
            "surrogate_policy_excess_loss": here["surrogate_excess_loss"],
            "surrogate_policy_mean_error": here["surrogate_mean_error"],
            **gradient_quality(
                surrogate,
                self.exact,
                circuit_parameters.requires_grad_(),
                loss=lambda output: -value(policy.normalise(observation), policy.decode(output, links.detach())),
                shape=self.shape,
                weights=weights,
            ),
        }
