"""One record, one picture: torch, numba and Triton render the same bytes of every view."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from contracts.interpreting import Interpreter
from contracts.rendering import EVERYTHING, NORMAL, SIZE, addresses, opened, pictures, rendered, shown

from bancache.system.numba import is_installed
from bancache.system.ragged import RaggedImages
from bancache.views import ViewSpace, factory
from bancache.views.factory import choose_renderer
from bancache.views.lattice_renderer import LatticeRenderer
from bancache.views.pictures import Pictures
from bancache.views.record_renderer import RecordRenderer

GOLDEN = {
    EVERYTHING[0]: "4ac2159176272498487d0d562f1469eaf428542154e7652b5285bda42629c4d3",
    EVERYTHING[1]: "451ce2b5330827a5dc8912c8d5e240ded7d967cf7d60796be4115a76e8c302ed",
    EVERYTHING[2]: "e6377cd1de28463b64bb2157dbb3404a59887737656ac05d9d199c6dbb76a402",
}
MANY = {name: 10_000 if name == EVERYTHING[0] else 300 for name in EVERYTHING}


@pytest.mark.parametrize("name", EVERYTHING)
def test_torch_and_numba_render_thousands_of_views_alike(name: str) -> None:
    if not is_installed():
        pytest.skip("numba is an extra")
    from bancache.views.numba_renderer import NumbaRenderer

    assert torch.equal(shown(RecordRenderer, name, MANY[name]), shown(NumbaRenderer, name, MANY[name]))
    assert torch.equal(rendered(RecordRenderer, name, 50), rendered(NumbaRenderer, name, 50))


def test_on_a_cpu_numba_renders_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_installed():
        pytest.skip("numba is an extra")
    from bancache.views.numba_renderer import NumbaRenderer

    images = RaggedImages(np.zeros(75, np.uint8), np.array([5], np.int32), np.array([5], np.int32), 3)
    for installed, kind in ((True, NumbaRenderer), (False, RecordRenderer)):
        monkeypatch.setattr(factory, "is_installed", lambda installed=installed: installed)
        assert type(choose_renderer(images, ViewSpace.parse("rrc"), NORMAL, size=SIZE)) is kind


def test_interpreted_the_kernels_render_the_same(interpreter: Interpreter) -> None:
    for name, pixels in interpreter.run("rendering").items():
        np.testing.assert_array_equal(pixels, shown(RecordRenderer, name, len(pixels)).numpy(), name)


@pytest.mark.parametrize("name", EVERYTHING)
def test_pixels_are_frozen(name: str) -> None:
    """Every cache of such views depends on these bytes."""
    pixels = shown(RecordRenderer, name, 500).contiguous().numpy()
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == GOLDEN[name]


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_view_does_not_depend_on_the_others_in_its_batch(name: str) -> None:
    together = rendered(RecordRenderer, name, 40)
    renderer = opened(RecordRenderer, name)
    samples, ids = addresses(name, 40)
    for place in (3, 17, 39):
        alone = renderer.render(*renderer.to_device(samples[place : place + 1], ids[place : place + 1]))
        assert torch.equal(alone[0], together[place])


def test_a_lattice_at_its_own_size_has_the_pixels_of_its_own_renderer() -> None:
    """The two ways of rendering meet where nothing is resampled."""
    images = pictures(EVERYTHING[2]).flat.reshape(-1, 8, 8, 3)
    for name in ("crop3-flip", "crop2-zero-flip", "identity"):
        space = ViewSpace.parse(name, seed=5)
        own = choose_renderer(images, space, NORMAL)
        assert isinstance(own, LatticeRenderer)
        records = RecordRenderer(Pictures.of(images), space, NORMAL, size=(8, 8))
        samples = np.arange(64)
        ids = space.view_ids(samples, samples % space.size)
        one, other = (each.render(*each.to_device(samples, ids)) for each in (own, records))
        assert torch.equal(one, other)
