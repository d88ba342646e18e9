"""Transitions on Redis: segments, wire codec, rate limiter, embedded server, the learner's mirror. Knows nothing of circuits."""
