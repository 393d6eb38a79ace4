"""Processes that train one model together leave one model, whichever of them is killed, stopped or started wrongly."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from contracts.killing import Forker, epoch_log
from contracts.ranks import NEAR, free_port, reached, together
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from bancache.cache.reader import open_cache
from bancache.loader import LoaderOptions
from bancache.loader.open import cached_loader
from bancache.models.checkpoint import load_checkpoint, load_tensors
from bancache.philox import derive_seed
from bancache.report.results import read_records
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system import configs
from bancache.system.locks import exclusive_file
from bancache.system.ranks import Rank, training_rank_from_env
from bancache.training import Recipe, TrainerOptions, run_for_cache
from bancache.training.build import make_model, make_optimizer
from bancache.training.distributed import ProcessGroup, stale_peers
from bancache.training.step import objective

SIGKILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, forker: Forker, teacher_path: Path) -> Path:
    out = tmp_path_factory.mktemp("taught") / "gen0.zarr"
    code, output = forker.run(["dump", "--teacher", str(teacher_path), "--out", str(out), "--num-views", "3"])
    assert code == 0, output
    return out


def train_args(cache: Path, out: Path, *extra: str) -> list[str]:
    epochs = [] if "--epochs" in extra else ["--epochs", "3"]
    return ["train-student", "--cache", str(cache), "--out", str(out), *epochs, *extra]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, forker: Forker, cache: Path) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "gen1.pt"
    (first, said), second = together(forker, *[train_args(cache, out)] * 2)
    assert (first, second) == (0, (0, "")), (said, second)
    assert said.count("gen1.pt: convnet-4, generation 1") == 1
    return out


def test_they_leave_one_model_one_log_and_one_line(undisturbed: Path, forker: Forker, cache: Path) -> None:
    checkpoint = load_checkpoint(undisturbed)
    assert checkpoint.header["ranks"] == 2
    assert [record["ranks"] for record in read_records(undisturbed.with_name("results.jsonl"))] == [2]
    assert epoch_log(undisturbed) == checkpoint.header["history"]
    names = ["gen1.pt", "gen1.pt.jsonl", "results.jsonl"]
    assert sorted(file.name for file in undisturbed.parent.iterdir()) == names
    again = together(forker, *[train_args(cache, undisturbed)] * 2)
    assert [code for code, _ in again] == [0, 0]
    assert "was complete already" in again[0][1]
    assert again[1][1] == ""


def test_their_steps_are_those_of_the_mean_of_their_gradients(
    undisturbed: Path, cache: Path, spec: DataSpec, data: ImageSet
) -> None:
    """One process computes the shares of both ranks, without torch.distributed."""
    trained = load_checkpoint(undisturbed)
    opened = open_cache(cache)
    recipe = configs.from_dict(Recipe, trained.header["recipe"], what="recipe")
    run = run_for_cache(trained.header["architecture"], recipe, 1, spec, data, opened)
    model = make_model(run, TrainerOptions(undisturbed, torch.device("cpu"), overwrite=True))
    optimizer = make_optimizer(model, recipe)
    loaders = [
        cached_loader(
            opened,
            data,
            LoaderOptions(recipe.batch_size, derive_seed(run.seed, "order"), rank=Rank(rank, 2)),
        )
        for rank in range(2)
    ]
    steps, losses = loaders[0].steps, []
    for epoch in range(recipe.epochs):
        total = 0.0
        for step, shares in enumerate(zip(*(loader.epoch(epoch) for loader in loaders), strict=True)):
            optimizer.zero_grad()
            for share in shares:
                loss = objective(run, model(share.images), share, torch.tensor(epoch))
                (loss / 2).backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach()) / 2
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate(epoch * steps + step, recipe.epochs * steps)
            optimizer.step()
        losses.append(total / steps)
    assert losses == pytest.approx([entry["loss"] for entry in trained.header["history"]], rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(trained.state[name], parameter.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("killed", "extra"), [(0, ()), (1, ()), (1, ("--model", "wrn-10-1", "--dropout", "0.3"))]
)
def test_whichever_is_killed_the_same_command_ends_with_the_same_weights(
    tmp_path: Path, forker: Forker, cache: Path, undisturbed: Path, killed: int, extra: tuple[str, ...]
) -> None:
    expected, out = tmp_path / "whole.pt" if extra else undisturbed, tmp_path / "killed" / "gen1.pt"
    if extra:
        assert [code for code, _ in together(forker, *[train_args(cache, expected, *extra)] * 2)] == [0, 0]
    args = train_args(cache, out, "--save-every", "0", *extra)
    for steps in (0, 3, 10):
        ends = together(forker, args, args, signals=[(reached(out, steps), killed, signal.SIGKILL)])
        assert ends[killed][0] in (0, SIGKILLED), ends
        code, said = ends[1 - killed]
        if code:
            assert (code, said.count("error: ")) == (1, 1), said
            assert "Traceback" not in said
    ends = together(forker, args, args)
    assert [code for code, _ in ends] == [0, 0], ends
    found, whole = load_checkpoint(out), load_checkpoint(expected)
    assert found.fingerprint == whole.fingerprint
    assert found.header["history"] == whole.header["history"]


@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_any_of_them_stops_all_after_the_same_step(
    tmp_path: Path, forker: Forker, cache: Path, asked: int, number: int, code: int
) -> None:
    out = tmp_path / "gen1.pt"
    args = train_args(cache, out, "--epochs", "400", "--eval-every", "0", "--save-every", "0", "-q")
    ends = together(forker, args, args, signals=[(reached(out, 4), asked, number)])
    assert [ended for ended, _ in ends] == [code, code], ends
    told = r"stopped: epoch \d+ of 400, step \d+ of 6; run the same command to go on\n"
    assert re.fullmatch(told, ends[0][1])
    assert ends[1][1] == ""
    assert load_tensors(out.with_name("gen1.pt.resume"))["loss"].shape == (2,)


def test_another_number_of_processes_does_not_go_on_with_it(
    tmp_path: Path, forker: Forker, cache: Path, undisturbed: Path
) -> None:
    code, output = forker.run(train_args(cache, undisturbed))
    assert code == 4, output
    assert re.search(r"gen1\.pt: ranks: .*2.*1", output)


def test_processes_that_do_not_belong_together_are_refused(
    tmp_path: Path, forker: Forker, cache: Path
) -> None:
    out = tmp_path / "gen1.pt"
    args = train_args(cache, out)
    ends = together(forker, args, [*args, "--seed", "2"])
    assert [code for code, _ in ends] == [2, 2], ends
    assert all(said.count("error: ") == 1 and "all 2 processes" in said for _, said in ends)
    ends = together(forker, args, args, args)
    assert [code for code, _ in ends] == [2, 2, 2], ends
    assert re.search("error: .*16.*3", ends[0][1])
    assert not out.exists()


def test_processes_with_different_outputs_are_refused(tmp_path: Path, forker: Forker, cache: Path) -> None:
    """As without a shared file system: only one of them finds the saved state."""
    here, there = tmp_path / "here" / "gen1.pt", tmp_path / "there" / "gen1.pt"
    args = train_args(cache, here, "--save-every", "0")
    together(forker, args, args, signals=[(reached(here, 2), 0, signal.SIGKILL)])
    ends = together(forker, args, train_args(cache, there))
    assert [code for code, _ in ends] == [2, 2], ends
    assert "gen1.pt" in ends[0][1]
    assert "all 2 processes" in ends[0][1]


def test_if_the_main_process_fails_all_fail_with_its_code(
    tmp_path: Path, forker: Forker, cache: Path
) -> None:
    args = train_args(cache, tmp_path / "gen1.pt")
    with exclusive_file(tmp_path / "gen1.pt"):
        ends = together(forker, args, args)
    assert [code for code, _ in ends] == [5, 5], ends
    assert str(os.getpid()) in ends[0][1]
    assert ends[1][1].count("error: ") == 1


# What torchrun starts: says its process id, then trains.
RANK = """
import os, sys
from pathlib import Path
from bancache_cli import main
folder, *argv = sys.argv[1:]
Path(folder, os.environ["RANK"]).write_text(str(os.getpid()))
if code := main(argv):
    sys.exit(code)
