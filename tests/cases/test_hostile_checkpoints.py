"""A checkpoint or a weights file from a stranger is read as data, at a cost that its own size bounds."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torture.mutate_checkpoints import ODD, changed_bytes, changed_values, tries, with_pickle

from bancache.errors import BancacheError, CheckpointError
from bancache.models.checkpoint import load_checkpoint, save_checkpoint
from bancache.models.teacher import build_from
from bancache.models.weights import load_weights

MEGABYTES = 400
fuzzed = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@contextmanager
def cheap() -> Iterator[None]:
    """The process does not grow by more than a skeleton of the largest model of a library takes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES << 10


@pytest.fixture(scope="module")
def sound(teacher_path: Path) -> tuple[bytes, dict[str, Any], dict[str, torch.Tensor]]:
    """The bytes, the header and the weights of a checkpoint."""
    checkpoint = load_checkpoint(teacher_path)
    return teacher_path.read_bytes(), checkpoint.header, dict(checkpoint.state)


def read_and_build(path: Path) -> None:
    build_from(load_checkpoint(path), path)


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 4))


def read_weights(path: Path) -> None:
    load_weights(net(), "own:net", str(path))


def weights_file(kind: str) -> bytes:
    state = net().state_dict()
    if kind == "safetensors":
        return safetensors.torch.save(dict(state))
    out = io.BytesIO()
    content = {
        "state_dict": state,
        "args": pickle.PickleError,
        "optimizer": {"state": {0: {"m": torch.ones(2)}}},
    }
    torch.save(content, out, _use_new_zipfile_serialization=kind == "zip")
    return out.getvalue()


