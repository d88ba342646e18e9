"""Transitions on Redis: segments, wire codec, rate limiter, server, mirror. Knows nothing of circuits."""
