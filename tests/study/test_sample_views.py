"""The sample views of a page, from a cache of photographs."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from contracts.tiny import dump_tiny, photographs
from PIL import Image

from bancache.report.sample_views import clean_views
from bancache.study.sample_views import write_sample_views
from bancache.study.view_pictures import ViewPictures
from bancache.views import ViewSpace
from bancache.views.factory import choose_renderer
from bancache.views.model_input import Normalization
from bancache.views.params import params_text


def test_pictures_of_different_sizes_are_shown_as_the_teacher_saw_them(
    teacher_path: Path, tmp_path: Path
) -> None:
    spec, space = photographs(tmp_path / "photographs"), ViewSpace.parse("deit", seed=5)
    data = spec.open("train")
    settings: dict[str, Any] = {"space": space, "size": (12, 12), "num_views": 10}
    made, _ = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr", **settings)
    write_sample_views(made.cache, data, tmp_path / "views.json")
    found = json.loads((tmp_path / "views.json").read_text())
    assert (found["views"], [image["sample"] for image in found["images"]]) == (space.name, [0, 2, 5])
    renderer = choose_renderer(data.images, space, Normalization((0.0,) * 3, (1.0,) * 3), size=(12, 12))
    for image in found["images"]:
        samples = np.array([image["sample"]])
        pictures = ViewPictures(made.cache.manifest, data, [image["sample"]])
        for view_index, view in enumerate(image["views"]):
            seen = renderer.pixels(*renderer.to_device(samples, space.view_ids(samples, view_index)))
            shown = Image.open(io.BytesIO(base64.b64decode(view["png"])))
            np.testing.assert_array_equal(np.asarray(shown), seen[0].numpy())
            assert view["params"] == params_text(pictures.params(view_index)[0])
            assert view["params"].startswith("crop ")
    assert [[view["params"] for view in image["views"]] for image in clean_views(found)] == [
        [view["params"] for view in image["views"]] for image in found["images"]
    ]
