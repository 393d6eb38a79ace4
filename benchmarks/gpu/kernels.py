"""What do the kernels cost? The view kernel against a copy of the same bytes, loss and resampling in microseconds.

G3: at 4096 images at least half of the copy's bandwidth, at 512 at most 6 microseconds; the loss kernel at
512 rows of 100 classes at most 6. Each is launched twenty times in a graph, with other addresses each time, over
more images than a cache holds; the copy moves as many bytes as a view reads and writes, 3,072 and 6,144.

Resampling: 224 x 224 views of pictures of 400 x 380, at least 50,000 a second, so 256 in at most 5,120 microseconds.
"""

from __future__ import annotations

from typing import Any

import torch

from bancache import losses
from bancache.encodings.root import ZERO_STEP, Root
from bancache.losses import distil
from bancache.losses.weights import Codes, LossWeights
from bancache.views import ViewSpace
from benchmarks.gpu import setting
from benchmarks.gpu.timing import Call, Options, interleave, options, recorded, report
from benchmarks.harness import ratios, spread

LAUNCHES, ROUNDS = 20, 30
BATCHES = {512: ("microseconds", 6.0), 1024: (None, None), 4096: ("copy / kernel", 0.5)}
ROWS = {(512, 100): 6.0, (4096, 1000): None}
TERMS = LossWeights(1.0, 1.0)


def main() -> None:
    """Measure and print."""
    given = options("kernels", str(__doc__))
    if not given.cuda:
        print(
            "kernels: no CUDA device; tests run both kernels in triton's interpreter, and there is nothing to time"
        )
        return
    report("kernels", [*views(given), *loss(given), resampling(given)], given)


def views(given: Options) -> list[dict[str, Any]]:
    """Return the view kernel's time for each batch size."""
    from bancache.views.triton_renderer import TritonRenderer

    data, space = setting.noise(50_000), ViewSpace.parse("crop4-flip")
    renderer = TritonRenderer(data.images, space, setting.NORMAL, device=given.device, dtype=torch.bfloat16)
    source = torch.zeros(50_000, 4_608, dtype=torch.uint8, device=given.device)
    rows = []
    for batch, (measured, target) in BATCHES.items():
        shape = (LAUNCHES, batch)
        samples = torch.randint(len(data), shape, device=given.device)
        ids = torch.randint(space.size, shape, device=given.device)
        into = torch.empty(batch, 4_608, dtype=torch.uint8, device=given.device)

        def show(samples: torch.Tensor = samples, ids: torch.Tensor = ids) -> None:
            for which, views in zip(samples, ids, strict=True):
                renderer.render(which, views)

        def copy(batch: int = batch, into: torch.Tensor = into) -> None:
            for turn in range(LAUNCHES):
                start = turn * batch % (50_000 - batch)
                into.copy_(source[start : start + batch])

        rows.append(
            {
                "goal": "G3",
                "kernel": "views",
                "batch": batch,
                "measured": measured,
                "target": target,
                **timed({"kernel": show, "copy": copy}, given),
            }
        )
    return rows


def loss(given: Options) -> list[dict[str, Any]]:
    """Return the loss kernel's time forward and backward, beside decoding and losses in torch."""
    rows = []
    for (batch, classes), target in ROWS.items():
        encoding = Root(classes, root=4)
        teacher = torch.randn(50_000, classes, device=given.device) * 3
        codes = Codes(encoding.encode(teacher)["q"], 4, 256, ZERO_STEP)
        logits = torch.randn(batch, classes, device=given.device, requires_grad=True)
        samples = torch.randint(50_000, (batch,), device=given.device)
        labels = torch.randint(classes, (batch,), device=given.device)
        some = (logits, codes, samples, labels)

        def fused(some: Any = some) -> None:
            for _ in range(LAUNCHES):
                distil(*some, TERMS)

        def fused_both_ways(some: Any = some) -> None:
            for _ in range(LAUNCHES):
                torch.autograd.grad(distil(*some, TERMS), some[0])

        def plain(some: Any = some, encoding: Root = encoding) -> None:
            logits, codes, samples, labels = some
            for _ in range(LAUNCHES):
                targets = encoding.probabilities({"q": codes.q.index_select(0, samples)}, 1.0)
                torch.autograd.grad(losses.ban_l(logits, targets, labels), logits)

        variants: dict[str, Call] = {"kernel": fused, "kernel_both_ways": fused_both_ways, "torch": plain}
        found = timed(variants, given)
        rows.append(
            {"goal": "G3", "kernel": "loss", "batch": batch, "classes": classes, "target": target, **found}
        )
    return rows


def resampling(given: Options) -> dict[str, Any]:
    """Return the time of resampling a batch from pictures on the device, beside a copy of as many bytes as views have."""
    from bancache.views.resample import most_taps
    from bancache.views.triton_resample import resample

    batch, count, (height, width, size) = 256, 2048, (380, 400, 224)
    flat = torch.randint(256, (count * height * width * 3,), dtype=torch.uint8, device=given.device)
    pictures = torch.randint(count, (batch,), device=given.device)
    whole = torch.tensor([[0, 0, height, width]], dtype=torch.int32, device=given.device).repeat(batch, 1)
    flips = torch.randint(2, (batch,), device=given.device)
    numbers = (pictures * (height * width * 3), whole[:, 2], whole[:, 3], 3, whole, flips, (size, size))
    most = most_taps(height, size), most_taps(width, size)
    into = torch.empty(batch * size * size * 3, dtype=torch.uint8, device=given.device)

    def show() -> None:
        for _ in range(LAUNCHES):
            resample(flat, *numbers, "reflect", most=most)

    def copy() -> None:
        for turn in range(LAUNCHES):
            into.copy_(flat[turn * into.numel() : (turn + 1) * into.numel()])

    taken = timed({"kernel": show, "copy": copy}, given)
    return {"kernel": "resampling", "batch": batch, "measured": "microseconds", "target": 5120.0, **taken}


def timed(variants: dict[str, Call], given: Options) -> dict[str, Any]:
    """Return microseconds a launch of each variant, in graphs, and how the others compare with the kernel."""
    taken = interleave(
        {name: recorded(body, given) for name, body in variants.items()},
        given,
        rounds=3 if given.quick else ROUNDS,
    )
    found: dict[str, Any] = {
        f"{name}_microseconds": spread([ms * 1e3 / LAUNCHES for ms in values])
        for name, values in taken.items()
    }
    return found | {
        f"{name} / kernel": ratios(taken[name], taken["kernel"]) for name in taken if name != "kernel"
    }


if __name__ == "__main__":
    main()
