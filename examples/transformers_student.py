"""Train a student from a cache in the Trainer of Hugging Face's transformers.

    bancache train-teacher --data digits --out gen0.pt
    bancache dump --teacher gen0.pt
    pip install transformers accelerate
    python examples/transformers_student.py gen0.zarr gen1.pt
    bancache dump --teacher gen1.pt
    python examples/transformers_student.py gen1.zarr gen2.pt
    bancache dump gen1.pt gen2.pt
    python examples/transformers_student.py gen1-and-1.zarr gen3.pt
    bancache evaluate gen1.pt gen2.pt gen3.pt

Two generations, and a student of both together; the last line shows each, and their ensemble.

A model of transformers can be the student, too. Its files are Hugging Face's then, and the next teacher is
``module:function``, which builds the model, with ``--weights model.safetensors``.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.utils.data import default_collate
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.modeling_outputs import ImageClassifierOutput

from bancache import View, ViewDataset, build_model, evaluate, losses, save_checkpoint


def as_inputs(rows: list[View]) -> dict[str, Any]:
    """Return a batch with the argument names of transformers' vision models.

    Both labels of mixed views are a dict: the Trainer moves dicts and tensors to its device, and no named tuples.
    """
    batch = default_collate(rows)
    labels = batch.labels if isinstance(batch.labels, torch.Tensor) else batch.labels._asdict()
    return {"pixel_values": batch.images, "labels": labels, "teacher": batch.targets}


class Student(torch.nn.Module):
    """A model of bancache with the arguments and the answer of transformers' vision models."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = build_model("convnet-16", classes=classes, channels=1, image_size=(8, 8))

    def forward(self, pixel_values: torch.Tensor) -> ImageClassifierOutput:
        """Return the logits."""
        return ImageClassifierOutput(logits=self.net(pixel_values))


class CachedTeacherTrainer(Trainer):
    """A Trainer with the loss of born-again networks."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return label cross-entropy + cross-entropy with the soft targets; in evaluation, the first alone."""
        labels, teacher = inputs["labels"], inputs.get("teacher")
        labels = labels if isinstance(labels, torch.Tensor) else losses.MixedLabels(**labels)
        outputs = model(pixel_values=inputs["pixel_values"])
        if teacher is None:
            loss = torch.nn.functional.cross_entropy(outputs.logits, labels)
        else:
            loss = losses.ban_l(outputs.logits, teacher, labels)
        return (loss, outputs) if return_outputs else loss


class ShowEpoch(TrainerCallback):
    """Tells the data set the epoch number.

    With one process accelerate does this itself; with several, it wraps the samplers and does not.
    """

    def __init__(self, dataset: ViewDataset) -> None:
        self.dataset = dataset

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Set the epoch before its first batch."""
        self.dataset.set_epoch(int(state.epoch or 0))


def train(cache: str, out: str, epochs: int = 5) -> list[float]:
    """Train a student from a cache of 8 x 8 digits, write its checkpoint, and return the logged losses."""
    set_seed(0)
    dataset = ViewDataset(cache)
    student = Student(dataset.classes)
    arguments = TrainingArguments(
        output_dir=f"{out}.transformers",
        num_train_epochs=epochs,
        per_device_train_batch_size=64,
        learning_rate=3e-3,
        dataloader_drop_last=True,
        remove_unused_columns=False,  # as_inputs names the columns
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    trainer = CachedTeacherTrainer(
        model=student,
        args=arguments,
        train_dataset=dataset,
        data_collator=as_inputs,
        callbacks=[ShowEpoch(dataset)],
    )
    trainer.train()
    save_checkpoint(student.net, out, cache=cache)
    print(f"test accuracy {evaluate(out).accuracy:.2%}")
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


if __name__ == "__main__":
    print(train(*sys.argv[1:3]))
