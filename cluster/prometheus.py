"""The newest row of metrics for Prometheus to scrape, on loopback only."""

import re
from collections.abc import Mapping
from typing import Any

from cluster.errors import ConfigError

_HOST = "127.0.0.1"


class PrometheusExporter:
    """Gauges named ``hdqnn_<row name>``, such as hdqnn_qpu_request_p50_ms.

    Args:
        port: where to serve; 0 takes a free one (see ``port``).

    Raises:
        ConfigError: if the port is taken or the package is missing.
    """

    def __init__(self, port: int) -> None:
        try:
            from prometheus_client import CollectorRegistry, Gauge, start_http_server
        except ImportError as error:
            raise ConfigError("--prometheus-port needs the package prometheus-client: pip install it") from error
        self._registry = CollectorRegistry()
        self._make_gauge = Gauge
        self._gauges: dict[str, Any] = {}
        try:
            self._server, self._thread = start_http_server(port, addr=_HOST, registry=self._registry)
        except OSError as error:
            raise ConfigError(
                f"cannot serve metrics on {_HOST}:{port}: {error}; choose another --prometheus-port"
            ) from error

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def set(self, values: Mapping[str, float]) -> None:
        """Replace the values of a row."""
        for name, value in values.items():
            if name not in self._gauges:
                metric = "hdqnn_" + re.sub(r"[^a-zA-Z0-9_]", "_", name)
                self._gauges[name] = self._make_gauge(
                    metric, f"newest {name}, see learner/README.md", registry=self._registry
                )
            self._gauges[name].set(value)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
