"""docs/encodings.md shows what was measured, and the measurements say what the code promises."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bancache.encodings import KNOWN, default_encoding
from bancache.encodings.temperature_limits import TOLERABLE_KL
from benchmarks.encodings_page import blocks, drawings, lines, weighed
from benchmarks.rate_plot import Point, drawing

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "encodings.md").read_text()


def test_the_figures_are_those_of_the_result_lines() -> None:
    """`python -m benchmarks.encodings_page` puts them there."""
    for name, block in blocks().items():
        found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end -->", PAGE, re.DOTALL)
        assert found is not None, name
        assert found[1] == block, name
    for name, content in drawings().items():
        assert (DOCS / name).read_text() == content, name
        assert f"({name})" in PAGE


@pytest.mark.parametrize("classes", [100, 1000])
def test_a_converged_teacher_certifies_what_encodings_promise(classes: int) -> None:
    """At every temperature up to its limit an encoding of ours that is meant to be faithful is."""
    rows = {row["encoding"]: row for row in weighed(classes)}
    assert rows.keys() >= set(KNOWN)
    for temperature in ("1", "2", "4"):
        best = rows[default_encoding(float(temperature), classes)]
        assert best["fidelity"][temperature]["kl_mean"] < 2e-4
        assert best["max_temperature"] >= float(temperature)
    for name in ("root4", "root8", "root12", "float16", "bfloat16", "int8"):
        for temperature, lost in rows[name]["fidelity"].items():
            limit = rows[name]["max_temperature"]
            if limit is None or float(temperature) <= limit:
                assert lost["kl_mean"] < TOLERABLE_KL, (name, temperature)


def test_no_entry_exceeded_the_bound_of_the_root_code() -> None:
    found = lines("encodings", ("theory", "classes", "temperature"))
    assert len(found) == 2 * 9 * 3
    assert max(row["worst_share_of_bound"] for row in found) <= 1


def test_a_drawing_is_whole_and_names_every_code() -> None:
    points = [
        Point("a & b", "root", 10, 1e-5),
        Point("c", "topk", 12, 1.1e-5),
        Point("d", "rival", 900, 1e-2),
    ]
    svg = drawing("title", [*points, Point("exact", "dense", 400, 0.0)], noise=5e-5)
    root = ET.fromstring(svg)
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a & b", "c", "d", "title"} <= set(texts)
    assert "exact" not in texts
    assert "prefers-color-scheme: dark" in svg
    assert json.dumps(svg).isascii()
