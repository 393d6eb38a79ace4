"""Train a student in your own loop, with the loader of bancache.

    bancache train-teacher --data digits --out gen0.pt
    bancache dump --teacher gen0.pt
    python examples/plain_loop.py gen0.zarr gen1.pt
    bancache dump --teacher gen1.pt
    python examples/plain_loop.py gen1.zarr gen2.pt
    bancache dump gen1.pt gen2.pt
    python examples/plain_loop.py gen1-and-1.zarr gen3.pt
    bancache evaluate gen1.pt gen2.pt gen3.pt

Two generations, and a student of both together; the last line shows each, and their ensemble.
"""

from __future__ import annotations

import sys

import torch

import bancache as bc


def train(cache: str, out: str, epochs: int = 5) -> list[float]:
    """Train a student from a cache, write its checkpoint, and return each epoch's mean loss."""
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
    bc.save_checkpoint(student, out, cache=cache, accuracy=accuracy(student, cache))
    return means


@torch.no_grad()
def accuracy(student: torch.nn.Module, cache: str) -> float:
    """Return the share of the test images that a student of a cache puts into their class."""
    student.eval()
    loader, right = bc.test_loader(cache), 0
    for images, labels, *_ in loader:
        right += int((student(images).argmax(dim=1) == labels).sum())
    print(f"test accuracy {right / loader.samples:.2%}")
    return right / loader.samples


if __name__ == "__main__":
    train(*sys.argv[1:3])
