"""A teacher is given the images that it was trained on, and is looked at before it is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.calling import call, refuse, succeed
from torch import nn

import bancache as bc
from bancache.models.own_input import own_input
from bancache.views.model_input import Normalization

LEVELS = (20, 90, 160, 230)

# Each model knows four classes by the brightness of an image with pixels in 0..1.
OWN_MODELS = """
import torch
from torch import nn

class Levels(nn.Module):
    def __init__(self):
        super().__init__()
        self.levels = nn.Parameter(torch.tensor([20.0, 90.0, 160.0, 230.0]) / 255)

    def forward(self, x):
        return -200 * (x.mean(dim=(1, 2, 3))[:, None] - self.levels) ** 2

class Recorded(Levels):
    pretrained_cfg = {"mean": (0.0,), "std": (1.0,), "input_size": (3, 64, 64), "interpolation": "bicubic"}

class Side(Levels):
    pretrained_cfg = {"mean": (0.0,), "std": (1.0,), "input_size": 64}

class Words(Levels):
    pretrained_cfg = {"mean": "imagenet", "std": None}

class Softmax(Recorded):
    def forward(self, x):
        return super().forward(x).softmax(1)

class Sigmoid(Recorded):
    def forward(self, x):
        return (super().forward(x) + 3).sigmoid()

class Dropout(Recorded):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, training=True)

class Batch(Recorded):
    def forward(self, x):
        logits = super().forward(x)
        return logits - logits.mean(dim=0)

class Small(Recorded):  # was trained on 8 pixels, and is wrong about what is enlarged
    def forward(self, x):
        return super().forward(x * (x.shape[-1] / 8) ** 0.5)

class Constant(Recorded):
    def forward(self, x):
        return super().forward(torch.zeros_like(x))
