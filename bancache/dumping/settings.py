"""The settings of a dump."""

from __future__ import annotations

from dataclasses import dataclass

from bancache.encodings.fidelity import TEMPERATURES
from bancache.errors import UsageError
from bancache.views.model_input import Normalization
from bancache.views.space import ViewSpace, check_num_views


@dataclass(frozen=True)
class DumpSettings:
    """Everything that decides a cache's content beside the teacher and the data.

    A dump by a model of your own, after ``import bancache as bc``:

        spec = bc.DataSpec("digits")
        data = spec.open("train")
        teacher = bc.load_teacher("our_models:net", weights="net.pth", shape=(10, 1, 8, 8), device="cpu")
        own = bc.Normalization.of_fractions(mean=[0.5], std=[0.5], channels=1)
        settings = bc.DumpSettings(bc.ViewSpace.parse("crop1"), 9, "root4", batch_size=256, normalization=own)
        bc.dump(teacher, data, spec, "net.zarr", settings, device="cpu")

    A checkpoint, and a model of torchvision or timm, knows its own: ``teacher.input.normalization``.

    Attributes:
        space: The possible views, with the seed that assigns them to view indices.
        num_views: Views to store of each sample; ``space.size`` stores every possible view.
        encoding: Name of the encoding.
        batch_size: Images per forward pass. Part of the cache's identity, since it may change the last bit.
        normalization: Normalization of the teacher's inputs.
        size: Height and width of the teacher's inputs in pixels; None for those of the images.
        bound: A temperature and the mean divergence in nats that the encoding may cause there; None for no bound.
        profile: Storage layout: ``default``, ``compact`` or ``mmap``.
        shard_samples: Samples of a shard; by default, and where a cache was begun already, decided by ``dump``.
    """

    space: ViewSpace
    num_views: int
    encoding: str
    batch_size: int
    normalization: Normalization
    bound: tuple[float, float] | None = None
    profile: str = "default"
    size: tuple[int, int] | None = None
    shard_samples: int | None = None

    def __post_init__(self) -> None:
        if self.bound is not None and not 0 < self.bound[0] <= TEMPERATURES[-1]:
            raise UsageError(
                f"divergence is measured up to temperature {TEMPERATURES[-1]:g}, not at {self.bound[0]:g}",
                hint="use --encoding float32 instead of a bound",
            )
        check_num_views(self.num_views, self.space)
        if self.batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, not {self.batch_size}")
