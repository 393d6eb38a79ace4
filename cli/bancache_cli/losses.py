"""Options of a student's loss and of the targets that it compares with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from bancache.encodings.changes import CHANGES
from bancache.training.recipe import LOSSES
from bancache_cli.options import completes


@dataclass(frozen=True)
class LossOptions:
    """The loss of a student."""

    loss: Annotated[
        str | None,
        Option(
            help="ban-l (the paper's), ban (soft targets only), kd, cwtm, dkpp; or your own module:function.",
            metavar="NAME",
            autocompletion=completes(*LOSSES),
        ),
    ] = None
    temperature: Annotated[float | None, Option(help="Temperature of loss kd, or of your own.")] = None
    alpha: Annotated[float | None, Option(help="Weight of the soft targets in loss kd.")] = None
    targets: Annotated[
        str | None,
        Option(
            help="Change the teacher's rows when they are read: smooth0.1 (or another share), max-uniform, permute-rest, "
            "shuffle-in-class or class-mean; none leaves them.",
            metavar="NAME",
            autocompletion=completes(*CHANGES),
        ),
    ] = None
    loss_scale: Annotated[
        float | None, Option(help="Factor of the student's loss: 0.5 halves both terms of ban-l.")
    ] = None