"""


@pytest.fixture
def shades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 160 plain images in four shades, and a module of models beside it."""
    labels = np.arange(160) % 4
    noise = np.random.default_rng(0).integers(-9, 10, (160, 8, 8, 3))
    images = (np.array(LEVELS)[labels][:, None, None, None] + noise).astype(np.uint8)
    file = tmp_path / "shades.npz"
    np.savez(file, train_images=images, train_labels=labels, test_images=images[:40], test_labels=labels[:40])
    (tmp_path / "shade_models.py").write_text(OWN_MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return file


def dump(model: str, *more: str) -> list[str]:
    data = ("--data", "npz:shades.npz", "--views", "identity", "--out", "c.zarr", "--overwrite")
    return ["dump", "--teacher", model if ":" in model else f"shade_models:{model}", *data, *more]


def plan(model: str, *more: str) -> list[str]:
    return [
        "plan",
        "--teacher",
        f"shade_models:{model}",
        "--data",
        "npz:shades.npz",
        "--views",
        "identity",
        *more,
    ]


def test_a_model_that_records_its_normalization_gets_it(shades: Path) -> None:
    said = succeed(*dump("Recorded"))
    assert said["teacher_accuracy"] == 1.0
    assert said["chance"] == 0.25
    assert any("mean 0, 0, 0 and std 1, 1, 1" in note for note in said["notes"])
    assert any("--teacher-size 64" in note for note in said["notes"])
    recorded = succeed("info", "c.zarr")["teacher"]["input"]
    assert recorded == {
        "size": [64, 64],
        "normalization": {"mean": [0.0] * 3, "std": [255.0] * 3},
        "origin": "shade_models:Recorded's pretrained_cfg",
        "interpolation": "bicubic",
    }


def test_a_dump_shows_how_often_its_teacher_is_right(shades: Path) -> None:
    assert "teacher right on 100.00% of views, chance 25.00%" in call(*dump("Recorded")).out


def test_a_model_that_records_nothing_is_not_given_a_guess(shades: Path) -> None:
    refuse(2, ("shade_models:Levels",), *dump("Levels"), hint="--mean")
    said = succeed(*dump("Levels", "--mean", "0", "--std", "1"))
    assert said["teacher_accuracy"] == 1.0
    assert said["warnings"] == []


@pytest.mark.parametrize("model", ["Side", "Words"])
def test_a_record_of_the_input_that_makes_no_sense_is_refused(shades: Path, model: str) -> None:
    refuse(2, (f"shade_models:{model}'s pretrained_cfg",), *dump(model), hint="input_size")


@pytest.mark.parametrize("name", ["resnet81", "fcn_resnet50", "raft_large", ""])
def test_what_is_no_classifier_of_torchvision_gets_the_nearest_names(shades: Path, name: str) -> None:
    """Its own size, which some of torchvision's weights do not have, is asked for only then."""
    given = (f"torchvision:{name}", "--weights", "shades.npz")
    refuse(2, (f"'{name}'",), *dump(*given), hint="torchvision")
    refuse(2, (f"'{name}'",), "evaluate", *given, "--data", "npz:shades.npz", hint="torchvision")


def test_another_normalization_that_suits_the_teacher_better_is_named(shades: Path) -> None:
    said = succeed(*dump("Levels", "--mean", "data"))
    assert said["teacher_accuracy"] < 0.8
    assert any("--mean 0,0,0 --std 1,1,1" in warning for warning in said["warnings"])
    planned = succeed(*plan("Levels", "--mean", "data"))
    assert planned["teacher_accuracy"] == said["teacher_accuracy"]
    assert planned["warnings"] == said["warnings"]


def test_a_size_that_suits_the_teacher_better_is_named(shades: Path) -> None:
    """Models of torchvision and timm see enlarged what they may have been trained on as it is."""
    (warned,) = (
        text for text in succeed(*dump("Small", "--teacher-size", "64"))["warnings"] if "with" in text
    )
    assert warned.endswith("with --teacher-size 8")
    assert succeed(*dump("Small"))["warnings"] == []
    warnings = succeed(*dump("Small", "--teacher-size", "64", "--mean", "data"))["warnings"]
    assert any(text.endswith("--mean 0,0,0 --std 1,1,1 --teacher-size 8") for text in warnings)


def test_a_model_of_one_size_is_not_asked_about_others(shades: Path) -> None:
    (shades.parent / "fixed.py").write_text(
        OWN_MODELS.replace("x.mean(dim=(1, 2, 3))", "x.reshape(-1, 3 * 32 * 32).mean(dim=1)")
    )
    assert succeed(*dump("fixed:Recorded", "--teacher-size", "32"))["warnings"] == []


@pytest.mark.parametrize(
    "given",
    [
        ("--mean", "0.5"), ("--std", "0.5"), ("--mean", "128", "--std", "64"), ("--mean", "x", "--std", "1"),
        ("--mean", "0.5", "--std", "0"), ("--mean", "0.1,0.2", "--std", "1"), ("--mean", "nan", "--std", "1"),
    ],
)  # fmt: skip
def test_half_a_normalization_or_none_is_refused(shades: Path, given: tuple[str, ...]) -> None:
    refuse(2, (), *dump("Levels", *given), hint="std")
    assert not Path("c.zarr").exists()


def test_torchvision_and_timm_say_how_their_models_were_trained(shades: Path, tmp_path: Path) -> None:
    import timm
    from torchvision import models

    torch.manual_seed(0)
    torch.save(models.shufflenet_v2_x0_5(num_classes=4).state_dict(), tmp_path / "s.pth")
    torch.save(timm.create_model("test_vit", num_classes=4, img_size=160).state_dict(), tmp_path / "v.pth")
    succeed(*dump("torchvision:shufflenet_v2_x0_5", "--weights", "s.pth", "--limit", "8"))
    known = succeed("info", "c.zarr")["teacher"]["input"]
    assert known["origin"] == "torchvision"
    assert known["size"] == [224, 224]
    assert succeed("info", "c.zarr")["teacher_size"] == [224, 224]
    assert known["normalization"]["mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert known["normalization"]["std"] == pytest.approx([58.395, 57.12, 57.375])
    succeed(*dump("timm:test_vit", "--weights", "v.pth", "--limit", "8"))
    known = succeed("info", "c.zarr")["teacher"]["input"]
    assert (known["origin"], known["size"]) == ("timm", [160, 160])
    assert known["normalization"]["mean"] == [127.5] * 3
    assert known["interpolation"] == "bicubic"


def test_a_checkpoint_knows_its_normalization(shades: Path) -> None:
    succeed(
        *(
            "train-teacher",
            "--data",
            "npz:shades.npz",
            "--model",
            "convnet-4",
            "--epochs",
            "1",
            "--out",
            "gen0.pt",
        )
    )
    for option in (("--mean", "0", "--std", "1"), ("--mean", "data"), ("--outputs", "probabilities")):
        refuse(2, ("gen0.pt",), "dump", "--teacher", "gen0.pt", *option, hint=option[0])


@pytest.mark.parametrize("model", ["Softmax", "Sigmoid"])
def test_probabilities_are_not_taken_for_logits(shades: Path, model: str) -> None:
    refuse(2, (f"shade_models:{model}",), *dump(model), hint="--outputs probabilities")


def test_the_logarithms_of_probabilities_are_stored(shades: Path) -> None:
    succeed(*dump("Recorded", "--encoding", "float32"))
    logits = bc.open_cache("c.zarr").read_view(0)["logits"]
    succeed(*dump("Softmax", "--encoding", "float32", "--outputs", "probabilities"))
    logarithms = bc.open_cache("c.zarr").read_view(0)["logits"]
    # Probabilities below 1e-38 are 0 in float32.
    stored, expected = (torch.from_numpy(x).log_softmax(1).clamp_min(-80) for x in (logarithms, logits))
    torch.testing.assert_close(stored, expected, rtol=1e-4, atol=1e-4)
    checked = succeed("verify", "c.zarr", "--teacher", "shade_models:Softmax")
    assert checked["audit"]["verdict"] == "verified"


def test_a_random_teacher_is_refused(shades: Path) -> None:
    refuse(2, ("shade_models:Dropout",), *dump("Dropout"), hint="dropout")


def test_a_teacher_that_looks_at_the_whole_batch_is_said(shades: Path) -> None:
    warnings = succeed(*dump("Batch"))["warnings"]
    assert any("batch" in warning for warning in warnings)
    assert succeed(*dump("Recorded"))["warnings"] == []


def test_a_teacher_near_chance_is_a_warning_in_dump_plan_and_info(shades: Path) -> None:
    outcome = call(*dump("Constant"))
    assert outcome.code == 0
    assert "warning: " in outcome.err
    assert "25.0%" in outcome.err
    for command in (["info", "c.zarr"], plan("Constant")):
        (warning,) = succeed(*command)["warnings"]
        assert warning.count("25.0%") == 2


def test_a_student_is_normalized_by_its_data_not_by_a_foreign_teacher(shades: Path) -> None:
    succeed(*dump("Recorded"))
    batch: Any = next(iter(bc.open_loader("c.zarr", batch_size=160)))
    assert batch.images.mean() == pytest.approx(0, abs=1e-5)
    assert batch.images.std() == pytest.approx(1, abs=0.01)
    succeed("train-student", "--cache", "c.zarr", "--model", "convnet-4", "--epochs", "1", "--out", "gen1.pt")
    header = bc.load_checkpoint("gen1.pt").header
    statistics = bc.DataSpec("npz:shades.npz").open("train").statistics
    assert Normalization.from_dict(header["normalisation"]) == Normalization(statistics.mean, statistics.std)


def test_a_recorded_size_is_channels_height_and_width() -> None:
    model = nn.Identity()
    model.pretrained_cfg = {"mean": (0.5,), "std": (0.25,), "input_size": (3, 48, 80)}  # type: ignore[assignment]
    known = own_input("mine:model", model, 3)
    assert known is not None
    assert (known.size, known.normalization.mean) == ((48, 80), (127.5,) * 3)
