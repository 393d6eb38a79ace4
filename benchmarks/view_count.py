"""How many views per image does a cache need before repeated views cost accuracy?

The first 1,000 images of CIFAR-100, ResNet-8, 162 epochs of one cycle, loss ``ban-l``. The students differ in the number
of views in their cache: with 1 view they see it 162 times, with 162 views they see each view once.
"""

from __future__ import annotations

from bancache.sources.spec import DataSpec
from bancache.training.recipe import preset
from benchmarks.variants import Comparison, Student, compare, options


def main() -> None:
    """Measure and print."""
    asked = options("view_count", str(__doc__))
    counts = (1, 2) if asked.quick else (1, 4, 16, 50, 162)
    comparison = Comparison(
        data=DataSpec("digits") if asked.quick else DataSpec(asked.data, 1_000),
        model="convnet-4" if asked.quick else "resnet-8",
        recipe=preset("onecycle", epochs=counts[-1], lr=0.2),
        views="crop1" if asked.quick else "crop4-flip",
        encoding="root4",
        students=tuple(Student(f"views{count}", count, {}) for count in counts),
    )
    compare("view_count", comparison, asked)


if __name__ == "__main__":
    main()
