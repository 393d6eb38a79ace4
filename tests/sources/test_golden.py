"""The golden JPEGs: which decoders give the pixels that encoded packs mean, and what is said of others."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts.photographs import write_photographs
from PIL import Image

from bancache.errors import DataError
from bancache.sources import golden, open_source
from bancache.sources.pack_source import Shape
from bancache.sources.pack_writer import pack
from bancache.sources.pixels import Rules, decode
from bancache.system.progress import Silent
from bancache.system.signals import Interrupt

KINDS = {"4:2:0", "4:2:2", "4:4:4", "4:4:0", "gray", "CMYK", "progressive", "turned by EXIF"}


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    golden.require_decoder.cache_clear()
    yield
    golden.require_decoder.cache_clear()


def test_the_decoder_that_is_installed_gives_the_golden_pixels() -> None:
    assert set(golden.golden()) == KINDS
    golden.require_decoder()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_torchvision_gives_them_too() -> None:
    """The same bits, as RGB: another loader of the same files sees the same data."""
    import torch
    from torchvision import __version__
    from torchvision.io import ImageReadMode, decode_jpeg

    # The libjpeg in torchvision 0.26 interpolates these colors in another way.
    other = {"4:4:0"} if __version__.startswith("0.26.") else set()
    for name, (jpeg, _) in golden.golden().items():
        if name in other:
            continue
        encoded = torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)
        theirs = decode_jpeg(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
        ours = np.asarray(decode("it", jpeg, Rules()).convert("RGB"))
        assert np.array_equal(theirs.permute(1, 2, 0).numpy(), ours), name


def test_each_kind_is_what_its_name_says() -> None:
    layers = {"4:2:0": (2, 2), "4:2:2": (2, 1), "4:4:4": (1, 1), "4:4:0": (1, 2)}
    for name, (jpeg, _) in golden.golden().items():
        picture: Any = Image.open(io.BytesIO(jpeg))
        assert len(jpeg) < 1300
        if name in layers:
            assert picture.layer[0][1:3] == layers[name]
        assert bool(picture.info.get("progressive")) == (name == "progressive")
        assert (picture.getexif().get(0x0112, 1) != 1) == (name == "turned by EXIF")
        assert picture.mode == {"gray": "L", "CMYK": "CMYK"}.get(name, "RGB")


def streamed(source: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("bancache.sources.decoded.free_on_host", lambda: 0)
    return open_source(source, "train", cache_dir=kept)


def test_another_decoder_is_refused_by_name_and_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"folder:{write_photographs(tmp_path / 'photos', train=3, test=3)}"
    rest: dict[str, Any] = {"progress": Silent(), "interrupt": Interrupt()}
    pack(source, tmp_path / "e.pack", Shape("encoded"), **rest)
    pack(source, tmp_path / "p.pack", Shape("pixels"), **rest)
    golden.require_decoder.cache_clear()

    def plain_upsampling(where: str, content: Any, rules: Rules) -> Image.Image:
        picture = decode(where, content, rules)
        return picture.point(lambda value: value ^ 1) if picture.mode == "RGB" else picture

    monkeypatch.setattr(golden, "decode", plain_upsampling)
    for again in (
        lambda: open_source(f"pack:{tmp_path / 'e.pack'}", "train"),
        lambda: pack(source, tmp_path / "other.pack", Shape("encoded"), **rest),
        lambda: streamed(source, tmp_path / "kept", monkeypatch),
    ):
        with pytest.raises(DataError) as refused:
            again()
        assert "Pillow" in str(refused.value)
        assert "libjpeg" in str(refused.value)
        assert "4:2:0, 4:2:2" in str(refused.value)
        assert "gray" not in str(refused.value)
        assert "--kind" in refused.value.hint or "kind pixels" in refused.value.hint
    assert len(open_source(f"pack:{tmp_path / 'p.pack'}", "train")) == 3
