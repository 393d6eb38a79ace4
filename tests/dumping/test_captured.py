"""A dump on a GPU: the teacher as one graph, one measurement a shard, and nothing that waits.

Only the last tests need a CUDA device. In the others a CPU takes the same way, and calls the captured function again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.killing import tree
from contracts.replaying import pretend_to_dump_on_a_gpu
from contracts.tiny import CPU, THREE_SHARDS, dump_tiny, settings
from sources.tiny import Heard
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bancache.cache.layout import Layout, Shard
from bancache.dumping import captured, dump
from bancache.dumping.captured import open_forward
from bancache.dumping.forward import render
from bancache.dumping.repair import repair
from bancache.encodings import KNOWN, parse_encoding
from bancache.encodings.fidelity import MEASURED
from bancache.encodings.measuring import all_figures
from bancache.errors import NonFiniteError
from bancache.models.teacher import Teacher, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.views.factory import choose_renderer

CUDA = torch.device("cuda")
WAITS = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::is_nonzero", "aten::equal"}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bancache.cache.layout._SHARD_BYTES", THREE_SHARDS)


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make a CPU take the way of a GPU; the list counts the replays of each teacher."""
    return pretend_to_dump_on_a_gpu(monkeypatch)


class Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func.name()] += 1
        return func(*args, **(kwargs or {}))


