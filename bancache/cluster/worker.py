"""What Dask loads in each process of a local cluster."""

from __future__ import annotations

import signal
from typing import Any

from bancache.system.allocator import keep_freed_memory


def dask_setup(worker: Any) -> None:
    """Keep freed memory as the commands do; leave Ctrl-C to the command, for a terminal sends it to all.

    The command lets the workers finish what is under way.
    """
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
