"""The server of ``killing``: reads commands, runs each in a child, reports exit codes and outputs."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Serve until the input ends."""
    # Modules that commands import late are imported here once, for all children.
    for name in (
        "torch._dynamo",
        "zarr.codecs",
        "bancache.evaluation.predict",
        "bancache.study.generations",
        "bancache.sources.npz",
        "bancache.sources.pack_writer",
        "bancache_cli.app",
    ):
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    load_the_rest()
    send({"ready": True})
    for line in sys.stdin:
        requests = json.loads(line)
        outputs = [tempfile.TemporaryFile() for _ in requests]  # noqa: SIM115 (closed below)
        pids = []
        for request, output in zip(requests, outputs, strict=True):
            pid = os.fork()
            if pid == 0:
                child(request, output.fileno())
            pids.append(pid)
        send({"pids": pids})
        ends: dict[int, int] = {}
        while len(ends) < len(pids):
            pid, status = os.wait()
            ends[pid] = os.waitstatus_to_exitcode(status)
        said = []
        for output in outputs:
            output.seek(0)
            said.append(output.read().decode())
            output.close()
        send({"codes": [ends[pid] for pid in pids], "outputs": said})


def load_the_rest() -> None:
    """Run commands that fail after their late imports, then freeze the garbage collector to save copies of pages.

    Nothing may start a thread here: a forked child does not have it.
    """
    run = importlib.import_module("bancache_cli.app").run
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for command in (["dump", "--teacher", "nowhere"], ["train-student", "--cache", "nowhere"]):
            run(command)
    gc.collect()
    gc.freeze()


def child(request: dict[str, Any], output: int) -> None:
    """Run one command and exit at once, without any clean-up."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(request["environment"])
    for name, value in request["attributes"].items():
        module, _, attribute = name.rpartition(".")
        setattr(importlib.import_module(module), attribute, value)
    if request["kill_at_call"] is not None:
        die_at_call(request["kill_at_call"])
    if request["megabytes"] is not None:
        limit_memory(request["megabytes"])
    module, _, function = request["entry"].rpartition(".")
    code = 70
    try:
        code = getattr(importlib.import_module(module), function)(request["argv"]) or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def die_at_call(number: int) -> None:
    """Arrange for SIGKILL just before the n-th fsync, link, rename or unlink of this process."""
    calls = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in ("fsync", "link", "rename", "replace", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))


def limit_memory(megabytes: int) -> None:
    """Limit how much more address space this process may take."""
    with open("/proc/self/statm", encoding="ascii") as sizes:  # noqa: PTH123 (a file of the kernel's)
        taken = int(sizes.read().split()[0]) * resource.getpagesize()
    limit = taken + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def send(value: dict[str, Any]) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
