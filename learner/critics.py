"""Critics beyond the paper's segmented one: plain or residual, normalised or not, any number of them.

Axis legend: B batch, O observation, A action, E critics, K outputs of a head (1 or the number of bins).
Sources: thesis (learner/critic_config.py), Chapters 2 and 3 (LayerNorm, GroupNorm, residual blocks);
CrossQ (arXiv:1902.05605) for BatchNorm over both batches; FlashSAC's block for BatchNorm inside residuals.
"""

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from learner.config import AgentSpec
from learner.critic_config import CriticConfig
from learner.networks import TwinCritic
from learner.normed_critic_kernel import NormedCriticKernel
from learner.precision import in_float32
from learner.value_heads import ValueHead

_ALL_ROWS = slice(None)


class EnsembleCritic(nn.Module):
    """E critics of one kind, each a network of its own over (s, a); actions enter as fractions of their half-range."""

    def __init__(self, spec: AgentSpec, config: CriticConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
        self.register_buffer("action_scale", (high - low) / 2, persistent=False)
        self.register_buffer("action_center", (high + low) / 2, persistent=False)
        self.action_scale: Tensor
        self.action_center: Tensor
        sizes = spec.observation_size, spec.action_size
        # One for all critics, whose inputs are the same; gains of its own would only repeat the first layer's weights.
        is_normed = config.normalisation == "batch"
        self.input_norms = nn.ModuleList([_batch_norm(size, has_gains=False) for size in sizes] if is_normed else [])
        self.critics = nn.ModuleList([_make_network(sum(sizes), config, generator) for _ in range(config.num_critics)])
        self.kernel: NormedCriticKernel | None = None
        """Computes where set (make_normed_critic_kernel); weights then get their gradients in its ``step`` alone."""

    @property
    def networks(self) -> list[nn.Sequential]:
        """The critics, each from standardised (s, a) to the outputs of its head."""
        return [cast(nn.Sequential, critic) for critic in self.critics]

    def forward(
        self, observation: Float[Tensor, "B O"], action: Float[Tensor, "B A"], rows: slice = _ALL_ROWS
    ) -> Float[Tensor, "E R K"]:
        """Outputs of the heads of all critics, of some rows alone if asked; the others still count for BatchNorm."""
        inputs = self._inputs(observation, action)
        is_mixed = torch.is_autocast_enabled("cpu")
        if self.kernel is not None and (self.kernel.has_bfloat16 or not is_mixed):
            if not self.training:
                joint = torch.cat([part.detach() for part in inputs], dim=1)
                return self.kernel.climbed(joint, inputs[1], is_mixed=is_mixed)[:, rows]
            if not action.requires_grad:
                return self.kernel.outputs(torch.cat(inputs, dim=1), rows, is_mixed=is_mixed)
        return torch.stack([_outputs(critic, inputs, rows) for critic in self.critics])

    def first(self, observation: Float[Tensor, "B O"], action: Float[Tensor, "B A"]) -> Float[Tensor, "1 B K"]:
        """Output of the first critic's head alone."""
        return _outputs(self.critics[0], self._inputs(observation, action), _ALL_ROWS).unsqueeze(0)

    def _inputs(self, observation: Tensor, action: Tensor) -> tuple[Float[Tensor, "B O"], Float[Tensor, "B A"]]:
        scaled = (action - self.action_center) / self.action_scale
        if not self.input_norms:
            return observation, scaled
        observation_norm, action_norm = self.input_norms
        return observation_norm(observation), action_norm(scaled)


def _outputs(network: nn.Module, inputs: tuple[Tensor, Tensor], rows: slice) -> Float[Tensor, "R K"]:
    first, *hidden, head = network.children()
    first = cast(nn.Linear, first)
    observation, action = inputs
    size = observation.shape[1]
    # Two products and not one over both side by side: the policy's climb needs the gradient of the actions alone.
    stream = functional.linear(observation, first.weight[:, :size], first.bias)
    stream = torch.addmm(stream, action, first.weight[:, size:].t())
    for layer in hidden:
        stream = layer(stream)
    return in_float32(head, stream[rows])


class ResidualBlock(nn.Module):
    """x + f(norm(W₂ f(norm(W₁ x)))); without normalisation x + W₂ f(W₁ x), the thesis's Fig. 2.1."""

    def __init__(self, config: CriticConfig, generator: torch.Generator | None) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.hidden_size * config.expansion
        has_bias = config.normalisation == "none"
        self.expand = nn.Linear(width, inner, bias=has_bias)
        self.contract = nn.Linear(inner, width, bias=has_bias)
        self.inner_norm = _make_norm(inner, config, generator)
        self.outer_norm = _make_norm(width, config, generator)
        self._is_plain = has_bias

    def forward(self, inputs: Float[Tensor, "B H"]) -> Float[Tensor, "B H"]:
        """The stream after this block."""
        inner = functional.relu(self.inner_norm(self.expand(inputs)))
        change = self.outer_norm(self.contract(inner))
        return inputs + (change if self._is_plain else functional.relu(change))


class Dropout(nn.Module):
    """``nn.Dropout`` by random numbers of the learner's own, with which a checkpoint goes on.

    Args:
        share: of the inputs that are set to 0 while training; the others grow by 1 / (1 - share).
        generator: draws which; default: torch's own.
    """

    def __init__(self, share: float, generator: torch.Generator | None) -> None:
        super().__init__()
        self._share, self._generator = share, generator

    def forward(self, inputs: Float[Tensor, "B H"]) -> Float[Tensor, "B H"]:
        """Inputs with some of them taken out; as they are outside of training."""
        if not self.training:
            return inputs
        is_kept = torch.empty_like(inputs).bernoulli_(1 - self._share, generator=self._generator)
        return inputs * is_kept / (1 - self._share)


def normalise_rows_(critic: nn.Module) -> None:
    """Put the rows of hidden layers back to length 1, in place; heads and norms are left alone."""
    weights = [
        module.weight
        for network in critic.modules()
        if isinstance(network, nn.Sequential)
        for module in list(network.modules())
        if isinstance(module, nn.Linear) and module is not network[-1]
    ]
    with torch.no_grad():
        for weight in weights:
            weight.div_(weight.norm(dim=1, keepdim=True).clamp_min(1e-8))


def make_critic(
    spec: AgentSpec, config: CriticConfig, generator: torch.Generator | None = None
) -> TwinCritic | EnsembleCritic:
    """Critics of the configured architecture; ``generator`` draws what dropout takes out."""
    if config.architecture == "segmented":
        return TwinCritic(spec, config.hidden_size)
    critic = EnsembleCritic(spec, config, generator)
    if config.unit_rows:
        normalise_rows_(critic)
    return critic


def paired_outputs(
    critic: TwinCritic | EnsembleCritic,
    target_critic: TwinCritic | EnsembleCritic | None,
    config: CriticConfig,
    pair: tuple[Float[Tensor, "B O"], Float[Tensor, "B A"]],
    next_pair: tuple[Float[Tensor, "B O"], Float[Tensor, "B A"]],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Outputs of the critics at (s, a), and without gradient those of the targets at (s', ã).

    Args:
        critic: trained.
        target_critic: its soft copy; None where critics are their own targets.
        config: of the critics.
        pair: normalised observations and actions.
        next_pair: the same of the next step.
        generator: draws which critics make the target, where not all do.
    """
    if config.normalisation == "batch":
        # Both pairs pass together, so that one set of batch statistics holds for both (arXiv:1902.05605).
        joint = torch.cat([pair[0], next_pair[0]]), torch.cat([pair[1], next_pair[1]])
        now, later = slice(len(pair[0])), slice(len(pair[0]), None)
        if target_critic is None:
            both = critic(*joint)
            outputs, next_outputs = both.chunk(2, dim=1)
            if both.is_leaf and both.requires_grad:
                # Made by compiled kernels, whose step wants the gradient of the first half: a start of its own.
                outputs = outputs.detach().requires_grad_()
        else:
            with torch.no_grad():
                next_outputs = target_critic(*joint, later)
            outputs = critic(*joint, now)
    else:
        with torch.no_grad():
            next_outputs = (critic if target_critic is None else target_critic)(*next_pair)
        outputs = critic(*pair)
    if config.num_target_critics is not None and config.num_target_critics < config.num_critics:
        order = torch.randperm(config.num_critics, generator=generator, device=generator.device)
        next_outputs = next_outputs[order[: config.num_target_critics]]
    return outputs, next_outputs.detach()


def descend(
    critic: TwinCritic | EnsembleCritic,
    optimizer: torch.optim.Adam,
    loss: Float[Tensor, ""],
    outputs: Tensor,
    step: Callable[[], object] | None = None,
    *,
    has_unit_rows: bool = False,
) -> None:
    """One Adam step of the critics.

    Args:
        critic: which made ``outputs`` last.
        optimizer: of its parameters.
        loss: of the outputs.
        outputs: of the critics, with gradients recorded; a leaf if compiled kernels made them.
        step: moves the parameters by the gradients that they hold; default: the optimiser's own.
        has_unit_rows: whether rows of hidden layers are then put back to length 1.
    """
    if critic.kernel is not None and outputs.is_leaf:
        critic.kernel.step(optimizer, torch.autograd.grad(loss, outputs)[0])
        return
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    (step or optimizer.step)()
    if has_unit_rows:
        normalise_rows_(critic)


def climbed_value(
    critic: TwinCritic | EnsembleCritic,
    config: CriticConfig,
    head: ValueHead,
    observation: Float[Tensor, "B O"],
    action: Float[Tensor, "B A"],
) -> Float[Tensor, ""]:
    """Mean Q that the policy climbs; normalisations by their running statistics, no dropout."""
    critic.eval()
    values = head.values(critic.first(observation, action) if config.climbs == "first" else critic(observation, action))
    critic.train()
    return values.amin(dim=0).mean() if config.climbs == "min" else values.mean()


def _make_network(num_inputs: int, config: CriticConfig, generator: torch.Generator | None) -> nn.Sequential:
    width = config.hidden_size
    num_outputs = config.num_bins if config.head == "categorical" else 1
    layers: list[nn.Module] = []
    if config.architecture == "residual":
        layers.append(nn.Linear(num_inputs, width))
        layers.extend(ResidualBlock(config, generator) for _ in range(config.num_layers))
        if config.normalisation != "none":
            layers.append(nn.RMSNorm(width, elementwise_affine=False))
    else:
        sizes = [num_inputs] + [width] * config.num_layers
        for size in sizes[:-1]:
            # What a bias adds, BatchNorm takes away again.
            has_bias = config.normalisation != "batch"
            layers.extend([nn.Linear(size, width, bias=has_bias), _make_norm(width, config, generator), nn.ReLU()])
    layers.append(nn.Linear(width, num_outputs))
    if config.orthogonal:
        for module in nn.Sequential(*layers).modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight, gain=1.0 if module is layers[-1] else 2**0.5)
    return nn.Sequential(*layers)


def _make_norm(size: int, config: CriticConfig, generator: torch.Generator | None) -> nn.Module:
    norm: nn.Module = nn.Identity()
    if config.normalisation == "layer":
        norm = nn.LayerNorm(size)
    elif config.normalisation == "group":
        norm = nn.GroupNorm(config.num_groups, size)
    elif config.normalisation == "batch":
        norm = _batch_norm(size)
    return nn.Sequential(Dropout(config.dropout, generator), norm) if config.dropout else norm


def _batch_norm(size: int, *, has_gains: bool = True) -> nn.BatchNorm1d:
    # The running statistics serve the policy's climb alone; a hundred updates of memory follow the policy closely.
    return nn.BatchNorm1d(size, momentum=0.01, affine=has_gains)
