"""A process killed at any moment of writing a checkpoint leaves the old one or the new one, whole; about 3 s.

Processes are forked and die: before the n-th operation on files, and at the k-th byte of a file (the kernel's own
signal at a file size limit, which by default kills).
"""

import os
import resource
import signal
import sys

import pytest
import torch

from cluster.checkpoint import load_newest, save_checkpoint

TENSORS = {
    "learner": {"weight": torch.arange(3_000.0), "step": torch.tensor(3)},
    "published": {"weight": torch.ones(500)},
}
LARGEST_FILE = 4 * 3_000 + 1_000
WATCHED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "os.truncate"}


def save(directory, env_step):
    tensors = {group: {name: t + env_step for name, t in named.items()} for group, named in TENSORS.items()}
    save_checkpoint(directory, env_step, tensors, {"env_step": env_step, "text": "x" * 2_000}, keep=1)


def in_a_process(prepare, directory, env_step):
    """Save in a forked process; returns whether it lived to the end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            prepare()
            save(directory, env_step)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return not os.WIFSIGNALED(status)


def kill_before_operation(number):
    left = number

    def hook(event, _):
        nonlocal left
        if event in WATCHED:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.addaudithook(hook)


def kill_at_byte(size):
    def prepare():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return prepare


def loaded_step(directory):
    """The step of the newest checkpoint, all of whose numbers must be of that step."""
    checkpoint = load_newest(directory)
    env_step = checkpoint.scalars["env_step"]
    for group, named in TENSORS.items():
        for name, tensor in named.items():
            assert torch.equal(checkpoint.tensors[group][name], tensor + env_step)
    return env_step


def test_a_process_killed_before_any_operation_on_files_leaves_a_whole_checkpoint(tmp_path):
    found = []
    for number in range(1, 200):
        directory = tmp_path / str(number)
        save(directory, 1)
        has_lived = in_a_process(kill_before_operation(number), directory, 2)
        found.append(loaded_step(directory))
        save(directory, 3)
        assert [path.name for path in directory.iterdir()] == ["step_000000000003"]
        if has_lived:
            break
    else:
        pytest.fail("the save never came to its end")
    assert len(found) > 20, "too few operations seen: does the audit hook work?"
    # Once the new one counts it never stops counting.
    assert found == sorted(found)
    assert set(found) == {1, 2}


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100, 1_999, 2_100, 4_000, 8_192, 12_000, LARGEST_FILE - 900])
def test_a_process_killed_in_the_middle_of_a_file_leaves_the_old_checkpoint(tmp_path, size):
    save(tmp_path, 1)
    assert not in_a_process(kill_at_byte(size), tmp_path, 2)
    assert loaded_step(tmp_path) == 1


def test_a_limit_beyond_every_file_kills_nobody(tmp_path):
    save(tmp_path, 1)
    assert in_a_process(kill_at_byte(10 * LARGEST_FILE), tmp_path, 2)
    assert loaded_step(tmp_path) == 2
