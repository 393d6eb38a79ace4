"""``bancache pack``; and what ``info``, ``verify`` and ``repair`` do with a pack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.text import Text
from typer import Exit, Option

from bancache.errors import DataError, UsageError
from bancache.system.address import Address
from bancache.system.fingerprint import short
from bancache.system.wording import command, count
from bancache_cli import console, early, options

if TYPE_CHECKING:
    from bancache.sources.pack import Pack
    from bancache.sources.pack_source import Shape


def pack(
    *,
    data: Annotated[
        str, Option(metavar="SOURCE", help="The pictures: folder:PATH, parquet:PATH, or any other source.")
    ],
    out: Annotated[Path, Option(help="The file to write.")],
    kind: Annotated[
        Literal["encoded", "pixels"] | None,
        Option(help="Keep the encoded pictures, or pixels (default: encoded; pixels with --size)."),
    ] = None,
    size: Annotated[
        int | None,
        Option(
            metavar="N", help="Bring the shorter side of each picture to N pixels, once.", min=1, max=4096
        ),
    ] = None,
    square: Annotated[bool, Option("--square", help="With --size: keep the center square.")] = False,
    skip_bad: options.SkipBad = False,
    download: options.Download = False,
    threads: Annotated[
        int | None,
        Option(metavar="N", help="Threads that decode (default: one for each core).", min=1, max=256),
    ] = None,
    overwrite: options.Overwrite = False,
    output: options.OutputOptions,
) -> None:
    """Write the pictures of both splits into one file, which needs no memory for all of them: `--data pack:FILE`.

    Each picture is decoded and checked once; opening the pack decodes and hashes nothing. A cache made from the source opens
    with an encoded pack of it. Killed at any instant, the same command goes on.

    Example: `bancache pack folder:photos --out train.pack`
    """
    shape = _shape(data, kind, size, square)
    early.require_file(out)
    from bancache.sources.pack_writer import pack as write
    from bancache.system.signals import interruptible

    with interruptible() as interrupt:
        done = write(
            data,
            out,
            shape,
            skip_bad=skip_bad,
            overwrite=overwrite,
            threads=threads,
            download=download,
            progress=output.reporter(),
            interrupt=interrupt,
        )
    facts = describe(out, done.pack)
    state = "" if done.made else ", complete before"
    output.show(
        {**facts, "made": done.made, "left_out": done.left_out},
        f"{out}: {_contents(facts)}, {console.bytes_text(facts['bytes'])}{state}",
    )


def _shape(data: str, kind: Literal["encoded", "pixels"] | None, size: int | None, square: bool) -> Shape:
    """Return what becomes of pictures; UsageError for options that contradict each other."""
    from bancache.sources import parse_source

    source, path = parse_source(data)
    if size is not None and kind == "encoded":
        raise UsageError("encoded pictures keep their sizes", hint="leave out --size, or use --kind pixels")
    if square and size is None:
        raise UsageError("--square needs a size", hint="for example --size 224 --square")
    if kind is None:
        from bancache.sources.pack_source import has_encoded

        kind = "encoded" if size is None and has_encoded(source, path) else "pixels"
    from bancache.sources.pack_source import Shape

    if size is None:
        return Shape(kind)
    from bancache.views.shrink import shrink

    return Shape(kind, size, square, shrink)


def describe(path: Path, pack: Pack) -> dict[str, Any]:
    """Return what a pack holds, as JSON values."""
    header = pack.header
    splits = {
        split: {"samples": about.samples, "channels": about.channels, "fingerprint": about.fingerprint}
        for split, about in (("train", header.splits.train), ("test", header.splits.test))
    }
    return {
        "pack": str(path),
        "kind": header.kind,
        "size": header.size,
        "square": header.square,
        "source": header.source,
        "classes": len(header.classes),
        "bytes": pack.file.size(),
        **splits,
    }


def _contents(facts: dict[str, Any]) -> str:
    images = f"{count(facts['train']['samples'], 'training image')}, {count(facts['test']['samples'], 'test image')}"
    return f"{images} of {count(facts['classes'], 'class')}, {facts['kind']}"


def is_pack(path: Path) -> bool:
    """Return whether a path is meant as a pack: a file, by its name or its first bytes, or a name that ends in .pack."""
    if isinstance(path, Address):
        return path.suffix == ".pack"
    if not path.is_file():
        return path.suffix == ".pack" and not path.exists()
    from bancache.sources.pack import has_magic

    return path.suffix == ".pack" or has_magic(path)


def info(path: Path, output: options.OutputOptions) -> None:
    """Show what a pack holds."""
    from bancache.sources.pack import open_file

    facts = describe(path, open_file(path))
    if output.as_json:
        output.show_json(facts)
        return
    sides = "as they were" if facts["size"] is None else f"shorter side {facts['size']} pixels"
    rows = [
        ("pack", str(path)),
        ("contents", _contents(facts)),
        ("size", console.bytes_text(facts["bytes"])),
        ("pictures", f"{sides}, square" if facts["square"] else sides),
        ("made from", facts["source"]),
        (
            "data set",
            f"train {short(facts['train']['fingerprint'])}, test {short(facts['test']['fingerprint'])}",
        ),
    ]
    cells = [(Text(name, style="bold"), text) for name, text in rows]
    console.show_table(("", ""), cells, left=2, show_header=False, box=None, pad_edge=False)


def verify(path: Path, deep: bool, teacher: list[str] | None, output: options.OutputOptions) -> None:
    """Check every picture of a pack, and list all damage; exit code 1 if there is any."""
    if teacher:
        raise UsageError(f"{path} is a pack, no teacher made it", hint="leave out --teacher")
    from bancache.sources.pack import open_file
    from bancache.sources.pack_check import verify_pack

    found = verify_pack(open_file(path), deep=deep, progress=output.reporter())
    if output.as_json:
        findings = [{"split": f.split, "sample": f.sample, "problem": f.problem} for f in found]
        output.show_json({"path": str(path), "intact": not found, "findings": findings})
        if found:
            raise Exit(DataError.exit_code)
        return
    for each in found:
        console.say(each.problem)
    if found:
        raise DataError(
            f"{path}: {count(len(found), 'damaged picture')}",
            hint=f"mend them with {command('repair', path)}",
        )
    console.say(f"{path}: intact")


def repair(path: Path, teacher: list[str] | None, data: str | None, output: options.OutputOptions) -> None:
    """Read the damaged pictures of a pack again from the source."""
    if teacher:
        raise UsageError(
            f"{path} is a pack, no teacher made it", hint="name where the pictures are with --data"
        )
    from bancache.sources.pack import open_file
    from bancache.sources.pack_repair import repair_pack

    opened = open_file(path)  # before torch is loaded
    from bancache.views.shrink import shrink

    mended = repair_pack(opened, data, shrink, progress=output.reporter())
    output.show(
        {"path": str(path), "pictures": mended},
        f"{path}: {count(mended, 'damaged picture')} written anew; intact now",
    )