"""


def test_torchrun_restarts_a_training_after_a_rank_was_killed(
    tmp_path: Path, forker: Forker, cache: Path
) -> None:
    """torchrun runs, and forks its ranks, where everything is imported."""
    expected, out = tmp_path / "whole.pt", tmp_path / "killed" / "gen1.pt"
    long = ["--epochs", "8", "--eval-every", "0", "--save-every", "0"]
    assert [code for code, _ in together(forker, *[train_args(cache, expected, *long)] * 2)] == [0, 0]
    (tmp_path / "rank.py").write_text(RANK)
    came_far = reached(out, 12)

    def killed() -> bool:
        if far := came_far():
            os.kill(int((tmp_path / "1").read_text()), signal.SIGKILL)
        return far

    torchrun = [*("--standalone", "--nproc-per-node", "2", "--max-restarts", "3", "--start-method", "fork")]
    ((code, said),) = forker.run_together(
        [[*torchrun, "--run-path", str(tmp_path / "rank.py"), str(tmp_path), *train_args(cache, out, *long)]],
        signals=[(killed, 0, 0)],
        environments=[{**NEAR, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}],
        entry="torch.distributed.run.main",
    )
    assert code == 0, said
    assert "resuming: epoch" in said
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE" not in said
    assert load_checkpoint(out).fingerprint == load_checkpoint(expected).fingerprint
    assert load_checkpoint(out).header["history"] == load_checkpoint(expected).header["history"]


class Late:
    """A store whose replies reach one process late."""

    def __init__(self, store: TCPStore) -> None:
        self._store, self.replied = store, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def wait(self, *args: Any) -> None:
        time.sleep(0.3)
        self._store.wait(*args)
        self.replied = time.monotonic()


@pytest.mark.parametrize("count", [2, 3])
def test_the_process_that_serves_the_store_leaves_last(count: int) -> None:
    """Otherwise a process that still waits for its reply loses the connection, and torch prints a long warning."""
    port, late, left = free_port(), [], {}

    def take_part(rank: int) -> None:
        store = TCPStore("127.0.0.1", port, count, is_master=rank == 0, wait_for_workers=False)
        if rank == count - 1:
            late.append(Late(store))
        ProcessGroup(Rank(rank, count), cast(Any, late[0] if rank == count - 1 else store)).close()
        left[rank] = time.monotonic()

    threads = [threading.Thread(target=take_part, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(left) == list(range(count))
    assert 0 < late[0].replied <= left[0] < late[0].replied + 10


def test_a_restart_that_may_hang_gets_a_warning() -> None:
    agent = {"TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in stale_peers(agent)
    assert stale_peers(agent | {"TORCHELASTIC_MAX_RESTARTS": "0"}) == ""
    assert stale_peers(agent | {"TORCHELASTIC_USE_AGENT_STORE": "False"}) == ""


def test_only_processes_with_all_four_variables_share_a_training() -> None:
    told = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    assert training_rank_from_env(told) == Rank(1, 2)
    for name in told:
        assert training_rank_from_env({key: value for key, value in told.items() if key != name}) == Rank()
