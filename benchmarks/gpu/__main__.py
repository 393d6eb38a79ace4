"""How fast is bancache on this GPU? ``python -m benchmarks.gpu --minutes 4 --out FOLDER``. Everything, the most important first; time that is left goes into more rounds.

Each row is printed and appended to FOLDER/gpu.jsonl as soon as it is known, so whoever stops this loses nothing. A later row
of the same part and variant has more rounds. The environment variable TORCHINDUCTOR_CACHE_DIR names a folder in which
compiled code outlives this run; BANCACHE_COMMIT or a file COMMIT names the commit of a checkout without git.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.gpu.session import Session

# The share of the budget that tests and compiling may take together, and the tests alone.
AHEAD, TESTS = 0.3, 0.28


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    began = time.monotonic()  # before torch is imported, which takes seconds
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=4.0, help="when to be done, whatever is not measured then"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu (a rehearsal), cuda or cuda:1")
    parser.add_argument("--quick", action="store_true", help="a minute; figures mean nothing")
    parser.add_argument("--out", type=Path, help="append JSON lines to gpu.jsonl in this folder")
    asked = parser.parse_args(argv)

    from bancache.system.device import choose_device
    from benchmarks.gpu.session import OutOfTime, Session

    session = Session(choose_device(asked.device), asked.quick, asked.out, began + 60 * asked.minutes)
    if not session.cuda:
        print("no CUDA device: nothing is captured or compiled, the nets are small, and figures mean nothing")
    over = "everything measured"
    try:
        with session.ends_in_time(), tempfile.TemporaryDirectory() as folder:
            prepare(session, 60 if asked.quick else 60 * asked.minutes, asked.out or Path(folder))
            measure(session)
    except OutOfTime:
        over = "time is up"
    session.add({"part": "end", "why": over, "seconds": time.monotonic() - began})


def prepare(session: Session, seconds: float, folder: Path) -> None:
    """Run the tests and, beside them, compile; nothing is timed meanwhile."""
    from benchmarks.gpu import correctness, steps

    began, compiling = time.monotonic(), steps.compile_ahead(session, folder)
    try:
        session.add({"part": "tests", **correctness.run(TESTS * seconds, folder)})
        for name, (process, log) in compiling.items():
            about = {"part": "compiling", "net": name}
            end: int | str = "not done"
            with contextlib.suppress(subprocess.TimeoutExpired):
                end = process.wait(max(0.1, began + AHEAD * seconds - time.monotonic()))
            for line in log.read_text().splitlines():
                if line.startswith("{"):
                    session.add({**about, **json.loads(line)})
            if end != 0:
                session.add(
                    {**about, "failed": f"{end} after {time.monotonic() - began:.0f} s, see {log.name}"}
                )
    finally:
        for process, _ in compiling.values():
            process.kill()
            process.wait()


def measure(session: Session) -> None:
    """Measure each part once, what has aims before what is only compared, then again for as long as there is time."""
    from benchmarks.gpu import dumps, kernels, steps, together

    dumped, students, small = dumps.tasks(session), together.tasks(session), kernels.tasks(session)
    with_aim, without = ([task for task in small if ("aim" in task.about) == aim] for aim in (True, False))
    first = [*dumped[:2], *steps.from_cache(session), *with_aim, *students[:1], *dumped[2:3]]
    for task in [*first, *steps.beside_others(session), *without, *students[1:], *dumped[3:]]:
        session.measure(task)
    session.use_what_is_left()


if __name__ == "__main__":
    main()
