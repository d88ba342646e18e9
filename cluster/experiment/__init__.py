"""Experiments: a grid of runs from one file, run side by side, resumed, and summed up with intervals."""
