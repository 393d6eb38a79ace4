"""The rank of this process: from options, or from the environment variables of launchers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from bancache.errors import UsageError

# Variables for rank and world size by launcher, the most explicit first. Slurm's array jobs are read below.
_PAIRS = (
    ("RANK", "WORLD_SIZE"),  # torchrun, Kubeflow
    ("SLURM_PROCID", "SLURM_NTASKS"),  # srun
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),  # a Kubernetes Indexed Job; the user sets the count
    ("SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"),
)
_LOCAL = ("LOCAL_RANK", "SLURM_LOCALID")
_HERE = ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE")
_TOGETHER = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TRAIN_ALONE = f"to train alone, unset {', '.join(_TOGETHER[:3])} and {_TOGETHER[3]}"


@dataclass(frozen=True)
class Rank:
    """The rank of one process."""

    rank: int = 0
    count: int = 1  # number of processes (the world size)
    local: int = 0  # rank on this machine; selects the GPU

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.rank < self.count or self.local < 0:
            raise UsageError(
                f"there is no rank {self.rank} of {self.count}", hint="ranks count from 0 to world size - 1"
            )


ALONE = Rank()


def rank_from_env(
    environment: Mapping[str, str], *, rank: int | None = None, world_size: int | None = None
) -> Rank:
    """Return the rank from the arguments, or else from the first launcher that set both variables.

    A launcher that sets a rank but no count (a Kubernetes Indexed Job) takes the count from ``world_size``.
    Without any of these, the process is the only one. An empty variable counts as unset. Raises ``UsageError`` if a
    value is not a rank.

    >>> rank_from_env({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"})
    Rank(rank=2, count=4, local=0)
    >>> rank_from_env({"JOB_COMPLETION_INDEX": "2"}, world_size=8).rank
    2
    """
    environment = _set(environment)
    local = next((_number(environment, name) for name in _LOCAL if name in environment), 0)
    if rank is None or world_size is None:
        found = _array(environment) or _pair(environment, world_size)
        if rank is not None and found is None:
            raise UsageError(f"--rank {rank} of how many?", hint="add --world-size")
        if found is not None:
            rank = found[0] if rank is None else rank
            world_size = found[1] if world_size is None else world_size
    return Rank(rank or 0, 1 if world_size is None else world_size, local)


def training_rank_from_env(environment: Mapping[str, str]) -> Rank:
    """Return the rank among the processes that train one model together; usually there is only one.

    RANK and WORLD_SIZE alone may come from an array job in which each process trains its own model. Processes train
    together only if MASTER_ADDR and MASTER_PORT are set too, as torchrun does. Raises ``UsageError`` for bad values.

    >>> training_rank_from_env({"RANK": "1", "WORLD_SIZE": "2"})
    Rank(rank=0, count=1, local=0)
    >>> training_rank_from_env({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"})
    Rank(rank=1, count=2, local=0)
    """
    environment = _set(environment)
    if not set(_TOGETHER) <= set(environment):
        return ALONE
    try:
        if not 0 < _number(environment, "MASTER_PORT") < 1 << 16:
            raise UsageError("there is no such port")
        return rank_from_env(environment)
    except UsageError as error:
        values = ", ".join(f"{name}={environment[name]}" for name in _TOGETHER)
        raise UsageError(f"{error} ({values})", hint=TRAIN_ALONE) from error


def processes_here(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many processes share this machine's memory, as far as their launcher says.

    >>> processes_here({"LOCAL_WORLD_SIZE": "4"}), processes_here({})
    (4, 1)
    """
    counts = (environment.get(name, "").strip() for name in _HERE)
    return next((int(count) for count in counts if count.isdecimal() and int(count)), 1)


def _set(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if value.strip()}


def _pair(environment: Mapping[str, str], world_size: int | None) -> tuple[int, int] | None:
    for rank, count in _PAIRS:
        if rank in environment and (count in environment or world_size is not None):
            own = _number(environment, rank)
            return own, world_size if world_size is not None else _number(environment, count)
    return None


def _array(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """Return rank and count in a Slurm array job, whose elements may have several tasks each.

    Array indices may start anywhere and have gaps. If two elements get the same rank, they start with the same
    shard, and the claims on shards decide who writes it.
    """
    if not {"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"} <= set(environment) or "RANK" in environment:
        return None
    values = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_STEP": "1"} | dict(environment)
    step, elements = (
        max(1, _number(values, name)) for name in ("SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT")
    )
    first = _number(values, "SLURM_ARRAY_TASK_MIN")
    element = (_number(values, "SLURM_ARRAY_TASK_ID") - first) // step % elements
    rank, tasks = _pair({key: values[key] for key in _PAIRS[1] if key in values}, None) or (0, 1)
    return element * tasks + rank, elements * tasks


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not text.strip().isdecimal():
        raise UsageError(
            f"{name} is '{text}', not a number", hint="unset it, or give --rank and --world-size"
        )
    return int(text)
