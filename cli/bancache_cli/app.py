"""The table of commands, and the one place where our errors become lines and exit codes."""

from __future__ import annotations

import json
import sys
import warnings

import typer

from bancache.errors import BancacheError
from bancache_cli import console
from bancache_cli.demo import demo
from bancache_cli.dump import dump
from bancache_cli.evaluate import evaluate
from bancache_cli.generations import generations
from bancache_cli.info import info
from bancache_cli.models import models
from bancache_cli.report import report
from bancache_cli.train_student import train_student
from bancache_cli.train_teacher import train_teacher
from bancache_cli.verify import repair, verify

app = typer.Typer(
    name="bancache",
    help="Run the teacher once, keep its answer to every view, train students from the store.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    demo,
    train_teacher,
    dump,
    train_student,
    generations,
    evaluate,
    info,
    verify,
    repair,
    report,
    models,
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
    # What libraries say to programmers is not what our users asked.
    warnings.filterwarnings("ignore", category=UserWarning)
    try:
        app(args=argv, prog_name="bancache")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BancacheError as error:
        console.complain(str(error), error.hint)
        if "--json" in argv:
            print(json.dumps({"error": str(error), "hint": error.hint, "exit_code": error.exit_code}))  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Who read our output has seen enough, as in `bancache info x.zarr | head -1`.
        sys.stderr.close()
        return 0
    return 0
