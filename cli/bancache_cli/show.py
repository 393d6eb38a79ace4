"""``bancache info``, ``evaluate``, ``models`` and ``report``: what caches, checkpoints and runs contain."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from rich.text import Text
from typer import Argument, Option

from bancache.models.names import is_third_party
from bancache.system.fingerprint import short
from bancache.system.wording import count
from bancache_cli import console, options, packs
from bancache_cli.study import show_arms
from bancache_cli.teacher_files import check_files
from bancache_cli.teacher_input import InputOptions, accuracy_text, input_text

_SCORES = ("accuracy", "error", "nll", "ece")


def info(cache: options.CacheOrPack, output: options.OutputOptions) -> None:
    """Show a cache's contents, its teacher, its size, and how much its encoding loses; or what a pack holds.

    A cache or a pack in an object store is named by its address; only a manifest or a header is fetched. The name of a pack ends
    in .pack there.

    Example: `bancache info gen0.zarr`
    """
    if packs.is_pack(cache):
        packs.info(cache, output)
        return
    from bancache.cache.info import accuracy_warning, describe

    facts = describe(cache)
    if facts["teacher_accuracy"] is not None:
        own = facts["teacher"].get("accuracy")
        if warning := accuracy_warning(facts["teacher_accuracy"], facts["chance"], own, facts["view_space"]):
            output.reporter().warn(warning)
    if output.as_json:
        output.show_json(facts)
        return
    rows = [(Text(name, style="bold"), text) for name, text in (*_contents(facts), *_losses(facts))]
    console.show_table(("", ""), rows, left=2, show_header=False, box=None, pad_edge=False)


def _contents(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from bancache.cache.info import model_name
    from bancache.views import ViewSpace

    space = ViewSpace.from_dict(facts["view_space"])
    teacher, dataset = facts["teacher"], facts["dataset"]
    views = count(facts["views"], "view")
    if not space.is_endless:
        all_views = facts["views"] == space.size
        views = f"{views} (all)" if all_views else f"{facts['views']:,} of {count(space.size, 'view')}"
    images = f"{count(facts['samples'], 'image')}, {count(facts['classes'], 'class')}"
    per_pair = f", {facts['bytes_per_pair']:.2f} bytes per pair" if facts["bytes_per_pair"] else ""
    done = f"{facts['shards_done']} of {count(facts['shards'], 'shard')}"
    model = f"{model_name(teacher)}, generation {teacher['generation']}"
    made_with = facts["created_with"].get("bancache", "of another version")
    size = facts["teacher_size"]
    given = [f"{size[0]}x{size[1]} pixels"] if size else []
    alone = "members" not in teacher
    given += [input_text(teacher["input"])] if teacher.get("input") and alone else []
    return [
        ("cache", facts["path"]),
        ("complete", "yes" if facts["complete"] else f"no: {done}"),
        ("contents", f"{views} of {images}"),
        ("size", f"{console.bytes_text(facts['bytes'])}{per_pair}, encoding {facts['encoding']['name']}"),
        ("teacher", f"{model}, weights {short(teacher['fingerprint'])}"),
        *_members(teacher),
        *([("teacher's input", ", ".join(given))] if given else []),
        ("data set", f"{dataset['spec']['source']}, {short(dataset['fingerprint'])}"),
        *([("devices", _devices(facts))] if facts["mixed_devices"] else []),
        ("views", f"{space.name}, seed {space.seed}"),
        ("format", f"{facts['format_version']}, profile {facts['profile']}, made with bancache {made_with}"),
    ]


def _members(teacher: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a row for each teacher of an ensemble."""
    rows: list[tuple[str, str]] = []
    for each in teacher.get("members", ()):
        title = "and of" if rows else f"mean {teacher['combine']} of"
        model = f"{each['architecture']['name']}, weights {short(each['fingerprint'])}"
        size = "{}x{}, ".format(*each["size"]) if "size" in each else ""
        rows.append((title, f"{each['path']}: {model}, {size}{input_text(each['input'])}"))
    return rows


def _devices(facts: dict[str, Any]) -> str:
    kinds = (facts["compute"], *facts["mixed_devices"])
    return f"mixed: {', '.join(kind['device'] for kind in kinds)}; their last bits differ"


