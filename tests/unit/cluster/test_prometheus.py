"""The exporter serves the newest row under stable names, on loopback, and says when the port is taken."""

import urllib.request

import pytest

from cluster.errors import ConfigError
from cluster.prometheus import PrometheusExporter


def test_newest_row_is_served_on_loopback():
    exporter = PrometheusExporter(0)
    try:
        exporter.set({"qpu/request_p50_ms": 1.0, "env_step": 10})
        exporter.set({"qpu/request_p50_ms": 2.5, "env_step": 20})
        with urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/metrics", timeout=5) as reply:
            lines = reply.read().decode().splitlines()
        assert "hdqnn_qpu_request_p50_ms 2.5" in lines
        assert "hdqnn_env_step 20.0" in lines
        with pytest.raises(ConfigError, match=r"127\.0\.0\.1.*choose another --prometheus-port"):
            PrometheusExporter(exporter.port)
    finally:
        exporter.close()
