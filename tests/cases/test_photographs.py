"""Photographs of different sizes go all the way: teacher, cache, student, page; each at its own size, with the same views."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from contracts.calling import Chain, call, refuse, succeed
from contracts.damage import DAMAGES
from contracts.killing import tree
from contracts.loader import require_same_tail, require_shares
from contracts.photographs import EVERYTHING, write_photographs
from contracts.replaying import pretend_to_capture
from contracts.small_cache import SHARD_BYTES
from contracts.tiny import CPU, RECIPE, After
from PIL import Image
from sources.tiny import encode, make_npz, random_images
from torch.utils.data import DataLoader

import bancache as bc
from bancache.cache.reader import Cache, open_cache
from bancache.dumping.pipeline import fill
from bancache.errors import MismatchError, UsageError
from bancache.loader import Loader, LoaderOptions
from bancache.loader.open import cached_loader
from bancache.models.teacher import OnlineTargets, load_teacher
from bancache.sources import golden
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.configs import read_toml
from bancache.system.fingerprint import short
from bancache.system.ragged import RaggedImages
from bancache.system.ranks import Rank
from bancache.training import Run, TrainerOptions, run_for_cache, train
from bancache.views import ViewSpace
from bancache.views.pictures import Pictures
from bancache.views.record_renderer import RecordRenderer
from bancache.views.renderer import Renderer
from bancache.views.shrink import shrink

THREE_SHARDS = 30  # bytes; 24 samples in three bytes each then make three shards a view index
TEACH = ("train-teacher", "--model", "convnet-4", "--batch-size", "8", "--epochs", "2")
TEACH_MORE = (*TEACH[:4], "32", *TEACH[5:])  # of 96 images, as many batches as of 24


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A teacher that sees 24 x 24 pixels, its caches of three views and of five, and a student that sees 16 x 16."""
    folder = tmp_path_factory.mktemp("photographs")
    data = ("--data", f"folder:{write_photographs(folder / 'photos')}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "home"))
        patch.setattr(SHARD_BYTES, THREE_SHARDS)
        gen0, few = folder / "gen0.pt", folder / "gen0.zarr"
        said = {"gen0.pt": succeed(*TEACH, *data, "--size", "24", "--views", EVERYTHING, "--out", gen0)}
        said["gen0.zarr"] = succeed("dump", "--teacher", gen0, "--num-views", "3", "--out", few)
        said["many.zarr"] = succeed(
            "dump", "--teacher", gen0, "--num-views", "5", "--out", folder / "many.zarr"
        )
        said["gen1.pt"] = succeed("train-student", "--cache", few, "--size", "16")
        yield Chain(folder, said)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHARD_BYTES, THREE_SHARDS)


def dump(chain: Chain, out: Path, *more: str, views: int = 3) -> tuple[str, ...]:
    return ("dump", "--teacher", str(chain / "gen0.pt"), "--num-views", str(views), "--out", str(out), *more)


def test_teacher_and_student_each_have_a_size_of_their_own(chain: Chain) -> None:
    sizes = [
        bc.load_checkpoint(chain / name).header["architecture"]["image_size"]
        for name in ("gen0.pt", "gen1.pt")
    ]
    assert sizes == [[24, 24], [16, 16]]
    promise = json.loads((chain / "gen0.zarr" / "manifest.json").read_text())["promise"]
    assert promise["pixels"]["size"] == [24, 24]
    assert promise["view_space"] == {"id": "counters-1", "name": EVERYTHING, "seed": 0}
    assert promise["dataset"]["image_shape"] is None


