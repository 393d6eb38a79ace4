"""One run, top to bottom: build, step, evaluate, save, record; the same bits however often it was stopped."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from bancache.cache.reader import Cache
from bancache.errors import NonFiniteError
from bancache.evaluation.predict import predict, score
from bancache.loader import Loader, Targets
from bancache.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bancache.philox import derive_seed
from bancache.sources.base import ImageSet
from bancache.system.device import Interrupt
from bancache.system.progress import Progress, Silent, Stage
from bancache.training.build import build_net, make_optimizer
from bancache.training.distributed import ProcessGroup
from bancache.training.epoch_log import EpochLog, Unlogged, epoch_log
from bancache.training.make_loader import loader_of
from bancache.training.options import TrainerOptions
from bancache.training.preflight import finished_by, held, require_alike, require_one_run
from bancache.training.run import Run
from bancache.training.state import TrainState, read_state, restore_state, save_state
from bancache.training.step import Step
from bancache.training.stepper import make_stepper

# After a step, processes that train together agree on the largest of 0, this, and the numbers of signals.
_SAVE = 1


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
    place: TrainerOptions,
    *,
    cache: Cache | None = None,
    targets: Targets | None = None,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
    ranks: ProcessGroup | None = None,
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
        ranks: The processes that share this run, as ``ranks.gathered`` opens them; by default there is no other.

    Raises:
        MismatchError: What lies at ``out`` comes from another run; or the cache does not fit.
        NonFiniteError: The loss became NaN or infinite.
        BusyError: Another process is training to the same file.
        StorageError: The disk is full, read-only or failing; the last state stays.
        StoppedError: A stop was asked for, of any process; the state is saved.
        UsageError: The processes do not agree on the run, or cannot share a batch evenly.
    """
    require_alike(data, test)
    ranks, progress = ranks or ProcessGroup(), progress or Silent()
    require_one_run(run, ranks)
    with held(place, ranks):
        finished = finished_by(run, place)
        ranks.require_same(f"what lies at {place.out}", finished is not None)
        if finished is not None:
            return Trained(finished, fresh=False)
        loader = loader_of(run, data, place, cache, targets, progress, ranks.place)
        with epoch_log(place.log_path, place.tensorboard) if ranks.leads else nullcontext(Unlogged()) as log:
            session = _Session(run, loader, test, place, progress, interrupt or Interrupt(), log, ranks)
            session.work()
            with ranks.led() as leads:
                if leads:
                    save_checkpoint(place.out, session.model.state_dict(), session.header())
                    place.state_path.unlink(missing_ok=True)
        return Trained(load_checkpoint(place.out), fresh=True)


