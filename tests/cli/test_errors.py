"""Errors: one line with the values, the exit code, a hint that names the command or option; nothing is lost."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.calling import Chain, call, refuse, succeed
from contracts.killing import tree
from contracts.tiny import CPU, settings

from bancache.dumping import dump, prepare
from bancache.errors import StoppedError
from bancache.models import teacher
from bancache.models.checkpoint import load_checkpoint, save_checkpoint
from bancache.models.teacher import load_teacher
from bancache.report.results import read_records
from bancache.sources.spec import DataSpec
from bancache.system.locks import exclusive
from bancache.system.signals import Interrupt


@pytest.fixture
def own(chain: Chain, tmp_path: Path, npz: Path) -> Path:
    """A copy of the chain's first links that a test may damage, with its own data."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("gen0.pt", "gen1.pt", "results.jsonl"):
        shutil.copy(chain / name, folder / name)
    shutil.copytree(chain / "gen0.zarr", folder / "gen0.zarr")
    return folder


def rearranged(npz: Path, out: Path, how: str) -> str:
    """Write the data set with its images in another order, one label changed, one pixel changed, or one missing."""
    arrays = dict(np.load(npz))
    images, labels = arrays["train_images"].copy(), arrays["train_labels"].copy()
    if how == "permuted":
        order = np.random.default_rng(0).permutation(len(labels))
        images, labels = images[order], labels[order]
    elif how == "relabelled":
        labels[7] = (labels[7] + 1) % 3
    elif how == "repainted":
        images[3, 2, 1, 0] ^= 1
    elif how == "shorter":
        images, labels = images[:-1], labels[:-1]
    elif how == "renamed":
        arrays["classes"] = arrays["classes"][::-1]
    np.savez(out, **{**arrays, "train_images": images, "train_labels": labels})
    return f"npz:{out}"


# The data set, the teacher, the views: exit 4.

OTHERS = ["permuted", "relabelled", "repainted", "shorter", "renamed"]


@pytest.mark.parametrize("how", OTHERS)
def test_a_student_refuses_another_data_set(own: Path, tmp_path: Path, npz: Path, how: str) -> None:
    data = rearranged(npz, tmp_path / "other.npz", how)
    argv = ("train-student", "--cache", own / "gen0.zarr", "--data", data, "--out", own / "new.pt", "-q")
    refuse(4, r"data set: .*'[0-9a-f]{12}'.*'[0-9a-f]{12}'", *argv, hint="dump", keep=own)


@pytest.mark.parametrize("how", OTHERS)
def test_a_dump_refuses_data_that_changed_since_the_training(tmp_path: Path, npz: Path, how: str) -> None:
    folder, data = tmp_path / "work", tmp_path / "data.npz"
    data.write_bytes(npz.read_bytes())
    succeed("train-teacher", "--data", f"npz:{data}", "--epochs", "1", "--out", folder / "gen0.pt")
    rearranged(npz, data, how)
    argv = ("dump", "--teacher", folder / "gen0.pt", "-q")
    refuse(4, r"data set: .*'[0-9a-f]{12}'.*'[0-9a-f]{12}'", *argv, hint="--data", keep=folder)


def test_a_dump_for_other_data_is_made_when_it_is_asked_for(own: Path, tmp_path: Path, npz: Path) -> None:
    """The targets belong to the new order, and a note says that the teacher was trained on other images."""
    data = rearranged(npz, tmp_path / "other.npz", "permuted")
    argv = ("dump", "--teacher", own / "gen0.pt", "--out", own / "other.zarr", "--data", data)
    assert "note: " in call(*argv).err
    succeed("train-student", "--cache", own / "other.zarr", "--out", own / "other.pt")


