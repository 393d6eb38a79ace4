"""Checkpoints: whole, checked, and never executed."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import random
import re
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bancache.errors import CheckpointError, MismatchError, StorageError
from bancache.models.checkpoint import (
    fingerprint_state,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
)
from bancache.models.pickled import Reader, Stored, Unknown
from bancache.models.teacher import load_teacher
from bancache.models.torch_file import read_torch_file
from bancache.training.state import read_state

STATE = {"a": torch.arange(4.0), "b": torch.ones(2, 2, dtype=torch.bfloat16), "n": torch.tensor(3)}
HEADER: dict[str, Any] = {
    "architecture": {"name": "convnet-2", "classes": 2, "channels": 1, "image_size": [8, 8], "dropout": 0.0},
    "classes": ["cat", "dog"],
    "data": {"source": "digits", "limit": None, "image_size": None},
    "data_fingerprint": "0",
    "normalisation": {"mean": [100.0], "std": [50.0]},
    "views": "identity",
}


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    fingerprint = save_checkpoint(tmp_path / "a.pt", STATE, {**HEADER, "generation": 1, "lr": 0.1})
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded.header == {**HEADER, "generation": 1, "lr": 0.1}
    assert loaded.fingerprint == fingerprint == fingerprint_state(STATE)
    for name, tensor in STATE.items():
        assert torch.equal(loaded.state[name], tensor)


def test_the_fingerprint_sees_names_shapes_and_values() -> None:
    seen = {
        fingerprint_state({"a": torch.zeros(4)}),
        fingerprint_state({"b": torch.zeros(4)}),
        fingerprint_state({"a": torch.zeros(2, 2)}),
        fingerprint_state({"a": torch.zeros(4, dtype=torch.float64)}),
        fingerprint_state({"a": torch.tensor([0, 0, 0, 1e-30])}),
    }
    assert len(seen) == 5
    assert fingerprint_state(STATE) == fingerprint_state(dict(reversed(STATE.items())))


@pytest.mark.parametrize("room", [0, 20_000, 300_000])
def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path, room: int) -> None:
    """torch ends its file all the same, and then raises an error of its own; the system's limit stands for the disk."""
    state = {name: torch.zeros(50_000) for name in "ab"}
    save_checkpoint(tmp_path / "a.pt", STATE, HEADER)
    old = (tmp_path / "a.pt").read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(StorageError, match=r"file too large: .*a\.pt"):
            save_checkpoint(tmp_path / "a.pt", state, HEADER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.pt", old)]


@pytest.mark.parametrize("keep", [0, 1, 100, 900])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    save_checkpoint(tmp_path / "a.pt", STATE, HEADER)
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_flipped_bit_in_the_weights_is_found(tmp_path: Path) -> None:
    weights = torch.arange(1000.0)
    save_checkpoint(tmp_path / "a.pt", {"w": weights}, HEADER)
    content = bytearray((tmp_path / "a.pt").read_bytes())
    at = content.find(weights.numpy().tobytes()[:64])
    assert at > 0
    content[at + 2000] ^= 4
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.pt.* checksum"):
        load_checkpoint(tmp_path / "a.pt")


def test_weights_that_are_not_those_of_the_header_are_found(tmp_path: Path) -> None:
    """Every checksum of the file matches: the weights were replaced."""
    save_checkpoint(tmp_path / "a.pt", STATE, HEADER)
    content = load_tensors(tmp_path / "a.pt")
    content["state"] = {name: value + 1 for name, value in content["state"].items()}
    save_tensors(tmp_path / "a.pt", content)
    with pytest.raises(CheckpointError, match="sha256"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("read", [load_checkpoint, read_state])
def test_no_flipped_bit_of_a_file_changes_what_is_read(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    """Of a checkpoint and of a saved state, which carries no fingerprint of its own."""
    path, chance = tmp_path / "a.pt", random.Random(0)
    if read is load_checkpoint:
        save_checkpoint(path, {"w": torch.arange(50.0)}, {**HEADER, "name": "x" * 200})
    else:
        numbers = {"epoch": 0, "step": 3, "seconds": 1.0, "loss": torch.ones(1), "correct": torch.ones(1)}
        parts = {
            "run": {"seed": 1},
            "history": [],
            "model": {"w": torch.arange(50.0)},
            "optimizer": {"state": {}},
        }
        save_tensors(path, {**numbers, **parts, "rng": torch.get_rng_state()})
    expected, content = repr(read(path)), path.read_bytes()
    refused = 0
    for _ in range(400):
        changed = bytearray(content)
        changed[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            assert repr(read(path)) == expected
        except CheckpointError:
            refused += 1
    assert refused > 100


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("inside", [True, False])
def test_pickled_code_is_not_run(tmp_path: Path, inside: bool) -> None:
    sentinel, path = tmp_path / "ran", tmp_path / "evil.pt"
    if inside:
        torch.save({"mark": "bancache checkpoint", "version": 1, "state": Payload(sentinel)}, path)
    else:
        path.write_bytes(pickle.dumps(Payload(sentinel)))
    for load in (load_checkpoint, load_tensors):
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            load(path)
    assert not sentinel.exists()


def test_a_checkpoint_with_an_object_beside_its_weights_is_refused(tmp_path: Path) -> None:
    """No version of bancache writes one."""
    save_checkpoint(tmp_path / "a.pt", STATE, HEADER)
    content = load_tensors(tmp_path / "a.pt")
    torch.save({**content, "more": Payload(tmp_path / "ran")}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"b\.pt"):
        load_checkpoint(tmp_path / "b.pt")
    torch.save({**content, "more": 1}, tmp_path / "c.pt")
    assert load_checkpoint(tmp_path / "c.pt").header == HEADER


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["cat", "dog", "bird"]},
        {"normalisation": {"mean": [100.0], "std": [0.0]}},
        {"normalisation": {"mean": [100.0], "std": [-1.0]}},
        {"normalisation": {"mean": [100.0, 1.0], "std": [50.0, 1.0]}},
    ],
)
def test_a_header_that_contradicts_itself_is_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    save_checkpoint(tmp_path / "a.pt", STATE, {**HEADER, **change})
    with pytest.raises(CheckpointError, match=r"a\.pt is damaged"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_file_of_a_big_endian_machine_is_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as little,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_STORED) as big,
    ):
        for name in little.namelist():
            big.writestr(name, b"big" if name.endswith("/byteorder") else little.read(name))
    with pytest.raises(CheckpointError, match=r"b\.pt .*big-endian"):
        read_torch_file(tmp_path / "b.pt")


