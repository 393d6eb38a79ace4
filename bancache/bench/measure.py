"""``bancache bench``: what training from one's own cache costs on one's own machine, and where the time goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from bancache.bench import work
from bancache.bench.timing import Seconds, device_clock, interleave, ratios, spread
from bancache.cache.reader import Cache
from bancache.dumping import DumpSettings
from bancache.loader import Batch, Loader, LoaderOptions, Targets
from bancache.loader.cache_targets import CacheTargets
from bancache.loader.open import cached_loader
from bancache.models.teacher import OnlineTargets, Teacher
from bancache.sources.base import ImageSet
from bancache.system.progress import Progress, Silent
from bancache.views import ViewSpace
from bancache.views.renderer import Normalization, Renderer

_STEPS = 4  # of each kind a round
# Batches of views, answers and losses a round: only the first of them finds neither code nor data in a cache.
_PARTS = 16
_DUMPED_BATCHES = 8


@dataclass(frozen=True)
class Comparison:
    """Two pieces of work and the ratio of their times.

    Attributes:
        question: What the ratio answers.
        one: The numerator; its time an image in microseconds.
        other: The denominator, likewise.
        ratio: ``one / other``: median, quartiles and number of rounds.
    """

    question: str
    one: tuple[str, float]
    other: tuple[str, float]
    ratio: dict[str, float]


@dataclass(frozen=True)
class Findings:
    """What was measured.

    Attributes:
        comparisons: In the order of the work.
        shares: Of a step with cached data: the student, the views, the teacher's answers; they sum to 1.
        bottleneck: A sentence.
    """

    comparisons: tuple[Comparison, ...]
    shares: dict[str, float]
    bottleneck: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def bench(
    cache: Cache,
    data: ImageSet,
    student: nn.Module,
    *,
    batch_size: int,
    device: torch.device,
    rounds: int,
    teacher: Teacher | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Time the parts of training ``student`` from ``cache``, interleaved, on a device.

    Args:
        cache: An open cache.
        data: Its images.
        student: The net to train, on the device.
        batch_size: Images a step.
        device: Where everything runs.
        rounds: How often everything is timed.
        teacher: The cache's own teacher; without it, nothing is said of dumps and of a teacher online.
        progress: Is told what is being timed.

    Raises:
        MismatchError: The images are not those of the cache.
    """
    bench_ = _Bench(cache, data, batch_size, work.Student(student), device, rounds, progress or Silent())
    found = [*bench_.parts(), *bench_.steps(teacher)]
    if teacher is not None:
        found.append(bench_.dump(teacher))
    return Findings(tuple(found), *_shares(found))