def test_another_cache_is_refused_before_its_teacher_is_loaded_or_runs(
    own: Path, tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ("dump", "--out", own / "gen0.zarr", "--teacher", own / "gen0.pt")
    monkeypatch.setattr(prepare, "check_teacher", None)
    refuse(4, ("teacher",), *argv, "--teacher", own / "gen0.pt", hint="--overwrite", keep=own)
    monkeypatch.setattr(teacher, "load_teacher", None)
    data = rearranged(npz, tmp_path / "other.npz", "permuted")
    refuse(4, ("data set",), *argv, "--data", data, hint="--overwrite", keep=own)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        (["--teacher", "{own}/gen1.pt"], ("teacher", "'")),
        (["--views", "crop2-flip"], ("pad 1", "pad 2")),
        (["--view-seed", "7"], ("seed 0", "seed 7")),
        (["--num-views", "5"], ("4", "5")),
        (["--encoding", "float16"], ("root4", "float16")),
        (["--batch-size", "32"], ("batch_size 256", "batch_size 32")),
        (["--precision", "bfloat16"], ("float32", "bfloat16")),
    ],
)
@pytest.mark.parametrize("state", ["complete", "incomplete"])
def test_a_dump_goes_on_only_with_the_same_settings(
    own: Path, spec: DataSpec, change: list[str], values: tuple[str, ...], state: str
) -> None:
    if state == "incomplete":
        interrupted_dump(own, spec)
    changed = [part.format(own=own) for part in change]
    if "--teacher" not in change:
        changed += ["--teacher", str(own / "gen0.pt")]
    argv = ("dump", "--out", own / "gen0.zarr", "-q")
    refuse(4, values, *argv, *changed, hint="--overwrite", keep=own)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        (["--seed", "5"], ("seed", "1", "5")),
        (["--lr", "0.05"], ("lr", "0.2", "0.05")),
        (["--model", "convnet-8"], ("convnet-4", "convnet-8")),
        (["--share-layers", "copy"], ("none", "copy")),
        (["--loss", "ban"], ("loss", "ban-l", "ban")),
    ],
)
def test_a_finished_student_is_not_replaced_by_another(
    own: Path, change: list[str], values: tuple[str, ...]
) -> None:
    argv = ("train-student", "--cache", own / "gen0.zarr", "-q")
    refuse(4, ("gen1.pt", *values), *argv, *change, hint="--overwrite", keep=own)


def test_a_student_under_way_is_not_taken_over_by_another(own: Path, npz: Path) -> None:
    (own / "gen1.pt").unlink()
    argv = ("train-student", "--cache", own / "gen0.zarr", "-q")
    refuse(1, r"(nan|inf) in epoch \d", *argv, "--lr", "1e30", "--save-every", "0")
    assert (own / "gen1.pt.resume").exists()
    refuse(4, ("gen1.pt.resume", "lr", "1e+30", "0.2"), *argv, keep=own)
    refuse(4, ("gen1.pt.resume", "convnet-4", "convnet-8"), *argv, "--model", "convnet-8", keep=own)
    assert succeed(*argv, "--overwrite")["trained"] is True


@pytest.mark.parametrize(("which", "newest"), [("cache", 3), ("checkpoint", 1)])
def test_a_newer_format_is_told_from_damage(own: Path, which: str, newest: int) -> None:
    if which == "cache":
        manifest = json.loads((own / "gen0.zarr" / "manifest.json").read_text())
        manifest["format_version"] = manifest["promise"]["format_version"] = 99
        (own / "gen0.zarr" / "manifest.json").write_text(json.dumps(manifest))
        argv = ("info", own / "gen0.zarr")
    else:
        torch.save({"mark": "bancache checkpoint", "version": 99}, own / "gen0.pt")
        argv = ("evaluate", own / "gen0.pt")
    refuse(4, ("99", f" {newest}"), *argv, hint="upgrade bancache", keep=own)


def test_nets_of_different_data_have_no_ensemble(own: Path, tmp_path: Path, npz: Path) -> None:
    succeed("train-teacher", "--data", rearranged(npz, tmp_path / "o.npz", "renamed"), "--epochs", "1")
    refuse(4, ("gen0.pt", "'checks'", "'stripes'"), "evaluate", own / "gen0.pt", "gen0.pt", "-q")


# The cache: exit 3.


def interrupted_dump(own: Path, spec: DataSpec) -> None:
    """Leave gen0.zarr with two of its four shards."""

    class After(Interrupt):
        def __init__(self, checks: int) -> None:
            super().__init__()
            self._left = checks

        def check(self, progress: str, hint: str = "") -> None:
            self._left -= 1
            if self._left < 0:
                self.signal_number = 15
            super().check(progress, hint)

    shutil.rmtree(own / "gen0.zarr")
    teacher = load_teacher(str(own / "gen0.pt"), device=CPU)
    asked = settings(teacher, batch_size=256, space=settings(teacher).space.parse("crop1-flip"))
    with pytest.raises(StoppedError, match="2 of 4"):
        dump(
            teacher, spec.open("train"), spec.resolved(), own / "gen0.zarr", asked, device=CPU, interrupt=After(2)
        )  # fmt: skip


