"""How much of the teacher's cost does a cache save, compared with online distillation?

A ResNet-8 student and a ResNet-20 teacher on a CPU, in batches of 128. The measured gain is the time of a step with the
teacher online divided by the time of a step from the cache, with the same batches of views. The ideal gain is the time
of student plus teacher divided by the time of the student, each on data in place.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bancache.bench.work import Student, endless, run_teacher
from bancache.loader import LoaderOptions
from bancache.loader.open import cached_loader
from bancache.models.teacher import OnlineTargets
from benchmarks.harness import arguments, compared, interleave, report, spread
from benchmarks.synthetic import cache_of, image_set, net, settings, teacher_of


def main() -> None:
    """Measure and print."""
    options = arguments("online", str(__doc__))
    batch, count, steps, rounds = (16, 32, 1, 2) if options.quick else (128, 512, 2, 25)
    with tempfile.TemporaryDirectory() as folder:
        data, teacher = image_set(count), teacher_of(net("resnet-20"), "resnet-20")
        cache = cache_of(teacher, data, Path(folder) / "c.zarr", settings())
        student = Student(net("resnet-8"))
        chosen = LoaderOptions(batch_size=batch)
        cached = endless(cached_loader(cache, data, chosen))
        online = endless(cached_loader(cache, data, chosen, targets=OnlineTargets(teacher)))
        kept = next(cached)

        def step_cached() -> None:
            for _ in range(steps):
                student.step(next(cached))

        def step_online() -> None:
            for _ in range(steps):
                student.step(next(online))

        def in_place() -> None:
            for _ in range(steps):
                student.step(kept)

        seconds = interleave(
            {
                "student, data in place": in_place,
                "teacher, data in place": lambda: run_teacher(teacher, kept.images, steps),
                "step, teacher online": step_online,
                "step, cached data": step_cached,
            },
            rounds=rounds,
        )
    images = steps * batch
    rows = [
        {"what": name, "microseconds_an_image": spread([v / images * 1e6 for v in values])}
        for name, values in seconds.items()
    ]
    alone, asked = seconds["student, data in place"], seconds["teacher, data in place"]
    best = [(one + other) / one for one, other in zip(alone, asked, strict=True)]
    online_, cached_ = seconds["step, teacher online"], seconds["step, cached data"]
    reached = [one / other for one, other in zip(online_, cached_, strict=True)]
    rows += [
        compared("teacher online / cached", online_, cached_, "none"),
        compared("gain / the ideal (student + teacher) / student", reached, best, ">= 0.98"),
    ]
    report("online", rows, options)


if __name__ == "__main__":
    main()
