"""Train a student in your own loop, with the loader of bancache.

    bancache train-teacher --data digits --out gen0.pt
    bancache dump --teacher gen0.pt
    python examples/plain_loop.py gen0.zarr

Prints the loss of every epoch.
"""

from __future__ import annotations

import sys

import torch

import bancache as bc


def train(cache: str, epochs: int = 5) -> list[float]:
    """Train a student from a cache, and return each epoch's mean loss."""
    torch.manual_seed(0)
    loader = bc.open_loader(cache, batch_size=64, seed=0)
    student = bc.build_model("convnet-16", classes=10, channels=1, image_size=(8, 8))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    means = []
    for epoch in range(epochs):
        total = torch.zeros(())
        for batch in loader.epoch(epoch):
            loss = bc.losses.ban_l(student(batch.images), batch.targets, batch.labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.detach()
        means.append(total.item() / loader.steps)
        print(f"epoch {epoch + 1}: loss {means[-1]:.4f}")
    return means


if __name__ == "__main__":
    train(*sys.argv[1:2] or ["gen0.zarr"])