def test_a_student_sees_what_its_teacher_saw_in_the_cache_unless_its_run_began_otherwise(
    chain: Chain, tmp_path: Path
) -> None:
    """A dump may show its teacher another size than it was trained at."""
    succeed(*dump(chain, cache := tmp_path / "gen0.zarr", "--teacher-size", "28"))

    def student(out: str, *options: str) -> dict[str, Any]:
        return succeed("train-student", "--cache", cache, "--out", tmp_path / out, *options)

    def size(out: str) -> list[int]:
        found: list[int] = bc.load_checkpoint(tmp_path / out).header["architecture"]["image_size"]
        return found

    told = [student("a.pt"), student("b.pt", "--model", "convnet-2")]
    said = [[note for note in each["notes"] if "28 x 28" in note and "--size" in note] for each in told]
    assert [len(notes) for notes in said] == [0, 1]
    assert size("a.pt") == size("b.pt") == [28, 28]
    student("old.pt", "--size", "24")  # of an older version, without the option
    assert student("old.pt")["trained"] is False
    given = ("--data", f"folder:{chain / 'photos'}", "--teacher", chain / "gen0.pt", "--teacher-size", "28")
    begin = ("generations", *given, "--num-views", "2", "--generations", "1")
    for name, options, expected in (("run", (), 28), ("old", ("--size", "24"), 24)):
        succeed(*begin, *options, "--out", tmp_path / name)
        succeed(*begin, "--out", tmp_path / name)
        assert read_toml(tmp_path / name / "run.toml")["model"]["image_size"] == [expected, expected]


def test_models_of_both_sizes_are_evaluated_together(chain: Chain) -> None:
    said = succeed("evaluate", chain / "gen0.pt", chain / "gen1.pt")
    assert [member["accuracy"] for member in said["members"]] == [
        chain.said[name]["test_accuracy"] for name in ("gen0.pt", "gen1.pt")
    ]


def stop_after(shards: int, monkeypatch: pytest.MonkeyPatch, *argv: str) -> bool:
    """Run a dump that is stopped after some shards; return whether it was, and had not come to its end."""

    def stopped(*args: Any, **options: Any) -> Any:
        writer, start, summarize, rank, progress, _ = args
        return fill(writer, start, summarize, rank, progress, After(shards), **options)

    with monkeypatch.context() as patch:
        patch.setattr("bancache.dumping.run.fill", stopped)
        code = call(*argv).code
    assert code in (0, 143)
    return code != 0