def test_a_damaged_cache_is_named_by_its_shard(own: Path) -> None:
    chunk = own / "gen0.zarr" / "q" / "c" / "2" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    argv = ("train-student", "--cache", own / "gen0.zarr", "--out", own / "new" / "gen1.pt", "-q")
    refuse(3, ("gen0.zarr", "shard 2", "view 2", "0 to 95"), *argv, hint="bancache repair")


@pytest.mark.parametrize("how", ["missing", "empty", "another's"])
def test_a_chunk_that_is_not_the_one_written_never_teaches(own: Path, how: str) -> None:
    chunk = own / "gen0.zarr" / "q" / "c" / "0" / "0" / "0"
    if how == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes(b"" if how == "empty" else (chunk.parents[2] / "1" / "0" / "0").read_bytes())
    argv = ("train-student", "--cache", own / "gen0.zarr", "--out", "new.pt", "-q")
    refuse(3, ("gen0.zarr", "shard 0", "view 0", "0 to 95"), *argv, keep=own)


def test_no_student_learns_from_an_incomplete_cache_and_a_dump_completes_it(
    own: Path, chain: Chain, spec: DataSpec
) -> None:
    interrupted_dump(own, spec)
    argv = ("train-student", "--cache", own / "gen0.zarr", "--out", own / "new.pt", "-q")
    refuse(3, ("gen0.zarr", "2 of 4"), *argv, hint="bancache dump", keep=own)
    facts = succeed("info", own / "gen0.zarr")
    assert (facts["complete"], facts["shards_done"], facts["shards"]) == (False, 2, 4)
    assert facts["bytes_per_pair"] is None
    assert "2 of 4" in call("info", own / "gen0.zarr").out
    finished = call("dump", "--teacher", own / "gen0.pt")
    assert "2 of 4" in finished.err
    assert {k: v for k, v in tree(own / "gen0.zarr").items() if "zarr.json" not in k and k != "manifest.json"} == {
        k: v for k, v in tree(chain / "gen0.zarr").items() if "zarr.json" not in k and k != "manifest.json"
    }  # fmt: skip
    succeed(*argv)


@pytest.mark.parametrize("command", [["info"], ["train-student", "--cache"]])
@pytest.mark.parametrize("place", ["folder", "file", "nothing", "not json"])
def test_what_is_no_cache_is_said_to_be_none(own: Path, command: list[str], place: str) -> None:
    path = own / "place"
    if place in ("folder", "not json"):
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    if place == "not json":
        (path / "manifest.json").write_text("{")
    if place == "file":
        path.write_text("mine")
    refuse(3, ("place/manifest.json",), *command, path, hint="bancache dump", keep=own)


def test_an_address_is_not_taken_for_a_folder(own: Path) -> None:
    argv = ["extend", "--num-views", "4", "--out", "b.zarr"]
    pull = "bancache pull s3://bucket/gen0.zarr gen0.zarr"
    refuse(2, "s3://bucket/gen0.zarr", *argv, "s3://bucket/gen0.zarr", hint=pull, keep=own)


@pytest.mark.parametrize("place", ["folder", "file"])
def test_a_dump_never_replaces_other_files(own: Path, place: str) -> None:
    path = own / "place"
    if place == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    else:
        path.write_text("mine")
    argv = ("dump", "--teacher", own / "gen0.pt", "--out", path, "-q")
    refuse(2, (str(path),), *argv, keep=own)
    refuse(2, (str(path),), *argv, "--overwrite", keep=own)


def test_a_cache_in_use_is_left_alone(own: Path, spec: DataSpec) -> None:
    interrupted_dump(own, spec)
    with exclusive(own / "gen0.zarr"):
        refuse(5, ("gen0.zarr", f"pid {os.getpid()}"), "dump", "--teacher", own / "gen0.pt", "-q", keep=own)
    succeed("dump", "--teacher", own / "gen0.pt")