@fuzzed
@given(data=st.data(), packed=st.booleans())
def test_changed_bytes_of_a_checkpoint_are_refused_or_read(
    sound: tuple[bytes, Any, Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, packed: bool
) -> None:
    """``packed``: the change is in the pickle, and every checksum fits."""

    def change(old: bytes) -> bytes:
        return data.draw(changed_bytes(old))

    content = with_pickle(sound[0], change) if packed else change(sound[0])
    with cheap():
        tries(content, tmp_path_factory.getbasetemp() / "a.pt", read_and_build, (BancacheError,))


@fuzzed
@given(data=st.data(), kind=st.sampled_from(("zip", "pickle", "legacy", "safetensors")))
def test_changed_bytes_of_a_weights_file_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    def change(old: bytes) -> bytes:
        return data.draw(changed_bytes(old))

    whole = weights_file("zip" if kind == "pickle" else kind)
    content = with_pickle(whole, change) if kind == "pickle" else change(whole)
    with cheap():
        tries(content, tmp_path_factory.getbasetemp() / "w.pth", read_weights, (BancacheError,))


@fuzzed
@given(data=st.data())
def test_changed_values_of_a_header_are_refused_or_read(
    sound: tuple[bytes, Any, Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The weights and all checksums fit; the header says something else."""
    path = tmp_path_factory.getbasetemp() / "h.pt"
    header = data.draw(changed_values(sound[1]))
    write_header(path, sound[2], header)
    with cheap():
        tries(path.read_bytes(), path, read_and_build, (BancacheError,))


def write_header(path: Path, state: dict[str, torch.Tensor], header: Any) -> None:
    """Write a checkpoint whose header is any JSON value, NaN too."""
    import json

    from bancache.models.checkpoint import fingerprint_state, save_tensors

    if isinstance(header, dict):
        header = {**header, "weights": fingerprint_state(state)}
    save_tensors(
        path, {"mark": "bancache checkpoint", "version": 1, "header": json.dumps(header), "state": state}
    )


@pytest.mark.parametrize(
    "name", [name for name in ODD if (isinstance(name, str) and "-" in name) or ":" in str(name)]
)
def test_no_model_that_a_header_names_is_built_before_its_shapes_fit(
    sound: tuple[bytes, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("bancache.models.teacher.build_model", lambda **_: pytest.fail("it was built"))
    header = {**sound[1], "architecture": {**sound[1]["architecture"], "name": name}}
    save_checkpoint(tmp_path / "h.pt", sound[2], header)
    with cheap(), pytest.raises(CheckpointError, match=r"h\.pt"):
        read_and_build(tmp_path / "h.pt")


def packed(path: Path, pickled: bytes, **records: bytes) -> Path:
    """Write an archive of torch with a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        for key, data in records.items():
            archive.writestr(f"a/data/{key[1:]}", data)
    return path


def tensor(count: int, shape: tuple[int, ...], stride: tuple[int, ...], key: str = "0") -> bytes:
    """Return a pickle of ``{"w": tensor}`` whose storage says ``count`` elements."""

    def number(value: int) -> bytes:
        return pickle.LONG1 + bytes([9]) + value.to_bytes(9, "little")

    def numbers(values: tuple[int, ...]) -> bytes:
        return pickle.MARK + b"".join(map(number, values)) + pickle.TUPLE

    def text(value: str) -> bytes:
        return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()

    storage = (
        pickle.MARK + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(count)
    )
    arguments = storage + pickle.TUPLE + pickle.BINPERSID + number(0) + numbers(shape) + numbers(stride)
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + pickle.NEWFALSE + pickle.NONE + b"tR"
    return b"\x80\x02}" + text("0.weight") + rebuilt + pickle.SETITEM + pickle.STOP


BOMBS: dict[str, bytes] = {
    "a storage larger than its record": tensor(1 << 30, (1 << 30,), (1,)),
    "one element repeated": tensor(4, (1 << 40,), (0,)),
    "strides beyond the storage": tensor(4, (2, 2), (1 << 40, 1)),
    "a shape of enormous numbers": tensor(4, (1 << 62, 1 << 62), (0, 0)),
    "a missing record": tensor(4, (4,), (1,), key="9"),
    "a path as a record's name": tensor(4, (4,), (1,), key="../../etc/passwd"),
    "bytearray(10 ** 10)": b"\x80\x02c__builtin__\nbytearray\n\x8a\x05" + (10**10).to_bytes(5, "little") + b"\x85R.",
    "torch.Tensor(10 ** 5, 10 ** 5)": b"\x80\x02ctorch\nTensor\n" + b"\x8a\x03\xa0\x86\x01" * 2 + b"\x86R.",
    "a memo of four billion": b"\x80\x02]r\xff\xff\xff\xff.",
    "bytes that are not there": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"a.",
    "a key of nested tuples": b"\x80\x02}(" + b")" + b"0".join([b""]) + b"\x85" * 100_000 + b"K\x01u.",
    "nested lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a registered extension": b"\x80\x02\x82\x01.",
    "attributes of a stand-in": b"\x80\x02cos\nsystem\n}X\x06\x00\x00\x00originK\x01sb.",
    "calls of calls": b"\x80\x02cos\nsystem\n" + b")R" * 1000 + b".",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("read", [load_checkpoint, read_weights])
def test_a_kilobyte_takes_no_gigabytes(tmp_path: Path, name: str, read: Any) -> None:
    path = packed(tmp_path / "bomb.pt", BOMBS[name], _0=bytes(16))
    with cheap(), pytest.raises(CheckpointError, match=r"bomb\.pt"):
        read(path)


def test_a_tensor_in_a_well_made_archive_is_read(tmp_path: Path) -> None:
    """The archives of these tests are refused for what they say, not for how they are packed."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    values = struct.pack("<4f", 1, 2, 3, 4)
    path = packed(tmp_path / "fine.pt", tensor(4, (2, 2), (2, 1)), _0=values)
    load_weights(model, "own:net", str(path))
    assert model.state_dict()["0.weight"].tolist() == [[1, 2], [3, 4]]


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    """Zeros compress a thousandfold."""
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", tensor(1 << 22, (1 << 22,), (1,)))
        archive.writestr("a/data/0", bytes(4 << 22))
    for read in (load_checkpoint, read_weights):
        with cheap(), pytest.raises(CheckpointError, match=r"bomb\.pt"):
            read(tmp_path / "bomb.pt")


def test_tensors_that_share_their_bytes_do_not_multiply(
    tmp_path: Path, sound: tuple[bytes, Any, Any]
) -> None:
    """A thousand names of one tensor would be a thousand tensors."""
    one = torch.zeros(100_000)
    write_header(tmp_path / "many.pt", {str(n): one for n in range(1000)}, sound[1])
    with cheap(), pytest.raises(CheckpointError, match=r"many\.pt"):
        load_checkpoint(tmp_path / "many.pt")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.pt")
    for read in (load_checkpoint, read_weights):
        with pytest.raises(CheckpointError, match="regular file"):
            read(tmp_path / "pipe.pt")
