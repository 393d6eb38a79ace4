"""A dump stores the teacher's logits, records their quantization error, and refuses logits that are not finite."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.tiny import CPU, dump_tiny, images, settings
from numpy.typing import NDArray
from torch import nn

from bancache.dumping import dump
from bancache.encodings import from_config
from bancache.errors import NonFiniteError, UsageError
from bancache.models.teacher import Teacher, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.views import ViewSpace
from bancache.views.factory import choose_renderer


@pytest.fixture(scope="module")
def teacher(teacher_path: Path) -> Teacher:
    return load_teacher(str(teacher_path), device=CPU)


def logits_of(teacher: Teacher, data: ImageSet, num_views: int) -> NDArray[np.float32]:
    """Run the teacher directly: float32 (views, N, classes) for the views of ``settings``."""
    space = settings(teacher).space
    renderer = choose_renderer(data.images, space, settings(teacher).normalization)
    samples = np.arange(len(data))
    logits = [
        teacher.logits(
            renderer.render(torch.from_numpy(samples), torch.from_numpy(space.view_ids(samples, view_index)))
        )
        for view_index in range(num_views)
    ]
    return torch.stack(logits).numpy()


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """In float64, written out."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


@pytest.mark.parametrize("encoding", ["root4", "root8", "root2-1024", "float16", "float32"])
def test_the_recorded_fidelity_is_that_of_the_float32_logits(
    tmp_path: Path, teacher: Teacher, teacher_path: Path, spec: DataSpec, data: ImageSet, encoding: str
) -> None:
    result, _ = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr", num_views=3, encoding=encoding)
    cache = result.cache
    coder = from_config(cache.manifest.encoding, 3)
    logits = logits_of(teacher, data, 3)
    for temperature, stated in cache.summary["fidelity"].items():
        divergences, agreements = [], []
        for view_index in range(3):
            stored = {name: torch.tensor(part) for name, part in cache.read_view(view_index).items()}
            p = softmax(logits[view_index] / float(temperature))
            q = coder.probabilities(stored, float(temperature)).numpy().astype(np.float64)
            q /= q.sum(axis=1, keepdims=True)
            divergences.append((p * (np.log(p) - np.log(q))).sum(axis=1))
            agreements.append(q.argmax(axis=1) == p.argmax(axis=1))
        assert stated["kl_mean"] == pytest.approx(np.mean(divergences), rel=1e-3, abs=1e-13)
        assert stated["kl_max"] == pytest.approx(np.max(divergences), rel=1e-3, abs=1e-12)
        assert stated["kl_max"] / 1.1 <= stated["kl_p999"] <= stated["kl_max"]
        assert stated["argmax_agreement"] == np.mean(agreements)


