"""Third-party teachers: each is dumped, and a student trains from its targets."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.calling import refuse, succeed
from contracts.tiny import CPU, images
from torch import nn

from bancache.cache.reader import open_cache
from bancache.errors import CheckpointError, UsageError
from bancache.models import build_model
from bancache.models.checkpoint import fingerprint_state, load_checkpoint
from bancache.models.names import is_third_party
from bancache.models.teacher import load_teacher

SHAPE = (3, 3, 10, 10)

OWN_NETS = '''
"""Models of a user's own."""

import torch
from torch import nn


class Sums(nn.Module):
    """Returns the brightness of each third of the rows."""

    def forward(self, batch):
        return batch[:, :, :9].flatten(1).unflatten(1, (3, 3, -1)).mean(dim=(1, 3))


def sums():
    return Sums()


def linear():
    torch.manual_seed(7)
    return nn.Sequential(nn.Flatten(), nn.Linear(300, 3))


def square():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


def number():
    return 3
'''


UNNORMALIZED = ("--mean", "0", "--std", "1")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, where `module:function` finds it."""
    (tmp_path / "own_nets.py").write_text(OWN_NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)
    return "own_nets"


@pytest.fixture(scope="module")
def shufflenet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The random weights of a small torchvision model."""
    torch.manual_seed(0)
    return build_model("torchvision:shufflenet_v2_x0_5", classes=3, image_size=(32, 32)).state_dict()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dozen images of 32 x 32 pixels, which a torchvision model takes."""
    path = tmp_path_factory.mktemp("data") / "large.npz"
    train, test = images(seed=0, count=12, size=32), images(seed=1, count=6, size=32)
    np.savez(
        path,
        train_images=train.images,
        train_labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
    )
    return f"npz:{path}"


def student_of(cache: Path | str) -> dict[str, object]:
    """Train a convnet on a cache."""
    return succeed("train-student", "--cache", cache, "--model", "convnet-4", "--epochs", "2", "-q")


@pytest.mark.parametrize("nested", [False, True])
def test_a_torchvision_model_can_be_dumped_and_distilled(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shufflenet: dict[str, torch.Tensor],
    large: str,
    nested: bool,
) -> None:
    """From a plain state dict, or one under the key ``state_dict``, as many trainers write it."""
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": shufflenet, "epoch": 3} if nested else shufflenet, "weights.pt")
    named = ("--teacher", "torchvision:shufflenet_v2_x0_5", "--weights", "weights.pt", "--teacher-size", "32")
    said = succeed("dump", *named, "--data", large, "--views", "crop2-flip", "--num-views", "2")
    assert said["out"] == "torchvision-shufflenet_v2_x0_5.zarr"
    assert (said["samples"], said["views"], said["model"]) == (12, 2, "torchvision:shufflenet_v2_x0_5")
    manifest = open_cache(Path("torchvision-shufflenet_v2_x0_5.zarr")).manifest
    assert manifest.teacher["fingerprint"] == fingerprint_state(shufflenet)
    assert manifest.teacher["generation"] == 0
    assert manifest.teacher["lineage"] == []
    assert student_of("torchvision-shufflenet_v2_x0_5.zarr")["generation"] == 1
    header = load_checkpoint(Path("gen1.pt")).header
    assert header["views"] == "crop2-flip"
    assert [a["model"] for a in header["lineage"]] == ["torchvision:shufflenet_v2_x0_5"]
    assert [a["weights"] for a in header["lineage"]] == [fingerprint_state(shufflenet)]


def test_a_timm_model_can_be_dumped_and_distilled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: str
) -> None:
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    torch.save(build_model("timm:test_convnext", classes=3, image_size=(32, 32)).state_dict(), "weights.pt")
    named = ("--teacher", "timm:test_convnext", "--weights", "weights.pt", "--teacher-size", "32")
    succeed("dump", *named, "--data", large, "--views", "flip")
    student_of("timm-test_convnext.zarr")


def test_a_model_of_the_users_own_can_be_dumped_and_distilled(module: str, npz: Path) -> None:
    """The cache holds the logits of the function's model for each view."""
    named = (
        "--teacher",
        f"{module}:sums",
        "--data",
        f"npz:{npz}",
        "--views",
        "flip",
        "--encoding",
        "float32",
        *(*UNNORMALIZED, "--outputs", "logits"),
    )
    assert succeed("dump", *named)["out"] == "own_nets-sums.zarr"
    cache = open_cache(Path("own_nets-sums.zarr"))
    assert cache.manifest.num_views == 2
    logits = np.stack([cache.read_view(view_index)["logits"] for view_index in range(2)])  # (2, 96, 3)
    # Mirroring changes no row's brightness, so both views of an image have the same logits.
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)
    student_of("own_nets-sums.zarr")


def test_a_model_of_the_users_own_takes_weights(module: str, npz: Path) -> None:
    state = nn.Sequential(nn.Flatten(), nn.Linear(300, 3)).state_dict()
    torch.save(state, "weights.pt")
    named = ("--teacher", f"{module}:linear", "--data", f"npz:{npz}", "--views", "identity", *UNNORMALIZED)
    succeed("dump", *named, "--weights", "weights.pt", "--out", "loaded.zarr")
    succeed("dump", *named, "--out", "drawn.zarr")
    prints = [
        open_cache(Path(name)).manifest.teacher["fingerprint"] for name in ("loaded.zarr", "drawn.zarr")
    ]
    assert prints[0] == fingerprint_state(state) != prints[1]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model exported for any batch, and for batches of 32 alone."""
    folder = tmp_path_factory.mktemp("exports")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)).eval()
    example = torch.zeros(32, 3, 10, 10)
    dynamic = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(dynamic, folder / "any.pt2")
    torch.export.save(torch.export.export(model, (example,)), folder / "fixed.pt2")
    torch.save(model.state_dict(), folder / "weights.pt")
    return folder


def test_an_exported_model_can_be_dumped_and_distilled(exports: Path, npz: Path) -> None:
    """Exported with batches of 32, run on batches of 96."""
    said = succeed(
        "dump", "--teacher", exports / "any.pt2", "--data", f"npz:{npz}", "--views", "flip", *UNNORMALIZED
    )
    assert said["out"] == str(exports / "any.zarr")
    assert said["fidelity"]["1"]["kl_mean"] < 1e-4
    weights = torch.load(exports / "weights.pt", weights_only=True)  # noqa: TID251 (a file of this test)
    assert open_cache(exports / "any.zarr").manifest.teacher["fingerprint"] == fingerprint_state(weights)
    student_of(exports / "any.zarr")


def test_a_model_exported_for_one_batch_size_says_how_to_export_it(exports: Path, npz: Path) -> None:
    named = ("--teacher", exports / "fixed.pt2", "--data", f"npz:{npz}", "--views", "flip", *UNNORMALIZED)
    message = r".*fixed\.pt2.*\(96, 3, 10, 10\).*32.*"
    hint = refuse(2, message, "dump", *named, keep=exports)
    assert "torch.export.Dim('batch')" in hint
    assert "--batch-size" in hint
    assert succeed("dump", *named, "--batch-size", "32")["samples"] == 96


@pytest.mark.parametrize("content", [b"", b"model", "half", "plain"])
def test_a_file_that_is_no_export_is_said_to_be_none(
    tmp_path: Path, exports: Path, npz: Path, content: bytes | str
) -> None:
    whole = (exports / "any.pt2").read_bytes()
    other = (exports / "weights.pt").read_bytes()
    known = {"half": whole[: len(whole) // 2], "plain": other}
    path = tmp_path / "model.pt2"
    path.write_bytes(content if isinstance(content, bytes) else known[content])
    message = r".*model\.pt2.*"
    argv = ("dump", "--teacher", path, "--data", f"npz:{npz}", "--views", "flip", "-q")
    assert refuse(1, message, *argv, keep=tmp_path).endswith("torch.export.save")


def test_no_student_is_built_like_a_model_that_has_no_name(module: str, exports: Path, npz: Path) -> None:
    """A function and an export cannot be built for a student: it needs a model of its own."""
    named = ("--data", f"npz:{npz}", "--views", "identity", *UNNORMALIZED, "--outputs", "logits")
    succeed("dump", "--teacher", f"{module}:sums", *named, "--out", "sums.zarr")
    succeed("dump", "--teacher", exports / "any.pt2", *named, "--out", "any.zarr")
    for cache, name in (("sums.zarr", "own_nets:sums"), ("any.zarr", r".*any\.pt2")):
        argv = ("train-student", "--cache", cache, "--epochs", "1", "-q")
        assert refuse(2, f".*{name}.*", *argv) == "add --model NAME"
        assert refuse(2, f".*{name}.*", *argv, "--dropout", "0.1") == "add --model NAME"
        student_of(cache)
        Path("gen1.pt").unlink()


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("own_nets:nothing", 2, r".*'own_nets:nothing'.*"),
        ("no_nets:sums", 2, r".*'no_nets:sums'.*"),
        ("own_nets:number", 2, r".*'own_nets:number'.* int.*"),
        ("own_nets:square", 2, r".*'own_nets:square'.* \(96, 3, 10, 10\).*"),
        ("torchvision:resnet18", 2, r".*'torchvision:resnet18'.*weights.*"),
        ("torchvision:resnet19", 2, r".*'torchvision:resnet19'.*weights.*"),
        ("none.pt2", 1, r".*none\.pt2.*"),
        ("none.pt", 1, r".*none\.pt .*"),
    ],
)  # fmt: skip
def test_a_teacher_that_is_not_there_is_named(
    module: str, tmp_path: Path, npz: Path, name: str, code: int, message: str
) -> None:
    more = UNNORMALIZED if name == "own_nets:square" else ()
    refuse(code, message, "dump", "--teacher", name, "--data", f"npz:{npz}", "--views", "flip", *more)
    assert not list(tmp_path.glob("*.zarr"))


@pytest.mark.parametrize("missing", ["--data", "--views"])
def test_a_third_party_teacher_does_not_know_its_data(module: str, npz: Path, missing: str) -> None:
    given = {"--data": f"npz:{npz}", "--views": "flip"}
    rest = [part for option, value in given.items() if option != missing for part in (option, value)]
    for teacher in (f"{module}:sums", "model.pt2", "torchvision:resnet18"):
        hint = refuse(2, f".*'{teacher}'.*", "dump", "--teacher", teacher, *rest)
        assert hint.startswith(f"add {missing}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.ones(2)}, "weights.pt .*torchvision:resnet18"),
        ({"conv1.weight": torch.ones(2, 2)}, "weights.pt .*torchvision:resnet18"),
        ([torch.ones(2)], "weights.pt"),
        ({"state_dict": 3}, "weights.pt"),
        (torch.ones(2), "weights.pt"),
    ],
    ids=["other names", "other shapes", "list", "number", "tensor"],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "weights.pt")
    with pytest.raises(CheckpointError, match=message):
        load_teacher("torchvision:resnet18", device=CPU, weights=Path("weights.pt"), shape=SHAPE)


def test_weights_are_for_models_that_have_none(exports: Path, teacher_path: Path) -> None:
    for spec in (str(exports / "any.pt2"), str(teacher_path)):
        with pytest.raises(UsageError, match=r"weights\.pt.*\.pt"):
            load_teacher(spec, device=CPU, weights=str(exports / "weights.pt"))


def test_a_checkpoint_is_told_from_a_third_party_model(tmp_path: Path) -> None:
    """A colon may also stand in a file's name."""
    odd = tmp_path / "run:1.pt"
    odd.touch()
    assert [is_third_party(name) for name in ("gen0.pt", str(odd), "timm:vit", "models:mine", "a/b.pt2")] == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_a_checkpoint_teacher_has_its_header_and_is_frozen(teacher_path: Path) -> None:
    teacher = load_teacher(teacher_path, device=CPU)
    assert teacher.header["views"] == "crop1-flip"
    assert teacher.architecture["name"] == "convnet-4"
    assert teacher.fingerprint == load_checkpoint(teacher_path).fingerprint
    assert not teacher.model.training
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
