"""Bitstrings for parameterised circuits: circuit family, backends, micro-batching. Knows nothing of RL."""