class _Session:
    """A run under way: what is open while it lasts."""

    def __init__(
        self,
        run: Run,
        loader: Loader,
        test: ImageSet,
        place: TrainerOptions,
        progress: Progress,
        interrupt: Interrupt,
        log: EpochLog,
        ranks: ProcessGroup,
    ) -> None:
        self.run, self.loader, self.test, self.place = run, loader, test, place
        self.progress, self.interrupt, self.log, self.ranks = progress, interrupt, log, ranks
        self.model = build_net(run, place)
        self.optimizer = make_optimizer(self.model, run.recipe)
        torch.manual_seed(derive_seed(run.seed, "dropout"))
        self.state = self._resume()
        step = Step(run, self._forward(), self.optimizer, self.state)
        self.pace = make_stepper(
            run, loader, step, self.model, self.optimizer, self.state, place.graph, progress
        )
        self._last_save = self._clock = time.monotonic()

    def work(self) -> None:
        """Train to the end."""
        recipe, steps = self.run.recipe, self.loader.steps
        batch = self.loader.batch_size
        done = (self.state.epoch * steps + self.state.step) * batch
        total = recipe.epochs * steps * batch
        self._save()  # a place that cannot be written to is refused before the first step
        self.log.show(self.state.history)
        title = f"train {self.run.architecture['name']}, generation {self.run.generation}"
        with self.progress.stage(title, total=total, unit="images", done=done) as stage:
            while self.state.epoch < recipe.epochs:
                self._epoch(stage, batch)

    def _forward(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the net as a step calls it."""
        net: nn.Module = torch.compile(self.model) if self.run.recipe.compile else self.model  # type: ignore[assignment]
        if self.run.ranks == 1:
            return net
        shared, state, rank = self.ranks.parallel(net), self.state, self.ranks.place.rank

        def forward(images: torch.Tensor) -> torch.Tensor:
            # One saved state serves all processes: what each drops depends on nothing but the step and its rank.
            torch.manual_seed(derive_seed(self.run.seed, "dropout", state.epoch, state.step, rank))
            logits: torch.Tensor = shared(images)
            return logits

        return forward

    def _epoch(self, stage: Stage, batch_size: int) -> None:
        """Take the steps that the current epoch still has, then look at the test split."""
        recipe, state, steps = self.run.recipe, self.state, self.loader.steps
        self.model.train()
        rates = [recipe.learning_rate(state.epoch * steps + n, recipe.epochs * steps) for n in range(steps)]
        for _ in self.pace.epoch(state.epoch, rates, start=state.step):
            state.step += 1
            stage.advance(batch_size)
            if wish := self.ranks.agree(self._wish()):
                self._save()
                if wish != _SAVE:  # a signal that came since is for all to hear of after the next step
                    self.interrupt.signal_number = wish
                    self.interrupt.check(
                        f"epoch {state.epoch + 1} of {recipe.epochs}, step {state.step} of {steps}"
                    )
        self._close_epoch(stage, rate_index=(state.epoch + 1) * steps - 1, shown=steps * batch_size)

    def _wish(self) -> int:
        """Return what this process would do after a step: nothing, save, or stop, as the number of a signal."""
        if self.interrupt.requested:
            return self.interrupt.signal_number or signal.SIGTERM
        late = time.monotonic() - self._last_save >= self.place.save_every
        return _SAVE if late and self.ranks.leads else 0

    def _close_epoch(self, stage: Stage, *, rate_index: int, shown: int) -> None:
        """Turn the epoch's sums into a line of history, and begin the next."""
        recipe, state, steps = self.run.recipe, self.state, self.loader.steps
        entry: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "loss": self._finite_loss() / steps / self.run.ranks,
            "train_accuracy": int(self.ranks.gather(state.correct).sum()) / shown,
            "learning_rate": recipe.learning_rate(rate_index, recipe.epochs * steps),
        }
        last = state.epoch + 1 == recipe.epochs
        every = self.place.eval_every
        if self.ranks.leads and not last and every and (state.epoch + 1) % every == 0:
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
        loss = float(self.ranks.gather(self.state.loss).sum())
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"the loss became {loss} in epoch {self.state.epoch + 1}", hint="train with a smaller --lr"
            )
        return loss

    def _predict(self) -> Any:
        self._count_time()
        probabilities = predict(
            self.model, self.test, self.run.normalization, device=self.place.device, amp=self.run.recipe.amp
        )
        self._clock = time.monotonic()  # looking at the test split is not training time
        return probabilities

    def _save(self) -> None:
        self._finite_loss()
        self._count_time()
        loss, correct = self.ranks.gather(self.state.loss), self.ranks.gather(self.state.correct)
        with self.ranks.led() as leads:
            if leads:
                state = replace(self.state, loss=loss, correct=correct)
                save_state(self.place.state_path, state, self.model, self.optimizer, self.run.to_dict())
        self._last_save = time.monotonic()

    def _count_time(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self._clock
        self._clock = now

    def _resume(self) -> TrainState:
        device = self.place.device
        fresh = TrainState()
        fresh.loss, fresh.correct = fresh.loss.to(device), fresh.correct.to(device)
        path = self.place.state_path
        with self.ranks.led() as leads:
            if leads and self.place.overwrite:  # only here, where all that could be wrong has been refused
                self.place.out.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        state = self._restored() if path.exists() else fresh
        self.ranks.require_same(f"what lies at {path}", state.epoch, state.step)
        return state

    def _restored(self) -> TrainState:
        path, rank = self.place.state_path, self.ranks.place.rank
        content = read_state(path)
        self.run.require_same(content["run"], str(path))
        state = restore_state(path, content, self.model, self.optimizer, rank=rank)
        self.progress.note(f"resuming: epoch {state.epoch + 1}, step {state.step} of {self.loader.steps}")
        return state

    def header(self) -> dict[str, Any]:
        """Return what the checkpoint says beside its weights, with the last epoch's test figures."""
        images = self.run.recipe.epochs * self.loader.steps * self.loader.batch_size
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
