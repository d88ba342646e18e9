"""Quantum-Train: networks whose weights a circuit generates, and on-policy learning of such policies."""
