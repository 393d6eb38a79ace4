"""`bancache dump` by workers of Dask: processes of its own, and those of a scheduler that is there."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from contracts.calling import Outcome, call, refuse, succeed
from contracts.killing import tree
from contracts.workers import cluster
from distributed import Client, Security
from distributed.comm import CommClosedError
from sources.tiny import Heard

from bancache.cluster import engine, tasks, worker
from bancache.errors import ClusterError
from bancache.report.results import read_records
from bancache.system.ranks import processes_here

# Dask says so on a machine that is busy.
pytestmark = pytest.mark.filterwarnings("ignore:Creating scratch directories:UserWarning")

# Nine views make nine shards; a worker process imports torch for seconds, so few tests start some.
VIEWS = ("--views", "crop1-flip", "--num-views", "9", "--batch-size", "16")


@pytest.fixture(scope="module")
def whole(teacher_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "a.zarr"
    succeed("dump", "--teacher", teacher_path, "--out", out, *VIEWS)
    return tree(out)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tasks._OPEN.of = None
    yield
    for name in ("distributed", "tornado"):
        logging.getLogger(name).setLevel(logging.WARNING)


def dump_args(teacher: Path, out: Path) -> list[str]:
    return ["dump", "--teacher", str(teacher), "--out", str(out), *VIEWS]


class Watcher(threading.Thread):
    """Kills a worker process in mid-dump, after it has looked at what all processes listen on."""

    def __init__(self, out: Path) -> None:
        super().__init__(daemon=True)
        self.out, self.listens, self.killed = out, set[str](), 0

    def run(self) -> None:
        while not any((self.out / ".regions").glob("*.json")):
            time.sleep(0.01)
        me = psutil.Process()
        workers = [
            child for child in me.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())
        ]
        for process in (me, *workers):
            found = process.net_connections(kind="inet")
            self.listens |= {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}
        os.kill(workers[0].pid, signal.SIGKILL)
        self.killed = len(workers)


def test_a_worker_is_killed_and_the_cache_is_that_of_one_process(
    teacher_path: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    watcher = Watcher(tmp_path / "a.zarr")
    watcher.start()
    done: Outcome = call(*dump_args(teacher_path, tmp_path / "a.zarr"), "--workers", "2", "--json")
    watcher.join(60)
    assert done.code == 0, done.err
    assert (watcher.killed, watcher.listens) == (2, {"127.0.0.1"})
    assert tree(tmp_path / "a.zarr") == whole
    assert "http://127.0.0.1:" in done.err
    (line,) = read_records(tmp_path / "results.jsonl")
    assert (line["digest"], line["out"]) == (done.json["digest"], str(tmp_path / "a.zarr"))
    assert not [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with cluster() as found:
        yield found.scheduler_address


def test_a_scheduler_that_is_there_is_used(
    scheduler: str,
    teacher_path: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Paths that were typed relative to the command's folder are the same for workers in another one."""
    monkeypatch.chdir(teacher_path.parent)
    said = succeed(*dump_args(Path(teacher_path.name), tmp_path / "a.zarr"), "--scheduler", scheduler)
    assert said["warnings"] == []
    found = tree(tmp_path / "a.zarr")
    assert {name for name in whole if whole[name] != found.get(name)} <= {"manifest.json", "zarr.json"}
    monkeypatch.chdir(tmp_path)
    again = succeed(*dump_args(teacher_path, tmp_path / "b.zarr"), "--scheduler", scheduler)
    assert tree(tmp_path / "b.zarr") == whole
    assert again["images_per_second"] > 0


