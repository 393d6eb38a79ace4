"""The loops that ours is compared with do what they should: crops are crops, stored answers those of the teacher, jobs whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import by_hand, rivals_rows
from benchmarks.by_hand import PAD, Views

CPU, MEAN, STD = torch.device("cpu"), (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
COUNT, SIZE = 40, 12


@pytest.fixture
def images() -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8))


@pytest.fixture
def views(images: torch.Tensor) -> Views:
    return Views(images, MEAN, STD, CPU, torch.float32)


def test_crops_are_those_of_padding_cropping_and_flipping_one_by_one(
    images: torch.Tensor, views: Views
) -> None:
    views.begin(3)
    index = torch.randperm(COUNT)
    shown = views.of(index)
    assert shown.is_contiguous(memory_format=torch.channels_last)
    for row, image in enumerate(index.tolist()):
        down, right = int(views._down[image]), int(views._right[image])
        padded = np.pad(images[image].numpy(), ((PAD, PAD), (PAD, PAD), (0, 0)), mode="reflect")
        crop = padded[down : down + SIZE, right : right + SIZE]
        if views._flip[image]:
            crop = crop[:, ::-1]
        expected = (crop.astype(np.float32) - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
        np.testing.assert_allclose(shown[row].permute(1, 2, 0).numpy(), expected, rtol=1e-6, atol=1e-6)


def test_every_shift_and_both_directions_are_drawn_anew_for_each_view(views: Views) -> None:
    drawn = []
    for view in range(30):
        views.begin(view)
        drawn.append((views._down, views._right, views._flip.long()))
    for part, values in zip(zip(*drawn, strict=True), (2 * PAD + 1, 2 * PAD + 1, 2), strict=True):
        assert sorted(set(torch.cat(part).tolist())) == list(range(values))
    assert not torch.equal(drawn[0][0], drawn[1][0])


def test_stored_answers_are_the_teachers_for_the_crops_that_are_shown_again(
    views: Views, tmp_path: Path
) -> None:
    """Two views in a memmap, and five epochs: from the third on, crops and answers both repeat."""
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 5))
    ask = by_hand.online(teacher, kind="cpu", amp=False)
    kept = np.memmap(tmp_path / "logits.bin", np.float16, "w+", shape=(2, COUNT, 5))
    for view in range(2):
        kept[view] = by_hand.dump(views, ask, view, batch=16).numpy()
    look_up = by_hand.stored(torch.from_numpy(kept), views)
    steps = 0

    def compared(shown: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        answers = look_up(shown, index)
        torch.testing.assert_close(answers, ask(shown, index).half(), rtol=1e-3, atol=1e-3)
        return answers

    student = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 5))
    labels = torch.arange(COUNT) % 5
    loop = by_hand.Loop(views, labels, [student], compared, batch=8, amp=False, num_views=2)
    loop.steps(5 * (COUNT // 8))
    assert steps == 25


def test_a_job_is_the_dump_and_the_epochs_of_all_students() -> None:
    """Ten steps an epoch; students in one loop share the beginning of an epoch, students in turn do not."""
    alone = {f"{name}, 1": [0.2] for name in rivals_rows.LOOPS}
    together = {f"{name}, 4": [0.5] for name in rivals_rows.LOOPS}
    stored = (rivals_rows.MEMMAP, rivals_rows.OURS)
    measured = rivals_rows.Measured(
        step=alone | together,
        begin={name: [1.0] for name in rivals_rows.LOOPS},
        view={name: [3.0] for name in stored},
        start={rivals_rows.OURS: [7.0]},
    )
    jobs, epochs = measured.jobs(10), rivals_rows.EPOCHS
    assert jobs["tensors, teacher online, 1"] == [epochs * (1 + 2)]
    assert jobs["tensors, teacher online, 4"] == [epochs * (1 + 5)]
    assert jobs["float16 memmap, 4 in turn"] == [epochs * (3 + 4 * (1 + 2))]
    assert jobs["ours, 1"] == [7 + epochs * (3 + 1 + 2)]
