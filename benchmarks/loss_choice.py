"""Which loss gives the better student from the same soft targets?

The first 5,000 images of CIFAR-100, ResNet-8, 20 epochs of one cycle, one cache of 20 views per seed, and one student
per loss. ``kd`` uses temperature 4 and α = 0.9; the other losses have no settings.
"""

from __future__ import annotations

from bancache.sources.spec import DataSpec
from bancache.training.recipe import preset
from benchmarks.variants import Comparison, Student, compare, options


def main() -> None:
    """Measure and print."""
    asked = options("loss_choice", str(__doc__))
    epochs = 2 if asked.quick else 20
    students = tuple(
        Student(loss, epochs, {"loss": loss, "temperature": 4.0 if loss == "kd" else 1.0})
        for loss in ("ban-l", "ban", "kd", "cwtm", "dkpp")
    )
    comparison = Comparison(
        data=DataSpec("digits") if asked.quick else DataSpec(asked.data, 5_000),
        model="convnet-4" if asked.quick else "resnet-8",
        recipe=preset("onecycle", epochs=epochs, lr=0.2),
        views="crop1" if asked.quick else "crop4-flip",
        encoding="root8",  # precise enough at temperature 4, too
        students=students,
    )
    compare("loss_choice", comparison, asked)


if __name__ == "__main__":
    main()