# Checkpoints and logits: exit 1.


@pytest.mark.parametrize("command", [["dump", "--teacher"], ["evaluate"]])
@pytest.mark.parametrize(
    "name", ["none.pt", "folder.pt", "cut.pt", "empty.pt", "text.pt", "flipped.pt", "foreign.pt"]
)
def test_a_file_that_is_no_checkpoint_is_refused_by_name(own: Path, command: list[str], name: str) -> None:
    content = (own / "gen0.pt").read_bytes()
    flipped = bytearray(content)
    weights = load_checkpoint(own / "gen0.pt").state["stages.1.3.weight"].numpy().tobytes()
    flipped[content.index(weights) + 100] ^= 4
    files = {"cut.pt": content[:900], "empty.pt": b"", "text.pt": b"weights", "flipped.pt": bytes(flipped)}
    if name in files:
        (own / name).write_bytes(files[name])
    if name == "folder.pt":
        (own / name).mkdir()
    if name == "foreign.pt":
        torch.save({"a": torch.ones(2)}, own / name)
    refuse(1, (str(own / name),), *command, own / name, keep=own)


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("command", ["dump", "evaluate", "weights", "resume", "share-layers"])
@pytest.mark.parametrize("inside", [True, False])
def test_pickled_code_is_refused_and_not_run(
    own: Path, tmp_path: Path, npz: Path, command: str, inside: bool
) -> None:
    sentinel, evil = tmp_path / "ran", own / "evil.pt"
    if command == "resume":
        (own / "gen1.pt").unlink()
        evil = own / "gen1.pt.resume"
    if inside:
        torch.save({"mark": "bancache checkpoint", "version": 1, "run": Payload(sentinel)}, evil)
    else:
        evil.write_bytes(pickle.dumps(Payload(sentinel)))
    student: list[str | Path] = ["train-student", "--cache", own / "gen0.zarr", "-q"]
    foreign = ["dump", "--teacher", "torchvision:resnet18", "--data", f"npz:{npz}", "--views", "flip", "-q"]
    commands: dict[str, list[str | Path]] = {
        "dump": ["dump", "--teacher", evil],
        "evaluate": ["evaluate", evil],
        "weights": [*foreign, "--weights", evil],
        "resume": student,
        "share-layers": [*student, "--out", own / "new.pt", "--share-layers", "copy", "--teacher", evil],
    }
    refuse(1, (evil.name, "execute code"), *commands[command], keep=own)
    assert not sentinel.exists()


def test_a_teacher_with_logits_nan_leaves_no_cache(own: Path) -> None:
    stored = load_checkpoint(own / "gen0.pt")
    broken = {name: value.clone() for name, value in stored.state.items()}
    broken["last_layer.bias"][1] = float("nan")
    save_checkpoint(own / "nan.pt", broken, stored.header)
    refuse(1, ("96", "sample 0", "view 0"), "dump", "--teacher", own / "nan.pt", "-q", keep=own)
    refuse(1, ("NaN",), "evaluate", own / "nan.pt", "-q", keep=own)


def test_logits_too_far_apart_for_float16_name_the_encoding_that_holds_them(own: Path) -> None:
    stored = load_checkpoint(own / "gen0.pt")
    wide = {name: value.clone() for name, value in stored.state.items()}
    wide["last_layer.bias"][1] = 1e6
    save_checkpoint(own / "wide.pt", wide, stored.header)
    argv = ("dump", "--teacher", own / "wide.pt", "-q")
    refuse(1, ("1e+06", "float16"), *argv, "--encoding", "float16", hint="--encoding float32")
    succeed(*argv, "--out", own / "wide32.zarr", "--encoding", "float32")


@pytest.mark.parametrize("lr", ["1e30", "1e8"])
def test_a_learning_rate_that_is_too_high_is_named_in_the_hint(tmp_path: Path, npz: Path, lr: str) -> None:
    argv = ("train-teacher", "--data", f"npz:{npz}", "--epochs", "3", "--batch-size", "16", "--lr", lr, "-q")
    refuse(1, r"(nan|inf) in epoch \d|NaN", *argv, hint="--lr")
    assert not Path("gen0.pt").exists()


# The command line: exit 2.

