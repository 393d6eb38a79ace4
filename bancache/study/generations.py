"""The born-again sequence: the checkpoint of each generation is the teacher of the next one."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from bancache.report.results import RESULTS, Record
from bancache.study.experiment import Experiment
from bancache.study.running import Place, check_arms, run_arms
from bancache.study.sequence import study_of
from bancache.study.sequence_folder import claim
from bancache.system.files import make_directory
from bancache.system.progress import Progress, Silent
from bancache.system.signals import Interrupt

__all__ = ["RESULTS", "Experiment", "run_generations"]


def run_generations(
    experiment: Experiment,
    out: str | os.PathLike[str],
    *,
    device: torch.device,
    command: str = "",
    eval_every: int = 1,
    tensorboard: str | os.PathLike[str] | None = None,
    download: bool = False,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> list[Record]:
    """Carry out the part of an experiment that is not done yet, and return all its result lines.

    ``out`` is a folder for run.toml, results.jsonl and one folder per seed. ``command`` is the command line, for the
    result lines. The other options are those of ``train`` and ``dump``. What no student could do is refused before anything
    is written.
    """
    out = Path(out)
    check_arms(study := study_of(experiment))
    make_directory(out)
    claim(experiment, out)
    place = Place(
        device=device,
        command=command,
        eval_every=eval_every,
        tensorboard=tensorboard,
        download=download,
        progress=progress or Silent(),
        interrupt=interrupt or Interrupt(),
    )
    splits = experiment.data.open_both(download=place.download, progress=place.progress)
    return run_arms(study, splits, out, place)
