"""``bancache info``: what a cache holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bancache.system.fingerprint import short
from bancache_cli import console, options


def info(
    cache: Annotated[Path, typer.Argument(help="What `bancache dump` wrote.")],
    as_json: options.Json = False,
) -> None:
    """Say what a cache holds, from whom, how large it is and how faithful.

    Example: `bancache info gen0.zarr`
    """
    from bancache.cache.info import describe

    facts = describe(cache)
    if as_json:
        console.show_json(facts)
    else:
        _draw(facts)


def _draw(facts: dict[str, Any]) -> None:
    from rich.table import Table

    from bancache.views import ViewSpace

    space = ViewSpace.from_dict(facts["view_space"])
    teacher, dataset = facts["teacher"], facts["dataset"]
    every = " (all there are)" if facts["views"] == space.size else f" of {space.size}"
    per_entry = f", {facts['bytes_per_entry']:.2f} bytes an entry" if facts["bytes_per_entry"] else ""
    complete = "yes" if facts["complete"] else f"no: {facts['regions_done']} of {facts['regions']} shards"
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("cache", facts["path"])
    table.add_row("complete", complete)
    table.add_row(
        "holds", f"{facts['views']} views{every} of {facts['samples']:,} images, {facts['classes']} classes"
    )
    table.add_row(
        "size", f"{console.bytes_text(facts['bytes'])}{per_entry}, encoding {facts['encoding']['name']}"
    )
    table.add_row(
        "teacher",
        f"{teacher['architecture']['name']}, generation {teacher['generation']}, "
        f"weights {short(teacher['fingerprint'])}",
    )
    table.add_row("data set", f"{dataset['spec']['source']}, {short(dataset['fingerprint'])}")
    table.add_row("views", f"{space.name}, seed {space.seed}")
    table.add_row(
        "format",
        f"{facts['format_version']}, profile {facts['profile']}, made with bancache {facts['created_with']['bancache']}",
    )
    for temperature, lost in (facts["fidelity"] or {}).items():
        table.add_row(
            f"KL at T = {temperature}",
            f"mean {lost['kl_mean']:.1e}, 99.9 % below {lost['kl_p999']:.1e}, at most {lost['kl_max']:.1e} nats; "
            f"same answer {lost['argmax_agreement']:.3%}" + _gradient(lost),
        )
    if noise := facts["noise_floor"]:
        said = ", ".join(f"{kl['kl_mean']:.1e} at T = {temperature}" for temperature, kl in noise.items())
        table.add_row("noise floor", f"the teacher in bfloat16 is {said} nats from itself in float32")
    if facts["teacher_accuracy"] is not None:
        table.add_row(
            "on these views",
            f"teacher right {facts['teacher_accuracy']:.2%}, "
            f"mean largest probability {facts['teacher_mean_max_probability']:.3f}",
        )
    console.console().print(table)


def _gradient(lost: dict[str, float]) -> str:
    """Return what is known of the error of gradients; older caches know nothing of it."""
    return f", gradients {lost['gradient_error']:.1e} off" if "gradient_error" in lost else ""