TEACH = ["train-teacher", "--data", "npz:{npz}", "-q"]
DUMP = ["dump", "--teacher", "{own}/gen0.pt", "--out", "{own}/new.zarr", "-q"]
STUDENT = ["train-student", "--cache", "{own}/gen0.zarr", "--out", "{own}/new.pt", "-q"]
STUDY = ["generations", "--data", "npz:{npz}", "--out", "{own}/study", "-q"]


@pytest.mark.parametrize(
    ("argv", "values", "hint"),
    [
        ([*TEACH, "--model", "wrm-28-2"], "'wrm-28-2'", "wrn-28-2"),
        ([*TEACH, "--model", "wrn-27-2"], "wrn-27-2|6n + 4", "wrn-22-2 or wrn-28-2"),
        ([*TEACH, "--model", "torchvision:resnet19"], "torchvision|'resnet19'", "resnet18"),
        ([*TEACH, "--model", "convnet-4", "--dropout", "0.3"], "convnet-4|0.3", "wrn"),
        ([*TEACH, "--model", "convnet-4", "--checkpoint-activations"], "convnet-4|checkpoint", "densenet"),
        ([*TEACH, "--recipe", "wm"], "'wm'", "wrn, densenet, imagenet"),
        ([*TEACH, "--views", "crop-4"], "'crop-4'", "crop4-flip"),
        ([*TEACH, "--views", "crop10"], "'crop10'|10 x 10", "crop10-zero"),
        ([*TEACH, "--epochs", "0"], "epochs 0", "1"),
        ([*TEACH, "--epochs", "three"], "'--epochs'|integer", "bancache train-teacher --help"),
        ([*TEACH, "--batch-size", "0"], "batch size 0", "1"),
        ([*TEACH, "--lr", "0"], "learning rate 0.0", ""),
        ([*TEACH, "--lr", "nan"], "learning rate nan", ""),
        ([*TEACH, "--limit", "0"], "limit 0", "--limit 1000"),
        ([*TEACH, "--image-size", "0"], "image size 0|4096", "--image-size"),
        ([*TEACH, "--device", "gpu"], "'gpu'", "cpu, cuda"),
        ([*TEACH, "--device", "meta"], "'meta'", "cpu, cuda"),
        ([*TEACH, "--out", "{own}"], "{own}", "gen0.pt"),
        ([*TEACH, "--out", "{own}/gen0.pt/x.pt"], "{own}/gen0.pt", "--out"),
        (["train-teacher", "--data", "cifra10:x"], "'cifra10:x'", "cifar10"),
        (["train-teacher", "--data", "npz"], "'npz'", "npz:FILE"),
        ([*DUMP, "--num-views", "0"], "'crop1-flip'|18|0", "1 to 18"),
        ([*DUMP, "--num-views", "19"], "'crop1-flip'|18|19", "1 to 18"),
        ([*DUMP, "--views", "crop4-flip", "--num-views", "163"], "'crop4-flip'|162|163", "1 to 162"),
        ([*DUMP, "--num-views", "x"], "--num-views|'x'", "1 to 18"),
        ([*DUMP, "--num-views", "-1"], "--num-views|'-1'", "1 to 18"),
        ([*DUMP, "--view-seed", "-1"], "seed|-1", ""),
        ([*DUMP, "--encoding", "root"], "'root'", "root4"),
        ([*DUMP, "--encoding", "root99"], "root|99|256", ""),
        ([*DUMP, "--batch-size", "0"], "batch|0", ""),
        ([*DUMP, "--precision", "float8"], "'--precision'|'float8'", "bancache dump --help"),
        ([*DUMP, "--weights", "{own}/gen0.pt"], "--weights {own}/gen0.pt", "--weights"),
        ([*DUMP, "--rank", "1"], "--rank|--join", "--join"),
        ([*DUMP, "--world-size", "2"], "--world-size|--join", "--join"),
        ([*DUMP, "--join", "--rank", "2"], "--rank 2", "--world-size"),
        ([*DUMP, "--join", "--rank", "2", "--world-size", "2"], "2 of 2", "world size"),
        ([*DUMP, "--join", "--overwrite"], "--join|--overwrite", "--overwrite"),
        ([*DUMP, "--copy-to", "s3://bucket/a.zarr"], "--copy-to", "--out s3://"),
        (["dump"], "'--teacher'", "bancache dump --help"),
        (["dump", "--teacher", "torchvision:resnet18"], "'torchvision:resnet18'", "--data"),
        ([*STUDENT, "--loss", "bann"], "'bann'", "ban-l, ban, kd, cwtm, dkpp"),
        ([*STUDENT, "--temperature", "4"], "'ban-l'|1|4", "--loss kd"),
        ([*STUDENT, "--loss", "kd", "--temperature", "4"], "'root4'|1|4", "root8"),
        ([*STUDENT, "--loss", "kd", "--alpha", "1.5"], "alpha 1.5", ""),
        ([*STUDENT, "--share-layers", "some"], "'--share-layers'|'some'", "bancache train-student --help"),
        ([*STUDENT, "--model", "convnet-8", "--share-layers", "freeze"], "first_layer", "none"),
        ([*STUDENT, "--share-layers", "copy", "--teacher", "{own}/none.pt"], "{own}/none.pt", "--teacher"),
        ([*STUDY, "--seeds", "x"], "--seeds|'x'", "--seeds"),
        ([*STUDY, "--seeds", "0,0"], "seed 0", "--seeds"),
        ([*STUDY, "--generations", "0"], "0 generations", "--generations"),
        (["bogus"], "'bogus'", "bancache --help"),
        (["info"], "'cache'", "bancache info --help"),
        (["evaluate"], "'checkpoints", "bancache evaluate --help"),
        (["models", "--bogus"], "--bogus", "bancache models --help"),
        # Options of the previous version.
        ([*STUDENT, "--share-ends", "copy"], "--share-ends", "--share-layers"),
        ([*STUDENT, "--residence=cpu"], "--residence", "--placement"),
        (["verify", "{own}/gen0.zarr", "--entries", "64"], "--entries", "--num-pairs"),
        ([*STUDY, "--jobs", "2"], "--jobs", "--seeds"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_command_that_cannot_be_meant_is_refused_before_anything_is_written(
    own: Path, npz: Path, argv: list[str], values: str, hint: str
) -> None:
    """``values``, separated by bars, are in the error."""
    typed = (part.format(own=own, npz=npz) for part in argv)
    refuse(2, tuple(values.format(own=own).split("|")), *typed, hint=hint, keep=own)
    assert list(Path().iterdir()) == []


def test_a_name_after_two_dashes_is_not_an_old_option() -> None:
    outcome = call("info", "--", "--workers")
    assert outcome.code == 3
    assert "--workers/manifest.json" in outcome.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_refused(own: Path) -> None:
    refuse(2, ("CUDA",), "evaluate", own / "gen0.pt", "--device", "cuda", hint="--device cpu")


# Data and results: exit 1.


@pytest.mark.parametrize(
    "source",
    [
        "npz:{own}/none.npz",
        "folder:{own}/none",
        "parquet:{own}/gen0.pt",
        "npz:{own}/gen0.pt",
        "cifar10:{own}",
    ],
)
def test_data_that_cannot_be_read_is_named(own: Path, source: str) -> None:
    path = source.format(own=own)
    refuse(1, (path.partition(":")[2],), "train-teacher", "--data", path, "-q", keep=own)


def test_data_that_is_gone_is_named_by_each_command_that_needs_it(
    own: Path, tmp_path: Path, npz: Path
) -> None:
    data = tmp_path / "data.npz"
    data.write_bytes(npz.read_bytes())
    succeed("train-teacher", "--data", f"npz:{data}", "--epochs", "1", "--out", own / "a.pt")
    succeed("dump", "--teacher", own / "a.pt")
    data.unlink()
    for argv in (
        ("dump", "--teacher", own / "a.pt", "--out", own / "b.zarr"),
        ("train-student", "--cache", own / "a.zarr", "--out", own / "b.pt"),
        ("evaluate", own / "a.pt"),
    ):
        refuse(1, (str(data),), *argv, keep=own)


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (b'{"kind": "run"}\n{"kind": 3,,}\n', ("results.jsonl", "line 2")),
        (b'[1, 2]\n{"kind": "run"}\n', ("results.jsonl", "line 1")),
        (b"\xff\xfe\n", ("results.jsonl",)),
        (b"", ("results.jsonl",)),
        (b'{"kind": "run"}\n', ("record 1", "'generation'")),
    ],
    ids=["edited", "list", "bytes", "empty", "bare"],
)
def test_damaged_result_lines_are_named_and_kept(
    tmp_path: Path, content: bytes, values: tuple[str, ...]
) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "results.jsonl").write_bytes(content)
    refuse(1, values, "report", folder, keep=folder)


