"""Settings of every test."""

import os

import hypothesis

# The networks of the tests are too small to be shared between threads, which would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The machine may be busy: a slow example is not a failure. In CI every run sees the same examples.
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")
