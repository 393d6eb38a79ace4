"""The table of commands, and the one place where our errors become lines and exit codes."""

from __future__ import annotations

import io
import sys
import warnings

import typer

from bancache.errors import BancacheError, StoppedError, UsageError, is_out_of_memory
from bancache_cli import console
from bancache_cli.bench import bench
from bancache_cli.demo import demo
from bancache_cli.dump import dump
from bancache_cli.evaluate import evaluate
from bancache_cli.generations import generations
from bancache_cli.grow import extend, merge, prune
from bancache_cli.info import info
from bancache_cli.models import models
from bancache_cli.plan import plan
from bancache_cli.remote import pull, push
from bancache_cli.report import report
from bancache_cli.train_student import train_student
from bancache_cli.train_teacher import train_teacher
from bancache_cli.verify import repair, verify

app = typer.Typer(
    name="bancache",
    help="Run the teacher once, keep its answer to every view, train students from the store.",
    epilog="Begin with `bancache demo`. Each command's `--help` has an example.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    demo,
    train_teacher,
    plan,
    dump,
    train_student,
    generations,
    evaluate,
    info,
    verify,
    repair,
    extend,
    merge,
    prune,
    push,
    pull,
    report,
    models,
    bench,
):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        import bancache

        typer.echo(bancache.__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


def run(argv: list[str]) -> int:
    """Run a command line and return its exit code; only a bug leaves by an exception."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name goes out as the bytes that it is
    # What libraries say to programmers is not what our users asked.
    warnings.filterwarnings("ignore", category=UserWarning)
    try:
        code = app(args=argv or ["--help"], prog_name="bancache", standalone_mode=False, obj=argv)
    except SystemExit as leaving:  # of the options that install or show the shell's completion
        return leaving.code if isinstance(leaving.code, int) else 1
    except StoppedError as stopped:  # nothing failed: one line says what was done and how to go on
        return _fail(f"{stopped}; {stopped.hint}", "", stopped.exit_code, as_json="--json" in argv, title="")
    except BancacheError as error:
        return _fail(str(error), error.hint, error.exit_code, as_json="--json" in argv)
    except typer.TyperException as error:
        what = error.format_message().rstrip(".")
        command = getattr(getattr(error, "ctx", None), "command_path", "bancache")
        hint = f"`{command} --help` says what it takes"
        return _fail(what[:1].lower() + what[1:], hint, error.exit_code, as_json="--json" in argv)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "give a smaller --batch-size, fewer images (--limit), or a machine with more"
        return _fail("out of memory", hint, BancacheError.exit_code, as_json="--json" in argv)
    if not argv:
        return UsageError.exit_code
    return code if isinstance(code, int) else 0


def _fail(what: str, hint: str, exit_code: int, *, as_json: bool, title: str = "error:") -> int:
    console.complain(what, hint, title=title)
    if as_json:
        console.show_json({"error": what, "hint": hint, "exit_code": exit_code})
    return exit_code
