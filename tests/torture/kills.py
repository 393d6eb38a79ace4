"""Processes that die by SIGKILL: dumps, trainings, extensions, prunings."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from contracts.killing import tree
from torture.rows import Ground, Row

from bancache.models.checkpoint import load_checkpoint

_KILLED = -signal.SIGKILL
_STRIDE = 7


def dump_at_random(ground: Ground) -> Iterator[bool]:
    """Killed up to four times at random instants, then run to its end."""
    yield from _at_random(
        ground, "a.zarr", ground.dump_args, lambda out: tree(out) == tree(ground.cache), 0.5
    )


def training_at_random(ground: Ground) -> Iterator[bool]:
    """Killed up to four times at random instants, then run to its end: the same weights."""
    expected = load_checkpoint(ground.student).fingerprint
    yield from _at_random(
        ground, "gen1.pt", ground.train_args, lambda out: load_checkpoint(out).fingerprint == expected, 0.6
    )


def _at_random(
    ground: Ground,
    name: str,
    argv: Callable[[Path], list[str]],
    is_right: Callable[[Path], bool],
    longest: float,
) -> Iterator[bool]:
    chance = random.Random(name)
    for _ in ground.numbers(100):
        out = ground.place("trial") / name
        codes = {ground.forker.run(argv(out), kill_after=chance.uniform(0.02, longest))[0] for _ in range(4)}
        code, _ = ground.forker.run(argv(out))
        right = code == 0 and codes <= {0, _KILLED} and is_right(out)
        if _KILLED in codes or not right:  # where every kill came too late, there was no fault
            yield right


def dump_at_every_call(ground: Ground) -> Iterator[bool]:
    """Killed before its n-th durable call, then run to its end."""

    def attempt(number: int) -> bool | None:
        out = ground.place("trial") / "a.zarr"
        return _killed_once(ground, ground.dump_args(out), number, lambda: ground.is_whole(out))

    yield from _each_call(ground, attempt)


def training_at_every_call(ground: Ground) -> Iterator[bool]:
    """Killed before its n-th durable call, then run to its end: the same weights."""
    expected = load_checkpoint(ground.student).fingerprint

    def attempt(number: int) -> bool | None:
        out = ground.place("trial") / "gen1.pt"
        argv = ground.train_args(out)
        return _killed_once(ground, argv, number, lambda: load_checkpoint(out).fingerprint == expected)

    yield from _each_call(ground, attempt)


def extension_at_every_call(ground: Ground) -> Iterator[bool]:
    """From four views to six, killed before its n-th durable call: as if six had been dumped at once."""
    four = ground.place("four") / "a.zarr"
    ground.forker.run(ground.dump_args(four, views=4))
    yield from _made(ground, four, ground.cache, "extend", "6")


def pruning_at_every_call(ground: Ground) -> Iterator[bool]:
    """From six views to four, killed before its n-th durable call: as if four had been dumped."""
    four = ground.place("four") / "a.zarr"
    ground.forker.run(ground.dump_args(four, views=4))
    yield from _made(ground, ground.cache, four, "prune", "4")


def _made(ground: Ground, old: Path, new: Path, command: str, views: str) -> Iterator[bool]:
    expected, before = tree(new), tree(old)

    def attempt(number: int) -> bool | None:
        out = ground.place("trial") / "a.zarr"

        def is_right() -> bool:
            left = {path.name for path in out.parent.iterdir()} - {"results.jsonl"}
            return left == {"a.zarr"} and tree(out) == expected and tree(old) == before

        argv = [command, str(old), "--num-views", views, "--out", str(out), "-q"]
        return _killed_once(ground, argv, number, is_right)

    yield from _each_call(ground, attempt)


def _killed_once(ground: Ground, argv: list[str], number: int, is_right: Callable[[], bool]) -> bool | None:
    """Kill before a call and go on; None where the process made fewer calls and came out right."""
    code, _ = ground.forker.run(argv, kill_at_call=number)
    if code == 0 and is_right():
        return None
    again, _ = ground.forker.run(argv)
    return code == _KILLED and again == 0 and is_right()


def _each_call(ground: Ground, attempt: Callable[[int], bool | None]) -> Iterator[bool]:
    """Try every call there is, every seventh first, so that what there is time for is spread over all of them."""
    turns = ground.numbers(10_000)
    for first in range(1, _STRIDE + 1):
        for number in range(first, 2_000, _STRIDE):
            outcome = attempt(number) if next(turns, None) is not None else None
            if outcome is None:
                break
            yield outcome


ROWS = (
    Row(1, "SIGKILL in a dump, at random instants", dump_at_random),
    Row(2, "SIGKILL in a dump, before each durable call", dump_at_every_call),
    Row(2, "SIGKILL in an extension, before each durable call", extension_at_every_call),
    Row(2, "SIGKILL in a pruning, before each durable call", pruning_at_every_call),
    Row(3, "SIGKILL in a training, at random instants", training_at_random),
    Row(3, "SIGKILL in a training, before each durable call", training_at_every_call),
)
