"""Whatever goes wrong: one line that says what, the right exit code, no traceback, and nothing lost."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.calling import Chain, call, refuse, succeed
from contracts.killing import tree
from contracts.tiny import CPU, settings

from bancache.dumping import dump
from bancache.errors import StoppedError
from bancache.models.checkpoint import load_checkpoint, save_checkpoint
from bancache.models.teacher import load_teacher
from bancache.report.results import read_records
from bancache.sources.spec import DataSpec
from bancache.system.device import Interrupt
from bancache.system.locks import exclusive


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
    hint = refuse(
        4,
        r"data set: made with '[0-9a-f]{12}', but this run has '[0-9a-f]{12}'",
        *("train-student", "--cache", own / "gen0.zarr", "--data", data, "--out", own / "new.pt", "-q"),
        keep=own,
    )
    assert hint == "content, order, labels and class names all count; dump again for this data set"


@pytest.mark.parametrize("how", OTHERS)
def test_a_dump_refuses_data_that_changed_since_the_training(tmp_path: Path, npz: Path, how: str) -> None:
    folder, data = tmp_path / "work", tmp_path / "data.npz"
    data.write_bytes(npz.read_bytes())
    succeed("train-teacher", "--data", f"npz:{data}", "--epochs", "1", "--out", folder / "gen0.pt")
    rearranged(npz, data, how)
    hint = refuse(
        4,
        r"data set: made with '[0-9a-f]{12}' \(the teacher was\), but this run has '[0-9a-f]{12}'",
        *("dump", "--teacher", folder / "gen0.pt", "-q"),
        keep=folder,
    )
    assert "--data" in hint


def test_a_dump_for_other_data_is_made_when_it_is_asked_for(own: Path, tmp_path: Path, npz: Path) -> None:
    """The order may be another; what the teacher says is bound to that order, and said to be."""
    data = rearranged(npz, tmp_path / "other.npz", "permuted")
    argv = ("dump", "--teacher", own / "gen0.pt", "--out", own / "other.zarr", "--data", data)
    assert "note: these are not the images that the teacher was trained on" in call(*argv).err
    succeed("train-student", "--cache", own / "other.zarr", "--out", own / "other.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--teacher", "{own}/gen1.pt"], r"teacher: made with '[0-9a-f]{12}', but this run has '[0-9a-f]{12}'"),
        (["--views", "crop2-flip"], r"view space: made with .*pad 1.*, but this run has .*pad 2.*"),
        (["--view-seed", "7"], r"view space: made with .*seed 0.*, but this run has .*seed 7.*"),
        (["--num-views", "5"], r"number of views: made with 4, but this run has 5"),
        (["--encoding", "float16"], r"encoding: made with .*root4.*, but this run has .*float16.*"),
        (["--batch-size", "32"], r"teacher's forward pass: made with batch_size 256, .*batch_size 32, .*"),
        (["--precision", "bfloat16"], r"teacher's forward pass: .*float32.*, but this run has .*bfloat16"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("state", ["complete", "incomplete"])
def test_a_dump_goes_on_only_with_what_began_it(
    own: Path, spec: DataSpec, change: list[str], message: str, state: str
) -> None:
    if state == "incomplete":
        interrupted_dump(own, spec)
    argv = ("dump", "--teacher", own / "gen0.pt", "--out", own / "gen0.zarr", "-q")
    hint = refuse(4, message, *argv, *(part.format(own=own) for part in change), keep=own)
    assert "--overwrite" in hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", "5"], r".*gen1\.pt: seed: made with 1, but this run has 5"),
        (["--lr", "0.05"], r".*gen1\.pt: recipe's lr: made with 0\.2, but this run has 0\.05"),
        (["--model", "convnet-8"], r".*: architecture's name: made with convnet-4, but this run has convnet-8"),
        (["--share-ends", "copy"], r".*gen1\.pt: share ends: made with none, but this run has copy"),
        (["--loss", "ban"], r".*gen1\.pt: recipe's loss: made with ban-l, but this run has ban"),
    ],
)  # fmt: skip
def test_a_finished_student_is_not_replaced_by_another(own: Path, change: list[str], message: str) -> None:
    hint = refuse(4, message, "train-student", "--cache", own / "gen0.zarr", *change, "-q", keep=own)
    assert "--overwrite" in hint


def test_a_student_under_way_is_not_taken_over_by_another(own: Path, npz: Path) -> None:
    (own / "gen1.pt").unlink()
    argv = ("train-student", "--cache", own / "gen0.zarr", "-q")
    refuse(1, r"the loss became (nan|inf) in epoch \d", *argv, "--lr", "1e30", "--save-every", "0")
    assert (own / "gen1.pt.resume").exists()
    refuse(4, r".*gen1\.pt\.resume: recipe's lr: made with 1e\+30, but this run has 0\.2", *argv, keep=own)
    refuse(4, r".*gen1\.pt\.resume: architecture's name: .*", *argv, "--model", "convnet-8", keep=own)
    assert succeed(*argv, "--overwrite")["trained"] is True


@pytest.mark.parametrize(("which", "newest"), [("cache", 2), ("checkpoint", 1)])
def test_a_newer_format_is_told_from_damage(own: Path, which: str, newest: int) -> None:
    if which == "cache":
        manifest = json.loads((own / "gen0.zarr" / "manifest.json").read_text())
        manifest["format_version"] = manifest["promise"]["format_version"] = 99
        (own / "gen0.zarr" / "manifest.json").write_text(json.dumps(manifest))
        argv = ("info", own / "gen0.zarr")
    else:
        torch.save({"mark": "bancache checkpoint", "version": 99}, own / "gen0.pt")
        argv = ("evaluate", own / "gen0.pt")
    said = rf".* has format 99, this bancache reads up to {newest}"
    assert refuse(4, said, *argv, keep=own) == "upgrade bancache"


def test_nets_of_different_data_have_no_ensemble(own: Path, tmp_path: Path, npz: Path) -> None:
    succeed("train-teacher", "--data", rearranged(npz, tmp_path / "o.npz", "renamed"), "--epochs", "1")
    message = r"classes of gen0\.pt: made with 3 from 'checks' on, but this run has 3 from 'stripes' on"
    refuse(4, message, "evaluate", own / "gen0.pt", "gen0.pt", "-q")


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
    with pytest.raises(StoppedError, match="stopped: 2 of 4 shards"):
        dump(
            teacher, spec.open("train"), spec.resolved(), own / "gen0.zarr", asked, device=CPU, interrupt=After(2)
        )  # fmt: skip


def test_a_damaged_cache_is_named_by_its_shard(own: Path) -> None:
    chunk = own / "gen0.zarr" / "q" / "c" / "2" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    hint = refuse(
        3,
        r"gen0\.zarr: shard 2 \(view 2, samples 0 to 95\) is damaged: .*",
        *("train-student", "--cache", own / "gen0.zarr", "--out", own / "new" / "gen1.pt", "-q"),
    )
    assert "repair" in hint


@pytest.mark.parametrize("how", ["missing", "empty", "another's"])
def test_a_chunk_that_is_not_the_one_written_never_teaches(own: Path, how: str) -> None:
    chunk = own / "gen0.zarr" / "q" / "c" / "0" / "0" / "0"
    if how == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes(b"" if how == "empty" else (chunk.parents[2] / "1" / "0" / "0").read_bytes())
    message = r"gen0\.zarr: shard 0 \(view 0, samples 0 to 95\) is damaged: .*"
    refuse(3, message, "train-student", "--cache", own / "gen0.zarr", "--out", "new.pt", "-q", keep=own)


def test_an_incomplete_cache_teaches_nobody_and_can_be_finished(
    own: Path, chain: Chain, spec: DataSpec
) -> None:
    interrupted_dump(own, spec)
    argv = ("train-student", "--cache", own / "gen0.zarr", "--out", own / "new.pt", "-q")
    hint = refuse(3, r".*gen0\.zarr is incomplete: 2 of 4 shards", *argv, keep=own)
    assert "bancache dump" in hint
    facts = succeed("info", own / "gen0.zarr")
    assert (facts["complete"], facts["regions_done"], facts["regions"]) == (False, 2, 4)
    assert facts["bytes_per_entry"] is None
    assert "no: 2 of 4 shards" in call("info", own / "gen0.zarr").out
    finished = call("dump", "--teacher", own / "gen0.pt")
    assert "resuming: 2 of 4 shards are done" in finished.err
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
    hint = refuse(3, r".*place/manifest\.json is (missing|not valid JSON: .*)", *command, path, keep=own)
    assert hint == "name a folder made by `bancache dump`"


@pytest.mark.parametrize(
    "argv",
    [["info"], ["verify"], ["train-student", "--cache"], ["extend", "--num-views", 4], ["dump", "--out"]],
)
def test_an_address_is_not_taken_for_a_folder(own: Path, argv: list[str]) -> None:
    teacher: list[str | Path] = ["--teacher", own / "gen0.pt", "-q"] if argv[0] == "dump" else []
    hint = refuse(
        2, r"s3:/.*gen0\.zarr is an address, .*", *argv, "s3://bucket/gen0.zarr", *teacher, keep=own
    )
    brought = "bancache pull s3://bucket/gen0.zarr gen0.zarr brings it here"
    copied = "write gen0.zarr, and let --copy-to s3://bucket/gen0.zarr or `bancache push` copy it there"
    assert hint == (copied if argv[0] == "dump" else brought)


@pytest.mark.parametrize("place", ["folder", "file"])
def test_a_dump_writes_over_nothing_of_somebody_elses(own: Path, place: str) -> None:
    path = own / "place"
    if place == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    else:
        path.write_text("mine")
    argv = ("dump", "--teacher", own / "gen0.pt", "--out", path, "-q")
    refuse(2, r".*place exists and is not a cache", *argv, keep=own)
    refuse(2, r".*place exists and is not a cache", *argv, "--overwrite", keep=own)


def test_a_cache_in_use_is_left_alone(own: Path, spec: DataSpec) -> None:
    interrupted_dump(own, spec)
    with exclusive(own / "gen0.zarr"):
        argv = ("dump", "--teacher", own / "gen0.pt", "-q")
        message = rf".*gen0\.zarr is in use by pid {os.getpid()} on .* since .*"
        assert "wait for it" in refuse(5, message, *argv, keep=own)
    succeed("dump", "--teacher", own / "gen0.pt")


# Checkpoints and what nets answer: exit 1.


@pytest.mark.parametrize("command", [["dump", "--teacher"], ["evaluate"]])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.pt", r".*none\.pt is missing"),
        ("folder.pt", r".*folder\.pt cannot be read: is a directory"),
        ("cut.pt", r".*cut\.pt is truncated or not a checkpoint.*"),
        ("empty.pt", r".*empty\.pt is truncated or not a checkpoint.*"),
        ("text.pt", r".*text\.pt is truncated or not a checkpoint.*"),
        ("flipped.pt", r".*flipped\.pt is damaged: a checksum in it does not hold"),
        ("foreign.pt", r".*foreign\.pt is not a bancache checkpoint"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_checkpoint_is_said_to_be_none(
    own: Path, command: list[str], name: str, message: str
) -> None:
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
    refuse(1, message, *command, own / name, keep=own)


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("command", ["dump", "evaluate", "weights", "resume", "share-ends"])
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
        "share-ends": [*student, "--out", own / "new.pt", "--share-ends", "copy", "--teacher", evil],
    }
    message = r".* holds something that would execute code, and was not read"
    refuse(1, message, *commands[command], keep=own)
    assert not sentinel.exists()


def test_a_teacher_that_answers_nan_leaves_no_cache(own: Path) -> None:
    stored = load_checkpoint(own / "gen0.pt")
    broken = {name: value.clone() for name, value in stored.state.items()}
    broken["last_layer.bias"][1] = float("nan")
    save_checkpoint(own / "nan.pt", broken, stored.header)
    message = r"the teacher gave 96 non-finite logits, first sample 0, view 0"
    hint = refuse(1, message, "dump", "--teacher", own / "nan.pt", "-q", keep=own)
    assert "diverged" in hint
    refuse(1, r"the net answers NaN or infinity", "evaluate", own / "nan.pt", "-q", keep=own)


def test_logits_too_far_apart_for_float16_say_which_encoding_holds_them(own: Path) -> None:
    stored = load_checkpoint(own / "gen0.pt")
    wide = {name: value.clone() for name, value in stored.state.items()}
    wide["last_layer.bias"][1] = 1e6
    save_checkpoint(own / "wide.pt", wide, stored.header)
    argv = ("dump", "--teacher", own / "wide.pt", "-q")
    hint = refuse(1, r"logits 1e\+06 apart do not fit float16", *argv, "--encoding", "float16")
    assert hint == "use --encoding float32"
    assert succeed(
        "dump", "--teacher", own / "wide.pt", "--out", own / "wide32.zarr", "--encoding", "float32"
    )


@pytest.mark.parametrize("lr", ["1e30", "1e8"])
def test_a_learning_rate_that_is_too_high_is_said_to_be(tmp_path: Path, npz: Path, lr: str) -> None:
    argv = ("train-teacher", "--data", f"npz:{npz}", "--epochs", "3", "--batch-size", "16", "--lr", lr, "-q")
    hint = refuse(1, r"(the loss became (nan|inf) in epoch \d|the net answers NaN or infinity)", *argv)
    assert "--lr" in hint
    assert not Path("gen0.pt").exists()


# The command line: exit 2.

TEACH = ["train-teacher", "--data", "npz:{npz}", "-q"]
DUMP = ["dump", "--teacher", "{own}/gen0.pt", "--out", "{own}/new.zarr", "-q"]
STUDENT = ["train-student", "--cache", "{own}/gen0.zarr", "--out", "{own}/new.pt", "-q"]
STUDY = ["generations", "--data", "npz:{npz}", "--out", "{own}/study", "-q"]


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        ([*TEACH, "--model", "wrm-28-2"], r"no model is called 'wrm-28-2'", "wrn-28-2"),
        ([*TEACH, "--model", "wrn-27-2"], r"wrn-27-2: a depth of wrn is 6n \+ 4 .*", "wrn-22-2 or wrn-28-2"),
        ([*TEACH, "--model", "torchvision:resnet19"], r"torchvision has no model called 'resnet19'", "resnet18"),
        ([*TEACH, "--model", "convnet-4", "--dropout", "0.3"], r"convnet-4: has no place for a dropout of 0\.3.*", "wrn"),
        ([*TEACH, "--model", "convnet-4", "--checkpoint-activations"], r"convnet-4: cannot checkpoint.*", "densenet"),
        ([*TEACH, "--recipe", "wm"], r"no recipe is called 'wm'", "wrn, densenet, onecycle"),
        ([*TEACH, "--views", "crop-4"], r"no views are called 'crop-4'", "crop4-flip"),
        ([*TEACH, "--views", "crop10"], r"views 'crop10' reflect 10 pixels of images that have 10 x 10", "crop10-zero"),
        ([*TEACH, "--epochs", "0"], r"epochs 0 trains nothing", "at least 1"),
        ([*TEACH, "--epochs", "three"], r"invalid value for '--epochs': .*", "bancache train-teacher --help"),
        ([*TEACH, "--batch-size", "0"], r"batch size 0 trains nothing", "at least 1"),
        ([*TEACH, "--lr", "0"], r"learning rate 0\.0, weight decay .*", ""),
        ([*TEACH, "--lr", "nan"], r"learning rate nan, weight decay .*", ""),
        ([*TEACH, "--limit", "0"], r"limit 0 leaves no training image", "--limit 1000"),
        ([*TEACH, "--image-size", "0"], r"image size 0 is not in 1\.\.4096 pixels", "--image-size"),
        ([*TEACH, "--device", "gpu"], r"no device is called 'gpu'", "cpu, cuda"),
        ([*TEACH, "--device", "meta"], r"no device is called 'meta'", "cpu, cuda"),
        ([*TEACH, "--out", "{own}"], r".*own is a folder", "net.pt"),
        ([*TEACH, "--out", "{own}/gen0.pt/x.pt"], r".*own/gen0\.pt is a file, not a folder", "--out"),
        (["train-teacher", "--data", "cifra10:x"], r"unknown data source 'cifra10:x'", "cifar10"),
        (["train-teacher", "--data", "npz"], r"data source 'npz' needs a path", "npz:FILE"),
        ([*DUMP, "--num-views", "0"], r"views 'crop1-flip' are 18, so --num-views cannot be 0", "1 to 18"),
        ([*DUMP, "--num-views", "19"], r"views 'crop1-flip' are 18, so --num-views cannot be 19", "1 to 18"),
        ([*DUMP, "--views", "crop4-flip", "--num-views", "163"], r"views 'crop4-flip' are 162, .*", "1 to 162"),
        ([*DUMP, "--num-views", "x"], r"--num-views is a number or all, not 'x'", "1 to 18"),
        ([*DUMP, "--num-views", "-1"], r"--num-views is a number or all, not '-1'", "1 to 18"),
        ([*DUMP, "--view-seed", "-1"], r"a view seed is between 0 and 2\^64 - 1, not -1", ""),
        ([*DUMP, "--encoding", "root"], r"no encoding is called 'root'", "root4"),
        ([*DUMP, "--encoding", "root99"], r"no such code: root 99 with 256 levels", ""),
        ([*DUMP, "--batch-size", "0"], r"a batch has at least one image, not 0", ""),
        ([*DUMP, "--precision", "float8"], r"invalid value for '--precision': .*", "bancache dump --help"),
        ([*DUMP, "--weights", "{own}/gen0.pt"], r"a checkpoint of ours brings its own weights", "--weights"),
        (["dump"], r"missing option '--teacher'", "bancache dump --help"),
        (["dump", "--teacher", "torchvision:resnet18"], r"teacher 'torchvision:resnet18' does not know its data", "--data"),
        ([*STUDENT, "--loss", "bann"], r"no loss is called 'bann'", "ban-l, ban, kd, cwtm, dkpp"),
        ([*STUDENT, "--temperature", "4"], r"loss 'ban-l' is defined at temperature 1, not 4", "--loss kd"),
        ([*STUDENT, "--loss", "kd", "--temperature", "4"], r"encoding 'root4' is faithful up to temperature 1, not at 4", "root8"),
        ([*STUDENT, "--loss", "kd", "--alpha", "1.5"], r"temperature .* and alpha 1\.5: .*", ""),
        ([*STUDENT, "--share-ends", "some"], r"invalid value for '--share-ends': .*", "bancache train-student --help"),
        ([*STUDENT, "--model", "convnet-8", "--share-ends", "freeze"], r"first_layer: the student's is .*", "none"),
        ([*STUDENT, "--share-ends", "copy", "--teacher", "{own}/none.pt"], r".*none\.pt, the teacher whose .* is missing", "--teacher"),
        ([*STUDY, "--seeds", "x"], r"seeds are numbers separated by commas, not 'x'", ""),
        ([*STUDY, "--seeds", "0,0"], r"3 generations and seeds \(0, 0\) make no sequence", "differ"),
        ([*STUDY, "--generations", "0"], r"0 generations and seeds \(0,\) make no sequence", "at least one"),
        (["bogus"], r"no such command 'bogus'", "bancache --help"),
        (["info"], r"missing argument 'cache'", "bancache info --help"),
        (["evaluate"], r"missing argument 'checkpoints\.*'", "bancache evaluate --help"),
        (["models", "--bogus"], r"no such option: --bogus", "bancache models --help"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value[-2:]),
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    own: Path, npz: Path, argv: list[str], message: str, hint: str
) -> None:
    told = refuse(2, message, *(part.format(own=own, npz=npz) for part in argv), keep=own)
    assert hint in told
    assert list(Path().iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_refused(own: Path) -> None:
    hint = refuse(2, r"this machine has no CUDA device", "evaluate", own / "gen0.pt", "--device", "cuda")
    assert "--device cpu" in hint


# Data and results: exit 1.


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("npz:{own}/none.npz", r"npz:.*none\.npz: .*none\.npz does not exist"),
        ("folder:{own}/none", r"folder:.*none: .*none does not exist"),
        ("parquet:{own}/gen0.pt", r"parquet:.*gen0\.pt: .*"),
        ("npz:{own}/gen0.pt", r"npz:.*gen0\.pt.*"),
        ("cifar10:{own}", r".*is missing.*"),
    ],
)
def test_data_that_cannot_be_read_is_named(own: Path, source: str, message: str) -> None:
    refuse(1, message, "train-teacher", "--data", source.format(own=own), "-q", keep=own)


def test_data_that_is_gone_is_named_by_whatever_needs_it(own: Path, tmp_path: Path, npz: Path) -> None:
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
        refuse(1, r"npz:.*data\.npz: .*data\.npz does not exist", *argv, keep=own)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"kind": "run"}\n{"kind": 3\n', r".*results\.jsonl, line 2 is not a JSON object"),
        (b'[1, 2]\n{"kind": "run"}\n', r".*results\.jsonl, line 1 is not a JSON object"),
        (b"\xff\xfe\n", r".*results\.jsonl cannot be read: .*"),
        (b"", r".*results\.jsonl holds no finished run, cache or ensemble"),
        (b'{"kind": "run"}\n', r"record 1 \(run\) has None as 'generation'; .*"),
    ],
    ids=["torn", "list", "bytes", "empty", "bare"],
)
def test_result_lines_that_make_no_sense_are_named_and_kept(
    tmp_path: Path, npz: Path, content: bytes, message: str
) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "results.jsonl").write_bytes(content)
    refuse(1, message, "report", folder, keep=folder)


def test_a_report_of_nothing_says_so(tmp_path: Path, own: Path) -> None:
    refuse(1, r".*none/results\.jsonl is missing|.*none is missing", "report", tmp_path / "none")
    refuse(
        2,
        r"is a directory: .*gen0\.zarr",
        "report",
        own,
        "--out",
        own / "gen0.zarr",
        keep=own,
    )
    below = own / "gen0.pt" / "page.html"
    refuse(2, r".*gen0\.pt is a file, not a folder", "report", own, "--out", below, keep=own)


def test_a_study_with_a_damaged_results_file_stops_before_it_trains(tmp_path: Path, npz: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "results.jsonl").write_text('[]\n{"kind": "run"}\n')
    argv = (
        "generations",
        "--data",
        f"npz:{npz}",
        "--model",
        "convnet-4",
        "--epochs",
        "1",
        "--out",
        folder,
        "-q",
    )
    refuse(1, r".*results\.jsonl, line 1 is not a JSON object", *argv)
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
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def read_only(own: Path) -> Iterator[Path]:
    """The chain where nothing can be written."""
    with mounted(own, "--bind", str(own)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(own)], check=True)
        yield own


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_where_nothing_can_be_written_is_said_at_once(read_only: Path, npz: Path) -> None:
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
        hint = refuse(6, r"read-only file system: .*", *argv, keep=read_only)
        assert "choose another place" in hint
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
        refuse(6, r"no space left on device: .*", *argv, "--out", out, "-q")
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
    assert outcome.err.splitlines() == [
        f"error: {own / 'none.zarr' / 'manifest.json'} is missing",
        "hint: name a folder made by `bancache dump`",
    ]


def test_brackets_and_line_ends_in_an_error_stay_on_its_line(tmp_path: Path) -> None:
    """Errors quote names and other libraries, which may hold anything."""
    name = "[bold]two\nlines[/]"
    outcome = call("evaluate", tmp_path / name)
    assert outcome.err.splitlines() == [f"error: {tmp_path}/[bold]two lines[/] is missing"]


def test_a_bug_shows_its_traceback(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not one of our errors is not made to look like one."""

    def broken(path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("bancache.cache.info.describe", broken)
    with pytest.raises(ZeroDivisionError):
        call("info", own / "gen0.zarr")
