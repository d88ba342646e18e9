"""Triton's compiler refuses what its interpreter takes: every kernel is compiled for a Hopper GPU, without one."""

import os
import subprocess
import sys

WORK = """
import math
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from learner.gpu import adam_kernel, circuit_kernel, surrogate_kernel

ADAM = (0.9, 0.999, math.log(0.9), math.log(0.999), 1e-8)
CIRCUIT = {"QUBITS": 10, "LAYERS": 10, "IS_ENTANGLED": True, "PRECISION": "ieee"}
# The paper's surrogate, but for a width that compiles in a third of the time.
FIT = dict(PROGRAMS=128, NUM_ROWS=32, INPUTS=60, OUTPUTS=10, ROWS=32, INPUT_SIDE=64, BITS=16, UNITS=16, PARTS=32)
FIT |= {"SLOPE": 0.01, "ADAM": ADAM}
kernels = {
    "adam": (adam_kernel._adam, {"ADAM": ADAM, "BLOCK": 1024}),
    "middle fit": (surrogate_kernel._end_one_begin_next, FIT | {"IS_FIRST": False, "IS_LAST": False}),
    "last fit": (surrogate_kernel._end_one_begin_next, FIT | {"IS_FIRST": False, "IS_LAST": True}),
    "circuit": (circuit_kernel._forward, CIRCUIT),
    "circuit back": (circuit_kernel._backward, CIRCUIT),
}
integers = {"step", "hidden", *(f"n{index}" for index in range(8))}
types = {"order": "*i64"} | dict.fromkeys(integers, "i32")
for name, (kernel, constants) in kernels.items():
    signature = {one: "constexpr" if one in constants else types.get(one, "*fp32") for one in kernel.arg_names}
    values = {(kernel.arg_names.index(one),): value for one, value in constants.items()}
    source = ASTSource(kernel, signature, values)
    compiled = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert len(compiled.asm["cubin"]) > 1000, name
    print(name)
"""


def test_every_kernel_compiles(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split("\n")[:-1] == ["adam", "middle fit", "last fit", "circuit", "circuit back"]
