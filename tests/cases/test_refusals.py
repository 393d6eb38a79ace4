"""What cannot work is refused before torch is imported, which takes seconds, and before images are decoded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contracts.calling import refuse, succeed

from bancache.cache.manifest_io import MANIFEST, manifest_of, read_manifest, unfinished
from bancache.models.checkpoint import save_tensors
from bancache.system.files import write_json
from bancache.system.locks import exclusive, exclusive_file
from bancache.training.recorded import header_of, recorded_run

# The expected exit code of each refused command; {x} is the folder with gen0.pt, gen0.zarr, gen1.pt and a study.
REFUSED: list[tuple[int, str]] = [
    # Numbers and names that make no sense.
    (2, "train-teacher --data digits --epochs -3"),
    (2, "train-teacher --data digits --batch-size 0"),
    (2, "train-teacher --data digits --lr -1"),
    (2, "train-teacher --data digits --seed -1"),
    (2, f"train-teacher --data digits --seed {1 << 53}"),
    (2, "generations --data digits --seeds=-1,0"),
    (2, f"generations --data digits --seeds 0,{1 << 53}"),
    (2, "train-teacher --data digits --weight-decay -1"),
    (2, "train-teacher --data digits --save-every -1"),
    (2, "train-teacher --data digits --eval-every -1"),
    (2, "train-teacher --data digits --limit 0"),
    (2, "train-teacher --data digits --image-size 0"),
    (2, "train-teacher --data digits --model wrn-29-2"),
    (2, "train-teacher --data digits --recipe fast"),
    (2, "train-teacher --data digits --views crop"),
    (2, "train-teacher --data digitz"),
    (2, "train-teacher --data digits --device tpu"),
    (2, "generations --data digits --loss bann"),
    (2, "generations --data digits --seeds 1,x"),
    (2, "generations --data digits --generations 0"),
    (2, "generations --data digits --encoding root"),
    (2, "train-student {x}/gen0.zarr --loss kd --temperature -1"),
    (2, "train-student {x}/gen0.zarr --alpha 2 --loss kd"),
    (2, "dump {x}/gen0.pt --batch-size 0"),
    (2, "dump {x}/gen0.pt --encoding root"),
    (2, "dump {x}/gen0.pt --views crop"),
    (2, "dump {x}/gen0.pt --num-views some"),
    (2, "dump {x}/gen0.pt --num-views 4 --out {x}/gen0.pt"),
    (2, "dump {x}/gen0.pt --num-views all --views rrc-flip"),
    (2, "prune {x}/gen0.zarr --num-views 0 --out {x}/b.zarr"),
    (2, "prune {x}/gen0.zarr --num-views 3 --out {x}/b.zarr"),
    (2, "extend {x}/gen0.zarr --num-views 1 --out {x}/b.zarr"),
    (2, "extend {x}/gen0.zarr --num-views 4 --out {x}/gen0.zarr"),
    (1, "info {x}/none.pack"),
    (1, "repair {x}/none.pack"),
    (2, "view {x}/gen0.zarr --sample 7,,9 --view 0 --out {x}/new"),
    (2, "view {x}/gen0.zarr --sample 96 --view 0 --out {x}/new"),
    (2, "view {x}/gen0.zarr --sample 0 --view 2 --out {x}/new"),
    (2, "view {x}/gen0.zarr --sample 0 --view 0 --out {x}/gen0.pt"),
    # What is missing.
    (1, "train-teacher --data npz:{x}/none.npz"),
    (1, "train-teacher --data folder:{x}/none"),
    (1, "generations --data parquet:{x}/none"),
    (1, "evaluate {x}/none.pt"),
    *((3, f"{command} {{x}}/none.zarr") for command in ("train-student", "bench", "info", "verify", "repair")),
    (3, "extend {x}/none.zarr --num-views 4 --out {x}/b.zarr"),
    (3, "prune {x}/none.zarr --num-views 1 --out {x}/b.zarr"),
    (3, "merge {x}/none.zarr --out {x}/b.zarr"),
    # Outputs that cannot be written.
    (2, "train-teacher --data digits --out {x}"),
    (2, "train-teacher --data digits --out {x}/gen0.pt/gen0.pt"),
    (2, "train-student {x}/gen0.zarr --out {x}"),
    (2, "generations --data digits --out {x}/gen0.pt/x"),
    (2, "dump {x}/gen0.pt --out {x}/gen0.pt/a.zarr"),
    (2, "dump {x}/gen0.pt --out {x}"),
    # Outputs that another process writes.
    (5, "train-teacher --data digits --out {x}/held.pt"),
    (5, "dump {x}/gen0.pt --out {x}/held.zarr"),
    (5, "dump --teacher {x}/gen0.pt --teacher {x}/gen0.pt --out {x}/held.zarr"),
    # Other settings than those of the run or the cache that is there.
    (4, "train-teacher --data npz:{x}/d.npz --epochs 2 --out {x}/gen0.pt"),
    (4, "train-teacher --data npz:{x}/d.npz --model convnet-8 --out {x}/gen0.pt"),
    (4, "train-teacher --data npz:{x}/d.npz --seed 3 --out {x}/gen0.pt"),
    (4, "train-teacher --data npz:{x}/d.npz --views flip --out {x}/gen0.pt"),
    (4, "train-student {x}/gen0.zarr --epochs 2"),
    (4, "train-student {x}/gen0.zarr --loss ban"),
    (4, "generations --data npz:{x}/d.npz --epochs 2 --out {x}/study"),
    (4, "generations --data npz:{x}/d.npz --encoding root8 --out {x}/study"),
    (4, "dump {x}/gen0.pt --num-views 1"),
    (4, "dump {x}/gen0.pt --encoding root8 --join"),
    (4, "dump {x}/gen1.pt --out {x}/gen0.zarr"),
    (4, "dump {x}/gen0.pt --out {x}/other.zarr"),
]  # fmt: skip

SCRIPT = """
import contextlib, io, json, sys
sys.modules["torch"] = None
from bancache_cli import main
for argv in json.loads(sys.stdin.read()):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            code = main(argv)
        except Exception as error:
            code = repr(error)
    print(json.dumps([code, said.getvalue()]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, npz: Path) -> Path:
    """A folder with a teacher, its cache, its student, and the settings of a study."""
    folder = tmp_path_factory.mktemp("made")
    data = ("--data", f"npz:{npz}", "--model", "convnet-4")
    succeed("train-teacher", *data, "--epochs", "1", "--out", folder / "gen0.pt")
    succeed("dump", folder / "gen0.pt", "--num-views", "2")
    succeed("train-student", folder / "gen0.zarr")
    succeed("generations", *data, "--epochs", "1", "--generations", "1", "--out", folder / "study")
    (folder / "d.npz").write_bytes(npz.read_bytes())
    (folder / "held.zarr").mkdir()
    (folder / "other.zarr").mkdir()
    begun = manifest_of(read_manifest(folder / "gen0.zarr"))
    other = replace(begun, dataset={**begun.dataset, "fingerprint": "0" * 64})
    write_json(folder / "other.zarr" / MANIFEST, unfinished(other))
    return folder


def test_no_refusal_needs_torch(made: Path) -> None:
    commands = [command.format(x=made).split() for _, command in REFUSED]
    with exclusive_file(made / "held.pt"), exclusive(made / "held.zarr"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            input=json.dumps(commands),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=made,
        )
    found: list[list[Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = {
        " ".join(command): (code, *answer)
        for command, (code, _), answer in zip(commands, REFUSED, found, strict=True)
        if answer[0] != code or answer[1].count("error: ") != 1
    }
    assert wrong == {}


def test_other_settings_are_refused_before_images_are_decoded(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bancache.sources.spec.open_source", None)
    argv = ("train-teacher", "--data", f"npz:{made / 'd.npz'}", "--out", made / "gen0.pt")
    refuse(4, ("epochs", "1", "2"), *argv, "--epochs", "2", "-q", hint="--overwrite", keep=made)


def test_settings_that_make_no_sense_are_left_to_the_training_which_says_so(made: Path) -> None:
    sound = header_of(made / "gen0.pt")
    for change in ({"views": [1]}, {"architecture": 3}, {"recipe": [1]}):
        save_tensors(made / "odd.pt", {"header": json.dumps({**(sound or {}), **change})})
        assert recorded_run(made / "odd.pt") is None
    save_tensors(made / "odd.pt", {"header": "[" * 100_000})
    refuse(1, "odd.pt", "dump", made / "odd.pt")
    for run in ({"recipe": 5}, {"architecture": [1]}, {"view_space": {"id": [1]}}, 7):
        save_tensors(made / "odd2.pt.resume", {"run": run})
        assert recorded_run(made / "odd2.pt") is None


def test_the_settings_of_a_run_are_read_without_its_tensors_and_without_its_code(made: Path) -> None:
    found = header_of(made / "gen0.pt")
    assert found is not None
    assert (found["architecture"]["name"], found["recipe"]["epochs"]) == ("convnet-4", 1)
    (made / "none.pt").write_bytes((made / "gen0.pt").read_bytes()[:900])
    assert recorded_run(made / "none.pt") is None
    (made / "none.pt").unlink()
