"""The batch size of a dump that nobody chose."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contracts.replaying import pretend_to_capture
from contracts.tiny import CPU
from sources.tiny import Heard

from bancache.dumping import DumpSettings, batch_size
from bancache.dumping.batch_size import choose_batch_size, images_a_second
from bancache.models.teacher import Teacher, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.system import capturing
from bancache.system.batch_memory import Needs
from bancache.views import ViewSpace
from bancache.views.model_input import Normalization

SMALL = Needs(0, 1)


@pytest.fixture
def teacher(teacher_path: Path) -> Teacher:
    return load_teacher(teacher_path, device=CPU)


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Let a CPU be measured: images a second by batch size."""
    found = {16: 1000.0, 32: 1900.0, 64: 1950.0}
    monkeypatch.setattr(capturing, "DEVICE_TYPES", ("cuda", "cpu"))
    monkeypatch.setattr(batch_size, "_SIZES", (32, 64, 128))
    monkeypatch.setattr(batch_size, "images_a_second", lambda teacher, shape, size, device: found[size])
    return found


def choose(
    teacher: Teacher, data: ImageSet, heard: Heard, *, needs: Needs | None = SMALL, num_views: int = 9
) -> int:
    settings = DumpSettings(ViewSpace.parse("crop1"), num_views, "root4", 16, Normalization((0.0,), (1.0,)))
    return choose_batch_size(teacher, data, settings, needs, CPU, heard, dumps=100)


def test_the_smallest_that_is_about_as_fast_as_any_is_taken_and_said(
    teacher: Teacher, data: ImageSet, rates: dict[int, float]
) -> None:
    heard = Heard()
    assert choose(teacher, data, heard) == 32  # 64 is 3 % faster, 128 more than there are images
    assert all(part in heard.notes[0] for part in ("32", "1,900", "1,000", "16", "--batch-size"))


def test_the_usual_one_stays_if_it_is_as_fast_and_nothing_is_said(
    teacher: Teacher, data: ImageSet, rates: dict[int, float]
) -> None:
    rates[16], heard = 1900.0, Heard()
    assert choose(teacher, data, heard) == 16
    assert heard.notes == []


def test_nothing_is_measured_where_torch_is_to_repeat_its_bits(
    teacher: Teacher, data: ImageSet, rates: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another measurement might choose another size."""
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert choose(teacher, data, Heard()) == 16


def test_a_short_dump_is_not_measured_further(
    teacher: Teacher, data: ImageSet, rates: dict[int, float]
) -> None:
    rates[16] = 1e6
    del rates[32], rates[64]
    assert choose(teacher, data, Heard()) == 16


def test_what_does_not_fit_the_memory_is_not_measured(
    teacher: Teacher, data: ImageSet, rates: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_size, "free_bytes", lambda device: 39)
    del rates[32], rates[64]
    assert choose(teacher, data, Heard()) == 16
    monkeypatch.setattr(batch_size, "free_bytes", lambda device: 12)
    assert choose(teacher, data, Heard()) == 8


def test_a_cpu_and_a_model_that_says_nothing_of_its_memory_keep_the_usual_one(
    teacher: Teacher, data: ImageSet
) -> None:
    assert choose(teacher, data, Heard()) == 16
    assert choose(teacher, data, Heard(), needs=None) == 16


def test_a_model_that_cannot_be_captured_keeps_the_usual_one(
    teacher: Teacher, data: ImageSet, rates: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> float:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(batch_size, "images_a_second", fail)
    assert choose(teacher, data, Heard()) == 16


def test_the_teacher_is_asked_in_batches_of_that_size(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_to_capture(monkeypatch)
    monkeypatch.setattr(batch_size, "capture", lambda body, device: body)
    seen: list[int] = []
    real = Teacher.logits

    def watched(self: Teacher, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return real(self, images)

    monkeypatch.setattr(Teacher, "logits", watched)
    assert images_a_second(teacher, (3, 8, 8), 4, CPU) > 0
    assert seen == [4] * 50
