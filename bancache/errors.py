"""Every failure that a user can cause or meet, with the exit code that a script can rely on.

    BancacheError                 1  anything below that has no code of its own
    ├── UsageError                2  the command or the call cannot mean what it says
    ├── CacheDamagedError         3  a cache is damaged, incomplete or not a cache
    ├── MismatchError             4  teacher, data set, views, encoding or version differ
    ├── BusyError                 5  another process writes to the same place
    ├── StorageError              6  disk full, read-only, input/output error; an object store fails
    ├── DataError                 1  a data source cannot be read or makes no sense
    ├── CheckpointError           1  a checkpoint is truncated, foreign or would execute code
    ├── NonFiniteError            1  NaN or infinity where there must be none
    ├── OutOfMemoryError          1  the device or the machine has no memory left
    ├── MissingExtraError         1  an optional dependency is not installed
    └── StoppedError        130, 143  a signal; what was done is kept

A message says what happened and shows both values where two disagree; ``hint`` says what to do now.
"""

from __future__ import annotations


class BancacheError(Exception):
    """A failure with one line for what happened and one for what to do.

    Attributes:
        exit_code: The process exit code that the command line gives for it.
        hint: What to do next, in one line; may be empty.
    """

    exit_code = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


class UsageError(BancacheError):
    """The command or the call cannot mean what it says."""

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
    """The disk is full or read-only, or refuses to read or write; or an object store does."""

    exit_code = 6


class DataError(BancacheError):
    """A data source cannot be read, or its content makes no sense."""


class CheckpointError(BancacheError):
    """A checkpoint is truncated, foreign, or would execute code when loaded."""


class NonFiniteError(BancacheError):
    """NaN or infinity where only finite numbers make sense."""


class OutOfMemoryError(BancacheError):
    """The device or the machine has no memory left for what was asked."""


class MissingExtraError(BancacheError):
    """An optional dependency is not installed."""


class StoppedError(BancacheError):
    """A signal asked the work to stop; everything done so far is kept."""

    def __init__(self, what: str, *, signal_number: int, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.exit_code = 128 + signal_number


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's and numpy's own, torch's on a CPU and on a GPU.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate"))
    (True, True)
    >>> is_out_of_memory(RuntimeError("shapes do not match"))
    False
    """
    said = str(error)
    return isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said