def test_accuracy_and_confidence_are_means_over_all_pairs(
    tmp_path: Path, teacher: Teacher, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    result, _ = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr", num_views=3)
    logits = logits_of(teacher, data, 3)
    summary = result.cache.summary
    assert summary["teacher_accuracy"] == (logits.argmax(axis=2) == data.labels).mean()
    assert summary["teacher_mean_max_probability"] == pytest.approx(softmax(logits).max(axis=2).mean())
    assert summary["finite_values"] == logits.size


def test_float32_keeps_every_bit_of_the_logits(
    tmp_path: Path, teacher: Teacher, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    """In the same batches, the teacher has the same bits."""
    result, _ = dump_tiny(
        teacher_path, spec, data, tmp_path / "a.zarr", num_views=2, encoding="float32", batch_size=96
    )
    logits = logits_of(teacher, data, 2)
    for view_index in range(2):
        np.testing.assert_array_equal(result.cache.read_view(view_index)["logits"], logits[view_index])


def test_the_batch_size_changes_no_more_than_a_last_bit(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    encoded_views = []
    for size in (5, 96, 1000):
        result, _ = dump_tiny(
            teacher_path, spec, data, tmp_path / f"{size}.zarr", encoding="float32", batch_size=size
        )
        encoded_views.append(
            np.stack([result.cache.read_view(view_index)["logits"] for view_index in range(4)])
        )
        compute = {"batch_size": size, "precision": "float32", "device": "cpu"}
        assert result.cache.manifest.compute == compute
    for other in encoded_views[1:]:
        np.testing.assert_allclose(softmax(other), softmax(encoded_views[0]), atol=1e-6)


def test_bfloat16_is_near_and_is_written_down(
    tmp_path: Path, teacher: Teacher, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    half = load_teacher(str(teacher_path), device=CPU, precision="bfloat16")
    asked = settings(half, encoding="float32", num_views=1)
    cache = dump(half, data, spec, tmp_path / "a.zarr", asked, device=CPU).cache
    assert cache.manifest.compute["precision"] == "bfloat16"
    found, exact = softmax(cache.read_view(0)["logits"]), softmax(logits_of(teacher, data, 1)[0])
    np.testing.assert_allclose(found, exact, atol=0.05)
    assert np.abs(found - exact).max() > 1e-5


class Spoilt(nn.Module):
    """A model with a wrong logit for one image."""

    def __init__(self, net: nn.Module, pixel: torch.Tensor, value: float) -> None:
        super().__init__()
        self.net, self.pixel, self.value = net, pixel, value

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(batch).clone()
        here = (batch == self.pixel).flatten(1).all(dim=1)
        logits[here, 1] = self.value
        if abs(self.value) < float("inf"):  # finite, and further from another one than float32 holds
            logits[here, 2] = -self.value
        return logits


@pytest.mark.parametrize(
    ("encoding", "value"),
    [
        *product(("root4", "float16"), (float("nan"), float("inf"), float("-inf"))),
        *product(("root4", "float32", "float16", "bfloat16", "int8"), (3e38,)),
    ],
)
def test_a_logit_that_is_not_finite_stops_the_dump_with_sample_and_view(
    tmp_path: Path, teacher: Teacher, spec: DataSpec, data: ImageSet, value: float, encoding: str
) -> None:
    """Sample 70 in view 2: shards done before are kept, and a dump by the intact teacher goes on."""
    asked = settings(teacher, encoding=encoding)
    view = torch.from_numpy(asked.space.view_ids([70], 2))
    pixels = choose_renderer(data.images, asked.space, asked.normalization).render(torch.tensor([70]), view)
    net = Spoilt(teacher.model, pixels, value)
    spoilt = Teacher(net, teacher.fingerprint, teacher.architecture, teacher.header, "spoilt")
    with pytest.raises(NonFiniteError, match=r"\b1\b.*sample 70, view 2") as caught:
        dump(spoilt, data, spec, tmp_path / "a.zarr", asked, device=CPU)
    assert "--precision float32" in caught.value.hint
    stored = json.loads((tmp_path / "a.zarr" / "manifest.json").read_text())
    assert stored["complete"] is False
    result = dump(teacher, data, spec, tmp_path / "a.zarr", asked, device=CPU)
    assert result.num_pairs == 2 * 96
    clean = dump(teacher, data, spec, tmp_path / "b.zarr", asked, device=CPU)
    for view_index in range(4):
        for name, part in clean.cache.read_view(view_index).items():
            np.testing.assert_array_equal(result.cache.read_view(view_index)[name], part)


class Counts(nn.Module):
    """A model that counts its forward passes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.passes = net, 0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return self.net(batch)  # type: ignore[no-any-return]


def test_a_dump_runs_every_batch_once_and_the_first_in_another_precision_too(
    tmp_path: Path, teacher: Teacher, spec: DataSpec, data: ImageSet
) -> None:
    """The logits of the probe are the first ones that are written. Two small batches before it measure the memory."""
    asked, net = settings(teacher), Counts(teacher.model)
    counted = Teacher(net, teacher.fingerprint, teacher.architecture, teacher.header, "counted")
    dump(counted, data, spec, tmp_path / "a.zarr", asked, device=CPU)
    assert net.passes == 4 * -(-len(data) // asked.batch_size) + 1 + 2


class Reuses(nn.Module):
    """A model that returns its logits in the same memory each time, as a captured graph does."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.room = net, torch.empty((32, 3))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.room[: len(batch)].copy_(self.net(batch))


def test_a_model_that_reuses_its_output_memory_is_stored_correctly(
    tmp_path: Path, teacher: Teacher, spec: DataSpec, data: ImageSet
) -> None:
    reusing = Teacher(
        Reuses(teacher.model), teacher.fingerprint, teacher.architecture, teacher.header, "reuses"
    )
    plain, reused = (
        dump(one, data, spec, tmp_path / f"{number}.zarr", settings(teacher), device=CPU).cache
        for number, one in enumerate((teacher, reusing))
    )
    assert plain.summary == reused.summary
    for view_index in range(4):
        np.testing.assert_array_equal(plain.read_view(view_index)["q"], reused.read_view(view_index)["q"])


class Answers(nn.Module):
    """A model with a constant output."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, batch: torch.Tensor) -> Any:
        return self.answer(len(batch)) if callable(self.answer) else self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda n: torch.zeros(n, 5), r"\b5\b.*\b3\b"),
        (lambda n: torch.zeros(n, 3, 1), "answers"),
        (lambda n: torch.zeros(n + 1, 3), "answers"),
        (lambda n: (torch.zeros(n, 3),), "answers"),
        ("logits", "answers"),
    ],
)
def test_a_teacher_that_does_not_fit_the_data_leaves_nothing_behind(
    tmp_path: Path, teacher: Teacher, spec: DataSpec, data: ImageSet, answer: Any, message: str
) -> None:
    other = Teacher(Answers(answer), "0" * 64, {"name": "answers"}, {}, "answers")
    with pytest.raises(UsageError, match=message):
        dump(other, data, spec, tmp_path / "a.zarr", settings(teacher), device=CPU)
    assert not (tmp_path / "a.zarr").exists()


def test_images_of_another_kind_are_refused(tmp_path: Path, teacher: Teacher, spec: DataSpec) -> None:
    gray = images(seed=0, count=8)
    one = ImageSet(gray.images[..., :1].copy(), gray.labels, gray.classes, "grey", "train")
    with pytest.raises(UsageError, match=r"\b1\b.*\b3\b"):
        dump(teacher, one, spec, tmp_path / "a.zarr", settings(teacher), device=CPU)
    with pytest.raises(UsageError, match=r"crop12.*10 x 10"):
        dump(
            teacher,
            gray,
            spec,
            tmp_path / "a.zarr",
            settings(teacher, space=ViewSpace.parse("crop12")),
            device=CPU,
        )
    assert not (tmp_path / "a.zarr").exists()
