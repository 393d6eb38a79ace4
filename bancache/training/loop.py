"""One run from start to end: build, step, evaluate, save, record. A run that was stopped and resumed has the same bits."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from bancache.cache.reader import Cache
from bancache.errors import NonFiniteError
from bancache.evaluation.predict import Evaluator, Scores, score
from bancache.loader import Loader, Targets
from bancache.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bancache.philox import derive_seed
from bancache.sources.image_set import ImageSet
from bancache.system.progress import Progress, Silent, Stage
from bancache.system.signals import Interrupt
from bancache.system.wording import count
from bancache.training import preflight
from bancache.training.build import make_loader, make_model, make_optimizer
from bancache.training.cuda_graph import make_stepper
from bancache.training.distributed import ProcessGroup
from bancache.training.epoch_log import EpochLog
from bancache.training.options import TrainerOptions
from bancache.training.record import checkpoint_header
from bancache.training.run import Run
from bancache.training.state import TrainState, read_state, restore_state, save_state
from bancache.training.step import Step

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
    group, progress = group or ProcessGroup(), progress or Silent()
    preflight.require_matching_splits(data, test, run.space)
    preflight.require_one_run(run, group)
    with preflight.exclusive_output(options, group):
        finished = preflight.finished_checkpoint(run, options)
        group.require_same(f"the content of {options.out}", finished is not None)
        if finished is not None:
            return Trained(finished, fresh=False)
        preflight.require_memory(run, data, test, options, cache)
        loader = make_loader(
            run, data, options, cache=cache, targets=targets, progress=progress, rank=group.rank
        )
        if left := len(data) - loader.steps * loader.batch_size:
            progress.note(f"every epoch leaves out {left:,} of {count(len(data), 'image')}, others each time")
        log_path = options.log_path if group.is_main else None
        with closing(EpochLog(log_path, options.tensorboard)) as log:
            session = _Session(run, loader, test, options, group, log, progress)
            session.work(interrupt or Interrupt())
            session.finish()
        return Trained(load_checkpoint(options.checkpoint_path), fresh=True)


@dataclass
class _Session:
    """One attempt to finish a run."""

    run: Run
    loader: Loader
    test: ImageSet
    options: TrainerOptions
    group: ProcessGroup
    log: EpochLog
    progress: Progress

    def __post_init__(self) -> None:
        run, model = self.run, make_model(self.run, self.options)
        self.state = TrainState(model, make_optimizer(model, run.recipe))
        torch.manual_seed(derive_seed(run.seed, "dropout"))
        self._resume()
        step = Step(run, self._forward(), self.state)
        self._stepper = make_stepper(self.loader, step, self.options.graph, self.progress)
        self._last_save = self._clock = time.monotonic()

    def work(self, interrupt: Interrupt) -> None:
        """Train until the last epoch is finished."""
        epochs, state = self.run.recipe.epochs, self.state
        steps, batch_size = self.loader.steps, self.loader.batch_size
        self._write_log()  # an output that cannot be written is refused before the first step
        title = f"train {self.run.architecture['name']}, generation {self.run.generation}"
        done, total = (state.epoch * steps + state.step) * batch_size, epochs * steps * batch_size
        with self.progress.stage(title, total=total, unit="images", done=done) as stage:
            while state.epoch < epochs:
                self._epoch(stage, interrupt)

    def finish(self) -> None:
        """In the main process: evaluate the final model, complete the log, and write the checkpoint."""
        with self.group.main_first() as is_main:
            if is_main:
                scores = self._evaluate()
                self.state.history[-1]["test_accuracy"] = scores.accuracy
                self.log.write(self.state.history)
                images = self.run.recipe.epochs * self.loader.steps * self.loader.batch_size
                header = checkpoint_header(self.run, self.state, scores, self.test.classes, images=images)
                save_checkpoint(self.options.checkpoint_path, self.state.model.state_dict(), header)
                self.options.state_path.unlink(missing_ok=True)

    def _forward(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the model as a step calls it: compiled, and with averaged gradients, where needed."""
        model: nn.Module = self.state.model
        if self.run.recipe.compile:
            model = torch.compile(model)  # type: ignore[assignment]
        if self.run.ranks == 1:
            return model
        shared, state, rank = self.group.parallel(model), self.state, self.group.rank.rank

        def forward(images: torch.Tensor) -> torch.Tensor:
            # All processes resume from one saved state, so dropout may depend only on the step and the rank.
            torch.manual_seed(derive_seed(self.run.seed, "dropout", state.epoch, state.step, rank))
            logits: torch.Tensor = shared(images)
            return logits

        return forward

    def _epoch(self, stage: Stage, interrupt: Interrupt) -> None:
        """Take the remaining steps of the current epoch, then record it."""
        state, steps, epochs = self.state, self.loader.steps, self.run.recipe.epochs
        state.model.train()
        rates = self.run.recipe.learning_rates(state.epoch, steps)
        for _ in self._stepper(state.epoch, rates, state.step):
            state.step += 1
            stage.advance(self.loader.batch_size)
            if request := self.group.all_reduce_max(self._request(interrupt)):
                self._save()
                if request != _SAVE:  # a signal that arrived later counts after the next step
                    interrupt.signal_number = request
                    interrupt.check(f"epoch {state.epoch + 1} of {epochs}, step {state.step} of {steps}")
        self._close_epoch(stage, rates[-1])

    def _request(self, interrupt: Interrupt) -> int:
        """Return what this process requests after a step: 0, ``_SAVE``, or the number of a signal to stop."""
        return (interrupt.signal_number or signal.SIGTERM) if interrupt.requested else self._due()

    def _due(self) -> int:
        """Return ``_SAVE`` in the main process if it is time to save, else 0."""
        due = time.monotonic() - self._last_save >= self.options.save_every
        return _SAVE if due and self.group.is_main else 0

    def _close_epoch(self, stage: Stage, rate: float) -> None:
        """Append the epoch's record to the history, and start the next epoch."""
        state, epochs, every = self.state, self.run.recipe.epochs, self.options.eval_every
        images = self.loader.steps * self.loader.batch_size
        entry: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "loss": self._loss_sum() / self.loader.steps / self.run.ranks,
            "train_accuracy": int(self.group.all_gather(state.correct).sum()) / images,
            "learning_rate": rate,
        }
        state.epoch, state.step = state.epoch + 1, 0
        if self.group.is_main and state.epoch < epochs and every and state.epoch % every == 0:
            entry["test_accuracy"] = self._evaluate().accuracy
        state.history.append(entry)
        state.loss.zero_()
        state.correct.zero_()
        tested = f", test {entry['test_accuracy']:.2%}" if "test_accuracy" in entry else ""
        stage.log(
            f"epoch {entry['epoch']}/{epochs}: loss {entry['loss']:.4f}, "
            f"train {entry['train_accuracy']:.2%}{tested}"
        )
        if self.group.all_reduce_max(self._due()):
            self._save()
        self._write_log()

    def _write_log(self) -> None:
        with self.group.main_first():
            self.log.write(self.state.history)

    def _loss_sum(self) -> float:
        loss = float(self.group.all_gather(self.state.loss).sum())
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"the loss became {loss} in epoch {self.state.epoch + 1}", hint="train with a smaller --lr"
            )
        return loss

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(
            self.test,
            self.run.normalization,
            device=self.options.device,
            views=self.run.space,
            size=self.run.size,
            amp=self.run.recipe.amp,
        )

    def _evaluate(self) -> Scores:
        self._count_time()
        probabilities = self._evaluator.predict(self.state.model)
        self._clock = time.monotonic()  # evaluation is not training time
        return score(probabilities, self.test.labels)

    def _save(self) -> None:
        self._loss_sum()
        self._count_time()
        loss, correct = self.group.all_gather(self.state.loss), self.group.all_gather(self.state.correct)
        with self.group.main_first() as is_main:
            if is_main:
                run = self.run.to_dict()
                save_state(self.options.state_path, self.state, run, loss=loss, correct=correct)
        self._last_save = time.monotonic()

    def _count_time(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self._clock
        self._clock = now

    def _resume(self) -> None:
        """Restore the saved state, if there is one and it is not to be overwritten."""
        path, state = self.options.state_path, self.state
        with self.group.main_first() as is_main:
            if is_main and self.options.overwrite:  # removed only now, after all checks of the settings
                self.options.checkpoint_path.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        if path.exists():
            content = read_state(path)
            self.run.require_same(content["run"], str(path))
            restore_state(path, content, state, rank=self.group.rank.rank)
            self.progress.log(f"resuming: epoch {state.epoch + 1}, step {state.step} of {self.loader.steps}")
        self.group.require_same(f"the content of {path}", state.epoch, state.step)
