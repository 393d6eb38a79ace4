"""Run a teacher once over every view that its students will see, and store its outputs."""

from bancache.dumping.run import DumpResult, dump
from bancache.dumping.settings import DumpSettings

__all__ = ["DumpResult", "DumpSettings", "dump"]
