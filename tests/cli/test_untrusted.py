"""A cache or an image from a stranger runs no code."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.calling import Chain, call, refuse
from contracts.hostile import reseal
from torch import nn

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"

MODULE = """
from pathlib import Path
Path("ran").touch()

def net():
    Path("ran").touch()
"""


class Two(nn.Module):
    """A model that is easy to export."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :3]


@pytest.fixture
def own(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of one's own, and beside it, where one works, a module and an export that were sent with it."""
    here = tmp_path / "here"
    shutil.copytree(chain / "gen0.zarr", here / "gen0.zarr")
    (here / "sent.py").write_text(MODULE)
    torch.export.save(torch.export.export(Two(), (torch.zeros(1, 3, 10, 10),)), here / "sent.pt2")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    return here


@pytest.mark.parametrize(
    "recorded", ["sent:net", "os:abort", "sent.pt2", "timm:resnet18", "torchvision:resnet18"]
)
@pytest.mark.parametrize(
    "command", [("repair",), ("extend", "--num-views", "6", "--out", "more.zarr")], ids=["repair", "extend"]
)
def test_a_cache_chooses_no_code(
    own: Path, monkeypatch: pytest.MonkeyPatch, recorded: str, command: tuple[str, ...]
) -> None:
    """The manifest is whole and its digest fits; what it names as its teacher is not a checkpoint."""
    monkeypatch.setattr(torch.export, "load", lambda path: pytest.fail(f"{path} was unpickled"))
    reseal(own / "gen0.zarr", lambda stored: stored["promise"]["teacher"].update(path=recorded))
    verb, *options = command
    refuse(2, (f"'{recorded}'",), verb, "gen0.zarr", *options, hint="--teacher", keep=own)
    assert not (own / "ran").exists()


@pytest.mark.parametrize("recorded", ["sent.pt2", "sent:net", "/elsewhere/sent.pt2"])
def test_no_command_that_looks_for_the_teacher_unpickles_it(
    own: Path, monkeypatch: pytest.MonkeyPatch, recorded: str
) -> None:
    """`bench` and students look beside the cache for a file of that name: it is opened as a checkpoint."""
    monkeypatch.setattr(torch.export, "load", lambda path: pytest.fail(f"{path} was unpickled"))
    (own / "sent:net").touch()
    reseal(own / "gen0.zarr", lambda stored: stored["promise"]["teacher"].update(path=recorded))
    for command in (
        ("bench", "--cache", "gen0.zarr", "--rounds", "1"),
        ("train-student", "--cache", "gen0.zarr", "--share-layers", "copy"),
    ):
        assert call(*command, "--json").code in {1, 2}
    assert not (own / "ran").exists()


def test_a_teacher_that_the_user_names_may_be_code(own: Path) -> None:
    """A typed name is trusted: the module is imported, and refused because its function returns None."""
    refuse(2, ("'sent:net'", "NoneType"), "repair", "gen0.zarr", "--teacher", "sent:net")
    assert (own / "ran").exists()


@pytest.mark.parametrize("place", ["folder", "parquet"])
def test_a_picture_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """PostScript under the name of a PNG, or in a cell of parquet, is no picture; ghostscript is not started."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("gs", "gswin32c", "gswin64c"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    if place == "folder":
        for split in ("train", "test"):
            for name in ("cat", "dog"):
                (tmp_path / "data" / split / name).mkdir(parents=True)
                (tmp_path / "data" / split / name / "0.png").write_bytes(EPS)
    else:
        write_parquet(tmp_path / "data")
    data = f"{place}:{tmp_path / 'data'}"
    refuse(
        1,
        ("0.png",) if place == "folder" else ("train-00000",),
        "train-teacher",
        "--data",
        data,
        "--image-size",
        "8",
    )
    assert not (tmp_path / "ran").exists()


def write_parquet(root: Path) -> None:
    """Write a data set in Hugging Face's layout whose pictures are PostScript."""
    import pyarrow as pa
    import pyarrow.parquet

    root.mkdir()
    for split in ("train", "test"):
        cells = [{"bytes": EPS, "path": "0.png"} for _ in range(2)]
        table = pa.table({"image": cells, "label": pa.array(np.arange(2), pa.int64())})
        pyarrow.parquet.write_table(table, root / f"{split}-00000-of-00001.parquet")
