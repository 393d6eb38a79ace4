"""One run from start to end: build, step, evaluate, save, record. A run that was stopped and resumed has the same bits.

A whole run, with ``import torch`` and ``from bancache import DataSpec, Recipe, TrainerOptions, run_for_labels, train``:

    spec = DataSpec("digits")
    data, test = spec.open("train"), spec.open("test")
    run = run_for_labels(
        {"name": "convnet-16", "classes": 10, "channels": 1, "image_size": [8, 8]},
        Recipe(epochs=15, batch_size=64, lr=0.2, schedule="onecycle", weight_decay=5e-4),
        0, spec, data, "crop1",
    )
    print(train(run, data, test, TrainerOptions("gen0.pt", torch.device("cpu"))).checkpoint.header["test"])
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bancache.cache.reader import Cache
from bancache.errors import NonFiniteError
from bancache.evaluation.predict import Scores, predict, score
from bancache.loader import Loader, Targets
from bancache.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bancache.philox import derive_seed
from bancache.sources.image_set import ImageSet
from bancache.system.progress import Progress, Silent, Stage
from bancache.system.signals import Interrupt
from bancache.training import preflight
from bancache.training.build import make_model, make_optimizer
from bancache.training.distributed import ProcessGroup
from bancache.training.epoch_log import EpochLog
from bancache.training.make_loader import make_loader
from bancache.training.options import TrainerOptions
from bancache.training.record import checkpoint_header
from bancache.training.run import Run
from bancache.training.state import TrainState, read_state, restore_state, save_state
from bancache.training.step import Step
from bancache.training.stepper import make_stepper

# After each step the processes take the maximum of 0 (go on), this value, and the numbers of received signals.
_SAVE = 1


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        checkpoint: The checkpoint, as read from disk.
        fresh: False if the run was complete already and nothing was trained.
    """

    checkpoint: Checkpoint
    fresh: bool


def train(
    run: Run,
    data: ImageSet,
    test: ImageSet,
    options: TrainerOptions,
    *,
    cache: Cache | None = None,
    targets: Targets | None = None,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
    group: ProcessGroup | None = None,
) -> Trained:
    """Train a model to the end, resuming where an earlier call stopped, and write its checkpoint.

    A run for labels comes from ``run_for_labels``, a run for a student from ``run_for_cache``, with the same cache.

    Args:
        run: What to train.
        data: Training images, uint8 (N, H, W, C), with the fingerprint ``run.data_fingerprint``.
        test: Test images of the same size and classes. They are evaluated, and never used to select a model.
        options: Where and how the run is carried out.
        cache: Source of the soft targets; required if ``run`` was made by ``run_for_cache``.
        targets: Soft targets that replace those of the cache, such as ``OnlineTargets``.
        progress: Receives every step and epoch.
        interrupt: Checked after every step; a requested stop saves the state first.
        group: The processes that share this run, from ``join_process_group``; by default there is only this one.

    Raises:
        MismatchError: The files at ``out`` belong to another run, or the cache belongs to other images.
        DataError: The two splits differ in image size or classes.
        NonFiniteError: The loss became NaN or infinite.
        BusyError: Another process trains to the same file.
        StorageError: The disk is full, read-only or failing. The last saved state stays.
        StoppedError: A stop was requested in any of the processes. The state is saved.
        UsageError: The processes were started with different runs, or cannot share a batch evenly.
    """
    preflight.require_matching_splits(data, test)
    group, progress = group or ProcessGroup(), progress or Silent()
    preflight.require_one_run(run, group)
    with preflight.exclusive_output(options, group):
        finished = preflight.finished_checkpoint(run, options)
        group.require_same(f"the content of {options.out}", finished is not None)
        if finished is not None:
            return Trained(finished, fresh=False)
        loader = make_loader(
            run, data, options, cache=cache, targets=targets, progress=progress, rank=group.rank
        )
        log_path = options.log_path if group.is_main else None
        with closing(EpochLog(log_path, options.tensorboard)) as log:
            session = _Session(run, loader, test, options, group, log, progress)
            session.work(interrupt or Interrupt())
            with group.main_first() as is_main:
                if is_main:
                    save_checkpoint(
                        options.checkpoint_path, session.state.model.state_dict(), session.finish()
                    )
                    options.state_path.unlink(missing_ok=True)
        return Trained(load_checkpoint(options.checkpoint_path), fresh=True)


