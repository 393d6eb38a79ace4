"""The table of commands; errors become a line on stderr and an exit code here."""

from __future__ import annotations

import difflib
import errno
import functools
import io
import itertools
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from bancache.errors import BancacheError, StoppedError, UsageError, is_out_of_memory
from bancache.system.allocator import keep_freed_memory
from bancache_cli import console
from bancache_cli.dump import dump
from bancache_cli.generations import demo, generations
from bancache_cli.groups import OnceEach, expand_groups
from bancache_cli.maintain import extend, merge, prune, repair, verify
from bancache_cli.measure import bench, plan
from bancache_cli.packs import pack
from bancache_cli.remote import pull, push
from bancache_cli.show import evaluate, info, models, report
from bancache_cli.study import study
from bancache_cli.train import train_student, train_teacher
from bancache_cli.view import view

app = typer.Typer(
    name="bancache",
    help="Run a teacher once over every augmented view, store its soft targets, train students from the store.",
    epilog="Begin with `bancache demo`. `bancache COMMAND --help` shows a command's options and an example.",
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Options of the previous version, which are refused with what to use instead.
_RENAMED = {"--share-ends": "--share-layers", "--residence": "--placement", "--entries": "--num-pairs"}
_REMOVED = {
    "--jobs": "run the same command in several shells, each with other --seeds; they may share --out",
    "--copy-to": "write to the address itself, by --out s3://…, and `bancache pull` the cache when it is done",
}
_COMMANDS = {
    "Train": (demo, train_teacher, dump, train_student, generations, study),
    "Inspect": (plan, evaluate, info, view, report, models, bench),
    "Maintain and copy": (pack, verify, repair, extend, merge, prune, push, pull),
}
# The option that may be given by its place, as `info` takes its cache.
_BY_PLACE = {
    pack: "data",
    dump: "teacher",
    plan: "teacher",
    train_student: "cache",
    bench: "cache",
    view: "cache",
}
for _panel, _commands in _COMMANDS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel, cls=OnceEach)(expand_groups(_command, _BY_PLACE.get(_command)))
_NAMES = [command.__name__.replace("_", "-") for commands in _COMMANDS.values() for command in commands]
_BEFORE = ("-q", "--quiet", "--json")  # options of the commands that may come before their name


def _version(wanted: bool) -> None:
    if wanted:
        import bancache

        typer.echo(bancache.__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(
        False, "--version", "-V", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


@functools.cache
def _built() -> Callable[..., Any]:
    """Return the commands as typer builds them, for all calls of this process: building takes longer than a refusal."""
    return typer.main.get_command(app)


def run(argv: list[str]) -> int:
    """Run a command line and return its exit code; any exception that leaves is a bug."""
    if sys.stdout is None:  # closed by who started this
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file name that is not UTF-8 keeps its bytes
    # Warnings of libraries are for programmers.
    warnings.filterwarnings("ignore", category=UserWarning)
    # Sizes are compared with free memory.
    warnings.filterwarnings("ignore", ".*decompression bomb", RuntimeWarning)
    keep_freed_memory()
    before = list(itertools.takewhile(_BEFORE.__contains__, argv))
    argv = argv[len(before) :]
    if argv[:1] == ["help"] or not argv:
        argv = [*argv[1:], "--help"]
    else:
        argv[1:1] = before
    try:
        _refuse_old_options(argv)
        _refuse_unknown_command(argv)
        code = _built()(args=argv, prog_name="bancache", standalone_mode=False)
    except SystemExit as leaving:  # raised by the options that install or show the shell's completion
        return leaving.code if isinstance(leaving.code, int) else 1
    except (BancacheError, typer.TyperException, MemoryError, RuntimeError, OSError, ImportError) as error:
        return _fail(error, argv)
    return code if isinstance(code, int) else 0


def _refuse_old_options(argv: list[str]) -> None:
    """Raise ``UsageError`` for an option of the previous version; the hint says what to use instead."""
    for word in argv:
        name = word.partition("=")[0]
        if name == "--":
            return
        if name in _RENAMED:
            raise UsageError(f"{name} has a new name", hint=f"use {_RENAMED[name]}")
        if name in _REMOVED:
            raise UsageError(f"{name} was removed", hint=_REMOVED[name])


def _refuse_unknown_command(argv: list[str]) -> None:
    """Raise ``UsageError`` for a word that is no command; the hint names those that begin with it or are near."""
    name = next(iter(argv), "--help")
    if name.startswith("-") or name in _NAMES:
        return
    near = [each for each in _NAMES if each.startswith(name)] or difflib.get_close_matches(name, _NAMES)
    hint = f"did you mean {' or '.join(near)}?" if near else "run `bancache --help`"
    raise UsageError(f"no command is called '{name}'", hint=hint)


def _fail(error: Exception, argv: list[str]) -> int:
    what, hint, exit_code = _describe(error)
    if os.environ.get("BANCACHE_TRACEBACK"):
        traceback.print_exception(error)
    stopped = isinstance(error, StoppedError)  # not a failure: one line says how far the work is
    if stopped:
        if "--overwrite" in argv:  # which would begin anew
            hint = hint.replace("same command to go on", "same command without --overwrite to go on")
        what, hint = f"{what}; {hint}", ""
    console.show_error(what, hint, title="" if stopped else "error:")
    if "--json" in argv:
        console.show_json({"error": what, "hint": hint, "exit_code": exit_code})
    return exit_code


def _describe(error: Exception) -> tuple[str, str, int]:
    """Return what happened, what to do, and the exit code; raise the error again if it is a bug."""
    if isinstance(error, BancacheError):
        return str(error), error.hint, error.exit_code
    if isinstance(error, typer.TyperException):
        what = error.format_message().rstrip(".")
        command = getattr(getattr(error, "ctx", None), "command_path", "bancache")
        return what[:1].lower() + what[1:], f"run `{command} --help`", error.exit_code
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        name = str(error.filename or "")
        return f"file name too long: {name}", "choose a shorter --out", UsageError.exit_code
    # An OSError, or the ImportError of a library that could not be opened.
    if "Too many open files" in str(error):
        return "too many open files", "allow more: ulimit -n 1024", BancacheError.exit_code
    if "does not have a deterministic implementation" in str(error):
        operation = str(error).split()[0]
        what = f"torch's {operation} cannot repeat its bits"
        return what, "leave out --deterministic", UsageError.exit_code
    if not is_out_of_memory(error):
        raise error
    hint = "use a smaller --batch-size, fewer images (--limit), or a machine with more memory"
    return "out of memory", hint, BancacheError.exit_code
