"""Pictures of three classes in different sizes, as PNG files in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sources.tiny import encode

CLASSES = ("checks", "columns", "stripes")
EVERYTHING = "rrc-flip-rand-m9-n2-erase0.25-mixup0.8-cutmix1.0"


def write_photographs(root: Path, *, train: int = 24, test: int = 12) -> Path:
    """Write noisy patterns of 20 to 43 pixels a side."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for index in range(count):
            label, (height, width) = index % 3, rng.integers(20, 44, 2)
            y, x = np.mgrid[0:height, 0:width]
            pattern = (x // 4 + y // 4, x // 4, y // 4)[label] % 2 * 120 + 60
            noise = rng.integers(-50, 50, (height, width, 3))
            folder = root / split / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(pattern[..., None] + noise, 0, 255).astype(np.uint8)
            (folder / f"{index:02}.png").write_bytes(encode(pixels))
    return root
