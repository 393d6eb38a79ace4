"""What does a training step cost: from the cache, with data in place, and as people write it in plain torch?

From the cache a step is one graph with its epoch's beginning: addresses and learning rates on their way to the device, the
next view's arrival from the device, from page-locked memory or from disk. The static step has its images, labels and
float32 probabilities in place and reads them again and again. The other loops are those of ``benchmarks.by_hand``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bancache.cache.reader import Cache
from bancache.loader.placement import Placement
from bancache.sources.image_set import ImageSet
from benchmarks import by_hand
from benchmarks.gpu import setting
from benchmarks.gpu.correctness import PLACES, ROOT
from benchmarks.gpu.session import Row, Session, Task
from benchmarks.gpu.timing import Contest, Taken, milliseconds, recorded
from benchmarks.harness import ratios, spread

# Net, batch and the images of an epoch, fewer where a step is long: a round lasts about a second for each variant.
NETS = (("wrn-16-4", 512, 50_000), ("wrn-28-10", 128, 5_120), ("wrn-28-2", 128, 25_600))
SMALL = (("convnet-16", 16, 48),)
# What of an epoch's speed may be lost, by the place of the targets; milliseconds that are aimed at, when compiled.
SHARES: dict[str, float] = {"device": 0.99, "pinned": 0.98, "disk": 0.98, "compiled": 0.99}
AIMS = {"wrn-16-4": 5.2, "wrn-28-10": 11.5}
STATIC = {"compiled": "static, compiled", "cache, compiled": "static, compiled"}
NUM_VIEWS, LOOP_STEPS = 4, 40
# What it takes to prepare what is compiled, if it was compiled ahead.
SLOW = 15


def from_cache(session: Session) -> list[Task]:
    """Compare the three places of targets with the static step, and both when compiled."""
    return [
        Task(
            {"part": "steps", "net": name, "batch": batch}, 20, partial(_places, session, name, batch, count)
        )
        for name, batch, count in _nets(session)
    ]


def beside_others(session: Session) -> list[Task]:
    """Compare steps from the cache with plain torch."""
    return [
        Task({"part": "loops", "net": name, "batch": batch}, 15, partial(_loops, session, name, batch, count))
        for name, batch, count in _nets(session)
    ]


def _nets(session: Session) -> tuple[tuple[str, int, int], ...]:
    return SMALL if session.quick or not session.cuda else NETS


def compile_alike(device: torch.device, mode: str | None = None) -> by_hand.Compiler:
    """Return torch.compile, which a rehearsal only traces with.

    One process compiles several nets, a user's one: what torch learned of one net's shapes may not count for the next.
    """
    torch._dynamo.config.automatic_dynamic_shapes = False
    torch._dynamo.config.recompile_limit = 64
    how = {"mode": mode} if device.type == "cuda" else {"backend": "eager"}
    return partial(torch.compile, **how)


@cache
def prepared(count: int, device: torch.device) -> tuple[Cache, ImageSet, TemporaryDirectory[str]]:
    """Return a cache, its images and its folder, which stay until the process ends."""
    data, folder = setting.noise(count), TemporaryDirectory()
    return setting.small_cache(data, Path(folder.name), NUM_VIEWS, device), data, folder


def _places(session: Session, name: str, batch: int, count: int) -> Contest:
    stored, data, _ = prepared(count, session.device)
    places: tuple[Placement, ...] = ("device", "pinned", "disk") if session.cuda else ("cpu", "disk")
    variants: dict[str, Callable[[], float]] = {}
    for place in places:

        def make(place: Placement = place) -> dict[str, Callable[[], float]]:
            ours = setting.student(name, batch, stored, data, place, session.device)
            return _timed(ours, session, place, "static" if place == places[0] else None)

        variants |= session.attempt({"variant": place}, make) or {}
    variants |= _compiled(session, (name, batch, count), places[0], "compiled")
    return Contest(variants, partial(_rows, "static", {"images": count}, AIMS.get(name)))


def _compiled(
    session: Session, case: tuple[str, int, int], place: Placement, title: str
) -> dict[str, Callable[[], float]]:
    """Return what times a compiled step from the cache and a static one; nothing where there is no time or it fails."""
    (name, batch, count), began = case, time.monotonic()

    def make() -> dict[str, Callable[[], float]]:
        stored, data, _ = prepared(count, session.device)
        compiler = compile_alike(session.device)
        ours = setting.student(name, batch, stored, data, place, session.device, compiler)
        return _timed(ours, session, title, STATIC[title])

    if not session.allows(SLOW, {"variant": title}):
        return {}
    made: dict[str, Callable[[], float]] = session.attempt({"variant": title}, make) or {}
    session.say({"variant": title, "prepared_seconds": time.monotonic() - began})
    return made


def _timed(
    ours: setting.Student, session: Session, name: str, static: str | None
) -> dict[str, Callable[[], float]]:
    """Return what times an epoch's mean step, and a static step of the same graph."""
    begun, device, steps = [0], session.device, ours.steps
    replay = ours.captured(device)
    ours.epochs(1, replay, begun)  # the first epoch reads a view that nothing has fetched ahead

    found = {name: lambda: milliseconds(lambda: ours.epochs(1, replay, begun), device) / steps}
    if static is None:
        return found
    again = recorded(ours.still, device)

    def stand_still() -> None:
        for _ in range(steps):
            again()

    return found | {static: lambda: milliseconds(stand_still, device) / steps}


