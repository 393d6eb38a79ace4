"""Files of arms, changed at random."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import tomli_w
from torture.mutating import Chance, Job, Mutator

from bancache.study.arms_file import read_study

ARMS = {
    "study": {"seeds": [0, 1], "baseline": "labels", "views": "crop2-flip", "num_views": 4},
    "data": {"source": "npz:d.npz", "limit": 100},
    "model": {"name": "convnet-4"},
    "recipe": {"epochs": 2, "batch_size": 16, "milestones": [0.5, 0.75]},
    "arms": {
        "labels": {},
        "student": {"teacher": "labels", "loss": "kd", "temperature": 2.0},
        "both": {"members": ["labels", "student"]},
    },
}


def arms(folder: Path, chance: Chance) -> Job:
    """Read a file of arms with other bytes or values."""
    content = tomli_w.dumps(ARMS).encode()
    if chance.one_of([True, False]):
        content = chance.bytes(content)
    else:
        try:
            content = tomli_w.dumps(chance.value(ARMS)).encode("utf-8", "surrogatepass")
        except (AttributeError, TypeError):  # TOML has no null, and a file is a table
            content = chance.bytes(content)
    (folder / "arms.toml").write_bytes(content)
    return partial(read_study, folder / "arms.toml")


MUTATORS: dict[str, Mutator] = {"arms": arms}
