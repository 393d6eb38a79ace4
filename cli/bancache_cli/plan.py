"""``bancache plan``: size, loss and time of each encoding, before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bancache_cli import console, options, teachers

if TYPE_CHECKING:
    from bancache.dumping import plan as planning

_TEMPERATURES = ("1", "2", "4")


def plan(
    *,
    teacher: teachers.TeacherOptions,
    views: options.SeededViewOptions,
    data: options.TeacherDataOptions,
    num_pairs: Annotated[int, typer.Option(help="(sample, view) pairs to probe.", min=1)] = 4096,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of a student (default: as the teacher's).")
    ] = None,
    device: options.Device = "auto",
    output: options.OutputOptions,
) -> None:
    """Run a teacher on a few thousand (sample, view) pairs, and compare all encodings: size, loss, time.

    Also shows from how many students on the cache is cheaper than a teacher that runs during training.

    Example: `bancache plan --teacher gen0.pt --num-views all`
    """
    from bancache.dumping.plan import break_even, take_probe, weigh
    from bancache.encodings import KNOWN
    from bancache.system.device import choose_device

    where = choose_device(device)
    opened = teachers.open_teacher(teacher, views.views, data, where, output.reporter())
    settings = teachers.dump_settings(opened, views)
    probe = take_probe(opened.teacher, opened.images, settings, device=where, num_pairs=num_pairs)
    recipe = opened.teacher.header.get("recipe") or {}
    trained = epochs or recipe.get("epochs") or settings.num_views
    total = len(opened.images) * settings.num_views
    facts = {
        "teacher": teacher.teacher,
        "views": settings.num_views,
        "num_pairs": total,
        "probed": len(probe.logits),
        "device": where.type,
        "images_per_second": round(probe.images_per_second, 1),
        "dump_seconds": round(total / probe.images_per_second, 1),
        "epochs": trained,
        "break_even_students": break_even(num_views=settings.num_views, epochs=trained),
        "noise_floor": probe.noise_floor,
        "encodings": [_row(option, len(opened.images), settings.num_views) for option in weigh(probe, KNOWN)],
    }
    if output.as_json:
        console.show_json(facts)
    else:
        _show(facts)


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


def _show(facts: dict[str, Any]) -> None:
    losses = ("KL, T = 1", "T = 2", "T = 4", "gradient")
    titles = ("encoding", "bytes per pair", "total", "compact", *losses, "up to T")
    rows = [_cells(row) for row in facts["encodings"]]
    if noise := facts["noise_floor"]:
        floor = [f"{noise[t]['kl_mean']:.1e}" for t in _TEMPERATURES]
        rows.append(["teacher, bf16", "", "", "", *floor, "", ""])
    pairs = f"{facts['num_pairs']:,} pairs, of which {facts['probed']:,} were measured"
    console.show_table(titles, rows, title=f"{facts['views']} views, {pairs}")
    console.say(
        f"dump: about {facts['dump_seconds']:,.0f} s at {facts['images_per_second']:,.0f} images/s on "
        f"{facts['device']}. Online distillation needs {facts['epochs']} teacher passes per image and student; "
        f"this cache needs {facts['views']}, so it pays for itself from {facts['break_even_students']:.2g} "
        "students on"
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