def test_what_is_no_plain_tensor_is_not_read_as_one(tmp_path: Path) -> None:
    """A conjugate is its numbers and a mark; a frozen set would be hashed; an extension may be known in this process."""
    torch.save({"a": torch.tensor([1 + 2j]).conj(), "b": torch.ones(2)}, tmp_path / "a.pt")
    found = read_torch_file(tmp_path / "a.pt").content
    assert (type(found["a"]), type(found["b"])) == (Unknown, Stored)
    assert isinstance(Reader(io.BytesIO(pickle.dumps(frozenset({(1, 2)}), 4))).load(), Unknown)
    copyreg.add_extension("os", "getcwd", 77)
    try:
        program = b"\x80\x02\x82\x4d."
        assert pickle.loads(program) is os.getcwd
        with pytest.raises(KeyError):
            Reader(io.BytesIO(program)).load()
    finally:
        copyreg.remove_extension("os", "getcwd", 77)


def test_each_kind_of_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "third_party.pt")
    with pytest.raises(CheckpointError, match=r"third_party\.pt"):
        load_checkpoint(tmp_path / "third_party.pt")
    with pytest.raises(CheckpointError, match=r"none\.pt"):
        load_checkpoint(tmp_path / "none.pt")
    torch.save({"mark": "bancache checkpoint", "version": 99}, tmp_path / "new.pt")
    with pytest.raises(MismatchError, match=r"99.* 1$"):
        load_checkpoint(tmp_path / "new.pt")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, teacher_path: Path) -> None:
    stored = load_checkpoint(teacher_path)
    state = {name: value for name, value in stored.state.items() if "last_layer" not in name}
    save_checkpoint(tmp_path / "part.pt", state, stored.header)
    with pytest.raises(CheckpointError, match=r"convnet-4.*last_layer"):
        load_teacher(str(tmp_path / "part.pt"), device=torch.device("cpu"))
