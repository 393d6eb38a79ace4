"""A cluster of Dask in this process, for tests."""

from __future__ import annotations

import logging

from distributed import LocalCluster, Security


def cluster(protocol: str = "tcp://", security: Security | None = None) -> LocalCluster:
    """Return a scheduler with two workers, all in this process."""
    pages = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    quiet = {**pages, "silence_logs": logging.CRITICAL}
    here = {"host": "127.0.0.1", "protocol": protocol, "security": security}
    return LocalCluster(n_workers=2, threads_per_worker=2, processes=False, **quiet, **here)
