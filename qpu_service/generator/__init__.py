"""Circuits that generate network weights (Quantum-Train): families, exact gradient, shots from backends."""
