"""``bancache info``: the contents of a cache."""

from __future__ import annotations

from typing import Any

from bancache.system.fingerprint import short
from bancache_cli import console, options


def info(cache: options.CachePath, as_json: options.Json = False) -> None:
    """Show a cache's contents, its teacher, its size, and how much its encoding loses.

    Example: `bancache info gen0.zarr`
    """
    from bancache.cache.info import describe

    facts = describe(cache)
    if as_json:
        console.show_json(facts)
    else:
        _show(facts)


def _show(facts: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in (*_contents(facts), *_losses(facts)):
        table.add_row(name, text)
    console.console().print(table)


def _contents(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from bancache.views import ViewSpace

    space = ViewSpace.from_dict(facts["view_space"])
    teacher, dataset = facts["teacher"], facts["dataset"]
    every = " (all)" if facts["views"] == space.size else f" of {space.size}"
    per_pair = f", {facts['bytes_per_pair']:.2f} bytes per pair" if facts["bytes_per_pair"] else ""
    done = f"{facts['shards_done']} of {facts['shards']} shards"
    weights, made_with = short(teacher["fingerprint"]), facts["created_with"]["bancache"]
    return [
        ("cache", facts["path"]),
        ("complete", "yes" if facts["complete"] else f"no: {done}"),
        (
            "contents",
            f"{facts['views']} views{every} of {facts['samples']:,} images, {facts['classes']} classes",
        ),
        ("size", f"{console.bytes_text(facts['bytes'])}{per_pair}, encoding {facts['encoding']['name']}"),
        (
            "teacher",
            f"{teacher['architecture']['name']}, generation {teacher['generation']}, weights {weights}",
        ),
        ("data set", f"{dataset['spec']['source']}, {short(dataset['fingerprint'])}"),
        ("views", f"{space.name}, seed {space.seed}"),
        ("format", f"{facts['format_version']}, profile {facts['profile']}, made with bancache {made_with}"),
    ]


def _losses(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for temperature, lost in (facts["fidelity"] or {}).items():
        # Older caches have no error of the gradient.
        gradient = f", gradient error {lost['gradient_error']:.1e}" if "gradient_error" in lost else ""
        text = (
            f"mean {lost['kl_mean']:.1e}, 99.9 % below {lost['kl_p999']:.1e}, max {lost['kl_max']:.1e} nats; "
            f"same argmax {lost['argmax_agreement']:.3%}{gradient}"
        )
        rows.append((f"KL at T = {temperature}", text))
    if noise := facts["noise_floor"]:
        shown = ", ".join(f"{kl['kl_mean']:.1e} at T = {temperature}" for temperature, kl in noise.items())
        rows.append(("noise floor", f"KL of the teacher in bfloat16 to itself in float32: {shown} nats"))
    if facts["teacher_accuracy"] is not None:
        confidence = facts["teacher_mean_max_probability"]
        rows.append(
            (
                "on these views",
                f"teacher accuracy {facts['teacher_accuracy']:.2%}, mean largest probability {confidence:.3f}",
            )
        )
    return rows
