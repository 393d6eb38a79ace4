"""Train a student with your own DataLoader and model: a cache is a torch ``Dataset``.

    bancache train-teacher --data digits --out gen0.pt
    bancache dump --teacher gen0.pt
    python examples/torch_dataloader.py gen0.zarr

Prints the loss of every epoch.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader

import bancache as bc


def student(classes: int, channels: int) -> nn.Module:
    """Return a model; any classifier works."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, classes),
    )


def train(cache: str, epochs: int = 5, workers: int = 2) -> list[float]:
    """Train a student from a cache, and return each epoch's mean loss."""
    torch.manual_seed(0)
    dataset = bc.ViewDataset(cache)
    batches = DataLoader(
        dataset,
        batch_size=64,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    model = student(dataset.classes, channels=len(dataset[0].images))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    means = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)  # before iterating: selects the views and their soft targets
        total = torch.zeros(())
        for images, labels, targets, _samples, _views in batches:
            loss = bc.losses.ban_l(model(images), targets, labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.detach()
        means.append(total.item() / len(batches))
        print(f"epoch {epoch + 1}: loss {means[-1]:.4f}")
    return means


if __name__ == "__main__":
    train(*sys.argv[1:2] or ["gen0.zarr"])
