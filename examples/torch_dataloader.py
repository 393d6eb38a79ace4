"""Train a student with your own DataLoader: a cache is a torch ``Dataset``.

    bancache train-teacher --data digits --out gen0.pt
    bancache dump --teacher gen0.pt
    python examples/torch_dataloader.py gen0.zarr gen1.pt
    bancache dump --teacher gen1.pt
    python examples/torch_dataloader.py gen1.zarr gen2.pt
    bancache dump gen1.pt gen2.pt
    python examples/torch_dataloader.py gen1-and-1.zarr gen3.pt
    bancache evaluate gen1.pt gen2.pt gen3.pt

Two generations, and a student of both together; the last line shows each, and their ensemble.
"""

from __future__ import annotations

import sys

import torch
from torch.utils.data import DataLoader

import bancache as bc


def train(cache: str, out: str, epochs: int = 5, workers: int = 2) -> list[float]:
    """Train a student from a cache, write its checkpoint, and return each epoch's mean loss."""
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
    channels, height, width = dataset[0].images.shape
    # Any classifier learns; save_checkpoint wants one that build_model can build again.
    model = bc.build_model(
        "convnet-16", classes=dataset.classes, channels=channels, image_size=(height, width)
    )
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
    bc.save_checkpoint(model, out, cache=cache)
    print(f"test accuracy {bc.evaluate(out).accuracy:.2%}")
    return means


if __name__ == "__main__":
    train(*sys.argv[1:3])