def test_certificates_come_from_the_configuration_of_dask(
    teacher_path: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    keys = Security.temporary()
    files = {
        "ca-file": keys.tls_ca_file,
        "client.cert": keys.tls_client_cert,
        "client.key": keys.tls_client_key,
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    mine = {f"distributed.comm.tls.{name}": str(tmp_path / name) for name in files}
    with cluster("tls://", keys) as found:
        argv = (*dump_args(teacher_path, tmp_path / "a.zarr"), "--scheduler", found.scheduler_address)
        assert call(*argv, "-q").code == 1
        with dask.config.set(mine):
            assert succeed(*argv)["warnings"] == []
    assert tree(tmp_path / "a.zarr") == whole


def test_a_scheduler_is_lost_and_the_same_command_goes_on(
    scheduler: str, teacher_path: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out, found = tmp_path / "a.zarr", cluster()

    def lose() -> None:
        while not any((out / ".regions").glob("*.json")):
            time.sleep(0.001)
        found.close()

    thread = threading.Thread(target=lose)
    thread.start()
    refuse(1, "gone", *dump_args(teacher_path, out), "--scheduler", found.scheduler_address, "-q")
    thread.join()
    assert succeed(*dump_args(teacher_path, out), "--scheduler", scheduler)["seconds"] > 0
    assert tree(out) == whole


def test_a_worker_that_is_lost_after_its_answer_loses_nothing(
    scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather = Client._gather

    async def gather_then_lose(self: Client, futures: list[Any], *given: Any, **more: Any) -> Any:
        found = await gather(self, futures, *given, **more)
        for future in futures:
            future._state.lose()
        return found

    monkeypatch.setattr(Client, "_gather", gather_then_lose)
    with engine.remote_engine(scheduler, Heard()) as found:
        assert found.executor.submit(divmod, 7, 2).result(timeout=20) == (3, 1)


def test_a_scheduler_that_is_lost_while_it_answers_is_gone_too(
    scheduler: str, teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(*given: Any, **more: Any) -> None:
        raise CommClosedError("in <TCP local=... remote=...>: Stream is closed")

    monkeypatch.setattr(Client, "_gather", lose)
    refuse(1, "gone", *dump_args(teacher_path, tmp_path / "a.zarr"), "--scheduler", scheduler, "-q")


def test_a_task_that_nobody_wants_any_more_is_taken_back(scheduler: str) -> None:
    with engine.remote_engine(scheduler, Heard()) as found:
        answers = [found.executor.submit(time.sleep, 2) for _ in range(20)]
        client: Any = found.executor
        waiting = client._client.processing
        while not any(waiting().values()):
            time.sleep(0.01)
        for answer in answers:
            answer.cancel()
        until = time.monotonic() + 10
        while any(waiting().values()) and time.monotonic() < until:
            time.sleep(0.01)
        assert not any(waiting().values())


def test_another_scheduler_at_the_same_address_is_not_the_one_that_was_lost() -> None:
    """Dask connects to it, and may never answer for the tasks of the first one."""

    class Client:
        status, found = "running", "one"

        def scheduler_info(self, n_workers: int) -> dict[str, str]:
            return {"id": self.found}

        def nthreads(self) -> dict[str, int]:
            return {"worker": 2}

    client: Any = Client()
    slots = engine._Slots(client, Heard())
    assert slots() == 2
    client.found, slots._looked = "two", 0
    with pytest.raises(ClusterError, match="gone"):
        slots()


def test_a_cache_that_goes_on_keeps_its_batch_size(
    scheduler: str, teacher_path: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Without an option, the batch size and the encoding are those of the cache, and nothing is left to do."""
    out = tmp_path / "a.zarr"
    succeed(*dump_args(teacher_path, out))
    argv = ["dump", "--teacher", str(teacher_path), "--out", str(out), *VIEWS[:4], "--scheduler", scheduler]
    assert succeed(*argv, "--max-kl", "1")["images_per_second"] is None
    assert tree(out) == whole


def test_each_worker_takes_a_seed_of_a_sequence(scheduler: str, npz: Path, tmp_path: Path) -> None:
    argv = ("--data", f"npz:{npz}", "--model", "convnet-4", "--views", "crop1-flip", "--num-views", "2")
    more = ("--generations", "1", "--seeds", "0,1", "--epochs", "1", "--batch-size", "48", "--device", "cpu")
    done = call("generations", *argv, *more, "--out", tmp_path / "x", "--scheduler", scheduler)
    assert done.code == 0, done.err
    assert all(f"seed {seed} is done, on " in done.err for seed in (0, 1))
    assert len(list((tmp_path / "x").rglob("gen*.pt"))) == 4
    runs = [record for record in read_records(tmp_path / "x" / "results.jsonl") if record["kind"] == "run"]
    assert sorted((run["seed"], run["generation"]) for run in runs) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_teacher_that_a_worker_does_not_find_is_one_line(
    scheduler: str, teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bancache_cli.many._findable", lambda asked: _lost(asked, tmp_path / "none.pt"))
    argv = dump_args(teacher_path, tmp_path / "a.zarr")
    refuse(1, ("none.pt", "on "), *argv, "--scheduler", scheduler, "-q", keep=tmp_path)


def _lost(asked: object, path: Path) -> object:
    from dataclasses import replace

    return replace(asked, teacher=replace(asked.teacher, teacher=[str(path)]))  # type: ignore[type-var,attr-defined]


def test_a_scheduler_that_is_not_there_is_said_soon(
    teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine._PATIENCE_SECONDS <= 10
    monkeypatch.setattr(engine, "_PATIENCE_SECONDS", 0.3)
    argv = dump_args(teacher_path, tmp_path / "a.zarr")
    for address in ("tcp://127.0.0.1:1", "nonsense://1", "127.0.0.1"):
        refuse(1, (address, "0.3"), *argv, "--scheduler", address, "-q", hint="dask scheduler", keep=tmp_path)


def test_an_open_scheduler_on_another_host_is_warned_of(
    teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_PATIENCE_SECONDS", 0.3)
    argv = dump_args(teacher_path, tmp_path / "a.zarr")
    for address, warned in (("tcp://192.0.2.1:8786", True), ("tls://192.0.2.1:8786", False)):
        outcome = call(*argv, "--scheduler", address)
        assert outcome.code == 1
        assert ("warning: " in outcome.err) is warned


def test_options_that_cannot_be_together(teacher_path: Path, tmp_path: Path) -> None:
    argv = (*dump_args(teacher_path, tmp_path / "a.zarr"), "-q")
    refuse(2, ("--workers", "--scheduler"), *argv, "--workers", "2", "--scheduler", "a:1", keep=tmp_path)
    refuse(2, ("cuda:1",), *argv, "--workers", "2", "--device", "cuda:1", hint="CUDA_VISIBLE", keep=tmp_path)


def test_the_log_of_dask_is_kept_from_the_terminal() -> None:
    engine._be_quiet()
    for name in ("distributed.client", "distributed.nanny", "distributed.core", "tornado.application"):
        assert not logging.getLogger(name).isEnabledFor(logging.ERROR)


def test_processes_of_this_machine_do_not_watch_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask's profiler and its ticks would take CPU time from the teacher; a user's own settings are as before afterwards."""

    class Begun(Exception):
        pass

    def begin(*given: Any, **more: Any) -> None:
        raise Begun(deepcopy(dask.config.get("distributed")))  # which processes that are started now inherit

    monkeypatch.setattr("distributed.SpecCluster", begin)
    before = dask.config.get("distributed")
    with pytest.raises(Begun) as begun, engine.local_engine(1, gpus=False, progress=Heard()):
        pass
    (config,) = begun.value.args
    assert not config["worker"]["profile"]["enabled"]
    assert config["admin"]["tick"]["interval"] == "1s"
    assert dask.config.get("distributed") == before


def test_workers_keep_freed_memory_as_the_commands_do(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []
    monkeypatch.setattr(worker, "keep_freed_memory", lambda: kept.append("memory"))
    monkeypatch.setattr(signal, "signal", lambda number, action: kept.append(signal.Signals(number).name))
    worker.dask_setup(None)
    assert sorted(kept) == ["SIGINT", "memory"]


def test_without_dask_the_extra_is_named(
    teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    argv = (*dump_args(teacher_path, tmp_path / "a.zarr"), "-q")
    refuse(1, ("Dask",), *argv, "--workers", "2", hint="bancache[cluster]", keep=tmp_path)


def test_each_worker_gets_a_gpu_or_a_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert engine._environment(1, 3, [])["OMP_NUM_THREADS"] == "2"
    assert processes_here(engine._environment(1, 3, [])) == 3
    assert engine._environment(1, 16, [])["OMP_NUM_THREADS"] == "1"
    assert [engine._environment(n, 3, ["4", "7"])["CUDA_VISIBLE_DEVICES"] for n in range(3)] == [
        "4",
        "7",
        "4",
    ]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert engine._environment(0, 3, [])["OMP_NUM_THREADS"] == "5"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, 3")
    assert len(engine._gpus()) == 2


def test_a_study_by_workers_is_that_of_one_process(npz: Path, tmp_path: Path) -> None:
    """The command and workers in processes of their own, one for each seed."""
    (tmp_path / "arms.toml").write_text(
        f'[study]\nseeds = [0, 1]\nviews = "crop1-flip"\nnum_views = 2\n[data]\nsource = "npz:{npz}"\n'
        '[model]\nname = "convnet-2"\n[recipe]\nepochs = 1\nbatch_size = 16\n'
        '[arms.labels]\n[arms.student]\nteacher = "labels"\n'
    )
    argv, found = ("study", tmp_path / "arms.toml", "--device", "cpu", "--out"), []
    for name, workers in (("alone", ()), ("workers", ("--workers", "2"))):
        told = succeed(*argv, tmp_path / name, *workers)
        lines = read_records(tmp_path / name / "results.jsonl")
        weights = {(line["name"], line["seed"]): line["weights"] for line in lines if "name" in line}
        found.append((weights, told["arms"], (tmp_path / name / "arms.toml").read_bytes()))
    assert found[0] == found[1]
    assert len(found[0][0]) == 4
