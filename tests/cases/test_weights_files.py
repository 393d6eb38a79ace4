"""Weights as trainers write them load into the model they were trained as, or a sentence says why not."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from sources.tiny import Heard
from torch import nn

from bancache.errors import CheckpointError, UsageError
from bancache.models.weights import load_weights

State = dict[str, torch.Tensor]


class Net(nn.Module):
    """A net with a normalization, of 4 classes."""

    def __init__(self, classes: int = 4, width: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, classes)


def state_of(seed: int, **changes: int) -> State:
    """Return the weights of a net."""
    torch.manual_seed(seed)
    return dict(Net(**changes).state_dict())


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def load(path: Path | str, heard: Heard | None = None) -> State:
    """Load a file into a new net, and return its weights."""
    model = Net()
    load_weights(model, "own:net", str(path), heard)
    return model.state_dict()


def same(one: State, other: State) -> bool:
    return all(torch.equal(one[name], other[name]) for name in other)


GOOD = state_of(1)
WRAPPED: dict[str, Any] = {
    "a state dict": GOOD,
    "DistributedDataParallel": prefixed("module.", GOOD),
    "torch.compile": prefixed("_orig_mod.", GOOD),
    "both": prefixed("module._orig_mod.", GOOD),
    "both, the other way": prefixed("_orig_mod.module.", GOOD),
    "a compiled part": {name.replace("bn1.", "bn1._orig_mod."): value for name, value in GOOD.items()},
    "FSDP": {f"_fsdp_wrapped_module.{name}": value for name, value in GOOD.items()},
    "activation checkpointing": {
        name.replace("bn1.", "bn1._checkpoint_wrapped_module."): value for name, value in GOOD.items()
    },
    "averaged with torch.optim.swa_utils": {"n_averaged": torch.tensor(3), **prefixed("module.", GOOD)},
    "without counters, as before torch 0.4.1": {k: v for k, v in GOOD.items() if "num_batches" not in k},
    "half precision": {k: v.half().float().half() if v.is_floating_point() else v for k, v in GOOD.items()},
    **{name: {name: GOOD, "epoch": 3} for name in ("model", "net", "state_dict", "model_state_dict", "weights")},
    "wrapped twice": {"checkpoint": {"model": prefixed("module.", GOOD)}},
    "an ordered dictionary": OrderedDict(GOOD),
    "Lightning": {
        "state_dict": {**prefixed("model.", GOOD), "criterion.weight": torch.ones(4)},
        "hyper_parameters": {"path": pathlib.PurePosixPath("a"), "lr": np.float64(0.1)},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}],
    },
    "torchvision's references": {
        "model": GOOD,
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": []},
        "args": argparse.Namespace(data_path="x", when=np.datetime64("2024-01-01")),
        "scaler": {"scale": 65536.0},
    },
    "timm's last": {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": GOOD,
        "args": argparse.Namespace(img_size=None, mean=(0.5,)),
        "metric": np.float32(71.2),
        "rng": np.random.default_rng(0).bit_generator.state,
        "numpy": np.arange(3),
        "seen": {1, 2},
        "counts": defaultdict(list, a=[1]),
    },
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("how", WRAPPED)
def test_weights_load_whatever_a_trainer_put_around_and_beside_them(
    tmp_path: Path, how: str, legacy: bool
) -> None:
    torch.save(WRAPPED[how], tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    expected = {k: v.half().float() if v.is_floating_point() else v for k, v in GOOD.items()}
    assert same(load(tmp_path / "w.pth"), expected if how == "half precision" else GOOD)


def test_quantized_weights_are_no_floats(tmp_path: Path) -> None:
    torch.save({**GOOD, "fc.weight": (GOOD["fc.weight"] * 100).to(torch.int8)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"fc\.weight is int8"):
        load(tmp_path / "w.pth")


def test_an_address_is_no_set_of_a_file() -> None:
    with pytest.raises(CheckpointError, match=r"w\.pth is missing"):
        load("https://example.org/w.pth")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle_loads(tmp_path: Path, protocol: int) -> None:
    torch.save(
        {**WRAPPED["timm's last"], "bytes": bytearray(b"a")}, tmp_path / "w.pth", pickle_protocol=protocol
    )
    assert same(load(tmp_path / "w.pth"), GOOD)


AVERAGED = state_of(2)


@pytest.mark.parametrize(
    ("content", "averaged", "plain"),
    [
        ({"state_dict": GOOD, "state_dict_ema": AVERAGED}, "state_dict_ema", "state_dict"),
        ({"model": GOOD, "model_ema": prefixed("module.", AVERAGED)}, "model_ema.module", "model"),
        ({"net": {"model": GOOD, "ema": AVERAGED}}, "net.ema", "net.model"),
        ({"model": GOOD, "model_average": AVERAGED}, "model_average", "model"),
        ({"model": GOOD, "swa_model": prefixed("module.", AVERAGED)}, "swa_model.module", "model"),
        ({"state_dict": prefixed("model.", GOOD) | prefixed("ema_model.", AVERAGED)}, "state_dict.ema_model", "state_dict.model"),
    ],
)  # fmt: skip
def test_averaged_weights_are_taken_and_the_note_says_how_to_take_the_others(
    tmp_path: Path, content: Any, averaged: str, plain: str
) -> None:
    torch.save(content, tmp_path / "w.pth")
    heard = Heard()
    assert same(load(tmp_path / "w.pth", heard), AVERAGED)
    (note,) = heard.notes
    assert f"'{averaged}'" in note
    named = f"{tmp_path / 'w.pth'}:{plain}"
    assert f"--weights {named}" in note
    heard = Heard()
    assert same(load(named, heard), GOOD)
    assert heard.notes == []


def test_a_note_names_no_way_to_weights_that_have_no_name(tmp_path: Path) -> None:
    torch.save({**GOOD, "ema": AVERAGED}, tmp_path / "w.pth")
    heard = Heard()
    assert same(load(tmp_path / "w.pth", heard), AVERAGED)
    assert "'ema'" in heard.notes[0]
    assert "--weights" not in heard.notes[0]


def test_of_two_sets_that_fit_equally_one_must_be_named(tmp_path: Path) -> None:
    torch.save({"student": GOOD, "teacher": AVERAGED}, tmp_path / "w.pth")
    with pytest.raises(UsageError, match="student, teacher") as caught:
        load(tmp_path / "w.pth")
    assert f"--weights {tmp_path / 'w.pth'}:student" in caught.value.hint
    assert same(load(f"{tmp_path / 'w.pth'}:teacher"), AVERAGED)
    with pytest.raises(UsageError, match="'tutor'"):
        load(f"{tmp_path / 'w.pth'}:tutor")


@pytest.mark.parametrize("where", ["file", "folder", "bin"])
def test_safetensors_and_hugging_face_folders_load(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "resnet"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18", "num_classes": 4}))
    if where == "bin":
        torch.save(GOOD, folder / "pytorch_model.bin")
    else:
        safetensors.torch.save_file(GOOD, folder / "model.safetensors", {"format": "pt"})
    assert same(load(folder / "model.safetensors" if where == "file" else folder), GOOD)


def in_two_files(folder: Path, **index: str) -> Path:
    """Write weights in two files, as Hugging Face does, and return their index."""
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(GOOD)}
    for file in set(files.values()):
        part = {name: tensor for name, tensor in GOOD.items() if files[name] == file}
        safetensors.torch.save_file(part, folder / file)
    content = {"metadata": {"total_size": 1}, "weight_map": files | index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return folder / "model.safetensors.index.json"


def test_weights_in_several_files_load_by_their_index(tmp_path: Path) -> None:
    index = in_two_files(tmp_path)
    assert same(load(tmp_path), GOOD)
    assert same(load(index), GOOD)


@pytest.mark.parametrize(
    "file", ["", "..", "/etc/hostname", "../model.safetensors", "model.safetensors.index.json", "a\0b"]
)
def test_an_index_names_files_of_weights_beside_it_only(tmp_path: Path, file: str) -> None:
    index = in_two_files(tmp_path, **{"fc.bias": file})
    with pytest.raises(CheckpointError):
        load(index)


def test_an_index_that_makes_no_sense_or_lacks_a_file_is_refused(tmp_path: Path) -> None:
    index = in_two_files(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing"):
        load(index)
    for text in ("[]", '{"weight_map": {"a": 1}}', "[" * 100_000, "\ud800"):
        index.write_text(text, errors="replace")
        with pytest.raises(CheckpointError, match="no index"):
            load(index)


def test_the_auxiliary_heads_of_inception_are_left_out_with_a_note(tmp_path: Path) -> None:
    torch.save(
        {**GOOD, "AuxLogits.fc.weight": torch.ones(2), "aux1.fc.bias": torch.ones(2)}, tmp_path / "w.pth"
    )
    heard = Heard()
    assert same(load(tmp_path / "w.pth", heard), GOOD)
    assert any("AuxLogits" in note and "aux1" in note for note in heard.notes)


def sentence(path: Path | str) -> CheckpointError:
    """Return the refusal of a file: two lines at most, and short ones."""
    with pytest.raises(CheckpointError) as caught:
        load(path)
    what = str(caught.value)
    assert "\n" not in what + caught.value.hint
    assert len(what) < 450
    assert str(path) in what
    assert caught.value.hint
    return caught.value


def test_a_head_of_other_classes_is_said_with_both_numbers(tmp_path: Path) -> None:
    torch.save({"state_dict": prefixed("module.", state_of(1, classes=1000))}, tmp_path / "w.pth")
    error = sentence(tmp_path / "w.pth")
    assert "1000 classes" in str(error)
    assert "has 4" in str(error)
    assert "--data" in error.hint


def test_a_misfit_says_how_many_names_fit_and_which_shapes_differ_first(tmp_path: Path) -> None:
    deep = {f"layer{n}.{name}": value for n in range(300) for name, value in GOOD.items()}
    torch.save(
        {"model": {**{k: v for k, v in GOOD.items() if k != "fc.bias"}, "fc2.bias": torch.ones(4)}},
        tmp_path / "a.pth",
    )
    torch.save(state_of(1, width=3), tmp_path / "b.pth")
    torch.save({**deep, "layer0.extra.weight": torch.ones(1)}, tmp_path / "c.pth")
    said = str(sentence(tmp_path / "a.pth"))
    assert "8 of the model's 9" in said
    assert "fc.bias" in said
    assert "fc2.bias" in said
    said = str(sentence(tmp_path / "b.pth"))
    assert "conv1.weight: (3, 3, 3, 3), in the model (2, 3, 3, 3)" in said
    with pytest.raises(UsageError, match="299 sets"):
        load(tmp_path / "c.pth")


def test_the_config_of_hugging_face_names_the_model_that_would_fit(tmp_path: Path) -> None:
    safetensors.torch.save_file(state_of(1, width=3), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "resnet34", "num_classes": 4}')
    assert "--teacher timm:resnet34" in sentence(tmp_path / "model.safetensors").hint
    names = {
        "vit.embeddings.cls_token": torch.ones(1),
        "vit.encoder.layer.0.output.dense.bias": torch.ones(1),
    }
    safetensors.torch.save_file(names, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architectures": ["ViTForImageClassification"], "num_labels": 4}')
    hint = sentence(tmp_path / "model.safetensors").hint
    assert "ViTForImageClassification" in hint
    assert "module:function" in hint
    for config in ("[]", "{", '{"architecture": 3}'):
        (tmp_path / "config.json").write_text(config)
        assert "module:function" in sentence(tmp_path / "model.safetensors").hint


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def test_code_beside_the_weights_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": GOOD, "args": Runs(tmp_path / "ran")}, tmp_path / "w.pth")
    assert same(load(tmp_path / "w.pth"), GOOD)
    assert not (tmp_path / "ran").exists()


def whole(path: Path) -> None:
    torch.save(Net(), path)


def wrapped_whole(path: Path) -> None:
    torch.save({"epoch": 3, "model": Net(), "ema": None}, path)


def old_whole(path: Path) -> None:
    torch.save(Net(), path, _use_new_zipfile_serialization=False)


def script(path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def export(path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), path.with_suffix(".pt2"))
    path.with_suffix(".pt2").rename(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("write", "what", "todo"),
    [
        (whole, "whole model", "state_dict"),
        (wrapped_whole, "whole model", "state_dict"),
        (old_whole, "whole model", "state_dict"),
        (script, "TorchScript", "torch.jit.load"),
        (export, "torch.export", "--teacher"),
        (lambda path: torch.save([1, 2], path), "no weights", "state_dict"),
        (lambda path: torch.save({"epoch": 3}, path), "no weights", "state_dict"),
        (lambda path: torch.save(torch.ones(2), path), "no weights", "state_dict"),
        (lambda path: np.savez(path.open("wb"), a=np.ones(2)), "not a checkpoint", "restore"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html>\n<html>"), "web page", "download"),
        (lambda path: path.write_bytes(b"root:x:0:0:root:/root:/bin/bash"), "is text, not", "download"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid"), "Git LFS", "git lfs pull"),
        (lambda path: path.write_bytes(b""), "not a checkpoint", "restore"),
        (lambda path: path.mkdir(), "folder", "file"),
    ],
    ids=["model", "models", "old model", "script", "export", "list", "no tensors", "tensor", "npz", "html", "text", "git lfs", "empty", "folder"],
)  # fmt: skip
def test_what_holds_no_weights_is_named_with_what_to_do(
    tmp_path: Path, write: Callable[[Path], object], what: str, todo: str
) -> None:
    write(tmp_path / "w.pth")
    error = sentence(tmp_path / "w.pth")
    assert what in str(error)
    assert todo in error.hint


def test_official_weights_of_densenet_have_older_names(tmp_path: Path) -> None:
    """torchvision renames them when it downloads; a file given by hand has them."""
    from bancache.models import build_model

    model = build_model("torchvision:densenet121", classes=4)
    state = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for name, value in model.state_dict().items()
    }
    torch.save(state, tmp_path / "w.pth")
    other = build_model("torchvision:densenet121", classes=4)
    load_weights(other, "torchvision:densenet121", str(tmp_path / "w.pth"))
    assert same(other.state_dict(), model.state_dict())


def test_a_changed_byte_of_the_weights_is_found(tmp_path: Path) -> None:
    torch.save(GOOD, tmp_path / "w.pth")
    content = bytearray((tmp_path / "w.pth").read_bytes())
    at = content.find(GOOD["conv1.weight"].numpy().tobytes())
    content[at + 5] ^= 1
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        load(tmp_path / "w.pth")
