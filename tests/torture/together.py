"""Processes that train one model together, one of which is killed."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator

from contracts.ranks import reached, together
from torture.rows import Ground, Row

from bancache.models.checkpoint import load_checkpoint

_KILLED = -signal.SIGKILL
_STEPS = 18


def rank_killed(ground: Ground) -> Iterator[bool]:
    """Two processes with two kills after random steps: the weights are those of an undisturbed run."""
    whole = ground.place("together") / "gen1.pt"
    if any(code for code, _ in together(ground.forker, *[ground.train_args(whole)] * 2)):
        raise SystemExit("two processes cannot train together here")
    expected, chance = load_checkpoint(whole).fingerprint, random.Random(23)
    for _ in ground.numbers(100):
        out = ground.place("trial") / "gen1.pt"
        both, met, intact = [ground.train_args(out)] * 2, False, True
        for steps in sorted(chance.sample(range(_STEPS - 1), 2)):
            killed = chance.randrange(2)
            ends = together(ground.forker, *both, signals=[(reached(out, steps), killed, signal.SIGKILL)])
            met |= ends[killed][0] == _KILLED
            intact &= {code for code, _ in ends} <= {0, 1, _KILLED}
        ends = together(ground.forker, *both)
        if met:  # a kill may come too late
            yield (
                intact
                and [code for code, _ in ends] == [0, 0]
                and load_checkpoint(out).fingerprint == expected
            )


ROWS = (Row(23, "SIGKILL of one of two processes that train together", rank_killed),)
