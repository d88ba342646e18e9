"""Other TD3 learners at the same classical sizes, each in a process of its own that is told when to work.

    python benchmarks/learner_peers.py sb3|cleanrl --threads N --batch-size B --observation-size O --action-size A

prints one JSON line when it is ready, then reads the number of updates of a round from each line of its input and
answers with one JSON line: ``{"wall": seconds, "cpu": seconds}``. Nothing of this project is imported, so any Python
with torch (and, for ``sb3``, stable-baselines3) can run it. A round draws its batches from the peer's own buffer.

- ``sb3``: ``TD3.train`` of Stable-Baselines3, its defaults, ``net_arch=[256, 256]``.
- ``cleanrl``: an update as CleanRL's ``td3_continuous_action.py`` writes it: two critics one after the other, one
  Adam over both, policy and targets on every second update with a Python loop over the parameters, buffer in numpy.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Round = Callable[[int], None]
_WIDTH = 256
_BUFFER_ROWS = 20_000


def sb3(sizes: argparse.Namespace) -> Round:
    """Stable-Baselines3 on a buffer of random transitions."""
    import gymnasium
    from stable_baselines3 import TD3
    from stable_baselines3.common.logger import configure

    class Sizes(gymnasium.Env[Any, Any]):  # type: ignore[misc]
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (sizes.observation_size,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (sizes.action_size,), np.float32)

    model = TD3(
        "MlpPolicy", Sizes(), policy_kwargs={"net_arch": [_WIDTH, _WIDTH]}, buffer_size=_BUFFER_ROWS, device="cpu"
    )
    model.set_logger(configure(format_strings=[]))
    columns = _columns(sizes)
    for row in range(_BUFFER_ROWS):
        observation, action, reward, next_observation, terminated = (column[row : row + 1] for column in columns)
        model.replay_buffer.add(observation, next_observation, action, reward, terminated, [{}])

    def work(updates: int) -> None:
        model.train(gradient_steps=updates, batch_size=sizes.batch_size)

    return work


def cleanrl(sizes: argparse.Namespace) -> Round:
    """Plain torch in the style of CleanRL, with its defaults: τ 0.005, γ 0.99, lr 3e-4, noise 0.2 clipped at 0.5."""

    def network(inputs: int, outputs: int) -> nn.Sequential:
        layers = (nn.Linear(inputs, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU())
        return nn.Sequential(*layers, nn.Linear(_WIDTH, outputs))

    actor, target_actor = (network(sizes.observation_size, sizes.action_size) for _ in range(2))
    critics = [network(sizes.observation_size + sizes.action_size, 1) for _ in range(4)]
    for target, source in ((target_actor, actor), (critics[2], critics[0]), (critics[3], critics[1])):
        target.load_state_dict(source.state_dict())
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=3e-4)
    critic_optimizer = torch.optim.Adam([*critics[0].parameters(), *critics[1].parameters()], lr=3e-4)
    columns, rng = _columns(sizes), np.random.default_rng(1)
    step = 0

    def update(batch: Sequence[Tensor]) -> None:
        nonlocal step
        step += 1
        observation, action, reward, next_observation, terminated = batch
        with torch.no_grad():
            noise = (torch.randn_like(action) * 0.2).clamp(-0.5, 0.5)
            next_action = (torch.tanh(target_actor(next_observation)) + noise).clamp(-1.0, 1.0)
            joint = torch.cat([next_observation, next_action], 1)
            next_q = torch.min(critics[2](joint), critics[3](joint)).view(-1)
            target = reward + (1 - terminated) * 0.99 * next_q
        joint = torch.cat([observation, action], 1)
        loss = functional.mse_loss(critics[0](joint).view(-1), target)
        loss = loss + functional.mse_loss(critics[1](joint).view(-1), target)
        critic_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        critic_optimizer.step()
        if step % 2 == 0:
            actor_loss = -critics[0](torch.cat([observation, torch.tanh(actor(observation))], 1)).mean()
            actor_optimizer.zero_grad()
            actor_loss.backward()
            actor_optimizer.step()
            for source, copy in ((actor, target_actor), (critics[0], critics[2]), (critics[1], critics[3])):
                for parameter, target_parameter in zip(source.parameters(), copy.parameters(), strict=True):
                    target_parameter.data.copy_(0.005 * parameter.data + 0.995 * target_parameter.data)

    def work(updates: int) -> None:
        for _ in range(updates):
            rows = rng.integers(0, _BUFFER_ROWS, sizes.batch_size)
            update([torch.from_numpy(column[rows]) for column in columns])

    return work


def _columns(sizes: argparse.Namespace) -> tuple[np.ndarray, ...]:
    """Random observation, action, reward, next observation, terminated."""
    rng = np.random.default_rng(0)
    observation, next_observation = (
        rng.standard_normal((_BUFFER_ROWS, sizes.observation_size), np.float32) for _ in range(2)
    )
    action = rng.uniform(-1, 1, (_BUFFER_ROWS, sizes.action_size)).astype(np.float32)
    reward = rng.standard_normal(_BUFFER_ROWS, np.float32)
    return observation, action, reward, next_observation, np.zeros(_BUFFER_ROWS, np.float32)


def main() -> None:
    """Answer rounds until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["sb3", "cleanrl"])
    for name in ("--threads", "--batch-size", "--observation-size", "--action-size"):
        parser.add_argument(name, type=int, required=True)
    sizes = parser.parse_args()
    torch.set_num_threads(sizes.threads)
    work = {"sb3": sb3, "cleanrl": cleanrl}[sizes.peer](sizes)
    work(20)
    sys.stdout.write(json.dumps({"torch": torch.__version__}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        work(int(line))
        seconds = {"wall": time.monotonic() - started_s, "cpu": time.process_time() - started_cpu_s}
        sys.stdout.write(json.dumps(seconds) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