def test_a_report_that_cannot_be_made_names_the_path(tmp_path: Path, own: Path) -> None:
    refuse(1, (str(tmp_path / "none"),), "report", tmp_path / "none")
    refuse(2, (str(own / "gen0.zarr"),), "report", own, "--out", own / "gen0.zarr", keep=own)
    below = own / "gen0.pt" / "page.html"
    refuse(2, (str(own / "gen0.pt"),), "report", own, "--out", below, keep=own)


def test_a_study_with_a_damaged_results_file_stops_before_it_trains(tmp_path: Path, npz: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "results.jsonl").write_text('[]\n{"kind": "run"}\n')
    study = ("generations", "--data", f"npz:{npz}", "--model", "convnet-4")
    argv = (*study, "--epochs", "1", "--out", folder, "-q")
    refuse(1, ("results.jsonl", "line 1"), *argv)
    assert not (folder / "seed0").exists()
    (folder / "results.jsonl").unlink()
    assert len(succeed(*argv)["rows"]) == 4


# The disk: exit 6.


@contextlib.contextmanager
def mounted(place: Path, *argv: str) -> Iterator[Path]:
    """Mount something at a place, for a root user whose kernel lets him; unmounted at the end."""
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *argv, str(place)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not possible here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        gc.collect()  # an open cache holds a file of its own until it is collected
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def read_only(own: Path) -> Iterator[Path]:
    """The chain where nothing can be written."""
    with mounted(own, "--bind", str(own)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(own)], check=True)
        yield own


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_read_only_file_system_is_refused_at_once(read_only: Path, npz: Path) -> None:
    teach = ("train-teacher", "--data", f"npz:{npz}", "--epochs", "1", "-q", "--out")
    study = ("generations", "--data", f"npz:{npz}", "--model", "convnet-4", "--epochs", "1", "-q", "--out")
    for argv in (
        (*teach, read_only / "new.pt"),
        (*teach, read_only / "new" / "gen0.pt"),
        ("dump", "--teacher", read_only / "gen0.pt", "--out", read_only / "new.zarr", "-q"),
        ("train-student", "--cache", read_only / "gen0.zarr", "--out", read_only / "new.pt", "-q"),
        (*study, read_only / "study"),
        ("report", read_only, "--out", read_only / "page.html"),
    ):
        refuse(6, ("read-only file system", str(read_only)), *argv, keep=read_only)
    assert "epoch" not in call(*teach[:-2], "--out", read_only / "new.pt").err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_read_only_cache_teaches(read_only: Path, tmp_path: Path, chain: Chain) -> None:
    said = succeed("train-student", "--cache", read_only / "gen0.zarr", "--out", tmp_path / "gen1.pt")
    assert said["weights"] == chain.said["gen1.pt"]["weights"]
    assert succeed("info", read_only / "gen0.zarr")["complete"]
    assert succeed("evaluate", read_only / "gen1.pt")["samples"] == 40


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("command", ["dump", "train-student"])
def test_on_a_full_disk_nothing_is_lost_and_the_same_command_goes_on(
    tmp_path: Path, chain: Chain, command: str
) -> None:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=24k", "tmpfs") as small:
        out = small / ("gen0.zarr" if command == "dump" else "gen1.pt")
        argv = {
            "dump": ("dump", "--teacher", chain / "gen0.pt", "--encoding", "float32"),
            "train-student": ("train-student", "--cache", chain / "gen0.zarr"),
        }[command]
        refuse(6, ("no space left on device",), *argv, "--out", out, "-q")
        assert not list(small.rglob("*.partial"))
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        said = succeed(*argv, "--out", out)
        if command == "train-student":
            assert said["weights"] == chain.said["gen1.pt"]["weights"]
        assert len(read_records(small / "results.jsonl")) == 1


