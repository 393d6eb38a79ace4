"""``bancache plan``: what each encoding would cost and lose, before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bancache_cli import console, options, teachers

if TYPE_CHECKING:
    from bancache.dumping.plan import Option


def plan(
    teacher: teachers.Net,
    weights: teachers.Weights = None,
    views: options.Views = None,
    num_views: options.NumViews = None,
    view_seed: teachers.ViewSeed = 0,
    precision: teachers.Precision = None,
    entries: Annotated[int, typer.Option(help="Entries to probe.", min=1)] = 4096,
    epochs: Annotated[
        int | None, typer.Option(help="Of a student; by default as the teacher was trained.")
    ] = None,
    data: options.MaybeData = None,
    limit: options.Limit = None,
    image_size: options.ImageSize = None,
    download: options.Download = False,
    device: options.Device = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask a teacher about a few thousand entries, and weigh every encoding: size, loss, time, break-even.

    Example: `bancache plan --teacher gen0.pt --num-views all`
    """
    from bancache.dumping.plan import break_even, take_probe, weigh
    from bancache.encodings import KNOWN
    from bancache.system.device import choose_device

    reporter, where = console.Reporter(quiet=quiet), choose_device(device)
    opened = teachers.open_teacher(
        teacher,
        where,
        reporter,
        weights=weights,
        precision=precision,
        views=views,
        data=data,
        limit=limit,
        image_size=image_size,
        download=download,
    )
    settings = teachers.settle(
        opened, views=views, num_views=num_views, view_seed=view_seed, encoding=None, batch_size=256
    )
    probe = take_probe(
        opened.teacher,
        opened.images,
        settings.space,
        settings.num_views,
        settings.normalization,
        device=where,
        entries=entries,
    )
    recipe = opened.teacher.header.get("recipe") or {}
    trained = epochs or recipe.get("epochs") or settings.num_views
    total = len(opened.images) * settings.num_views
    answer = {
        "teacher": teacher,
        "views": settings.num_views,
        "entries": total,
        "probed": len(probe.logits),
        "device": where.type,
        "images_per_second": round(probe.images_per_second, 1),
        "dump_seconds": round(total / probe.images_per_second, 1),
        "epochs": trained,
        "break_even_students": break_even(num_views=settings.num_views, epochs=trained),
        "noise_floor": probe.noise_floor,
        "encodings": [_row(option, len(opened.images), settings.num_views) for option in weigh(probe, KNOWN)],
    }
    if as_json:
        console.show_json(answer)
    else:
        _draw(answer)


def _row(option: Option, samples: int, num_views: int) -> dict[str, Any]:
    plain, folded = option.bytes_per_entry, option.compact_bytes_per_entry
    return {
        "encoding": option.encoding,
        "bytes_per_entry": plain,
        "bytes": round(plain * samples * num_views),
        # View index 0 lies in both profiles alike.
        "compact_bytes": None if folded is None else round(samples * (plain + folded * (num_views - 1))),
        "max_temperature": option.max_temperature,
        "fidelity": option.fidelity,
    }


def _draw(answer: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(
        title=f"{answer['views']} views, {answer['entries']:,} entries; bytes and losses of an entry, on {answer['probed']:,}",
        title_justify="left",
    )
    table.add_column("encoding")
    for title in ("bytes", "in all", "compact", "KL, T = 1", "T = 2", "T = 4", "gradient", "to T ="):
        table.add_column(title, justify="right")
    for row in answer["encodings"]:
        losses = [f"{row['fidelity'][t]['kl_mean']:.1e}" for t in ("1", "2", "4")]
        limit = "any" if row["max_temperature"] is None else f"{row['max_temperature']:g}"
        compact = "–" if row["compact_bytes"] is None else console.bytes_text(row["compact_bytes"])
        sizes = f"{row['bytes_per_entry']:.1f}", console.bytes_text(row["bytes"]), compact
        error = f"{row['fidelity']['1']['gradient_error']:.1e}"
        table.add_row(row["encoding"], *sizes, *losses, error, limit)
    if noise := answer["noise_floor"]:
        floor = [f"{noise[t]['kl_mean']:.1e}" for t in ("1", "2", "4")]
        table.add_row("teacher, bf16", "", "", "", *floor, "", "", style="dim")
    console.console().print(table)
    console.say(
        f"dump: about {answer['dump_seconds']:,.0f} s at {answer['images_per_second']:,.0f} images/s on "
        f"{answer['device']}; a student of {answer['epochs']} epochs with the teacher online would ask it "
        f"{answer['epochs']} times an image, the dump asks {answer['views']} times: it pays from "
        f"{answer['break_even_students']:.2g} students on"
    )
