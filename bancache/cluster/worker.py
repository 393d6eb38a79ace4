"""What Dask loads in each process of a local cluster."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the command, which lets the workers finish what is under way; a terminal sends it to all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
