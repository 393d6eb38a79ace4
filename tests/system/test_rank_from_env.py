"""Which of several processes this is: what launchers write into the environment, read by one pure function."""

from __future__ import annotations

import pytest

from bancache.errors import UsageError
from bancache.system.ranks import Rank, rank_from_env

ARRAY = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}
TASKS = {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Rank(0, 1, 0)),
        ({"HOME": "/root", "RANK": "3"}, Rank(0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Rank(5, 8, 1)),
        ({"SLURM_NTASKS": "4"}, Rank(0, 1, 0)),  # inside salloc, not started by srun
        (TASKS, Rank(1, 4, 1)),
        (ARRAY, Rank(3, 8)),
        ({**ARRAY, "SLURM_ARRAY_TASK_MIN": "1"}, Rank(2, 8)),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "21", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "10"}, Rank(2, 8)),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "12"}, Rank(4, 8)),  # an array of some numbers
        ({**ARRAY, **TASKS}, Rank(3 * 4 + 1, 32, 1)),
        ({**ARRAY, **TASKS, "RANK": "0", "WORLD_SIZE": "2"}, Rank(0, 2, 1)),  # torchrun within a job
        ({"JOB_COMPLETION_INDEX": "4", "JOB_COMPLETIONS": "6"}, Rank(4, 6)),
        ({"JOB_COMPLETION_INDEX": "4"}, Rank(0, 1)),
        ({"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2"}, Rank(1, 2)),
    ],
)  # fmt: skip
def test_each_launcher_is_understood(environment: dict[str, str], expected: Rank) -> None:
    assert rank_from_env(environment) == expected


def test_what_is_said_goes_before_what_is_found() -> None:
    assert rank_from_env(TASKS, rank=2, world_size=3) == Rank(2, 3, 1)
    assert rank_from_env(TASKS, rank=2) == Rank(2, 4, 1)
    assert rank_from_env({"JOB_COMPLETION_INDEX": "4"}, world_size=6) == Rank(4, 6)
    assert rank_from_env({}, world_size=6) == Rank(0, 6)


@pytest.mark.parametrize(
    ("environment", "rank", "world_size", "said"),
    [
        ({"RANK": "two", "WORLD_SIZE": "4"}, None, None, "RANK is 'two', not a number"),
        ({"RANK": "-1", "WORLD_SIZE": "4"}, None, None, "RANK is '-1', not a number"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, None, None, "4 of 4"),
        ({}, 2, None, "--rank 2 of how many?"),
        ({}, 2, 2, "2 of 2"),
        ({}, -1, 2, "-1 of 2"),
        ({}, None, 0, "0 of 0"),
    ],
)
def test_what_makes_no_sense_is_refused(
    environment: dict[str, str], rank: int | None, world_size: int | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")) as caught:
        rank_from_env(environment, rank=rank, world_size=world_size)
    assert caught.value.hint
