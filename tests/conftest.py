"""Settings of every test."""

import os

import hypothesis

# Torch reads this when it is first imported. Small networks gain nothing from threads, and on a busy machine threads
# that wait for each other make a test a hundred times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The machine may be busy: a slow example is not a failure. In CI every run sees the same examples.
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")
