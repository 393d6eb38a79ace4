"""The size and the loss of a dump are estimated from a probe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.tiny import CPU, dump_tiny, settings
from sources.tiny import Heard

from bancache.dumping.plan import Option, Probe, break_even, choose, take_probe, weigh
from bancache.encodings import KNOWN
from bancache.errors import NonFiniteError, UsageError
from bancache.models.teacher import load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec


def option(name: str, size: float, kl: float, limit: float = float("inf")) -> Option:
    fidelity = {t: {"kl_mean": kl * float(t)} for t in ("1", "2", "4")}
    return Option(name, size, fidelity, limit)


def test_a_probe_has_the_logits_of_the_dump(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    """Every probed row is a row of the float32 cache of the same views."""
    result, teacher = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr", encoding="float32")
    probe = take_probe(teacher, data, settings(teacher), device=CPU, num_pairs=50)
    assert probe.logits.shape == (50, 3)
    assert probe.images_per_second > 0
    rows = torch.cat(
        [torch.from_numpy(result.cache.read_view(view_index)["logits"]) for view_index in range(4)]
    )
    nearest = torch.cdist(probe.logits.double(), rows.double()).min(dim=1).values
    assert float(nearest.max()) < 1e-4


def test_a_probe_has_the_same_samples_in_view_0(teacher_path: Path, data: ImageSet) -> None:
    """Profile compact stores the others relative to it."""
    teacher = load_teacher(str(teacher_path), device=CPU)
    probe = take_probe(teacher, data, settings(teacher), device=CPU, num_pairs=50)
    assert probe.first is not None
    assert probe.view_indices is not None
    near = torch.isclose(probe.first, probe.logits, atol=1e-4).all(dim=1).numpy()
    assert near[probe.view_indices == 0].all()
    assert not near[probe.view_indices > 0].any()


def test_a_probe_says_how_far_it_is(teacher_path: Path, data: ImageSet) -> None:
    """A large teacher takes minutes: each sample is shown twice, once as view 0."""
    teacher, heard = load_teacher(str(teacher_path), device=CPU), Heard()
    take_probe(teacher, data, settings(teacher), device=CPU, num_pairs=20, progress=heard)
    assert heard.decoded == 40


def test_a_teacher_that_diverged_is_refused(teacher_path: Path, data: ImageSet) -> None:
    teacher = load_teacher(str(teacher_path), device=CPU)
    next(teacher.model.parameters()).fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="20 of 20"):
        take_probe(teacher, data, settings(teacher), device=CPU, num_pairs=20)


def test_logits_further_apart_than_float32_counts_are_refused(teacher_path: Path, data: ImageSet) -> None:
    """A dump refuses them; each is finite, and their difference is not."""
    teacher = load_teacher(str(teacher_path), device=CPU)
    *_, bias = teacher.model.parameters()
    bias.copy_(torch.tensor([3e38, -3e38, *[0.0] * (len(bias) - 2)]))
    with pytest.raises(NonFiniteError, match="20 of 20"):
        take_probe(teacher, data, settings(teacher), device=CPU, num_pairs=20)


def test_encodings_that_the_logits_do_not_fit_are_left_out_and_named() -> None:
    heard, logits = Heard(), torch.tensor([[1e5, 0.0, -1e5], [0.0, 1e5, 2.0]])
    options = weigh(Probe(logits, 1.0), KNOWN, heard)
    left_out = {"float16", "float16-shift", "topk-10"}
    assert {option.encoding for option in options} == {*KNOWN} - left_out
    assert {note.split()[0] for note in heard.notes} == left_out
    assert all("2e+05" in note for note in heard.notes)
    assert choose(options, max_kl=1e-12, temperature=1).encoding == "root8"


def test_sizes_and_losses_are_those_of_the_encodings(teacher_path: Path, data: ImageSet) -> None:
    teacher = load_teacher(str(teacher_path), device=CPU)
    probe = take_probe(teacher, data, settings(teacher), device=CPU, num_pairs=96)
    options = weigh(probe, KNOWN)
    assert [o.bytes_per_pair for o in options] == sorted(o.bytes_per_pair for o in options)
    by_name = {o.encoding: o for o in options}
    assert set(by_name) == set(KNOWN)
    assert by_name["float32"].kl_mean(1) < 1e-12
    assert by_name["root4"].bytes_per_pair < by_name["float16"].bytes_per_pair < 3 * 4
    assert by_name["root4"].kl_mean(1) < by_name["root2-64"].kl_mean(1)
    assert by_name["root8"].max_temperature == 4
    assert by_name["float32"].max_temperature == float("inf")


def test_the_smallest_encoding_that_is_accurate_enough_is_chosen() -> None:
    options = [option("a", 1, 1e-2), option("b", 2, 1e-4, limit=1.0), option("c", 3, 1e-5), option("d", 4, 0)]
    assert choose(options, max_kl=1e-1, temperature=1).encoding == "a"
    assert choose(options, max_kl=1e-4, temperature=1).encoding == "b"
    assert choose(options, max_kl=1e-3, temperature=4).encoding == "c"  # b is not certified at 4
    assert choose(options, max_kl=1e-9, temperature=1).encoding == "d"
    with pytest.raises(UsageError, match=r"1e-09 .*'c' .*1\.0e-05"):
        choose(options[:3], max_kl=1e-9, temperature=1)


def test_break_even_counts_forward_passes() -> None:
    assert break_even(num_views=162, epochs=162) == 1.0
    assert break_even(num_views=16, epochs=64) == 0.25


def test_sizes_are_compressed_sizes() -> None:
    same = Probe(torch.zeros((1000, 100)), 1.0)
    (root,) = weigh(same, ["root4"])
    assert root.bytes_per_pair < 1


def test_compact_is_weighed_against_view_0_and_nothing_else() -> None:
    """Equal logits fold to nothing, others do not; pairs of view 0 itself do not count: they would seem free."""
    generator = torch.Generator().manual_seed(0)
    logits, other = torch.randn((2, 400, 50), generator=generator) * 4
    view_indices = np.arange(400) % 2
    (plain,) = weigh(Probe(logits, 1.0), ["root4"])
    (same,) = weigh(Probe(logits, 1.0, logits, view_indices), ["root4"])
    (different,) = weigh(Probe(logits, 1.0, other, view_indices), ["root4"])
    (half,) = weigh(
        Probe(logits, 1.0, torch.where(torch.tensor(view_indices)[:, None] > 0, other, logits), view_indices),
        ["root4"],
    )
    (dense,) = weigh(Probe(logits, 1.0, logits, view_indices), ["float32"])
    assert plain.compact_bytes_per_pair is None
    assert dense.compact_bytes_per_pair is None
    assert same.compact_bytes_per_pair is not None
    assert same.compact_bytes_per_pair < 1
    assert same.bytes_per_pair == plain.bytes_per_pair > 25
    assert different.compact_bytes_per_pair == half.compact_bytes_per_pair
    assert different.compact_bytes_per_pair is not None
    assert different.compact_bytes_per_pair > 40
