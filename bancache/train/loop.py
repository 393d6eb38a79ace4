"""One run, top to bottom: build, step, evaluate, save, record; the same bits however often it was stopped."""

from __future__ import annotations

import glob
import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bancache.cache.reader import Cache
from bancache.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bancache.errors import DataError, NonFiniteError
from bancache.evaluate import predict, score
from bancache.files import make_directory, remove_temporaries
from bancache.loader import Loader, Targets
from bancache.locks import exclusive_file
from bancache.logs import EpochLog, epoch_log
from bancache.philox import derive_seed
from bancache.progress import Progress, Silent, Stage
from bancache.runtime import Interrupt
from bancache.sources.base import ImageSet
from bancache.train.batches import loader_of
from bancache.train.net import build_net, make_optimizer
from bancache.train.pace import pace_of
from bancache.train.place import Place
from bancache.train.run import Run
from bancache.train.state import TrainState, read_state, restore_state, save_state
from bancache.train.step import Step


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        checkpoint: As it lies on disk.
        fresh: False when it was complete already and nothing was trained.
    """

    checkpoint: Checkpoint
    fresh: bool


def train(
    run: Run,
    data: ImageSet,
    test: ImageSet,
    place: Place,
    *,
    cache: Cache | None = None,
    targets: Targets | None = None,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> Trained:
    """Carry a run out, or go on with it, and leave its checkpoint.

    Args:
        run: What to train.
        data: Training images, those of ``run.data_fingerprint``.
        test: The test split, looked at and never chosen by.
        place: Where.
        cache: The teacher's answers.
        targets: Answers from elsewhere (a teacher online) instead of the cache's.
        progress: Is told of every step and epoch.
        interrupt: Asked between steps.

    Raises:
        MismatchError: What lies at ``out`` comes from another run; or the cache does not fit.
        NonFiniteError: The loss became NaN or infinite.
        BusyError: Another process is training to the same file.
        StorageError: The disk is full, read-only or failing; the last state stays.
        StoppedError: A stop was asked for; the state is saved.
    """
    _require_alike(data, test)
    make_directory(place.out.parent)
    with exclusive_file(place.out):
        remove_temporaries(place.out.parent, f"{glob.escape(place.out.name)}.*")
        if finished := _finished(run, place):
            return Trained(finished, fresh=False)
        progress = progress or Silent()
        loader = loader_of(run, data, place, cache, targets, progress)
        with epoch_log(place.log_path, place.tensorboard) as log:
            session = _Session(run, loader, test, place, progress, interrupt or Interrupt(), log)
            header = session.work()
        save_checkpoint(place.out, session.model.state_dict(), header)
        place.state_path.unlink(missing_ok=True)
        return Trained(load_checkpoint(place.out), fresh=True)


def _require_alike(data: ImageSet, test: ImageSet) -> None:
    """Refuse splits that one net cannot take: each is opened for itself."""
    if data.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"training images are {data.images.shape[1:]}, test images {test.images.shape[1:]} "
            "(height, width, channels)",
            hint="give both splits one size with --image-size, and one kind of colour",
        )
    if data.classes != test.classes:
        raise DataError(
            f"training images have {len(data.classes)} classes, test images {len(test.classes)} or other names",
            hint="both splits need the same classes in the same order",
        )


def _finished(run: Run, place: Place) -> Checkpoint | None:
    """Return the checkpoint at ``out`` if this very run left it."""
    if place.overwrite or not place.out.exists():
        return None
    checkpoint = load_checkpoint(place.out)
    run.require_same(checkpoint.header, str(place.out))
    place.state_path.unlink(missing_ok=True)
    return checkpoint


class _Session:
    """A run under way: what is open while it lasts."""

    def __init__(
        self,
        run: Run,
        loader: Loader,
        test: ImageSet,
        place: Place,
        progress: Progress,
        interrupt: Interrupt,
        log: EpochLog,
    ) -> None:
        self.run, self.loader, self.test, self.place = run, loader, test, place
        self.progress, self.interrupt, self.log = progress, interrupt, log
        self.model = build_net(run, place)
        self.optimizer = make_optimizer(self.model, run.recipe)
        forward = torch.compile(self.model) if run.recipe.compile else self.model
        torch.manual_seed(derive_seed(run.seed, "dropout"))
        self.state = self._resume()
        step = Step(run, forward, self.optimizer, self.state)
        self.pace = pace_of(run, loader, step, self.model, self.optimizer, self.state, place.graph, progress)
        self._last_save = self._clock = time.monotonic()

    def work(self) -> dict[str, Any]:
        """Train to the end and return the checkpoint's header."""
        recipe, steps = self.run.recipe, self.loader.steps
        batch = min(recipe.batch_size, len(self.loader.plan.order(0)))
        done = (self.state.epoch * steps + self.state.step) * batch
        total = recipe.epochs * steps * batch
        self._save()  # a place that cannot be written to is refused before the first step
        self.log.show(self.state.history)
        title = f"train {self.run.architecture['name']}, generation {self.run.generation}"
        with self.progress.stage(title, total=total, unit="images", done=done) as stage:
            while self.state.epoch < recipe.epochs:
                self._epoch(stage, batch)
        return self._header(total)

    def _epoch(self, stage: Stage, batch_size: int) -> None:
        """Take the steps that the current epoch still has, then look at the test split."""
        recipe, state, steps = self.run.recipe, self.state, self.loader.steps
        self.model.train()
        rates = [recipe.learning_rate(state.epoch * steps + n, recipe.epochs * steps) for n in range(steps)]
        for _ in self.pace.epoch(state.epoch, rates, start=state.step):
            state.step += 1
            stage.advance(batch_size)
            if self.interrupt.requested or time.monotonic() - self._last_save >= self.place.save_every:
                self._save()
                self.interrupt.check(
                    f"epoch {state.epoch + 1} of {recipe.epochs}, step {state.step} of {steps}"
                )
        self._close_epoch(stage, rate_index=(state.epoch + 1) * steps - 1, shown=steps * batch_size)

    def _close_epoch(self, stage: Stage, *, rate_index: int, shown: int) -> None:
        """Turn the epoch's sums into a line of history, and begin the next."""
        recipe, state, steps = self.run.recipe, self.state, self.loader.steps
        entry: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "loss": self._finite_loss() / steps,
            "train_accuracy": int(state.correct) / shown,
            "learning_rate": recipe.learning_rate(rate_index, recipe.epochs * steps),
        }
        last = state.epoch + 1 == recipe.epochs
        every = self.place.eval_every
        if not last and every and (state.epoch + 1) % every == 0:
            entry["test_accuracy"] = score(self._predict(), self.test.labels).accuracy
        state.history.append(entry)
        state.epoch, state.step = state.epoch + 1, 0
        state.loss.zero_()
        state.correct.zero_()
        tested = f", test {entry['test_accuracy']:.2%}" if "test_accuracy" in entry else ""
        stage.note(
            f"epoch {entry['epoch']}/{recipe.epochs}: loss {entry['loss']:.4f}, "
            f"train {entry['train_accuracy']:.2%}{tested}"
        )
        self._save()
        self.log.show(state.history)

    def _finite_loss(self) -> float:
        loss = float(self.state.loss)
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"the loss became {loss} in epoch {self.state.epoch + 1}", hint="train with a smaller --lr"
            )
        return loss

    def _predict(self) -> Any:
        self._count_time()
        probabilities = predict(
            self.model, self.test, self.run.normalisation, device=self.place.device, amp=self.run.recipe.amp
        )
        self._clock = time.monotonic()  # looking at the test split is not training time
        return probabilities

    def _save(self) -> None:
        self._finite_loss()
        self._count_time()
        save_state(self.place.state_path, self.state, self.model, self.optimizer, self.run.to_dict())
        self._last_save = time.monotonic()

    def _count_time(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self._clock
        self._clock = now

    def _resume(self) -> TrainState:
        device = self.place.device
        fresh = TrainState()
        fresh.loss, fresh.correct = fresh.loss.to(device), fresh.correct.to(device)
        if self.place.overwrite:  # only here, where all that could be wrong with the run has been refused
            self.place.out.unlink(missing_ok=True)
            self.place.state_path.unlink(missing_ok=True)
        if not self.place.state_path.exists():
            return fresh
        content = read_state(self.place.state_path)
        self.run.require_same(content["run"], str(self.place.state_path))
        state = restore_state(self.place.state_path, content, self.model, self.optimizer)
        self.progress.note(f"resuming: epoch {state.epoch + 1}, step {state.step} of {self.loader.steps}")
        return state

    def _header(self, images: int) -> dict[str, Any]:
        """Return what the checkpoint says beside its weights, with the last epoch's test figures."""
        scores = score(self._predict(), self.test.labels)
        self.state.history[-1]["test_accuracy"] = scores.accuracy
        self.log.show(self.state.history)
        return {
            **self.run.to_dict(),
            "data": self.run.data.resolved().to_dict(),
            "data_as_typed": self.run.data.source,
            "classes": list(self.test.classes),
            "views": self.run.space.name,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "trainable": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "history": self.state.history,
            "test": asdict(scores),
            "seconds": round(self.state.seconds, 3),
            "images_per_second": round(images / max(self.state.seconds, 1e-9), 1),
        }
