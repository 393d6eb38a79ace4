"""All errors that bancache raises on purpose, each with the exit code of the command line.

    BancacheError                 1  any error below without its own code
    ├── UsageError                2  a command or call with arguments that make no sense
    ├── CacheDamagedError         3  a cache is damaged, incomplete, or not a cache
    ├── MismatchError             4  teacher, data set, views, encoding or version differ
    ├── BusyError                 5  another process writes to the same place
    ├── StorageError              6  the disk is full, read-only or failing; an object store fails
    ├── DataError                 1  a data source cannot be read or makes no sense
    ├── CheckpointError           1  a checkpoint is truncated, not ours, or would execute code
    ├── NonFiniteError            1  NaN or infinity where numbers must be finite
    ├── OutOfMemoryError          1  the device or the machine has no memory left
    ├── MissingExtraError         1  an optional dependency is not installed
    ├── ClusterError              1  a scheduler is not there, or workers fail
    └── StoppedError        130, 143  a signal stopped the work; finished work is kept

The message says what happened, and shows both values where two disagree. ``hint`` says what to do.
"""

from __future__ import annotations


class BancacheError(Exception):
    """Base class: one line that says what happened, one that says what to do.

    Attributes:
        exit_code: Exit code of the command line for this error.
        hint: What to do next, one line; may be empty.
    """

    exit_code = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


class UsageError(BancacheError):
    """The arguments of a command or call make no sense."""

    exit_code = 2


class CacheDamagedError(BancacheError):
    """A cache is damaged, incomplete, or not a cache at all."""

    exit_code = 3


class MismatchError(BancacheError):
    """Two things that must be the same are not."""

    exit_code = 4

    @classmethod
    def between(cls, subject: str, *, stored: object, given: object, hint: str) -> MismatchError:
        """Name the subject and show both values."""
        return cls(f"{subject}: made with {stored}, but this run has {given}", hint=hint)


class BusyError(BancacheError):
    """Another process is writing to the same place."""

    exit_code = 5


class StorageError(BancacheError):
    """The disk is full, read-only or failing, or an object store fails."""

    exit_code = 6


class DataError(BancacheError):
    """A data source cannot be read, or its content makes no sense."""


class CheckpointError(BancacheError):
    """A checkpoint is truncated, not ours, or would execute code when loaded."""


class NonFiniteError(BancacheError):
    """NaN or infinity where only finite numbers make sense."""


class OutOfMemoryError(BancacheError):
    """The device or the machine has no memory left for what was asked."""


class MissingExtraError(BancacheError):
    """An optional dependency is not installed."""


class ClusterError(BancacheError):
    """The scheduler of a cluster is not there, or its workers fail."""


class StoppedError(BancacheError):
    """A signal stopped the work; everything that was finished is kept."""

    def __init__(self, what: str, *, signal_number: int, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.exit_code = 128 + signal_number


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, in Python, numpy, or torch on a CPU or GPU.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate"))
    (True, True)
    >>> is_out_of_memory(ImportError("libtorch_cpu.so: failed to map segment from shared object"))
    True
    >>> is_out_of_memory(RuntimeError("shapes do not match"))
    False
    """
    said = str(error)
    # The last one is of a library that the process may not map: ulimit -v.
    signs = ("out of memory", "can't allocate memory", "failed to map segment from shared object")
    return isinstance(error, MemoryError) or any(sign in said for sign in signs)
