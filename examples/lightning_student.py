"""Train a student from a cache in Lightning.

    bancache train-teacher --data digits --out gen0.pt
    bancache dump --teacher gen0.pt
    pip install lightning
    python examples/lightning_student.py gen0.zarr gen1.pt
    bancache dump --teacher gen1.pt
    python examples/lightning_student.py gen1.zarr gen2.pt
    bancache dump gen1.pt gen2.pt
    python examples/lightning_student.py gen1-and-1.zarr gen3.pt
    bancache evaluate gen1.pt gen2.pt gen3.pt

Two generations, and a student of both together; the last line shows each, and their ensemble.
"""

from __future__ import annotations

import sys

import lightning
import torch
from torch.utils.data import DataLoader

from bancache import View, ViewDataset, build_model, evaluate, losses, save_checkpoint


class Student(lightning.LightningModule):
    """A model that learns from labels and soft targets."""

    def __init__(self, cache: str, workers: int = 0) -> None:
        super().__init__()
        self.dataset, self.workers = ViewDataset(cache), workers
        self.model = build_model("convnet-16", classes=self.dataset.classes, channels=1, image_size=(8, 8))

    def train_dataloader(self) -> DataLoader[View]:
        """Return the batches of the current epoch; the Trainer calls this before each epoch, also after a restart."""
        self.dataset.set_epoch(self.current_epoch)
        return DataLoader(self.dataset, batch_size=64, shuffle=True, drop_last=True, num_workers=self.workers)

    def training_step(self, batch: View, index: int) -> torch.Tensor:
        """Return the loss of a batch."""
        loss = losses.ban_l(self.model(batch.images), batch.targets, batch.labels)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.images))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD as in the paper."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, nesterov=True)


def trainer(epochs: int, **settings: object) -> lightning.Trainer:
    """Return a Trainer that reloads the batches in every epoch.

    Do not call ``set_epoch`` in ``on_train_epoch_start``: a run that continues within an epoch skips that hook.
    """
    return lightning.Trainer(max_epochs=epochs, reload_dataloaders_every_n_epochs=1, **settings)


def train(cache: str, out: str, epochs: int = 5) -> float:
    """Train a student from a cache, write its checkpoint, and return the last epoch's mean loss."""
    lightning.seed_everything(0)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "accelerator": "cpu",
    }
    run, student = trainer(epochs, **quiet), Student(cache)
    run.fit(student)
    save_checkpoint(student.model, out, cache=cache)
    print(f"loss {run.callback_metrics['loss']:.4f}, test accuracy {evaluate(out).accuracy:.2%}")
    return float(run.callback_metrics["loss"])


if __name__ == "__main__":
    train(*sys.argv[1:3])
