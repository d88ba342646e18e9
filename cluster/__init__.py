"""Composition root: command line, run configuration, training loops, Ray wiring. The only package that imports Ray."""
