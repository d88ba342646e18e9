"""Runs of Quantum-Train agents: configuration, presets, teams of agents, training loop, commands."""
