"""What no digest can find: rows that nobody wrote, numbers that are none, sums that do not add up."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.calling import call
from contracts.forging import EncodedViews, forge
from contracts.hostile import Change, reseal
from contracts.tiny import dump_tiny

from bancache.cache.verify import verify_cache
from bancache.dumping.repair import verify_deeply
from bancache.encodings import KNOWN, parse_encoding
from bancache.encodings.validity import invalid_rows
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec


@pytest.mark.parametrize("name", KNOWN)
def test_every_encodings_rows_are_sound_and_rows_that_nobody_wrote_are_not(name: str) -> None:
    """But for float32, of which zeros are logits like any other."""
    encoding = parse_encoding(name, 20)
    logits = torch.randn(200, 20, generator=torch.Generator().manual_seed(0)) * 8
    logits[:3] = 0
    fields = {name: part.numpy() for name, part in encoding.encode(logits).items()}
    assert not invalid_rows(encoding.to_config(), 20, fields)[0].any()
    empty = {name: np.zeros_like(part) for name, part in fields.items()}
    # Logits relative to the largest are all zero where all are equal.
    allowed = name in ("float32", "float16", "float16-shift", "bfloat16")
    assert invalid_rows(encoding.to_config(), 20, empty)[0].all() != allowed
    for field, part in fields.items():
        if part.dtype.kind == "f" and name != "int8":
            part[..., -1] = np.nan
            assert invalid_rows(encoding.to_config(), 20, fields)[0].any(), field


def test_an_encoding_of_a_later_version_is_left_to_it() -> None:
    rows, _ = invalid_rows({"id": "root-2"}, 3, {"q": np.zeros((5, 3), np.uint8)})
    assert rows.tolist() == [False] * 5


@pytest.fixture
def exact(memory: Path, teacher_path: Path, spec: DataSpec, data: ImageSet) -> Path:
    dump_tiny(teacher_path, spec, data, memory / "f.zarr", num_views=2, encoding="float32")
    return memory / "f.zarr"


def zeros(encoded_views: EncodedViews) -> EncodedViews:
    encoded_views[1]["q"][40] = 0
    return encoded_views


def infinite(encoded_views: EncodedViews) -> EncodedViews:
    encoded_views[0]["logits"][7, 2] = np.inf
    return encoded_views


@pytest.mark.parametrize(
    ("which", "change", "said"),
    [
        (
            "few",
            zeros,
            "shard 4 (view 1, samples 32 to 63): 1 of 32 {} row 8: no class has the highest level",
        ),
        ("exact", infinite, "shard 0 (view 0, samples 0 to 95): 1 of 96 {} row 7: a logit is not finite"),
    ],
)
def test_values_that_were_sealed_without_being_written_are_named(
    request: pytest.FixtureRequest,
    memory: Path,
    which: str,
    change: Callable[[EncodedViews], EncodedViews],
    said: str,
) -> None:
    path = forge(request.getfixturevalue(which), memory / "forged.zarr", change)
    expected = said.format("rows were not written by its encoding, first")
    assert expected in [str(finding) for finding in verify_deeply(path)]


@pytest.mark.parametrize("how", ["checksum", "frame"])
def test_a_shard_that_was_sealed_broken_is_named(few: Path, how: str) -> None:
    chunk = few / "q" / "c" / "2" / "1" / "0"
    content = bytearray(chunk.read_bytes())
    if how == "checksum":
        content[-1] ^= 1
    else:  # announces what it should, and holds something else
        content[-12] ^= 0xFF
    chunk.write_bytes(content)
    digest = [len(content), hashlib.sha256(content).hexdigest()]
    reseal(few, lambda stored: stored["files"].update({"q/c/2/1/0": digest}))
    assert verify_cache(few) == []
    (found,) = verify_deeply(few)
    assert str(found).startswith("shard 7 (view 2, samples 32 to 63): it cannot be decoded: ")
    told = call("verify", few, "--deep", "-q")
    assert (told.code, "shard 7" in told.out) == (3, True)


SUMMARIES: dict[str, tuple[Change, str]] = {
    "a finer mean": (
        lambda stored: stored["summary"]["fidelity"]["1"].update(kl_mean=1e-9),
        "'fidelity'",
    ),
    "a better teacher": (
        lambda stored: stored["summary"].update(teacher_accuracy=0.999),
        "'teacher_accuracy'",
    ),
    "a view less": (
        lambda stored: stored["summary"]["slots"].pop(),
        r"192 .* 2 ",
    ),
    "fewer numbers": (
        lambda stored: stored["summary"].update(finite_values=5),
        r"\b5 .*\b864\b",
    ),
    "no sums": (
        lambda stored: stored["summary"].update(slots=[{"tally": {"1": {"bins": "x"}}}]),
        "bins|int",
    ),
}


@pytest.mark.parametrize("kind", SUMMARIES)
def test_figures_that_do_not_follow_from_their_sums_are_named(few: Path, kind: str) -> None:
    change, said = SUMMARIES[kind]
    reseal(few, change)
    assert verify_cache(few) == []
    (found,) = verify_deeply(few)
    assert found.file == "manifest.json"
    assert re.search(said, found.problem)


def test_sound_caches_are_deeply_sound(few: Path, exact: Path) -> None:
    assert verify_deeply(few) == []
    assert verify_deeply(exact) == []
    reseal(few, lambda stored: stored["summary"].pop("slots"))  # as an earlier version left it
    assert verify_deeply(few) == []
    assert call("verify", exact, "--deep").out == f"{exact}: intact\n"


def test_a_shard_whose_digest_does_not_hold_is_named_once_and_not_decoded(few: Path) -> None:
    (few / "q" / "c" / "2" / "1" / "0").write_bytes(b"?")
    (found,) = verify_deeply(few)
    assert str(found).startswith("shard 7 (view 2, samples 32 to 63): ")


@pytest.mark.parametrize(("name", "field", "value"), [("topk-10", "rest", 1.5), ("int8", "step", -0.25)])
def test_a_figure_that_no_encoder_writes_is_found(name: str, field: str, value: float) -> None:
    encoding = parse_encoding(name, 20)
    logits = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    fields = {name: part.numpy() for name, part in encoding.encode(logits).items()}
    fields[field][2] = value
    assert invalid_rows(encoding.to_config(), 20, fields)[0].tolist() == [False, False, True, False, False]
