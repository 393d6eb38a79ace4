"""What does the same distillation cost as people write it, beside ours?

A ResNet-8 learns from a ResNet-20 on one CPU thread: batches of 128, padded crops and flips, cross-entropy with labels and
with the teacher, SGD. The images are the first 2,000 of CIFAR-100, noise where they are not at hand. There is a DataLoader
with the teacher online, the loops of ``benchmarks.by_hand`` with the teacher online and with its float16 logits in a
memmap, and ours; and torchdistill's dataset of cached outputs where it is installed (1.1.4: later versions have none). One
student, and four in one loop, which share batches and the teacher's answers.

A round takes a few steps of each loop, begins an epoch of each, and dumps one view by hand and by ours. The job is all of it:
as many views as epochs, so each view is shown once, which is the worst case of a cache. "In turn" means students trained one
after another, which ask an online teacher anew.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from bancache import DataSpec, losses, open_loader
from bancache.bench.timing import Seconds
from bancache.bench.work import endless
from bancache.dumping import dump
from bancache.encodings.fidelity import divergence
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.system.progress import Silent, Stage
from benchmarks import by_hand
from benchmarks.harness import arguments, interleave, report
from benchmarks.rivals_rows import COUNTS, EPOCHS, LOOPS, MEMMAP, OURS, TORCHDISTILL, Measured, rows_of
from benchmarks.synthetic import CPU, NORMAL, net, noise_file, settings, teacher_of
from benchmarks.views import InMemory

CIFAR = Path("../shared/data/cifar100")
STORED = 2
Run = Callable[[], Any]


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    images: int = 2_000
    batch: int = 128
    steps: int = 2
    rounds: int = 5
    teacher: str = "resnet-20"
    student: str = "resnet-8"
    teacher_epochs: int = 2


QUICK = Scale(128, 16, 1, 2, "convnet-4", "convnet-4", 1)


class Batches(Silent):
    """Times a dump from the end of its first batch on, in which it also measures what it measures once."""

    def __init__(self) -> None:
        self._first, self._began, self._ended = 0, 0.0, 0.0

    @contextmanager
    def stage(self, title: str, *, total: int, unit: str, done: int = 0) -> Iterator[Stage]:
        """Note when a stage ends."""
        with super().stage(title, total=total, unit=unit, done=done) as stage:
            yield stage
        self._ended = time.process_time()

    def advance(self, amount: int) -> None:
        """Note when the first batch is done."""
        if not self._first:
            self._first, self._began = amount, time.process_time()

    def view_seconds(self, images: int) -> float:
        """Return the seconds of all images, by those after the first batch."""
        return (self._ended - self._began) * images / (images - self._first)


class Rivals:
    """The loops and dumps of one job, on the same images with the same teacher."""

    def __init__(self, scale: Scale, folder: Path, spec: DataSpec) -> None:
        """Train the teacher, and dump what loops read."""
        self._scale, self._folder = scale, folder
        self.data: ImageSet = spec.open("train")
        self._labels = torch.tensor(self.data.labels)
        self.teacher = self._trained_teacher()
        self.ask = by_hand.online(self.teacher.model, kind="cpu", amp=False)
        views, shape = self.views(), (STORED, len(self.data), len(self.data.classes))
        self.memmap = np.memmap(folder / "logits.bin", np.float16, "w+", shape=shape)
        for view in range(STORED):
            self.memmap[view] = by_hand.dump(views, self.ask, view, batch=scale.batch).numpy()
        asked = settings(num_views=STORED, batch_size=scale.batch)
        self.cache = dump(self.teacher, self.data, spec, folder / "gen0.zarr", asked, device=CPU).cache

    def views(self) -> by_hand.Views:
        """Return the padded images."""
        images = torch.from_numpy(np.array(self.data.images))
        return by_hand.Views(images, NORMAL.mean, NORMAL.std, CPU, torch.float32)

    def _net(self, name: str) -> nn.Module:
        built = net(name, len(self.data.classes)).train()
        return built.to(memory_format=torch.channels_last)

    def _loop(self, nets: list[nn.Module], views: by_hand.Views, answers: Any, **more: Any) -> by_hand.Loop:
        return by_hand.Loop(
            views, self._labels, nets, answers, batch=self._scale.batch, amp=False, **{"lr": 0.01, **more}
        )

    def _trained_teacher(self) -> Teacher:
        taught = self._net(self._scale.teacher)
        loop = self._loop([taught], self.views(), None, lr=0.1)
        loop.steps(self._scale.teacher_epochs * (len(self.data) // self._scale.batch))
        return teacher_of(taught, self._scale.teacher)

    def loops(self) -> dict[tuple[str, int], tuple[Run, Run]]:
        """Return what takes steps and what begins an epoch, by loop and number of students."""
        makers = {
            LOOPS[0]: self._data_loader,
            LOOPS[1]: self._online,
            MEMMAP: self._stored,
            TORCHDISTILL: self._torchdistill,
            OURS: self._ours,
        }
        return {
            (name, count): makers[name]([self._net(self._scale.student) for _ in range(count)])
            for name in LOOPS
            for count in COUNTS
        }

    def _data_loader(self, nets: list[nn.Module]) -> tuple[Run, Run]:
        loader = DataLoader(InMemory(self.data), self._scale.batch, shuffle=True, drop_last=True)
        loop = self._loop(nets, self.views(), None)
        batches = itertools.chain.from_iterable(itertools.repeat(loader))

        def run() -> None:
            for images, labels in itertools.islice(batches, self._scale.steps):
                shown = images.to(memory_format=torch.channels_last)
                loop.learn(shown, labels, self.ask(shown, labels))

        return run, lambda: iter(loader)

    def _torchdistill(self, nets: list[nn.Module]) -> tuple[Run, Run]:
        self._write_outputs()
        loader = DataLoader(self._cacheable(), self._scale.batch, shuffle=True, drop_last=True)
        loop = self._loop(nets, self.views(), None)
        batches = itertools.chain.from_iterable(itertools.repeat(loader))

        def run() -> None:
            for images, labels, more in itertools.islice(batches, self._scale.steps):
                shown = images.to(memory_format=torch.channels_last)
                loop.learn(shown, labels, more["cached_data"]["teacher_outputs"])

        return run, lambda: iter(loader)

    def _cacheable(self) -> Any:
        wrapper = import_module("torchdistill.datasets.wrapper")
        where = str(self._folder / "torchdistill")
        return wrapper.CacheableDataset(InMemory(self.data), where, wrapper.default_idx2subpath)

    def _write_outputs(self) -> None:
        """Write what its distillation box writes in the first epoch: a file an image, of the view that it happens to see."""
        shutil.rmtree(self._folder / "torchdistill", ignore_errors=True)
        for images, labels, more in DataLoader(self._cacheable(), self._scale.batch):
            outputs = self.ask(images.to(memory_format=torch.channels_last), labels)
            for output, path in zip(outputs.cpu().numpy(), more["cache_file_path"], strict=True):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                torch.save({"teacher_outputs": torch.Tensor(output), "extracted_outputs": {}}, path)

    def _online(self, nets: list[nn.Module]) -> tuple[Run, Run]:
        loop = self._loop(nets, self.views(), self.ask)
        return lambda: loop.steps(self._scale.steps), loop.begin

    def _stored(self, nets: list[nn.Module]) -> tuple[Run, Run]:
        views = self.views()
        answers = by_hand.stored(torch.from_numpy(self.memmap), views)
        loop = self._loop(nets, views, answers, num_views=STORED)
        return lambda: loop.steps(self._scale.steps), loop.begin

    def _ours(self, nets: list[nn.Module]) -> tuple[Run, Run]:
        loader, epochs = open_loader(self.cache.path, batch_size=self._scale.batch), itertools.count()
        batches = endless(loader)
        students = [
            (one, torch.optim.SGD(one.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4))
            for one in nets
        ]

        def run() -> None:
            for images, labels, targets, *_ in itertools.islice(batches, self._scale.steps):
                for student, optimizer in students:
                    torch.autograd.backward(losses.ban_l(student(images), targets, labels))
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)

        return run, lambda: next(iter(loader.epoch(next(epochs))))

    def dumps(self, starts: list[float]) -> dict[str, Run]:
        """Return what dumps one view of all images; ``starts`` gets the seconds that ours takes once, for any number."""
        views, asked = self.views(), settings(batch_size=self._scale.batch)

        def memmap() -> None:
            shape = self.memmap.shape[1:]
            stored = np.memmap(self._folder / "timed.bin", np.float16, "w+", shape=shape)
            stored[:] = by_hand.dump(views, self.ask, 0, batch=self._scale.batch).numpy()
            stored.flush()

        def ours() -> None:
            clock, began = Batches(), time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "timed.zarr"
                dump(self.teacher, self.data, DataSpec("digits"), out, asked, device=CPU, progress=clock)
            starts.append(time.process_time() - began - clock.view_seconds(len(self.data)))

        more = {TORCHDISTILL: self._write_outputs} if TORCHDISTILL in LOOPS else {}
        return {MEMMAP: memmap, **more, OURS: ours}

    def stores(self) -> dict[str, dict[str, float]]:
        """Return bytes a pair and the mean KL divergence at temperature 1 of what is stored."""
        pairs, views = STORED * len(self.data), self.views()
        views.begin(0)
        index = torch.arange(min(len(self.data), 500))
        exact, kept = self.ask(views.of(index), index), torch.from_numpy(self.memmap[0, : len(index)])
        lost = divergence(exact, torch.softmax(kept.float(), dim=1), 1.0).mean()
        ours = self.cache.summary["fidelity"]["1"]["kl_mean"]
        found = {
            MEMMAP: {"bytes_a_pair": self.memmap.nbytes / pairs, "kl_mean": float(lost)},
            OURS: {"bytes_a_pair": self.cache.bytes / pairs, "kl_mean": ours},
        }
        return found | ({TORCHDISTILL: self._one_output()} if TORCHDISTILL in LOOPS else {})

    def _one_output(self) -> dict[str, float]:
        """Return what torchdistill stores, and the divergence of that from the teacher's outputs for the views that are shown."""
        files = [path.stat().st_blocks * 512 for path in (self._folder / "torchdistill").rglob("*.pt")]
        images, labels, more = next(iter(DataLoader(self._cacheable(), min(len(self.data), 500))))
        exact = self.ask(images.to(memory_format=torch.channels_last), labels)
        kept = torch.softmax(more["cached_data"]["teacher_outputs"], dim=1)
        lost = float(divergence(exact, kept, 1.0).mean())
        return {"bytes_a_pair": sum(files) / len(self.data), "kl_mean": lost}


