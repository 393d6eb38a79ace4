"""What share of a ResNet-20's training step on one CPU core do the loader and the soft targets take, by torch alone?

Batches of 128 views of 4,096 color images, 100 classes; the step is forward, loss, backward and SGD. The loader alone (order,
view ids, rendering, labels, soft targets from a resident cache) is timed over whole epochs, beside steps on one batch that
stays in place. Steps fed by the loader take turns with steps on that batch, so that a slow second of the machine slows both.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bancache.bench.timing import Seconds
from bancache.bench.work import Student, endless
from bancache.loader import LoaderOptions
from bancache.loader.open import cached_loader
from benchmarks.harness import arguments, compared, interleave, report, spread
from benchmarks.synthetic import Table, cache_of, image_set, net, settings, teacher_of


def in_turns(pair: Mapping[str, Callable[[], None]], *, times: int, rounds: int) -> Seconds:
    """Return the CPU seconds of two functions in each round, which calls both ``times`` times in alternating order."""
    seconds: Seconds = {name: [] for name in pair}
    one, other = pair
    for turn in range(rounds + 1):
        spent = dict.fromkeys(pair, 0.0)
        for number in range(times):
            for name in (one, other) if number % 2 else (other, one):
                before = time.process_time()
                pair[name]()
                spent[name] += time.process_time() - before
        if turn:  # the first warms up
            for name in pair:
                seconds[name].append(spent[name])
    return seconds


def main() -> None:
    """Measure and print."""
    options = arguments("step", str(__doc__))
    batch, count, steps, rounds = (16, 64, 2, 2) if options.quick else (128, 4_096, 6, 15)
    with tempfile.TemporaryDirectory() as folder:
        data = image_set(count)
        cache = cache_of(
            teacher_of(Table(100), "table"), data, Path(folder) / "c.zarr", settings(num_views=4)
        )
        loader = cached_loader(cache, data, LoaderOptions(batch_size=batch))
        student = Student(net("resnet-20" if not options.quick else "resnet-8"))
        batches = endless(loader)
        kept = next(batches)

        def load() -> None:
            for _ in range(loader.steps):
                next(batches)

        def in_place() -> None:
            student.step(kept)

        def fed() -> None:
            student.step(next(batches))

        seconds = {
            **interleave({"loader and targets": load}, rounds=rounds),
            **in_turns(
                {"step, data in place": in_place, "step, cached data": fed}, times=steps, rounds=rounds
            ),
        }
    images = {"loader and targets": loader.steps * batch}
    an_image = {name: [v / images.get(name, steps * batch) for v in vs] for name, vs in seconds.items()}
    rows = [
        {"what": name, "microseconds_an_image": spread([v * 1e6 for v in values])}
        for name, values in an_image.items()
    ]
    rows += [
        compared(
            "(loader + targets) / ResNet-20 step",
            an_image["loader and targets"],
            an_image["step, data in place"],
            "<= 0.01",
        ),
        compared(
            "step with data in place / step with cached data",
            an_image["step, data in place"],
            an_image["step, cached data"],
            ">= 0.99",
        ),
    ]
    report("step", rows, options)


if __name__ == "__main__":
    main()