def _rows(reference: str, about: Row, aim: float | None, taken: Taken) -> list[Row]:
    """Return a row for each variant: milliseconds a step, and how the reference, or its own static step, compares."""
    rows = []
    for name, values in taken.items():
        row: Row = {"variant": name, "ms": spread(values), **about}
        own = STATIC.get(name, reference)
        if name != own and own in taken:
            row |= {"against": own, "ratio": ratios(taken[own], values)}
        if name in SHARES:
            row["aim"] = f"ratio >= {SHARES[name]}"
        if name in STATIC and aim is not None:
            row["aim_compiled_ms"] = aim
        rows.append(row)
    return rows


def _loops(session: Session, name: str, batch: int, count: int) -> Contest:
    """Return ours, compiled and not, beside plain loops; what cannot be prepared is left out, and a row says so."""
    stored, data, _ = prepared(count, session.device)
    device = session.device
    place: Placement = "device" if session.cuda else "cpu"
    plain, quiet = compile_alike(device), compile_alike(device, "reduce-overhead")
    ours = setting.student(name, batch, stored, data, place, device)
    variants = _timed(ours, session, "cache", None)
    # What takes longest to prepare is last.
    others: dict[str, dict[str, Any]] = {
        "teacher online": {},
        "labels alone": {"teacher": "none"},
        "float16 resident": {"teacher": "stored"},
        "float16 resident, reduce-overhead": {"teacher": "stored", "compiler": quiet},
        "teacher online, compiled": {"compiler": plain},
    }
    for title, asked in others.items():
        began, slow = time.monotonic(), "compiler" in asked
        if session.allows(SLOW if slow else 3, {"variant": title}):
            loop = session.attempt({"variant": title}, partial(_by_hand, session, name, batch, data, **asked))
            if loop is not None:
                variants[title] = loop
            if slow:
                session.say({"variant": title, "prepared_seconds": time.monotonic() - began})
    variants |= _compiled(session, (name, batch, count), place, "cache, compiled")
    return Contest(variants, partial(_rows, "cache", {"images": count}, AIMS.get(name)))


def _by_hand(
    session: Session,
    name: str,
    batch: int,
    data: ImageSet,
    *,
    teacher: str = "online",
    compiler: by_hand.Compiler = by_hand.plain,
) -> Callable[[], float]:
    """Return what times a step of a plain loop, with the same net as teacher."""
    device, amp = session.device, session.cuda
    views = views_by_hand(data, device)
    if compiler is not by_hand.plain:  # without graphs, which would copy all images at each step
        views.crop = compile_alike(device)(views.crop)
    answers = None
    if teacher == "online":
        asked = setting.net(name, device).eval().requires_grad_(False)
        answers = by_hand.online(asked, kind=device.type, amp=amp, compiler=compiler)
    elif teacher == "stored":
        shape = (NUM_VIEWS, len(data), setting.CLASSES)
        answers = by_hand.stored(torch.randn(shape, device=device).mul_(3).half(), views)
    net = setting.net(name, device).train()
    loop = by_hand.Loop(
        views,
        torch.tensor(data.labels),
        [net],
        answers,
        batch=batch,
        amp=amp,
        compiler=compiler,
        num_views=NUM_VIEWS if teacher == "stored" else None,
    )
    steps = min(LOOP_STEPS, len(data) // batch)
    loop.steps(1 if session.quick else 6)  # compiled code records graphs at its second call
    return lambda: milliseconds(lambda: loop.steps(steps), device) / steps


def views_by_hand(data: ImageSet, device: torch.device) -> by_hand.Views:
    """Return padded images on the device, in the dtype that autocast would round them to."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    images = torch.from_numpy(data.images.copy())
    return by_hand.Views(images, setting.NORMAL.mean, setting.NORMAL.std, device, dtype)


def compile_ahead(session: Session, folder: Path) -> dict[str, tuple[subprocess.Popen[bytes], Path]]:
    """Compile each net in a process of its own, so that the benchmarks find the results in inductor's cache on disk.

    A process prints to a file in ``folder``; of it, lines of JSON are rows. No pipe: compilers outlive their parent and
    would keep it open.
    """
    environment = {**os.environ, "PYTHONPATH": PLACES, "TORCHINDUCTOR_COMPILE_THREADS": "4"}
    found = {}
    for name, batch, _ in _nets(session):
        command = [sys.executable, "-m", "benchmarks.gpu.steps", str(session.device), name, str(batch)]
        log = folder / f"compile-{name}.txt"
        with log.open("w") as stream:
            started = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT
            )
        found[name] = started, log
    return found


def _compile_one(device: torch.device, name: str, batch: int) -> None:
    """Take a few steps of everything of a net that is compiled."""
    session = Session(device, True, None, time.monotonic() + 600)
    count = 4 * batch
    stored, data, _ = prepared(count, device)
    plain, quiet = compile_alike(device), compile_alike(device, "reduce-overhead")
    place: Placement = "device" if session.cuda else "cpu"
    work: dict[str, Callable[[], Any]] = {
        "cache, compiled": lambda: setting.student(name, batch, stored, data, place, device, plain).captured(
            device
        ),
        "float16 resident, reduce-overhead": lambda: _by_hand(
            session, name, batch, data, teacher="stored", compiler=quiet
        )(),
        "teacher online, compiled": lambda: _by_hand(session, name, batch, data, compiler=plain)(),
    }
    for title, compiled in work.items():
        began = time.monotonic()
        compiled()
        print(json.dumps({"variant": title, "cold_seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    _compile_one(torch.device(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