def other_pixels(monkeypatch: pytest.MonkeyPatch, size: int | None = None) -> None:
    """Let the renderer give one other byte, at one size or at any, as a library might after an upgrade."""
    pixels = RecordRenderer.pixels

    def changed(self: RecordRenderer, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        shown = pixels(self, samples, rows)
        if size in (None, self.size[0]):
            shown[3, 5, 5, 0] ^= 1
        return shown

    monkeypatch.setattr(RecordRenderer, "pixels", changed)


def change_picture(photos: Path) -> None:
    file = photos / "train" / "checks" / "03.png"
    pixels = np.asarray(Image.open(file)).copy()
    pixels[4, 4, 1] ^= 1
    file.write_bytes(encode(pixels))


# Dumps and caches.


def test_a_dump_that_is_stopped_after_every_shard_ends_with_the_same_bytes(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = 0
    while stop_after(1, monkeypatch, *dump(chain, tmp_path / "a.zarr")):
        stops += 1
    assert stops == 9
    assert tree(tmp_path / "a.zarr") == tree(chain / "gen0.zarr")


def test_two_that_join_write_the_same_bytes(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in ("1", "0", "1"):
        argv = dump(chain, tmp_path / "a.zarr", "--join", "--rank", rank, "--world-size", "2")
        stop_after(4, monkeypatch, *argv)
    assert tree(tmp_path / "a.zarr") == tree(chain / "gen0.zarr")


def test_shards_of_another_size_hold_the_same_targets(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SHARD_BYTES, 3 * THREE_SHARDS)
    succeed(*dump(chain, tmp_path / "a.zarr", "--batch-size", "7"))
    assert len(list((tmp_path / "a.zarr" / "q" / "c" / "0").iterdir())) == 1
    one = [open_cache(tmp_path / "a.zarr").read_view(view)["q"].tolist() for view in range(3)]
    monkeypatch.undo()
    monkeypatch.setattr(SHARD_BYTES, THREE_SHARDS)
    assert one == [open_cache(chain / "gen0.zarr").read_view(view)["q"].tolist() for view in range(3)]


def test_an_extended_cache_is_a_longer_dump_and_a_pruned_one_a_shorter_one(
    chain: Chain, tmp_path: Path
) -> None:
    succeed("extend", chain / "gen0.zarr", "--num-views", "5", "--out", tmp_path / "a.zarr")
    assert tree(tmp_path / "a.zarr") == tree(chain / "many.zarr")
    succeed("prune", tmp_path / "a.zarr", "--num-views", "3", "--out", tmp_path / "b.zarr")
    assert tree(tmp_path / "b.zarr") == tree(chain / "gen0.zarr")


def test_parts_merge_to_the_whole(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    for rank, part in enumerate(parts):
        argv = dump(chain, part, "--join", "--rank", str(rank), "--world-size", "2")
        assert stop_after(5, monkeypatch, *argv)
    succeed("merge", *parts, "--out", tmp_path / "c.zarr")
    assert tree(tmp_path / "c.zarr") == tree(chain / "gen0.zarr")


def test_a_damaged_shard_is_found_and_repaired_to_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    path = Path(shutil.copytree(chain / "gen0.zarr", tmp_path / "a.zarr"))
    DAMAGES["flipped"](path / "q" / "c" / "1" / "2" / "0", path)
    assert call("verify", path).code == 3
    assert succeed("repair", path)["shards"] == 1
    assert tree(path) == tree(chain / "gen0.zarr")


def test_the_teacher_confirms_what_is_stored(chain: Chain) -> None:
    said = succeed("verify", chain / "gen0.zarr", "--deep", "--teacher", chain / "gen0.pt")
    assert said["intact"]
    assert said["audit"]["verdict"] == "within quantization error"
    assert said["audit"]["same_bytes"] == 1.0


def test_info_says_which_views_at_which_size(chain: Chain) -> None:
    said = succeed("info", chain / "gen0.zarr")
    assert said["view_space"]["name"] == EVERYTHING
    assert said["teacher_size"] == [24, 24]


@pytest.mark.parametrize(
    ("option", "values"),
    [
        (("--view-seed", "1"), ("seed 0", "seed 1")),
        (("--teacher-size", "32"), ("24", "32")),
        (("--views", "rrc-flip"), (EVERYTHING, "name rrc-flip,")),
    ],
)
def test_a_dump_with_other_settings_is_refused_with_both(
    chain: Chain, option: tuple[str, ...], values: tuple[str, ...]
) -> None:
    refuse(
        4, values, *dump(chain, chain / "gen0.zarr"), *option, hint="--overwrite", keep=chain / "gen0.zarr"
    )


@pytest.mark.parametrize("name", ["order", "picture"])
def test_other_pictures_are_refused_with_both_fingerprints(chain: Chain, tmp_path: Path, name: str) -> None:
    photos = Path(shutil.copytree(chain / "photos", tmp_path / "photos"))
    if name == "picture":
        change_picture(photos)
    else:
        (photos / "train" / "checks" / "00.png").rename(photos / "train" / "checks" / "99.png")
    moved = ("--data", f"folder:{photos}")
    values = tuple(
        short(DataSpec(f"folder:{root}").open("train").fingerprint) for root in (photos, chain / "photos")
    )
    for argv in (
        dump(chain, chain / "gen0.zarr"),
        ("train-student", "--cache", chain / "gen0.zarr", "--out", tmp_path / "s.pt"),
        ("verify", chain / "gen0.zarr", "--teacher", chain / "gen0.pt"),
        ("extend", chain / "gen0.zarr", "--num-views", "5", "--out", tmp_path / "e.zarr"),
        ("repair", chain / "gen0.zarr"),
    ):
        refuse(4, values, *argv, *moved, keep=chain / "gen0.zarr")


def test_where_pillow_reads_other_pixels_the_refusal_names_it(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same files have other pixels with another version of Pillow or another decoder: that is not another data set."""
    photos = Path(shutil.copytree(chain / "photos", tmp_path / "photos"))
    change_picture(photos)
    student = ("train-student", "--cache", chain / "gen0.zarr", "--data", f"folder:{photos}")
    here = PIL.__version__
    assert open_cache(chain / "gen0.zarr").manifest.created_with["pillow"] == here
    assert "Pillow" not in refuse(4, ("data set",), *student)
    with monkeypatch.context() as patch:
        patch.setattr(PIL, "__version__", "99.1")
        assert f"Pillow {here} " in refuse(4, ("data set",), *student, hint="Pillow 99.1 ")
    golden.require_decoder.cache_clear()
    monkeypatch.setattr(golden, "decode", lambda *_: Image.new("RGB", (1, 1)))
    refuse(4, ("data set",), *student, hint="4:2:0, 4:2:2")


def test_a_teacher_of_resized_pictures_has_other_images_with_another_pillow(tmp_path: Path) -> None:
    """A checkpoint does not record the version, so the refusal does not say that the files changed."""
    photos, gen0 = write_photographs(tmp_path / "photos"), tmp_path / "gen0.pt"
    succeed(*TEACH, "--data", f"folder:{photos}", "--image-size", "16", "--views", "flip", "--out", gen0)
    change_picture(photos)
    for command in (("dump", "--num-views", "1", "--out", tmp_path / "a.zarr"), ("plan",)):
        refuse(4, ("data set",), *command, "--teacher", gen0, hint=f"Pillow {PIL.__version__} ")


def test_other_pixels_of_the_same_views_are_refused_when_a_cache_is_opened_resumed_or_audited(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stop_after(3, monkeypatch, *dump(chain, tmp_path / "a.zarr"))
    other_pixels(monkeypatch)
    refuse(4, ("pixels",), *dump(chain, tmp_path / "a.zarr"))
    refuse(4, ("pixels",), "verify", chain / "gen0.zarr", "--teacher", chain / "gen0.pt")
    refuse(4, ("pixels",), "train-student", "--cache", chain / "gen0.zarr", "--out", tmp_path / "s.pt")
    refuse(
        4,
        ("pixels",),
        "train-student",
        "--cache",
        chain / "gen0.zarr",
        "--size",
        "16",
        "--out",
        tmp_path / "s.pt",
    )
    with pytest.raises(MismatchError):
        bc.open_loader(chain / "gen0.zarr")
    with pytest.raises(MismatchError):
        bc.ViewDataset(chain / "gen0.zarr")


# The student's side.


def shown_at(chain: Chain, size: int, **options: Any) -> Loader:
    cache = open_cache(chain / "gen0.zarr")
    data = DataSpec.from_dict(cache.manifest.dataset["spec"]).open("train")
    return cached_loader(cache, data, LoaderOptions(**{"batch_size": 8, **options}), size=(size, size))


def test_the_student_sees_the_teachers_pixels_bit_for_bit(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the teacher's size, in batches of any size."""
    seen: dict[tuple[int, ...], torch.Tensor] = {}
    kind = type(shown_at(chain, 24)._renderer)
    render = kind.render

    def spy(self: Renderer, samples: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = render(self, samples, rows)
        for sample, row, image in zip(samples.tolist(), rows.tolist(), images, strict=True):
            seen[(sample, *row)] = image.clone()
        return images

    with monkeypatch.context() as patch:
        patch.setattr(kind, "render", spy)
        succeed(*dump(chain, tmp_path / "a.zarr"))
    for batch_size, epochs in ((1, 1), (7, 3), (24, 3)):
        loader = shown_at(chain, 24, batch_size=batch_size)
        for batch in (batch for epoch in range(epochs) for batch in loader.epoch(epoch)):
            rows = loader._renderer.rows(batch.samples, batch.views).tolist()
            for sample, row, image in zip(batch.samples.tolist(), rows, batch.images, strict=True):
                assert torch.equal(image, seen[(sample, *row)])


def test_a_loop_of_ones_own_may_name_a_size(chain: Chain) -> None:
    """By default the images are as the teacher saw them."""
    path = chain / "gen0.zarr"
    for size, shown in ((None, 24), (16, 16)):
        loader, dataset = bc.open_loader(path, batch_size=8, size=size), bc.ViewDataset(path, size=size)
        wanted = next(iter(shown_at(chain, shown)))
        batch = next(iter(loader))
        assert torch.equal(batch.images, wanted.images)
        assert torch.equal(dataset[batch.samples.tolist()].images, wanted.images)
        assert batch.partner_labels is not None
        assert batch.lam is not None
        assert (batch.lam.shape, batch.partner_labels.dtype) == ((8,), torch.int64)


def test_batches_do_not_depend_on_their_size_their_ranks_or_where_an_epoch_begins(chain: Chain) -> None:
    whole = shown_at(chain, 16)
    shares = [shown_at(chain, 16, rank=Rank(rank, 4)) for rank in range(4)]
    for epoch in (0, 2):
        require_shares(whole, shares, epoch)
    require_same_tail(shown_at(chain, 16), whole, 1, 2)
    images: dict[int, torch.Tensor] = {}
    for batch_size in (3, 8):
        for batch in shown_at(chain, 16, batch_size=batch_size).epoch(1):
            for sample, image in zip(batch.samples.tolist(), batch.images, strict=True):
                assert torch.equal(images.setdefault(sample, image.clone()), image)
    assert len(images) == 24


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_in_a_dataloader_shows_what_the_loader_shows(chain: Chain, workers: int) -> None:
    expected = {}
    for batch in shown_at(chain, 24).epoch(1):
        assert batch.targets is not None
        for sample, image, target in zip(batch.samples.tolist(), batch.images, batch.targets, strict=True):
            expected[sample] = image.clone(), target.clone()
    dataset = bc.ViewDataset(chain / "gen0.zarr")
    dataset.set_epoch(1)
    shown = 0
    for images, _, targets, samples, _ in DataLoader(dataset, 5, shuffle=True, num_workers=workers):
        for image, target, sample in zip(images, targets, samples.tolist(), strict=True):
            assert torch.equal(image, expected[sample][0])
            assert torch.equal(target, expected[sample][1])
            shown += 1
    assert shown == 24


def test_a_stopped_training_goes_on_to_the_same_weights(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ("train-student", "--cache", chain / "gen0.zarr", "--size", "16", "--out", tmp_path / "a.pt")
    for steps in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr("bancache.training.loop.Interrupt.requested", property(counted(steps)))
            assert call(*argv).code == 143
    assert succeed(*argv)["weights"] == chain.said["gen1.pt"]["weights"]


@pytest.mark.parametrize("command", ["train-teacher", "train-student"])
def test_a_stopped_training_does_not_go_on_with_other_pixels(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Neither the student's at a size of its own, where the teacher's pixels are the same, nor the teacher's."""
    argv = {
        "train-teacher": (*TEACH, "--data", f"folder:{chain / 'photos'}", "--views", EVERYTHING),
        "train-student": ("train-student", "--cache", chain / "gen0.zarr"),
    }[command]
    argv = (*argv, "--size", "16", "--out", tmp_path / "a.pt")
    with monkeypatch.context() as patch:
        patch.setattr("bancache.training.loop.Interrupt.requested", property(counted(1)))
        assert call(*argv).code == 143
    with monkeypatch.context() as patch:
        other_pixels(patch, size=16)
        refuse(4, ("pixels",), *argv, hint="--overwrite")
    assert succeed(*argv)["epochs"] == 2


def counted(steps: int) -> Callable[[Any], bool]:
    """Return a wish to stop that comes after some steps."""
    left = [steps]

    def requested(self: Any) -> bool:
        left[0] -= 1
        if left[0] < 0:
            self.signal_number = 15
        return left[0] < 0

    return requested


def student_of(
    path: Path, photos: Path, size: int, model: str = "convnet-2"
) -> tuple[Run, ImageSet, ImageSet, Cache]:
    cache, spec = open_cache(path), DataSpec(f"folder:{photos}")
    data, test = spec.open("train"), spec.open("test")
    net = {"name": model, "classes": 3, "channels": 3, "image_size": [size, size], "dropout": 0.0}
    recipe = replace(RECIPE, epochs=2, batch_size=8, loss="ban")
    return run_for_cache(net, recipe, 3, spec, data, cache), data, test, cache


def test_a_student_of_the_cache_and_one_of_the_teacher_online_have_the_same_loss_curve(
    chain: Chain, tmp_path: Path
) -> None:
    succeed(*dump(chain, tmp_path / "f.zarr", "--encoding", "float32"))
    run, data, test, cache = student_of(tmp_path / "f.zarr", chain / "photos", 24)
    online = OnlineTargets(load_teacher(str(chain / "gen0.pt"), device=CPU))
    curves = []
    for name, targets in (("a.pt", None), ("b.pt", online)):
        trained = train(run, data, test, TrainerOptions(tmp_path / name, CPU), cache=cache, targets=targets)
        curves.append([epoch["loss"] for epoch in trained.checkpoint.header["history"]])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    smaller = student_of(tmp_path / "f.zarr", chain / "photos", 16)[0]
    with pytest.raises(UsageError, match=r"24 x 24 .* 16 x 16"):
        train(smaller, data, test, TrainerOptions(tmp_path / "c.pt", CPU), cache=cache, targets=online)


def test_a_teacher_online_is_not_given_another_size_than_that_of_its_images(
    npz: Path, tmp_path: Path
) -> None:
    gen0, out = tmp_path / "gen0.pt", tmp_path / "gen0.zarr"
    succeed(*TEACH, "--data", f"npz:{npz}", "--views", "crop2-flip", "--out", gen0)
    succeed("dump", "--teacher", gen0, "--num-views", "1", "--out", out)
    cache, spec = open_cache(out), DataSpec(f"npz:{npz}")
    data, test = spec.open("train"), spec.open("test")
    net = {"name": "convnet-2", "classes": 3, "channels": 3, "image_size": [16, 16], "dropout": 0.0}
    run = run_for_cache(net, replace(RECIPE, loss="ban"), 3, spec, data, cache)
    online = OnlineTargets(load_teacher(str(gen0), device=CPU))
    with pytest.raises(UsageError, match=r"10 x 10 .* 16 x 16"):
        train(run, data, test, TrainerOptions(tmp_path / "a.pt", CPU), cache=cache, targets=online)


def test_captured_steps_are_those_of_the_eager_loop(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data, test, cache = student_of(chain / "gen0.zarr", chain / "photos", 16, "wrn-10-1")
    replays = pretend_to_capture(monkeypatch)
    ends = []
    for name, graph in (("a.pt", "off"), ("b.pt", "auto")):
        options = TrainerOptions(tmp_path / name, CPU, graph=graph)  # type: ignore[arg-type]
        checkpoint = train(run, data, test, options, cache=cache).checkpoint
        ends.append((checkpoint.fingerprint, checkpoint.header["history"]))
    assert replays == [2 * 3]
    assert ends[0] == ends[1]


# Other commands.


def test_a_sequence_of_generations_makes_its_page(chain: Chain, tmp_path: Path) -> None:
    argv = ("--data", f"folder:{chain / 'photos'}", "--model", "convnet-4", "--size", "16", "--epochs", "1")
    more = (
        "--batch-size",
        "8",
        "--views",
        EVERYTHING,
        "--num-views",
        "2",
        "--seeds",
        "0",
        "--generations",
        "1",
    )
    succeed("generations", *argv, *more, "--out", tmp_path / "run")
    assert (tmp_path / "run" / "page.html").stat().st_size > 10_000
    shown = json.loads(next((tmp_path / "run").rglob("views.json")).read_text())
    assert shown["views"] == EVERYTHING
    succeed("report", tmp_path / "run")


def test_plan_and_bench_measure_it(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = succeed("plan", "--teacher", chain / "gen0.pt", "--num-views", "10")
    assert planned["views"] == 10
    monkeypatch.setattr("bancache.bench.measure._PARTS", 2)
    measured = succeed("bench", "--cache", chain / "gen0.zarr", "--rounds", "2", "--batch-size", "8")
    assert measured


# Other views.


@pytest.mark.parametrize("views", ["crop4-flip-mixup0.8", "crop2-flip-color0.4", "flip-cutmix1.0"])
def test_a_lattice_takes_colors_erasing_and_mixing(npz: Path, tmp_path: Path, views: str) -> None:
    gen0, out = tmp_path / "gen0.pt", tmp_path / "gen0.zarr"
    succeed(*TEACH_MORE, "--data", f"npz:{npz}", "--views", views, "--out", gen0)
    succeed("dump", "--teacher", gen0, "--num-views", "2", "--out", out)
    promise = json.loads((out / "manifest.json").read_text())["promise"]
    assert promise["view_space"] == {"id": "counters-1", "name": views, "seed": 0}
    assert "size" not in promise["pixels"]  # that of the images
    succeed("train-student", "--cache", out, "--out", tmp_path / "gen1.pt")
    assert succeed("verify", out, "--teacher", gen0)["audit"]["same_bytes"] == 1.0
    assert succeed("evaluate", gen0, tmp_path / "gen1.pt")["samples"] == 40


def test_crops_are_shown_to_a_larger_teacher_at_its_size_and_to_a_student_at_its_own(
    npz: Path, tmp_path: Path
) -> None:
    gen0, out = tmp_path / "gen0.pt", tmp_path / "gen0.zarr"
    succeed(*TEACH_MORE, "--data", f"npz:{npz}", "--views", "crop2-flip", "--size", "24", "--out", gen0)
    succeed("dump", "--teacher", gen0, "--num-views", "2", "--teacher-size", "32", "--out", out)
    promise = json.loads((out / "manifest.json").read_text())["promise"]
    assert (promise["view_space"]["id"], promise["pixels"]["size"]) == ("lattice-1", [32, 32])
    succeed("train-student", "--cache", out, "--size", "10", "--out", tmp_path / "gen1.pt")
    assert bc.load_checkpoint(tmp_path / "gen1.pt").header["architecture"]["image_size"] == [10, 10]
    assert succeed("verify", out, "--teacher", gen0)["audit"]["same_bytes"] == 1.0


def test_gray_pictures_are_erased_too(tmp_path: Path) -> None:
    gen0, out = tmp_path / "gen0.pt", tmp_path / "gen0.zarr"
    succeed(
        *TEACH_MORE[:-1],
        "1",
        "--data",
        "digits",
        "--limit",
        "64",
        "--views",
        "rrc-flip-erase0.25",
        "--out",
        gen0,
    )
    succeed("dump", "--teacher", gen0, "--num-views", "2", "--out", out)
    assert succeed("verify", out, "--teacher", gen0)["audit"]["same_bytes"] == 1.0
    succeed("train-student", "--cache", out, "--out", tmp_path / "gen1.pt")


# What cannot be is refused in a sentence.


@pytest.mark.parametrize(
    ("argv", "values", "hint"),
    [
        (("--views", "crop4-flip"), ("21x26",), "--image-size"),
        (("--views", "crop4-flip-mixup0.8"), ("21x26",), "--image-size"),
        (("--views", "rrc-flip-mixup0"), ("mixup0",), "mixup0.8"),
        (("--views", "rrc-erase2"), ("erase2",), "erase0.25"),
        (("--views", "rrc-flop"), ("rrc-flop",), "rrc-flip"),
        (("--views", "rrc-flip", "--size", "4"), ("--size", "8"), ""),
    ],
)
def test_a_teacher_of_impossible_views_is_refused(
    chain: Chain, tmp_path: Path, argv: tuple[str, ...], values: tuple[str, ...], hint: str
) -> None:
    data = ("--data", f"folder:{chain / 'photos'}", "--out", str(tmp_path / "a.pt"))
    refuse(2, values, *TEACH, *data, *argv, hint=hint)
    assert not (tmp_path / "a.pt").exists()


@pytest.mark.parametrize("command", ["dump", "plan"])
def test_all_of_endless_views_is_refused(chain: Chain, tmp_path: Path, command: str) -> None:
    out = ("--out", str(tmp_path / "a.zarr")) if command == "dump" else ()
    refuse(
        2,
        (EVERYTHING,),
        command,
        "--teacher",
        chain / "gen0.pt",
        "--num-views",
        "all",
        *out,
        hint="--num-views",
    )


def test_all_of_endless_views_is_refused_for_generations_and_extend(chain: Chain, tmp_path: Path) -> None:
    data = ("--data", f"folder:{chain / 'photos'}", "--model", "convnet-4")
    argv = ("generations", *data, "--views", "rrc-flip", "--num-views", "all", "--out", tmp_path / "run")
    refuse(2, ("rrc-flip",), *argv, hint="--num-views")
    out = ("--out", tmp_path / "e.zarr")
    refuse(
        2,
        ("--num-views", "integer"),
        "extend",
        chain / "gen0.zarr",
        "--num-views",
        "all",
        *out,
        hint="extend --help",
    )


def test_pictures_of_one_pixel_have_views(tmp_path: Path) -> None:
    file = make_npz(
        tmp_path / "a.npz",
        train_images=random_images(8, height=1, width=1),
        train_labels=np.arange(8) % 3,
        test_images=random_images(3, height=1, width=1),
    )
    argv = (*TEACH, "--data", f"npz:{file}", "--views", EVERYTHING, "--out", tmp_path / "a.pt")
    assert succeed(*argv, "--size", "8")["epochs"] == 2


@pytest.mark.parametrize(("longest", "accepted"), [(510, True), (511, False)])
def test_a_picture_is_at_most_255_times_as_long_as_its_view(
    tmp_path: Path, longest: int, accepted: bool
) -> None:
    """Up to there no weight of its resampling is negative."""
    flat = np.zeros(3 * longest * 3 + 9 * 2 * 3, np.uint8)
    pictures = Pictures.of(
        RaggedImages(flat, np.array([3, 9], np.int32), np.array([longest, 2], np.int32), 3)
    )
    pixels, box = np.zeros((3, longest, 3), np.uint8), (0, 0, 3, longest)
    if accepted:
        assert pictures.require(ViewSpace.parse("rrc"), (2, 2)) == (2, 2)
        assert shrink(pixels, box, (2, 2)).shape == (2, 2, 3)
        return
    for refused in (
        lambda: pictures.require(ViewSpace.parse("rrc"), (2, 2)),
        lambda: shrink(pixels, box, (2, 2)),
    ):
        with pytest.raises(UsageError, match="511") as error:
            refused()
        assert "9" not in str(error.value)  # no picture is 511 wide and 9 high
        assert "--size 3" in (error.value.hint or "")


def test_crops_would_distort_pictures_that_are_not_square(tmp_path: Path) -> None:
    file = make_npz(
        tmp_path / "a.npz",
        train_images=random_images(8, height=12, width=16),
        train_labels=np.arange(8) % 3,
        test_images=random_images(3, height=12, width=16),
    )
    argv = (*TEACH, "--data", f"npz:{file}", "--out", str(tmp_path / "a.pt"))
    refuse(2, ("16x12", "24x24"), *argv, "--views", "crop1", "--size", "24", hint="--views rrc-flip")
    assert succeed(*argv, "--views", "rrc-flip", "--size", "16")["epochs"] == 2


def test_a_teacher_that_takes_one_size_is_not_shown_another(chain: Chain, tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("test_vit", num_classes=3, img_size=160).state_dict(), tmp_path / "v.pth")
    argv = ("dump", "--teacher", "timm:test_vit", "--weights", tmp_path / "v.pth", "--views", "rrc-flip")
    more = ("--data", f"folder:{chain / 'photos'}", "--num-views", "1", "--out", tmp_path / "a.zarr")
    refuse(2, (), *argv, *more, "--teacher-size", "50", hint="--teacher-size")
    refuse(2, ("--teacher-size", "4096"), *dump(chain, tmp_path / "b.zarr"), "--teacher-size", "5000")
