"""Backends by name. Importing this package imports none of them: each is loaded when it is made."""

from qpu_service.backends.registry import BACKENDS, backend_name_from_environment, make_backend

__all__ = ["BACKENDS", "backend_name_from_environment", "make_backend"]