def of_a_shard(
    teacher: Teacher, data: ImageSet, size: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[Counter[str], Counter[str]]:
    """Return the operations of the second shard that the host asks for, and those of one replay."""
    pretend_to_dump_on_a_gpu(monkeypatch)
    asked = settings(teacher, batch_size=size)
    forward = open_forward(teacher, data, parse_encoding("root4", 3), asked, CPU)
    assert isinstance(forward, captured.CapturedForward)
    forward.probe()
    replay, replays = forward._replay, Counted()
    assert replay is not None

    def counted() -> None:
        with replays:
            replay()

    forward._replay = counted
    with Counted() as everything:
        forward.start(Shard(1, 0, 1, 32, 64), lambda amount: None)
    one = Counter({name: times // (32 // size) for name, times in replays.names.items()})
    return everything.names - replays.names, one


@pytest.mark.parametrize(
    ("encoding", "pair_bytes"), [("root4", 3), ("root2-1024", 6), ("float16-shift", 10), ("topk-2", 12)]
)
def test_batches_that_divide_a_shard_give_the_cache_of_a_cpu(
    tmp_path: Path,
    teacher_path: Path,
    spec: DataSpec,
    data: ImageSet,
    encoding: str,
    pair_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bancache.cache.layout._SHARD_BYTES", 32 * pair_bytes)
    dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr", batch_size=8, encoding=encoding)
    replays = pretend_to_dump_on_a_gpu(monkeypatch)
    dump_tiny(teacher_path, spec, data, tmp_path / "b.zarr", batch_size=8, encoding=encoding)
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")
    assert replays == [1 + 4 * 12], "one for the first look, and four for each of twelve shards"


def test_other_batches_are_filled_up_and_the_same_when_repaired(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, replayed: list[int]
) -> None:
    """At most twelve images at once make three times eleven of a shard of 32; the 33rd is its last again."""
    path = tmp_path / "a.zarr"
    result, teacher = dump_tiny(teacher_path, spec, data, path, batch_size=12)
    assert replayed == [1 + 3 * 12]
    cache, asked = result.cache, settings(teacher)
    renderer = choose_renderer(data.images, asked.space, asked.normalization)
    samples = np.minimum(np.arange(32, 65), 63)
    views = render(renderer, samples, asked.space.view_ids(samples, 1))
    expected = torch.cat([teacher.logits(views[first : first + 11]) for first in (0, 11, 22)])[:32]
    shard = next(
        shard for shard in Layout(cache.manifest).shards() if (shard.start, shard.view_index) == (32, 1)
    )
    stored = cache.shard(shard)["q"]
    assert np.array_equal(stored, parse_encoding("root4", 3).encode(expected)["q"].numpy())
    before = tree(path)
    (path / "q" / "c" / "1" / "1" / "0").write_bytes(b"spoiled")
    assert repair(path, teacher, data, device=CPU).shards == 1
    assert tree(path) == before
    assert dump_tiny(teacher_path, spec, data, path, batch_size=12)[0].num_pairs == 0


def test_batches_divide_the_shards_that_the_manifest_names(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, replayed: list[int]
) -> None:
    """Twelve at once divide 48 samples, and not the 32 that would follow from the sizes."""
    dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr", batch_size=12, shard_samples=48)
    assert replayed == [1 + 4 * 2 * 4]


def test_logits_are_encoded_in_parts_where_memory_is_short(
    tmp_path: Path,
    teacher_path: Path,
    spec: DataSpec,
    data: ImageSet,
    replayed: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr", batch_size=4)
    monkeypatch.setattr(captured, "_NUMBERS", 1)  # three batches of four at a time, the fewest
    dump_tiny(teacher_path, spec, data, tmp_path / "b.zarr", batch_size=4)
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")


def test_the_host_does_nothing_for_a_batch_but_replay(
    teacher: Teacher, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it asks for as many operations for a shard of one batch as for one of sixteen, and waits for none."""
    (host, replay), (of_many, _) = (of_a_shard(teacher, data, size, monkeypatch) for size in (32, 2))
    assert host == of_many
    assert host.total() <= 250, "the twin of the kernel is most of them"
    assert not WAITS & (host.keys() | replay.keys())
    asked, samples = settings(teacher), torch.arange(32)
    renderer = choose_renderer(data.images, asked.space, asked.normalization)
    with Counted() as needed:
        teacher.logits(renderer.render(samples, samples % 4))
    assert (replay - needed.names).total() <= 10, "beside views and teacher"


@pytest.mark.parametrize("name", KNOWN)
def test_encoding_and_measuring_wait_for_nothing(name: str) -> None:
    """A tensor of a GPU that is not here has no numbers, so whoever asks for one fails."""
    with FakeTensorMode():
        logits, labels = torch.empty(50, 20, device="cuda"), torch.empty(50, dtype=torch.int64, device="cuda")
        encoding = parse_encoding(name, 20)
        fields = encoding.encode(logits)
        assert {field.name for field in encoding.fields()} == fields.keys()
        assert all_figures(encoding, logits, fields, labels).shape == (50, MEASURED)


def test_a_model_that_cannot_be_captured_runs_anyway(
    tmp_path: Path,
    teacher_path: Path,
    spec: DataSpec,
    data: ImageSet,
    replayed: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, teacher = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr")

    def refused(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(captured, "capture", refused)
    heard = Heard()
    dump(teacher, data, spec, tmp_path / "b.zarr", settings(teacher), device=CPU, progress=heard)
    assert ["not permitted" in note and "more" not in note for note in heard.notes] == [True]
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")


class Wide(torch.nn.Module):
    """A model whose logits are far apart, or NaN, in the second shard."""

    def __init__(self, broken: float) -> None:
        super().__init__()
        self.broken = broken

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        brightness = images.flatten(1).mean(dim=1)
        logits = torch.stack([brightness, -brightness, brightness * 0], dim=1)
        return torch.where(brightness[:, None] > 1, logits * self.broken, logits)


@pytest.mark.parametrize(
    ("broken", "option"), [(1e6, "--encoding float32"), (float("nan"), "--precision float32")]
)
def test_logits_that_cannot_be_stored_are_refused_when_a_shard_is_done(
    tmp_path: Path,
    teacher: Teacher,
    spec: DataSpec,
    data: ImageSet,
    replayed: list[int],
    broken: float,
    option: str,
) -> None:
    bright = replace(data, images=np.where(np.arange(len(data)) == 40, 255, data.images.T).T.astype(np.uint8))
    wide = replace(teacher, model=Wide(broken))
    with pytest.raises(NonFiniteError) as caught:
        dump(wide, bright, spec, tmp_path / "a.zarr", settings(teacher, encoding="float16"), device=CPU)
    assert option in caught.value.hint


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_graph_and_single_operations_give_the_same_bytes(
    tmp_path: Path,
    teacher_path: Path,
    spec: DataSpec,
    data: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    teacher = load_teacher(str(teacher_path), device=CUDA, precision=precision)
    heard = Heard()
    dump(teacher, data, spec, tmp_path / "a.zarr", settings(teacher), device=CUDA, progress=heard)
    assert heard.notes == [], "it was captured"
    monkeypatch.setattr(captured, "capture", lambda body, device, warm_ups: body)
    dump(teacher, data, spec, tmp_path / "b.zarr", settings(teacher), device=CUDA)
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("encoding", ["root4", "float16-shift", "topk-2", "int8"])
def test_on_a_gpu_nothing_waits_between_two_shards(teacher_path: Path, data: ImageSet, encoding: str) -> None:
    teacher = load_teacher(str(teacher_path), device=CUDA, precision="bfloat16")
    asked = settings(teacher, batch_size=8, encoding=encoding)
    forward = open_forward(teacher, data, parse_encoding(encoding, 3), asked, CUDA)
    forward.probe()
    forward.start(Shard(0, 0, 0, 0, 8), lambda amount: None)()  # it measures the noise floor
    try:
        torch.cuda.set_sync_debug_mode("error")
        collects = [forward.start(Shard(1, 0, 1, 8, 16), lambda amount: None) for _ in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    first, *others = (collect()[0] for collect in collects)
    assert all(np.array_equal(first[name], other[name]) for other in others for name in first)


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_a_model_that_waits_runs_operation_by_operation(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    class Waits(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert float(images.mean()) < 1e6
            logits: torch.Tensor = self.model(images)
            return logits

    teacher, heard = load_teacher(str(teacher_path), device=CUDA), Heard()
    dump(teacher, data, spec, tmp_path / "a.zarr", settings(teacher), device=CUDA)
    waits = replace(teacher, model=Waits(teacher.model))
    dump(waits, data, spec, tmp_path / "b.zarr", settings(teacher), device=CUDA, progress=heard)
    assert len(heard.notes) == 1
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")
