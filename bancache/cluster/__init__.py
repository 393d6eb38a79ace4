"""Many workers for one piece of work: its tasks, which any engine can run, and Dask, which runs them here.

A task is pure and idempotent: all that it changes is on disk, where it is done when its record lies there.
"""