def measure(rivals: Rivals, scale: Scale) -> Measured:
    """Run all of it in turns."""
    runs: dict[str, Run] = {}
    for (name, count), (steps, begin) in rivals.loops().items():
        runs[f"step {name}, {count}"] = steps
        runs.setdefault(f"begin {name}", begin)
    starts: list[float] = []
    runs |= {f"view {name}": run for name, run in rivals.dumps(starts).items()}
    seconds = interleave(runs, rounds=scale.rounds)

    def part(kind: str, each: int = 1) -> Seconds:
        return {
            key.removeprefix(kind): [value / each for value in values]
            for key, values in seconds.items()
            if key.startswith(kind)
        }

    view = part("view ")
    view[OURS] = [whole - start for whole, start in zip(view[OURS], starts[1:], strict=True)]
    return Measured(part("step ", scale.steps), part("begin "), view, {OURS: starts[1:]})


def main() -> None:
    """Measure and print."""
    options = arguments("rivals", str(__doc__))
    scale, real = (QUICK, False) if options.quick else (Scale(), CIFAR.exists())
    with tempfile.TemporaryDirectory() as folder:
        cifar = DataSpec(f"parquet:{CIFAR}", limit=scale.images)
        rivals = Rivals(scale, Path(folder), cifar if real else noise_file(Path(folder), scale.images))
        rows = list(rows_of(measure(rivals, scale), rivals.stores(), scale.images // scale.batch))
        sure = rivals.cache.summary["teacher_mean_max_probability"]
    about = {
        "data": "the first images of CIFAR-100" if real else "noise",
        "images": scale.images,
        "epochs": EPOCHS,
        "nets": f"{scale.teacher} teaches {scale.student}",
        "teacher_mean_max_probability": sure,
        "load": os.getloadavg()[0],
    }
    report("rivals", [{**row, **about} for row in rows], options)


if __name__ == "__main__":
    main()