def _losses(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for temperature, lost in (facts["fidelity"] or {}).items():
        # Older caches have no error of the gradient.
        gradient = (
            f", gradient error {lost['gradient_error']:.1e}" if lost.get("gradient_error") is not None else ""
        )
        text = (
            f"mean {lost['kl_mean']:.1e}, 99.9 % below {lost['kl_p999']:.1e}, max {lost['kl_max']:.1e} nats; "
            f"same argmax {lost['argmax_agreement']:.3%}{gradient}"
        )
        rows.append((f"KL at T = {temperature}", text))
    if noise := facts["noise_floor"]:
        shown = ", ".join(f"{kl['kl_mean']:.1e} at T = {temperature}" for temperature, kl in noise.items())
        rows.append(("noise floor", f"KL of the teacher in bfloat16 to itself in float32: {shown} nats"))
    if None not in (facts["teacher_accuracy"], facts["teacher_mean_max_probability"]):
        rows.append(("on these views", accuracy_text(facts)))
    return rows


def evaluate(
    *,
    checkpoints: Annotated[
        list[str], Argument(help="Checkpoints, torchvision:NAME, timm:NAME, module:function or FILE.pt2.")
    ],
    weights: Annotated[
        Path | None,
        Option(help="File with weights, for a model of torchvision or timm; FILE:NAME for one set in it."),
    ] = None,
    given: InputOptions,
    data: options.RecordedDataOptions,
    device: options.Device = "auto",
    output: options.OutputOptions,
) -> None:
    """Evaluate each model and their ensemble, the mean of their probabilities (the paper's eq. 4).

    Models that are no checkpoints of bancache need `--data`.

    Example: `bancache evaluate gen1.pt gen2.pt gen3.pt`
    """
    from bancache.sources import parse_source

    if data.data is not None:
        parse_source(data.data)
    for name in checkpoints:
        check_files(name, weights if is_third_party(name) else None)
    from bancache.evaluation import evaluate as evaluate_checkpoints

    scores = evaluate_checkpoints(
        checkpoints,
        data=data.data,
        weights=weights,
        **given.parsed(),
        device=device,
        download=data.download,
        progress=output.reporter(),
    )
    together, *each = ({name: getattr(s, name) for name in _SCORES} for s in (scores, *scores.members))
    members = [{"path": path, **figures} for path, figures in zip(checkpoints, each, strict=True)]
    if output.as_json:
        output.show_json(
            {"members": members, "ensemble": together, "samples": scores.samples, "chance": scores.chance}
        )
        return
    rows = [*members, {"path": f"ensemble of {len(members)}", **together}] if len(members) > 1 else members
    cells = [
        (r["path"], f"{r['accuracy']:.2%}", f"{r['error']:.2%}", f"{r['nll']:.4f}", f"{r['ece']:.4f}")
        for r in rows
    ]
    titles = ("model", "accuracy", "error", "NLL", "ECE")
    console.show_table(
        titles, cells, title=f"{count(scores.samples, 'test image')}, chance {scores.chance:.2%}"
    )


def models(output: options.OutputOptions) -> None:
    """List every model of the paper's tables with its parameters in millions, beside the paper's number.

    Into a file or a pipe, one line per model with all columns, separated by tabs.
    Other sizes of the families work too: wrn-D-K, densenet-bc-D-G, preresnet-D, resnet-D, convnet-W, match-…;
    and torchvision:NAME, timm:NAME.

    Example: `bancache models --json`
    """
    from bancache.models.catalog import catalog

    rows = [asdict(row) for row in catalog()]
    if output.as_json:
        output.show_json({"models": rows})
    elif not sys.stdout.isatty():
        console.say(*rows[0])
        for row in rows:
            console.say(*map(str, row.values()))
    else:
        cells = [
            (r["name"], f"{r['parameters'] / 1e6:.2f}", f"{r['paper_millions']:g}", f"{r['gflop']:.2f}")
            for r in rows
        ]
        console.show_table(("name", "M", "paper", "GFLOP"), cells, box=None, pad_edge=False)
        for row in rows:
            if row["note"]:
                console.console().print(f"{row['name']}: {row['note']}")


def report(
    results: Annotated[
        list[Path],
        Argument(
            help="A folder of `bancache generations` or `study`, or its results.jsonl; several with seeds of one study."
        ),
    ],
    out: options.Out = None,
    *,
    output: options.OutputOptions,
) -> None:
    """Write one self-contained HTML page: table, curves, calibration, caches, lineage.

    Several folders hold different seeds of one study, and give one page. For a study from a file, the page shows every
    arm against the baseline; the table is printed and written beside the page, too.

    Example: `bancache report runs/x --out page.html`
    """
    from bancache.report import read_results, write_report

    folder = results[0] if results[0].is_dir() else results[0].parent
    page = out or (folder / "page.html" if len(results) == 1 else Path("page.html"))
    if read_results(results).arms is not None:
        show_arms(results, page, output)
        return
    output.show({"out": str(write_report(results, page))}, f"page: {page}")
