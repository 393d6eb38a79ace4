"""``bancache plan`` and ``bancache bench``: what a cache will cost, and what training from one costs here."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from bancache.errors import UsageError
from bancache.models.names import is_third_party, parse_name
from bancache.system.wording import count
from bancache_cli import console, options, origins, teachers
from bancache_cli.teacher_files import with_weights
from bancache_cli.teacher_input import accuracy_text

if TYPE_CHECKING:
    import torch

    from bancache.bench.measure import Findings
    from bancache.cache.reader import Cache
    from bancache.dumping import plan as planning
    from bancache.models.teacher import Teacher
    from bancache.sources.image_set import ImageSet
    from bancache.system.progress import Progress

_TEMPERATURES = ("1", "2", "4")


def plan(
    *,
    teacher: teachers.TeacherOptions,
    views: options.SeededViewOptions,
    data: options.TeacherDataOptions,
    num_pairs: Annotated[int, Option(help="(sample, view) pairs to probe.", min=1)] = 4096,
    epochs: Annotated[
        int | None, Option(help="Epochs of a student (default: as the teacher's).", min=1)
    ] = None,
    device: options.Device = "auto",
    output: options.OutputOptions,
) -> None:
    """Run a teacher on a few thousand (sample, view) pairs, and compare all encodings: size, loss, time.

    Also shows from how many students on the cache is cheaper than a teacher that runs during training.

    Example: `bancache plan --teacher gen0.pt --num-views all`
    """
    teachers.check(teacher, views.views, data)
    from bancache.cache.info import accuracy_warning
    from bancache.dumping.check_teacher import check_teacher
    from bancache.dumping.plan import break_even, take_probe, weigh
    from bancache.encodings import KNOWN
    from bancache.system.device import choose_device

    where, reporter = choose_device(device), output.reporter()
    opened = teachers.open_teacher(teacher, views.views, data, where, reporter)
    settings = teachers.dump_settings(opened, views)
    check_teacher(opened.teacher, opened.images, settings, device=where, progress=reporter)
    probe = take_probe(
        opened.teacher, opened.images, settings, device=where, num_pairs=num_pairs, progress=reporter
    )
    recipe = opened.teacher.header.get("recipe") or {}
    trained = epochs or recipe.get("epochs") or settings.num_views
    total = len(opened.images) * settings.num_views
    facts = {
        "teacher": " + ".join(teacher.teacher),
        "views": settings.num_views,
        "num_pairs": total,
        "probed": len(probe.logits),
        "device": where.type,
        "images_per_second": round(probe.images_per_second, 1),
        "dump_seconds": round(total / probe.images_per_second, 1),
        "epochs": trained,
        "teacher_accuracy": probe.accuracy,
        "chance": opened.images.chance,
        "teacher_mean_max_probability": probe.confidence,
        "break_even_students": break_even(num_views=settings.num_views, epochs=trained),
        "noise_floor": probe.noise_floor,
        "encodings": [
            _row(option, len(opened.images), settings.num_views) for option in weigh(probe, KNOWN, reporter)
        ],
    }
    own = opened.teacher.header.get("test", {}).get("accuracy")
    if warning := accuracy_warning(probe.accuracy, opened.images.chance, own, settings.space.to_dict()):
        reporter.warn(warning)
    if output.as_json:
        output.show_json(facts)
    else:
        _show_plan(facts)


def _row(option: planning.Option, samples: int, num_views: int) -> dict[str, Any]:
    plain, compact, limit = option.bytes_per_pair, option.compact_bytes_per_pair, option.max_temperature
    return {
        "encoding": option.encoding,
        "bytes_per_pair": plain,
        "bytes": round(plain * samples * num_views),
        # View index 0 is stored alike in both profiles.
        "compact_bytes": None if compact is None else round(samples * (plain + compact * (num_views - 1))),
        "max_temperature": None if limit == float("inf") else limit,
        "fidelity": option.fidelity,
    }


def _show_plan(facts: dict[str, Any]) -> None:
    losses = ("KL, T = 1", "T = 2", "T = 4", "gradient")
    titles = ("encoding", "bytes per pair", "total", "compact", *losses, "up to T")
    rows = [_cells(row) for row in facts["encodings"]]
    if noise := facts["noise_floor"]:
        floor = [f"{noise[t]['kl_mean']:.1e}" for t in _TEMPERATURES]
        rows.append(["teacher, bf16", "", "", "", *floor, "", ""])
    pairs = f"{count(facts['num_pairs'], 'pair')}, of which {facts['probed']:,} were measured"
    console.show_table(titles, rows, title=f"{count(facts['views'], 'view')}, {pairs}")
    console.say(accuracy_text(facts))
    students = facts["break_even_students"]
    after = f"{students:,.0f}" if students >= 10 else f"{students:.2g}"
    console.say(
        f"dump: about {facts['dump_seconds']:,.0f} s at {facts['images_per_second']:,.0f} images/s on "
        f"{facts['device']}. Online distillation needs {count(facts['epochs'], 'teacher pass')} per image and student; "
        f"this cache needs {facts['views']}, so it pays for itself after {after} "
        f"{'student' if after == '1' else 'students'}"
    )


def _cells(row: dict[str, Any]) -> list[str]:
    compact, limit = row["compact_bytes"], row["max_temperature"]
    return [
        row["encoding"],
        f"{row['bytes_per_pair']:.1f}",
        console.bytes_text(row["bytes"]),
        "–" if compact is None else console.bytes_text(compact),
        *(f"{row['fidelity'][t]['kl_mean']:.1e}" for t in _TEMPERATURES),
        f"{row['fidelity']['1']['gradient_error']:.1e}",
        "any" if limit is None else f"{limit:g}",
    ]


def bench(
    *,
    cache: options.CacheOption,
    model: options.Model = None,
    batch_size: Annotated[int, Option(help="Images per step.", min=1)] = 128,
    rounds: Annotated[int, Option(help="Repetitions of each measurement.", min=2)] = 5,
    teacher: Annotated[
        str | None,
        Option(metavar="MODEL", help="The cache's teacher (default: a checkpoint next to the cache)."),
    ] = None,
    origin: origins.OriginOptions,
    output: options.OutputOptions,
) -> None:
    """Time the parts of training a student from a cache on this machine, and name the bottleneck.

    Measures views, targets, loss, and the student's step with cached data and with data in place. If the
    teacher's checkpoint is found, also a dump, and a student with its teacher online. Writes nothing.

    Example: `bancache bench --cache gen0.zarr --model wrn-28-2`
    """
    if teacher is not None:
        origin.check(cache, [teacher])
    from bancache.cache.reader import open_cache

    opened = open_cache(cache)
    if model is not None:
        parse_name(model)
    elif "classes" not in opened.manifest.teacher["architecture"]:
        own = opened.manifest.teacher["architecture"]["name"]
        raise UsageError(f"a student cannot be built like '{own}'", hint="add --model NAME")
    from bancache.bench.measure import bench as measure
    from bancache.models import build_model
    from bancache.models.teacher import arguments_of
    from bancache.system.device import choose_device
    from bancache.system.environment import environment

    where, reporter = choose_device(origin.device), output.reporter()
    manifest = opened.manifest
    images = origins.open_images(manifest, origin.data, reporter)
    size = list(manifest.teacher_size or (images.height, images.width))
    own = {"classes": manifest.classes, "channels": images.channels, "image_size": size}
    architecture = {"name": model} if model else manifest.teacher["architecture"]
    found = measure(
        opened,
        images,
        build_model(**arguments_of({**own, **architecture})).to(where),
        batch_size=batch_size,
        device=where,
        rounds=rounds,
        teacher=_cached_teacher(opened, teacher, origin, images, where, reporter),
        progress=reporter,
    )
    if output.as_json:
        output.show_json({**asdict(found), "environment": environment(where)})
    else:
        _show_bench(found)


def _cached_teacher(
    cache: Cache,
    named: str | None,
    origin: origins.OriginOptions,
    images: ImageSet,
    device: torch.device,
    reporter: Progress,
) -> Teacher | None:
    """Load the cache's teacher if it is there; raise ``MismatchError`` if it is another one."""
    from bancache.dumping.recompute import load_again
    from bancache.models.teacher import load_checkpoint_teacher
    from bancache.training.build import require_teacher, teacher_file

    path, manifest = teacher_file(cache), cache.manifest
    if named is not None:
        path = Path(named)
        named_with = with_weights([named], origin.weights)
        teacher = load_again(manifest, named_with, images, device, reporter)
    elif "members" in manifest.teacher:
        reporter.note("the teacher is an ensemble: dump and online teacher are left out")
        return None
    elif is_third_party(name := str(manifest.teacher.get("path", ""))):
        reporter.note(
            f"dump and online teacher are left out: {name} is run only if you name it (--teacher {name}, and its --weights)"
        )
        return None
    elif path.is_file():
        teacher = load_checkpoint_teacher(path, device=device, precision=manifest.compute["precision"])
    else:
        reporter.note(
            f"the teacher {path} is no checkpoint here: dump and online teacher are left out (--teacher)"
        )
        return None
    require_teacher(path, teacher.fingerprint, manifest.teacher["fingerprint"])
    return replace(teacher, path=str(path))


def _show_bench(found: Findings) -> None:
    rows = []
    for row in found.comparisons:
        (one, first), (other, second), ratio = row.one, row.other, row.ratio
        times, quartiles = f"{first:,.2f} / {second:,.2f}", f"{ratio['low']:.3g} to {ratio['high']:.3g}"
        rows.append((f"{one} / {other}", row.question, times, f"{ratio['median']:.3g}", quartiles))
    titles = ("ratio of times", "", "µs per image", "ratio", "quartiles")
    console.show_table(titles, rows, left=2, box=None, pad_edge=False)
    shares = ", ".join(f"{name} {share:.2%}" for name, share in found.shares.items())
    console.say()
    console.say(f"a step: {shares}")
    console.say(found.bottleneck)
