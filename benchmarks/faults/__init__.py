"""Faults: break parts of a running system on purpose and count what was lost, doubled, and how long it took."""