class _Session:
    """One attempt to finish a run."""

    def __init__(
        self,
        run: Run,
        loader: Loader,
        test: ImageSet,
        options: TrainerOptions,
        group: ProcessGroup,
        log: EpochLog,
        progress: Progress,
    ) -> None:
        self._run, self._loader, self._test, self._options = run, loader, test, options
        self._group, self._log, self._progress = group, log, progress
        model = make_model(run, options)
        self.state = TrainState(model, make_optimizer(model, run.recipe))
        torch.manual_seed(derive_seed(run.seed, "dropout"))
        self._resume()
        self._stepper = make_stepper(loader, Step(run, self._forward(), self.state), options.graph, progress)
        self._last_save = self._clock = time.monotonic()

    def work(self, interrupt: Interrupt) -> None:
        """Train until the last epoch is finished."""
        epochs, state = self._run.recipe.epochs, self.state
        steps, batch_size = self._loader.steps, self._loader.batch_size
        self._save()  # an output that cannot be written is refused before the first step
        self._log.write(state.history)
        title = f"train {self._run.architecture['name']}, generation {self._run.generation}"
        done, total = (state.epoch * steps + state.step) * batch_size, epochs * steps * batch_size
        with self._progress.stage(title, total=total, unit="images", done=done) as stage:
            while state.epoch < epochs:
                self._epoch(stage, interrupt)

    def finish(self) -> dict[str, Any]:
        """Evaluate the final model, complete the log, and return the header of the checkpoint."""
        scores = self._evaluate()
        self.state.history[-1]["test_accuracy"] = scores.accuracy
        self._log.write(self.state.history)
        images = self._run.recipe.epochs * self._loader.steps * self._loader.batch_size
        return checkpoint_header(self._run, self.state, scores, self._test.classes, images=images)

    def _forward(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the model as a step calls it: compiled, and with averaged gradients, where needed."""
        model: nn.Module = self.state.model
        if self._run.recipe.compile:
            model = torch.compile(model)  # type: ignore[assignment]
        if self._run.ranks == 1:
            return model
        shared, state, rank = self._group.parallel(model), self.state, self._group.rank.rank

        def forward(images: torch.Tensor) -> torch.Tensor:
            # All processes resume from one saved state, so dropout may depend only on the step and the rank.
            torch.manual_seed(derive_seed(self._run.seed, "dropout", state.epoch, state.step, rank))
            logits: torch.Tensor = shared(images)
            return logits

        return forward

    def _epoch(self, stage: Stage, interrupt: Interrupt) -> None:
        """Take the remaining steps of the current epoch, then record it."""
        state, steps, epochs = self.state, self._loader.steps, self._run.recipe.epochs
        state.model.train()
        rates = self._run.recipe.learning_rates(state.epoch, steps)
        for _ in self._stepper.epoch(state.epoch, rates, start=state.step):
            state.step += 1
            stage.advance(self._loader.batch_size)
            if request := self._group.all_reduce_max(self._request(interrupt)):
                self._save()
                if request != _SAVE:  # a signal that arrived later counts after the next step
                    interrupt.signal_number = request
                    interrupt.check(f"epoch {state.epoch + 1} of {epochs}, step {state.step} of {steps}")
        self._close_epoch(stage, rates[-1])

    def _request(self, interrupt: Interrupt) -> int:
        """Return what this process requests after a step: 0, ``_SAVE``, or the number of a signal to stop."""
        if interrupt.requested:
            return interrupt.signal_number or signal.SIGTERM
        due = time.monotonic() - self._last_save >= self._options.save_every
        return _SAVE if due and self._group.is_main else 0

    def _close_epoch(self, stage: Stage, rate: float) -> None:
        """Append the epoch's record to the history, and start the next epoch."""
        state, epochs, every = self.state, self._run.recipe.epochs, self._options.eval_every
        images = self._loader.steps * self._loader.batch_size
        entry: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "loss": self._loss_sum() / self._loader.steps / self._run.ranks,
            "train_accuracy": int(self._group.all_gather(state.correct).sum()) / images,
            "learning_rate": rate,
        }
        state.epoch, state.step = state.epoch + 1, 0
        if self._group.is_main and state.epoch < epochs and every and state.epoch % every == 0:
            entry["test_accuracy"] = self._evaluate().accuracy
        state.history.append(entry)
        state.loss.zero_()
        state.correct.zero_()
        tested = f", test {entry['test_accuracy']:.2%}" if "test_accuracy" in entry else ""
        stage.note(
            f"epoch {entry['epoch']}/{epochs}: loss {entry['loss']:.4f}, "
            f"train {entry['train_accuracy']:.2%}{tested}"
        )
        self._save()
        self._log.write(state.history)

    def _loss_sum(self) -> float:
        loss = float(self._group.all_gather(self.state.loss).sum())
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"the loss became {loss} in epoch {self.state.epoch + 1}", hint="train with a smaller --lr"
            )
        return loss

    def _evaluate(self) -> Scores:
        self._count_time()
        device, amp = self._options.device, self._run.recipe.amp
        probabilities = predict(self.state.model, self._test, self._run.normalization, device=device, amp=amp)
        self._clock = time.monotonic()  # evaluation is not training time
        return score(probabilities, self._test.labels)

    def _save(self) -> None:
        self._loss_sum()
        self._count_time()
        loss, correct = self._group.all_gather(self.state.loss), self._group.all_gather(self.state.correct)
        with self._group.main_first() as is_main:
            if is_main:
                run = self._run.to_dict()
                save_state(self._options.state_path, self.state, run, loss=loss, correct=correct)
        self._last_save = time.monotonic()

    def _count_time(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self._clock
        self._clock = now

    def _resume(self) -> None:
        """Restore the saved state, if there is one and it is not to be overwritten."""
        path, state = self._options.state_path, self.state
        with self._group.main_first() as is_main:
            if is_main and self._options.overwrite:  # removed only now, after all checks of the settings
                self._options.checkpoint_path.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        if path.exists():
            content = read_state(path)
            self._run.require_same(content["run"], str(path))
            restore_state(path, content, state, rank=self._group.rank.rank)
            self._progress.note(
                f"resuming: epoch {state.epoch + 1}, step {state.step} of {self._loader.steps}"
            )
        self._group.require_same(f"the content of {path}", state.epoch, state.step)
