"""Kernels of the learner for GPUs, in Triton: what torch would do in hundreds of small ones (docs/learner-speed.md)."""
