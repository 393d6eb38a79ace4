"""Running a teacher once over every view that its students will see."""

from bancache.dumping.run import DumpResult, DumpSettings, dump

__all__ = ["DumpResult", "DumpSettings", "dump"]