# The form of all refusals.


def test_without_json_a_refusal_leaves_stdout_empty(own: Path) -> None:
    outcome = call("info", own / "none.zarr")
    assert outcome.code == 3
    assert outcome.out == ""
    error, hint = outcome.err.splitlines()
    assert error.startswith(f"error: {own / 'none.zarr' / 'manifest.json'} ")
    assert hint.startswith("hint: ")
    assert "bancache dump" in hint


def test_brackets_and_line_ends_in_an_error_stay_on_its_line(tmp_path: Path) -> None:
    """Errors quote names and other libraries, which may hold anything."""
    name = "[bold]two\nlines[/]"
    outcome = call("evaluate", tmp_path / name)
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith(f"error: {tmp_path}/[bold]two lines[/] ")


def test_a_bug_shows_its_traceback(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that is not a BancacheError is not shown as one."""

    def broken(path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bancache.cache.info.describe", broken)
    with pytest.raises(ZeroDivisionError):
        call("info", own / "gen0.zarr")


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        (["dump", "gen0.pt", "--max-kl", "nan"], "--max-kl"),
        (["dump", "gen0.pt", "--max-kl", "-1"], "--max-kl"),
        (["dump", "gen0.pt", "--temperature", "inf"], "--temperature"),
        (["dump", "gen0.pt", "--temperature", "nan"], "--temperature"),
        (["plan", "--teacher", "gen0.pt", "--epochs", "0"], "--epochs"),
        (["plan", "--teacher", "gen0.pt", "--epochs", "-3"], "--epochs"),
    ],
)
def test_numbers_without_a_meaning_are_refused_before_the_teacher_is_read(
    argv: list[str], option: str
) -> None:
    refuse(2, option, *argv)


def test_a_teacher_without_views_is_told_which_there_are(npz: Path, tmp_path: Path) -> None:
    argv = ("dump", "--teacher", "torchvision:resnet18", "--data", f"npz:{npz}", "--weights", npz)
    assert "rrc-flip" in refuse(2, ("torchvision:resnet18",), *argv, hint="--views", keep=tmp_path)


def test_arrays_that_are_not_there_are_not_to_be_made_of_those_that_are(tmp_path: Path) -> None:
    labels = np.arange(8) % 2
    np.savez(tmp_path / "a.npz", train_images=np.zeros((8, 8, 8), np.uint8), train_labels=labels)
    argv = ("train-teacher", "--data", f"npz:{tmp_path / 'a.npz'}")
    hint = refuse(1, ("test_images",), *argv, hint="test_images", keep=tmp_path)
    assert "rename" not in hint


def test_a_cache_in_the_place_of_a_model_is_called_one(own: Path) -> None:
    for command in (["evaluate"], ["dump", "--teacher"], ["plan", "--teacher"]):
        refuse(1, ("gen0.zarr",), *command, own / "gen0.zarr", hint="bancache info", keep=own)


def test_a_number_of_views_is_refused_before_the_images_are_read(own: Path) -> None:
    """Decoding takes long; the checkpoint says which views there are."""
    argv = ("dump", "--teacher", own / "gen0.pt", "--data", "npz:missing.npz", "--out", own / "new.zarr")
    for wrong in ("0", "19"):
        refuse(2, ("18", wrong), *argv, "--num-views", wrong, hint="1 to 18", keep=own)


@pytest.mark.parametrize(
    "at", ["bancache.sources.spec.DataSpec.open", "bancache.system.device.choose_device"]
)
def test_ctrl_c_before_the_work_looks_for_it_ends_with_a_line(
    monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(at, interrupted)
    outcome = call("train-teacher", "--data", "digits", "--json")
    assert outcome.code == 130
    assert outcome.json["exit_code"] == 130
    assert outcome.err.splitlines()[-1] == outcome.json["error"]
    assert outcome.json["error"].startswith("stopped")


@pytest.mark.parametrize("options", [(), ("--overwrite",)], ids=["plain", "overwrite"])
def test_a_command_that_would_begin_anew_is_not_the_one_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        interrupt = Interrupt()
        interrupt.signal_number = signal.SIGTERM
        interrupt.check("1 of 2")

    monkeypatch.setattr("bancache.sources.spec.DataSpec.open", stopped)
    outcome = call("train-teacher", "--data", "digits", *options)
    assert outcome.code == 143
    assert ("without --overwrite" in outcome.err) == bool(options)