class _Bench:
    """What is open while it lasts."""

    def __init__(
        self,
        cache: Cache,
        data: ImageSet,
        batch_size: int,
        student: work.Student,
        device: torch.device,
        rounds: int,
        progress: Progress,
    ) -> None:
        self._cache, self._data, self._batch_size, self._student = cache, data, batch_size, student
        self._device, self._rounds, self._progress = device, rounds, progress
        self._clock = device_clock(device.type)
        manifest = cache.manifest
        self._space = ViewSpace.from_dict(manifest.view_space)
        self._normalization = Normalization.from_dict(manifest.pixels["normalisation"])
        self._batches = work.endless(self._loader(None))
        self._batch: Batch = next(self._batches)

    def _loader(self, targets: Targets | None) -> Loader:
        options = LoaderOptions(batch_size=self._batch_size, device=self._device)
        return cached_loader(self._cache, self._data, options, targets=targets)

    def parts(self) -> list[Comparison]:
        """Time views, answers and the loss, each beside its bound."""
        self._progress.note("timing views, answers and the loss")
        targets = CacheTargets(self._cache, device=self._device)
        targets.begin(0, 0)
        renderer = Renderer(self._data.images, self._space, self._normalization, device=self._device)
        images, size = self._batch.images, len(self._batch.labels)
        addresses = [self._address(next(self._batches)) for _ in range(_PARTS)]
        pixels, row = images[0].numel(), self._cache.manifest.classes
        entry = sum(part.nbytes for part in self._cache.read_view(0).values()) // len(self._data)

        def views() -> None:
            for samples, ids in addresses:
                renderer.render(samples, ids)

        def answers() -> None:
            for samples, _ in addresses:
                targets.probabilities(samples, images)

        views_copied = work.copying(size * pixels, size * pixels * 4, self._device, count=8)
        answers_copied = work.copying(size * entry, size * row * 4, self._device, count=_PARTS)
        variants = {
            "views": views,
            "copy of the views' bytes": _repeated(views_copied),
            "answers": answers,
            "copy of the answers' bytes": _repeated(answers_copied),
            **{
                name: _repeated(one) for name, one in work.loss_against_eager(size, row, self._device).items()
            },
        }
        seconds = interleave(variants, rounds=max(self._rounds, 5), clock=self._clock)
        pairs = (
            ("what share of a copy's speed do views reach", "copy of the views' bytes", "views"),
            ("what share of a copy's speed do answers reach", "copy of the answers' bytes", "answers"),
            ("what does the loss cost against torch's", "loss", "eager loss"),
        )
        return [_compare(*pair, seconds, _PARTS * size) for pair in pairs]

    def _address(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return samples and views of a batch on the device, without its images."""
        return (
            torch.from_numpy(batch.samples).to(self._device),
            torch.from_numpy(batch.views).to(self._device),
        )

    def steps(self, teacher: Teacher | None) -> list[Comparison]:
        """Time steps with cached data, with data in place, and with the teacher online."""
        self._progress.note("timing steps of the student")
        batch, size = self._batch, len(self._batch.labels)

        def cached() -> None:
            for _ in range(_STEPS):
                self._student.step(next(self._batches))

        def in_place() -> None:
            for _ in range(_STEPS):
                self._student.step(batch)

        variants = {"step, data in place": in_place, "step, cached data": cached}
        if teacher is not None:
            online = work.endless(self._loader(OnlineTargets(teacher)))

            def asking() -> None:
                for _ in range(_STEPS):
                    self._student.step(next(online))

            variants["step, teacher online"] = asking
            variants["teacher's forward pass"] = lambda: work.ask_in_place(teacher, batch.images, _STEPS)
        seconds = interleave(variants, rounds=self._rounds, clock=self._clock)
        images = _STEPS * size
        question = "what share of the speed with data in place is left with cached data"
        found = [_compare(question, "step, data in place", "step, cached data", seconds, images)]
        if teacher is not None:
            both = zip(seconds["step, data in place"], seconds["teacher's forward pass"], strict=True)
            seconds["student and teacher alone"] = [a + b for a, b in both]
            question = "how many times as fast as with the teacher online"
            found.append(_compare(question, "step, teacher online", "step, cached data", seconds, images))
            question = "what share of the best speed with the teacher online does cached data reach"
            ideal = "student and teacher alone"
            found.append(_compare(question, ideal, "step, cached data", seconds, images))
        return found

    def dump(self, teacher: Teacher) -> Comparison:
        """Time the shards of a small dump beside the teacher alone."""
        self._progress.note("timing a small dump")
        manifest, size = self._cache.manifest, self._cache.manifest.compute["batch_size"]
        settings = DumpSettings(
            space=self._space,
            num_views=1,
            encoding=manifest.encoding["name"],
            batch_size=size,
            normalization=self._normalization,
        )
        some = self._data.first(min(len(self._data), _DUMPED_BATCHES * size))
        some.fingerprint  # noqa: B018 (known before anything is timed)
        images = self._batch.images.repeat(-(-size // len(self._batch.images)), 1, 1, 1)[:size]
        batches, rest = divmod(len(some), size)
        seconds: Seconds = {"dump": [], "teacher alone": []}
        for turn in range(self._rounds + 1):
            shards = work.dump_once(teacher, some, settings, self._device, self._clock)[1]
            began = self._clock()
            work.ask_in_place(teacher, images, batches)
            if rest:
                teacher.logits(images[:rest])
            if turn:
                seconds["teacher alone"].append(self._clock() - began)
                seconds["dump"].append(shards)
        question = "what share of the teacher's own speed does a dump reach"
        return _compare(question, "teacher alone", "dump", seconds, len(some))


def _repeated(piece: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(_PARTS):
            piece()

    return run


def _compare(question: str, one: str, other: str, seconds: Seconds, images: int) -> Comparison:
    def an_image(name: str) -> tuple[str, float]:
        return name, spread(seconds[name])["median"] / images * 1e6

    return Comparison(question, an_image(one), an_image(other), ratios(seconds[one], seconds[other]))


def _shares(found: list[Comparison]) -> tuple[dict[str, float], str]:
    """Return what share of a step each part has, and a sentence about the largest."""
    views, answers, _, step = found[:4]
    times = {"student": step.one[1], "views": views.other[1], "answers": answers.other[1]}
    total = sum(times.values())
    shares = {name: value / total for name, value in times.items()}
    name, share = max(shares.items(), key=lambda item: item[1])
    if name == "student":
        sentence = (
            f"the student itself is {share:.1%} of a step: no loader can make it faster than that allows"
        )
    else:
        sentence = f"the {name} are {share:.1%} of a step: a larger student costs little more"
    return shares, f"bottleneck: {sentence}"
