"""Measurements behind every published claim: one module per claim, each with ``run() -> dict``."""
