"""A student's loss may be a function of the user's own; only what the user types is ever run."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contracts.calling import refuse, succeed
from contracts.replaying import pretend_to_capture
from contracts.tiny import CPU, RECIPE, architecture, dump_tiny

from bancache import load_checkpoint, open_cache
from bancache.errors import UsageError
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import TrainerOptions, run_for_cache
from bancache.training.build import make_loader
from bancache.training.cuda_graph import why_not
from bancache.training.own_loss import load_loss

LOSSES = """
import torch
from bancache import losses
from pathlib import Path

Path("imported").touch()


def mean(logits, targets, labels):
    return losses.ban_l(logits, targets, labels)

def rows(logits, targets, labels):
    log_p = torch.log_softmax(logits, 1)
    return -(targets * log_p).sum(1) - log_p.gather(1, labels[:, None])[:, 0]

def broken(logits, targets, labels): return {}["key"]
def wide(logits, targets, labels): return logits
def number(logits, targets, labels): return 1.0
def detached(logits, targets, labels): return logits.detach().mean()
constant = 3
"""


@pytest.fixture
def cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> Path:
    """A cache in a folder with a module of losses, which is the current one."""
    dump_tiny(teacher_path, spec, data, tmp_path / "gen0.zarr")
    (tmp_path / "our_losses.py").write_text(LOSSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "our_losses", raising=False)
    importlib.invalidate_caches()
    return tmp_path / "gen0.zarr"


def student(cache: Path, out: str, loss: str) -> tuple[str, ...]:
    return ("train-student", "--cache", str(cache), "--epochs", "1", "--out", out, "--loss", loss)


def test_it_trains_as_a_loss_of_ones_own_says(cache: Path) -> None:
    """A scalar, or one number a row; what ban-l computes, in the same words, ends in the same weights."""
    expected = succeed(*student(cache, "ban.pt", "ban-l"))["weights"]
    found = succeed(*student(cache, "mean.pt", "our_losses:mean"))
    assert found["weights"] == expected
    assert found["loss"] == "our_losses:mean"
    header = load_checkpoint("mean.pt").header
    assert header["recipe"]["loss"] == "our_losses:mean"
    assert header["loss_source"] == load_loss("our_losses:mean").source
    assert "loss_source" not in load_checkpoint("ban.pt").header
    succeed(*student(cache, "rows.pt", "our_losses:rows"))
    for one, other in zip(*(load_checkpoint(f).state.values() for f in ("rows.pt", "ban.pt")), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_run_goes_on_with_the_same_source_only(cache: Path) -> None:
    succeed(*student(cache, "a.pt", "our_losses:mean"))
    assert succeed(*student(cache, "a.pt", "our_losses:mean"))["trained"] is False
    refuse(4, ("our_losses:mean", "ban-l"), *student(cache, "a.pt", "ban-l"), keep=cache.parent)
    text = LOSSES.replace("ban_l(logits, targets, labels)", "ban(logits, targets)")
    (cache.parent / "our_losses.py").write_text(text)
    del sys.modules["our_losses"]
    refuse(4, "loss source", *student(cache, "a.pt", "our_losses:mean"), hint="--overwrite")


@pytest.mark.parametrize(
    ("loss", "values"),
    [
        ("no_such_module:mean", ("no_such_module",)),
        ("our_losses:men", ("men",)),
        ("our_losses:constant", ("int",)),
        ("our_losses:broken", ("our_losses.py:16", "KeyError")),
        ("our_losses:wide", ("(32, 3)", "32")),
        ("our_losses:number", ("1.0",)),
        ("our_losses:detached", ("our_losses:detached",)),
        ("our_losses.py:mean", ("our_losses.py:mean",)),
        ("focal", ("focal",)),
    ],
)
def test_a_loss_that_does_not_work_is_one_sentence(cache: Path, loss: str, values: tuple[str, ...]) -> None:
    refuse(2, values, *student(cache, "a.pt", loss), "--batch-size", "32")
    assert not Path("a.pt").exists()


def test_a_file_never_names_code(cache: Path) -> None:
    """A student's file and the cache made from it record the name; going on from them runs nothing."""
    succeed(*student(cache, "gen1.pt", "our_losses:mean"))
    succeed("dump", "--teacher", "gen1.pt", "--num-views", "2")
    del sys.modules["our_losses"]
    Path("imported").unlink()
    hint = refuse(2, "our_losses:mean", "train-student", "--cache", "gen1.zarr")
    assert "--loss our_losses:mean" in hint
    succeed("train-student", "--cache", "gen1.zarr", "--loss", "ban-l", "--epochs", "1")
    succeed("info", "gen1.zarr")
    assert not Path("imported").exists()
    assert "our_losses" not in sys.modules


def test_a_sequence_takes_no_code(cache: Path) -> None:
    """Neither from the command line nor from the recipe of the teacher that it begins with."""
    succeed(*student(cache, "own.pt", "our_losses:mean"))
    asked = ("generations", "--data", load_checkpoint("own.pt").header["data_as_typed"], "--out", "runs")
    for more in (("--loss", "our_losses:mean"), ("--teacher", "own.pt")):
        refuse(2, "our_losses:mean", *asked, *more, hint="train-student")
    assert not Path("runs").exists()


def test_a_graph_repeats_no_code_of_a_user(
    cache: Path, spec: DataSpec, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_to_capture(monkeypatch)
    recipe, opened = replace(RECIPE, loss="our_losses:mean"), open_cache(cache)
    own = load_loss("our_losses:mean")
    run = run_for_cache(architecture(), recipe, 0, spec, data, opened, own_loss=own)
    loader = make_loader(run, data, TrainerOptions("a.pt", CPU), cache=opened)
    assert "our_losses:mean" in why_not(run, loader)
    with pytest.raises(UsageError):
        run_for_cache(architecture(), recipe, 0, spec, data, opened)
    with pytest.raises(UsageError):
        run_for_cache(architecture(), RECIPE, 0, spec, data, opened, own_loss=own)
