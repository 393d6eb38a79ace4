"""Whoever trains in a loop of their own gets to generation 2 and to the test split, too."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contracts.calling import succeed
from contracts.tiny import CLASSES, CPU, dump_tiny, photographs
from torch import nn
from torch.optim.swa_utils import AveragedModel

import bancache as bc
from bancache.errors import MismatchError, UsageError
from bancache.evaluation.predict import Evaluator
from bancache.loader.open import student_normalization
from bancache.models.teacher import load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training.run import run_for_cache
from bancache.views.model_input import Normalization


@pytest.fixture(scope="module")
def path(
    tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> Path:
    """A cache of four views of 96 images, that keeps logits."""
    path = tmp_path_factory.mktemp("cache") / "gen0.zarr"
    dump_tiny(teacher_path, spec, data, path, encoding="float32")
    return path


@pytest.fixture(scope="module")
def student(path: Path) -> nn.Module:
    """What a loop of six lines makes of the cache."""
    torch.manual_seed(0)
    student = bc.build_model(
        "convnet-4", classes=3, channels=3
    )  # for images of 32 x 32, were it not for the loader
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    loader = bc.open_loader(path, batch_size=16)
    for images, labels, targets, *_ in (batch for epoch in range(4) for batch in loader.epoch(epoch)):
        bc.losses.ban_l(student(images), targets, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return student.eval()


def accuracy(model: nn.Module, loader: bc.EvaluationLoader) -> float:
    right = sum(int((model(batch.images).argmax(1) == batch.labels).sum()) for batch in loader)
    return right / loader.samples


def test_a_student_of_ones_own_loop_teaches_the_next_generation(
    tmp_path: Path, path: Path, student: nn.Module, data: ImageSet
) -> None:
    """`dump`, `evaluate` and `train-student` take its file; what it records is what `train-student` would."""
    own = accuracy(student, bc.test_loader(path))
    bc.save_checkpoint(student, tmp_path / "gen1.pt", cache=path, accuracy=own)
    assert own > 0.5
    assert bc.evaluate(tmp_path / "gen1.pt").accuracy == own
    succeed("evaluate", tmp_path / "gen1.pt")
    found, cache = bc.load_checkpoint(tmp_path / "gen1.pt"), bc.open_cache(path)
    assert found.header["architecture"]["image_size"] == [10, 10]
    run = run_for_cache(
        found.header["architecture"], bc.Recipe(1, 1, 0.1, "step", 0), 0, DataSpec("digits"), data, cache
    ).to_dict()
    for key in (
        "architecture",
        "data_fingerprint",
        "normalisation",
        "view_space",
        "num_views",
        "lineage",
        "cache",
    ):
        assert found.header[key] == run[key], key
    succeed("dump", "--teacher", tmp_path / "gen1.pt", "--num-views", "2")
    taught = bc.open_cache(tmp_path / "gen1.zarr").manifest.teacher
    assert taught["generation"] == 1
    assert taught["accuracy"] == own
    assert [one["generation"] for one in taught["lineage"]] == [0]
    second = succeed(
        "train-student", "--cache", tmp_path / "gen1.zarr", "--epochs", "1", "--batch-size", "32"
    )
    assert second["generation"] == 2


def test_a_model_is_found_inside_what_torch_wraps_around_it(
    tmp_path: Path, path: Path, student: nn.Module
) -> None:
    averaged = AveragedModel(student)
    plain = bc.save_checkpoint(student, tmp_path / "plain.pt", cache=path)
    assert bc.save_checkpoint(averaged, tmp_path / "averaged.pt", cache=path) == plain
    compiled = nn.Module()  # as torch.compile does, whose import takes seconds
    compiled._orig_mod = student
    assert bc.save_checkpoint(compiled, tmp_path / "compiled.pt", cache=path) == plain
    assert "test" not in bc.load_checkpoint(tmp_path / "plain.pt").header


def test_a_model_from_elsewhere_needs_a_name_and_must_fit_it(
    tmp_path: Path, path: Path, student: nn.Module
) -> None:
    foreign = copy.deepcopy(student)
    del foreign.bancache_architecture
    for name in (None, "convnet-8"):
        with pytest.raises(UsageError) as caught:
            bc.save_checkpoint(foreign, tmp_path / "gen1.pt", cache=path, name=name)
        assert "build_model" in caught.value.hint
        assert "module:function" in caught.value.hint
    with pytest.raises(UsageError, match=r"5.*3"):
        bc.save_checkpoint(bc.build_model("convnet-4", classes=5), tmp_path / "gen1.pt", cache=path)
    with pytest.raises(UsageError, match=r"1\.5|<= 1"):
        bc.save_checkpoint(student, tmp_path / "gen1.pt", cache=path, accuracy=1.5)
    assert not list(tmp_path.iterdir())
    bc.save_checkpoint(foreign, tmp_path / "gen1.pt", cache=path, name="convnet-4")
    assert bc.load_checkpoint(tmp_path / "gen1.pt").header["architecture"]["name"] == "convnet-4"


def test_the_test_split_is_shown_as_evaluate_shows_it(
    path: Path, student: nn.Module, held_out: ImageSet
) -> None:
    """In its order, with nothing left out, and to the last bit."""
    loader = bc.test_loader(path, batch_size=16)
    assert (len(loader), loader.samples, loader.classes) == (3, 40, CLASSES)
    batches = list(loader)
    assert [len(batch.images) for batch in batches] == [16, 16, 8]
    assert [int(label) for _, labels, *_ in batches for label in labels] == held_out.labels.tolist()
    assert all(batch.targets is None for batch in batches)
    with torch.no_grad():
        own = torch.cat([torch.softmax(student(batch.images).double(), 1) for batch in loader])
    evaluator = Evaluator(held_out, loader.normalization, device=CPU, batch_size=16)
    assert torch.equal(own, torch.from_numpy(evaluator.predict(student)))
    assert next(iter(bc.test_loader(path, size=20))).images.shape == (40, 3, 20, 20)
    # As many pixels as in 500 images of 32x32.
    assert next(iter(bc.test_loader(path, size=160))).images.shape == (20, 3, 160, 160)
    with pytest.raises(UsageError, match="0"):
        bc.test_loader(path, batch_size=0)


def test_a_device_or_a_view_that_there_is_not_is_refused(path: Path) -> None:
    for open_one in (bc.open_loader, bc.test_loader):
        for device in ("tpu", "cuda:99"):
            with pytest.raises(UsageError) as caught:
                open_one(path, device=device)
            assert "cpu" in caught.value.hint or "cuda:0" in caught.value.hint
        open_one(path, device=torch.device("cpu"))
    cache = bc.open_cache(path)
    for view in (-1, 4, 99):
        with pytest.raises(UsageError, match=rf"{view}\b.* 4 views"):
            cache.read_view(view)


def test_a_loader_says_how_its_images_are_normalized(path: Path, data: ImageSet) -> None:
    expected = student_normalization(bc.open_cache(path), data)
    assert bc.open_loader(path).normalization == expected
    assert bc.test_loader(path).normalization == expected


def test_a_batch_has_logits_where_the_encoding_keeps_them(
    tmp_path: Path, path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    teacher = load_teacher(teacher_path, device=CPU)
    dump_tiny(teacher_path, spec, data, tmp_path / "shift.zarr", encoding="float16-shift")
    for cache, near in ((path, 1e-5), (tmp_path / "shift.zarr", 2e-2)):
        batch = next(iter(bc.open_loader(cache, batch_size=32)))
        torch.testing.assert_close(batch.logits, teacher.logits(batch.images), rtol=0, atol=near)
        assert batch.targets is not None
        torch.testing.assert_close(torch.softmax(batch.logits, 1), batch.targets)
    dump_tiny(teacher_path, spec, data, tmp_path / "root.zarr")
    batch = next(iter(bc.open_loader(tmp_path / "root.zarr")))
    with pytest.raises(UsageError) as caught:
        _ = batch.logits
    assert "--encoding float32" in caught.value.hint


def test_a_cache_says_where_a_view_comes_from(tmp_path: Path, path: Path, teacher_path: Path) -> None:
    """The file, the label and the crop are those of `bancache view`; arrays have no file."""
    pictures = photographs(tmp_path / "photos")
    succeed(
        *("dump", "--teacher", teacher_path, "--data", pictures.source, "--views", "rrc-flip"),
        *("--num-views", "3", "--out", tmp_path / "photos.zarr"),
    )
    cache, images = bc.open_cache(str(tmp_path / "photos.zarr")), bc.open_source(pictures.source, "train")
    (shown,) = succeed("view", cache.path, "--sample", "3", "--view", "2", "--out", tmp_path / "png")["views"]
    found = cache.where(3, 2)
    assert found == {key: shown[key] for key in found}
    assert images.paths is not None
    assert found["path"] == images.paths[3]
    assert found["label"] == images.classes[images.labels[3]]
    assert len(found["params"]["crop"]) == 4
    assert cache.where(3, 2, images=images) == found
    assert bc.open_cache(path).where(7, 0)["path"] is None
    with pytest.raises(UsageError, match="96"):
        bc.open_cache(path).where(96, 0)
    with pytest.raises(MismatchError):
        bc.open_cache(path).where(0, 0, images=images)


def test_a_dataset_takes_a_transform_slices_and_negative_numbers(path: Path) -> None:
    plain, dark = bc.ViewDataset(path), bc.ViewDataset(path, transform=lambda image: image[:1] - 5)
    assert torch.equal(plain[-1].images, plain[95].images)
    assert plain[-1].samples == 95
    assert plain[torch.tensor(7)].images.shape == plain[7].images.shape  # what iterating torch.randperm gives
    assert plain[10:20:3].samples.tolist() == [10, 13, 16, 19]
    assert torch.equal(plain[90:].images, plain[[90, 91, 92, 93, 94, -1]].images)
    assert torch.equal(dark[7].images, plain[7].images[:1] - 5)
    assert torch.equal(dark[2:4].images, plain[2:4].images[:, :1] - 5)
    assert torch.equal(dark[7].targets, plain[7].targets)
    assert len(plain[5:5].samples) == 0


def test_students_of_a_cache_that_does_not_record_its_teachers_input_are_normalized_as_the_teacher(
    path: Path, data: ImageSet
) -> None:
    cache = bc.open_cache(path)
    normalization = Normalization((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    pixels = {**cache.manifest.pixels, "normalisation": normalization.to_dict()}
    newer = replace(cache.manifest, pixels=pixels)
    older = replace(newer, teacher={k: v for k, v in newer.teacher.items() if k != "input"})
    assert student_normalization(replace(cache, manifest=older), data) == normalization
    of_data = Normalization(data.statistics.mean, data.statistics.std)
    assert student_normalization(replace(cache, manifest=newer), data) == of_data
