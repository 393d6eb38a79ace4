"""A run between its steps: resume, ask for each step, evaluate, save, record. The caller takes the steps."""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from bancache.errors import MismatchError, NonFiniteError
from bancache.evaluation.predict import Evaluator, Scores, score
from bancache.loader import Loader
from bancache.models.checkpoint import save_checkpoint
from bancache.philox import derive_seed
from bancache.sources.image_set import ImageSet
from bancache.system.device import arithmetic
from bancache.system.fingerprint import short
from bancache.system.progress import Progress, Silent, Stage
from bancache.system.signals import Interrupt
from bancache.training.build import make_model, make_optimizer
from bancache.training.cuda_graph import Stepper
from bancache.training.distributed import ProcessGroup
from bancache.training.epoch_log import EpochLog
from bancache.training.memory import evaluated_at_once
from bancache.training.options import TrainerOptions
from bancache.training.record import checkpoint_header
from bancache.training.run import Run
from bancache.training.state import TrainState, read_state, restore_state, save_state
from bancache.training.step import Step

# After each step the processes take the maximum of 0 (go on), this value, and the numbers of received signals.
_SAVE = 1


@dataclass
class Session:
    """One attempt to finish a run: its state, what happens between two steps, and its files."""

    run: Run
    loader: Loader
    test: ImageSet
    options: TrainerOptions
    group: ProcessGroup
    log: EpochLog
    progress: Progress
    stage: Stage = field(default_factory=Silent)
    side_by_side: int = 1

    def __post_init__(self) -> None:
        run, model = self.run, make_model(self.run, self.options)
        averaged = copy.deepcopy(model).eval().requires_grad_(requires_grad=False) if run.recipe.ema else None
        self.state = TrainState(model, make_optimizer(model, run.recipe), averaged)
        torch.manual_seed(derive_seed(run.seed, "dropout"))
        self._resume()
        self.step = Step(run, self._forward(), self.state)

    @property
    def done(self) -> int:
        """Steps that were taken, of all epochs."""
        return self.state.epoch * self.loader.steps + self.state.step

    @property
    def images(self) -> int:
        """Images that all epochs show."""
        return self.run.recipe.epochs * self.loader.samples

    @property
    def images_done(self) -> int:
        """Images that were shown."""
        return self.state.epoch * self.loader.samples + self.state.step * self.loader.batch_size

    def work(self, stepper: Stepper, interrupt: Interrupt, *, until: int | None = None) -> Iterator[None]:
        """Train to the end of the last epoch, or until so many steps are done; each yield asks for the next step.

        The caller takes it with the run's own stepper, or for several runs at once.
        """
        state, steps, epochs = self.state, self.loader.steps, self.run.recipe.epochs
        self._last_save = self._clock = time.monotonic()
        self._write_log()  # an output that cannot be written is refused before the first step
        while state.epoch < epochs:
            state.model.train()
            rates = self.run.recipe.learning_rates(state.epoch, steps)
            stepper.begin(state.epoch, rates, state.step)
            while state.step < steps:
                if self.done == until:
                    return
                yield
                self.stage.advance(self.loader.size(state.step))
                state.step += 1
                self._answer(interrupt)
            self._close_epoch(rates[-1])

    def finish(self) -> None:
        """In the main process: evaluate the final model, complete the log, and write the checkpoint."""
        with self.group.main_first() as is_main:
            if is_main:
                scores = self._evaluate()
                self.state.history[-1]["test_accuracy"] = scores.accuracy
                self.log.write(self.state.history)
                header = checkpoint_header(
                    self.run, self.state, scores, self.test.classes, images=self.images
                )
                if self.side_by_side > 1:  # then their seconds are those of all
                    header["side_by_side"] = self.side_by_side
                save_checkpoint(self.options.checkpoint_path, self.state.result.state_dict(), header)
                self.options.state_path.unlink(missing_ok=True)

    def _forward(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the model as a step calls it: compiled, and with averaged gradients, where needed."""
        model: nn.Module = self.state.model
        if self.run.recipe.compile:
            # Runs of other batch sizes in this process must not make the shapes dynamic: such kernels are slower.
            model = torch.compile(model, dynamic=False)  # type: ignore[assignment]
        if self.run.ranks == 1:
            return model
        shared, state, rank = self.group.parallel(model), self.state, self.group.rank.rank

        def forward(images: torch.Tensor) -> torch.Tensor:
            # All processes resume from one saved state, so dropout may depend only on the step and the rank.
            torch.manual_seed(derive_seed(self.run.seed, "dropout", state.epoch, state.step, rank))
            logits: torch.Tensor = shared(images)
            return logits

        return forward

    def _answer(self, interrupt: Interrupt) -> None:
        """After a step, save and stop if it is time or requested, in all processes at the same step."""
        if request := self.group.all_reduce_max(self._request(interrupt)):
            self._save()
            if request != _SAVE:  # a signal that arrived later counts after the next step
                state, epochs, steps = self.state, self.run.recipe.epochs, self.loader.steps
                interrupt.signal_number = request
                interrupt.check(f"epoch {state.epoch + 1} of {epochs}, step {state.step} of {steps}")

    def _request(self, interrupt: Interrupt) -> int:
        """Return what this process requests after a step: 0, ``_SAVE``, or the number of a signal to stop."""
        return (interrupt.signal_number or signal.SIGTERM) if interrupt.requested else self._due()

    def _due(self) -> int:
        """Return ``_SAVE`` in the main process if it is time to save, else 0."""
        due = time.monotonic() - self._last_save >= self.options.save_every
        return _SAVE if due and self.group.is_main else 0

    def _close_epoch(self, rate: float) -> None:
        """Append the epoch's record to the history, and start the next epoch."""
        state, epochs, every = self.state, self.run.recipe.epochs, self.options.eval_every
        entry: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "loss": self._loss_sum() / self.loader.steps / self.run.ranks,
            "train_accuracy": int(self.group.all_gather(state.correct).sum()) / self.loader.samples,
            "learning_rate": rate,
        }
        state.epoch, state.step = state.epoch + 1, 0
        if self.group.is_main and state.epoch < epochs and every and state.epoch % every == 0:
            entry["test_accuracy"] = self._evaluate().accuracy
        state.history.append(entry)
        state.loss.zero_()
        state.correct.zero_()
        tested = f", test {entry['test_accuracy']:.2%}" if "test_accuracy" in entry else ""
        self.stage.log(
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
            batch_size=evaluated_at_once(self.run.architecture, self.run.recipe, self.options.device),
            amp=self.run.recipe.amp,
        )

    def _evaluate(self) -> Scores:
        self._count_time()
        probabilities = self._evaluator.predict(self.state.result)
        self._clock = time.monotonic()  # evaluation is not training time
        return score(probabilities, self.test.labels)

    def _save(self) -> None:
        self._loss_sum()
        self._count_time()
        loss, correct = self.group.all_gather(self.state.loss), self.group.all_gather(self.state.correct)
        with self.group.main_first() as is_main:
            if is_main:
                run = self.run.to_dict()
                save_state(
                    self.options.state_path,
                    self.state,
                    run,
                    loss=loss,
                    correct=correct,
                    golden=self._golden,
                )
        self._last_save = time.monotonic()

    @cached_property
    def _golden(self) -> str:
        return self.loader.golden()

    def _require_pixels(self, stored: str | None) -> None:
        """Refuse to go on with other pixels of the same views."""
        if stored is not None and stored != self._golden:
            raise MismatchError.between(
                "pixels of the same views, as this model sees them",
                stored=f"'{short(stored)}'",
                given=f"'{short(self._golden)}'",
                hint="a library renders other pixels here than where the run began; go on there, or --overwrite",
            )

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
            self._require_pixels(content.get("golden"))
            restore_state(path, content, state, rank=self.group.rank.rank)
            here = arithmetic(state.device)["device"]
            if (begun := content.get("device") or here) != here:
                self.progress.warn(
                    f"this run began on {begun} and goes on on {here}: its weights will be those of neither"
                )
            self.progress.log(f"resuming: epoch {state.epoch + 1}, step {state.step} of {self.loader.steps}")
        self.group.require_same(f"the content of {path}", state.epoch, state.step)
