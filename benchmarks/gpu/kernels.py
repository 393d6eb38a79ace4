"""What do the kernels cost? Views, loss, codes and resampling, beside a copy of the same bytes or the same in torch.

Each is launched several times in a graph, with other addresses each time, over more bytes than a cache holds. The copy
moves as many bytes as the kernel reads and writes, so ``copy / kernel`` is the share of the memory's speed that it reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bancache.encodings.fidelity import measure
from bancache.encodings.root import ZERO_STEP, Root
from bancache.losses.fused import distil
from bancache.losses.weights import Codes, LossWeights, MixedLabels
from bancache.views import ViewSpace
from bancache.views.factory import choose_renderer
from bancache.views.pictures import Pictures
from bancache.views.record_renderer import RecordRenderer
from benchmarks.gpu import setting
from benchmarks.gpu.session import Row, Session, Task
from benchmarks.gpu.timing import Call, Contest, Taken, milliseconds, recorded
from benchmarks.harness import ratios, spread

LAUNCHES, FEW = 20, 5
TERMS = LossWeights(1.0, 1.0)
RECORDS = "rrc-flip-rand-m9-n2-erase0.25"
WHOLE = (400, 380)  # height and width of a photograph
SHOWN = 224


def tasks(session: Session) -> list[Task]:
    """Return what is measured, the most important first."""
    if session.quick or not session.cuda:
        cases: list[tuple[Row, Any]] = [
            ({"kernel": "views", "batch": 8}, partial(_views, 8, 64)),
            ({"kernel": "loss", "batch": 8, "classes": 10}, partial(_loss, 8, 10)),
            ({"kernel": "encode and measure", "rows": 8, "classes": 10}, partial(_codes, 8, 10)),
            ({"kernel": "records", "batch": 2}, partial(_records, 2, 4, (40, 38), 32)),
        ]
    else:
        cases = [
            ({"kernel": "views", "batch": 512, "aim": "microseconds <= 6"}, partial(_views, 512, 50_000)),
            (
                {"kernel": "views", "batch": 4096, "aim": "copy / kernel >= 0.5"},
                partial(_views, 4096, 50_000),
            ),
            *(
                (
                    {"kernel": "loss", "batch": batch, "classes": classes, "aim": aim},
                    partial(_loss, batch, classes),
                )
                for batch, classes, aim in (
                    (512, 100, "microseconds <= 6, mixed / kernel <= 1.05"),
                    (4096, 1000, "mixed / kernel <= 1.05"),
                )
            ),
            ({"kernel": "resampling", "batch": 256, "aim": "views a second >= 50,000"}, _resampling),
            *(
                (
                    {"kernel": "encode and measure", "rows": 10_000, "classes": classes},
                    partial(_codes, 10_000, classes),
                )
                for classes in (100, 1000)
            ),
            (
                {"kernel": "records", "batch": 256, "views": RECORDS},
                partial(_records, 256, 1024, WHOLE, SHOWN),
            ),
        ]
    return [Task({"part": "kernels", **about}, 3, partial(make, session)) for about, make in cases]


def _contest(session: Session, bodies: dict[str, Call], launches: int, things: dict[str, float]) -> Contest:
    """Time bodies of so many launches, of which the first is ours; ``things`` counts what one launch handles."""
    device = session.device
    variants: dict[str, Callable[[], float]] = {}
    for name, body in bodies.items():
        graph = session.attempt({"variant": name}, partial(recorded, body, device))
        if graph is not None:
            milliseconds(graph, device)
            variants[name] = partial(milliseconds, graph, device)
    return Contest(variants, partial(_rows, launches, things))


def _rows(launches: int, things: dict[str, float], taken: Taken) -> list[Row]:
    """Return one row: microseconds a launch of each variant, how they compare, and things a second."""
    each = {name: [ms * 1e3 / launches for ms in values] for name, values in taken.items()}
    row: Row = {
        "microseconds" if name == "kernel" else f"{name}, microseconds": spread(v) for name, v in each.items()
    }
    row |= {f"{name} / kernel": ratios(each[name], each["kernel"]) for name in each if name != "kernel"}
    for name, count in things.items():
        row[f"{name} a second"] = spread([count / us * 1e6 for us in each["kernel"]])
    return [row]


def _copy(device: torch.device, moved: int, launches: int) -> Call:
    """Return launches of copies that read and write so many bytes together, over more than a cache holds."""
    half = moved // 2
    turns = max(2, min(launches, (1 << 28) // half)) if device.type == "cuda" else 2
    source = torch.zeros(turns, half, dtype=torch.uint8, device=device)
    into = torch.empty(half, dtype=torch.uint8, device=device)

    def copy() -> None:
        for turn in range(launches):
            into.copy_(source[turn % turns])

    return copy


def _views(batch: int, count: int, session: Session) -> Contest:
    data, space, device = setting.noise(count), ViewSpace.parse("crop4-flip"), session.device
    dtype = torch.bfloat16 if session.cuda else torch.float32
    renderer = choose_renderer(data.images, space, setting.NORMAL, device=device, dtype=dtype)
    samples = torch.randint(len(data), (LAUNCHES, batch), device=device)
    ids = torch.randint(space.size, (LAUNCHES, batch), device=device)

    def show() -> None:
        for which, views in zip(samples, ids, strict=True):
            renderer.render(which, views)

    moved = batch * 3072 * (1 + dtype.itemsize)
    return _contest(
        session, {"kernel": show, "copy": _copy(device, moved, LAUNCHES)}, LAUNCHES, {"views": batch}
    )


def _loss(batch: int, classes: int, session: Session) -> Contest:
    """Time the loss forward and backward: with mixed labels, with plain ones, and decoding and losses in torch."""
    device, count = session.device, 50_000 if session.cuda else 4 * batch
    encoding = Root(classes, root=4)
    codes = Codes(encoding.encode(torch.randn(count, classes, device=device) * 3)["q"], 4, 256, ZERO_STEP)
    logits = torch.randn(batch, classes, device=device, requires_grad=True)
    samples = torch.randint(count, (batch,), device=device)
    own, partner = torch.randint(classes, (2, batch), device=device)
    mixed = MixedLabels(own.contiguous(), partner.contiguous(), torch.rand(batch, device=device))
    labels = mixed.own

    def fused() -> None:
        for _ in range(LAUNCHES):
            distil(logits, codes, samples, labels, TERMS)

    def fused_mixed() -> None:
        for _ in range(LAUNCHES):
            distil(logits, codes, samples, mixed, TERMS)

    def fused_both_ways() -> None:
        for _ in range(LAUNCHES):
            torch.autograd.grad(distil(logits, codes, samples, labels, TERMS), logits)

    def plain() -> None:
        for _ in range(LAUNCHES):
            targets = encoding.probabilities({"q": codes.q.index_select(0, samples)}, 1.0)
            both = F.cross_entropy(logits, targets) + F.cross_entropy(logits, labels)
            torch.autograd.grad(both, logits)

    bodies = {"kernel": fused, "mixed": fused_mixed, "both ways": fused_both_ways, "torch, both ways": plain}
    return _contest(session, bodies, LAUNCHES, {"rows": batch})


def _codes(rows: int, classes: int, session: Session) -> Contest:
    """Time encoding and measuring rows, beside a copy of logits, codes and figures, and beside torch."""
    device, encoding = session.device, Root(classes, root=4)
    logits = torch.randn(rows, classes, device=device) * 3
    labels = torch.randint(classes, (rows,), device=device)

    def plain() -> None:
        for _ in range(FEW):
            measure(encoding, logits, encoding.encode(logits))

    bodies: dict[str, Call] = {"kernel": plain, "copy": _copy(device, rows * (5 * classes + 68), FEW)}
    try:
        from bancache.encodings.measuring import encode_and_measure
    except ImportError:  # a checkout from before the kernel
        pass
    else:

        def fused() -> None:
            for _ in range(FEW):
                encode_and_measure(encoding, logits, labels)

        bodies = {"kernel": fused, "copy": bodies["copy"], "torch": plain}
    return _contest(session, bodies, FEW, {"rows": rows, "bytes": rows * (5 * classes + 68)})


def _resampling(session: Session) -> Contest:
    """Time resampling a batch from whole photographs on the device, beside a copy of as many bytes as views have."""
    from bancache.views.resample import most_taps
    from bancache.views.triton_resample import resample

    batch, count, (height, width), size, device = 256, 2048, WHOLE, SHOWN, session.device
    flat = torch.randint(256, (count * height * width * 3,), dtype=torch.uint8, device=device)
    pictures = torch.randint(count, (batch,), device=device)
    whole = torch.tensor([[0, 0, height, width]], dtype=torch.int32, device=device).repeat(batch, 1)
    flips = torch.randint(2, (batch,), device=device)
    numbers = (pictures * (height * width * 3), whole[:, 2], whole[:, 3], 3, whole, flips, (size, size))
    most = most_taps(height, size), most_taps(width, size)

    def show() -> None:
        for _ in range(FEW):
            resample(flat, *numbers, "reflect", most=most)

    bodies: dict[str, Call] = {"kernel": show, "copy": _copy(device, 2 * batch * size * size * 3, FEW)}
    return _contest(session, bodies, FEW, {"views": batch})


def _records(batch: int, count: int, whole: tuple[int, int], size: int, session: Session) -> Contest:
    """Time everything that a view of a photograph can have: a resized crop, two operations, erasing, normalization."""
    device, (height, width) = session.device, whole
    rng = np.random.default_rng(0)
    images = np.frombuffer(rng.bytes(count * height * width * 3), np.uint8).reshape(count, height, width, 3)
    dtype = torch.bfloat16 if session.cuda else torch.float32
    space = ViewSpace.parse(RECORDS)
    if session.cuda:
        renderer = choose_renderer(
            images, space, setting.NORMAL, size=(size, size), device=device, dtype=dtype
        )
    else:  # numba would compile for a minute
        renderer = RecordRenderer(
            Pictures.of(images), space, setting.NORMAL, size=(size, size), device=device
        )
    turns = []
    for turn in range(FEW):
        samples = rng.integers(count, size=batch)
        turns.append(renderer.to_device(samples, space.view_ids(samples, np.full(batch, turn))))

    def show() -> None:
        for samples, rows in turns:
            renderer.render(samples, rows)

    moved = batch * size * size * 3 * (1 + dtype.itemsize)
    return _contest(session, {"kernel": show, "copy": _copy(device, moved, FEW)}, FEW, {"views": batch})
