"""A dump or a training that was killed at any instant ends with the same bytes as an undisturbed one."""

from __future__ import annotations

import random
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from contracts.killing import Forker, epoch_log, tree
from contracts.memory import folder_in_memory
from contracts.tiny import CLASSES

from bancache.errors import BancacheError
from bancache.models.checkpoint import load_checkpoint, load_tensors
from bancache.report.results import read_records

SIGKILLED = -signal.SIGKILL


@pytest.fixture
def memory() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder


def dump_args(teacher: Path, out: Path, *extra: str) -> list[str]:
    views = ["--num-views", "3"]  # 59 durable calls: ten for each view after the first
    return ["dump", "--teacher", str(teacher), "--out", str(out), "--batch-size", "16", *views, *extra]


def train_args(cache: Path, out: Path, *extra: str) -> list[str]:
    epochs = [] if "--epochs" in extra else ["--epochs", "3"]
    return ["train-student", "--cache", str(cache), "--out", str(out), *epochs, *extra]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, forker: Forker, teacher_path: Path) -> Path:
    """A folder with gen0.zarr and gen1.pt, made without any disturbance."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for args in (
        dump_args(teacher_path, folder / "gen0.zarr"),
        train_args(folder / "gen0.zarr", folder / "gen1.pt"),
    ):
        code, output = forker.run(args)
        assert code == 0, output
    return folder


@pytest.mark.parametrize(("profile", "stride"), [("default", 1), ("compact", 3)])
def test_a_dump_killed_before_each_durable_call_in_turn(
    tmp_path: Path, forker: Forker, teacher_path: Path, undisturbed: Path, profile: str, stride: int
) -> None:
    """One cache, killed at call 1, then at call 2 of the next attempt, and so on, ends with the same bytes."""
    out, expected, chosen = tmp_path / "gen0.zarr", undisturbed / "gen0.zarr", ["--profile", profile]
    if profile != "default":
        expected = tmp_path / "undisturbed.zarr"
        assert forker.run(dump_args(teacher_path, expected, *chosen))[0] == 0
    deaths = 0
    while True:
        code, output = forker.run(dump_args(teacher_path, out, *chosen), kill_at_call=deaths * stride + 1)
        if code == 0:
            break
        assert code == SIGKILLED, output
        deaths += 1
        assert deaths < 200
    assert deaths * stride > 12
    assert tree(out) == tree(expected)


@pytest.mark.parametrize("call", [1, 17, 30, 42, 55])
def test_a_dump_killed_once_goes_on(
    tmp_path: Path, forker: Forker, teacher_path: Path, undisturbed: Path, call: int
) -> None:
    out = tmp_path / "gen0.zarr"
    code, output = forker.run(dump_args(teacher_path, out), kill_at_call=call)
    assert code == SIGKILLED, output
    code, output = forker.run(dump_args(teacher_path, out))
    assert code == 0, output
    assert tree(out) == tree(undisturbed / "gen0.zarr")


def test_a_dump_killed_at_random_instants(
    tmp_path: Path, forker: Forker, teacher_path: Path, undisturbed: Path
) -> None:
    chance = random.Random(0)
    for trial in range(2):
        out = tmp_path / f"{trial}.zarr"
        code = SIGKILLED
        for _ in range(12):
            code, output = forker.run(dump_args(teacher_path, out), kill_after=chance.uniform(0.02, 0.4))
            assert code in (0, SIGKILLED), output
            if code == 0:
                break
        code, output = forker.run(dump_args(teacher_path, out))
        assert code == 0, output
        assert tree(out) == tree(undisturbed / "gen0.zarr")


def test_workers_killed_at_random_instants(
    tmp_path: Path, forker: Forker, teacher_path: Path, undisturbed: Path
) -> None:
    """In each round one to three workers run and some are killed; the cache ends with the same bytes."""
    chance = random.Random(1)
    deaths, trial, longest = 0, 0, 0.5
    # A fast machine may finish before the kill: kills come sooner until enough of them hit.
    while trial < 2 or deaths < 3:
        before, out = deaths, tmp_path / f"{trial}.zarr"
        for _ in range(5):
            count = chance.randint(1, 3)
            ranks = [["--rank", str(rank), "--world-size", str(count)] for rank in range(count)]
            commands = [[*dump_args(teacher_path, out), "--join", *rank, "-q"] for rank in ranks]
            kills = sorted((chance.uniform(0.1, 1) * longest, n, signal.SIGKILL) for n in range(count))
            for code, output in forker.run_together(commands, signals=kills[: chance.randint(0, count)]):
                assert code in (0, SIGKILLED), output
                deaths += code == SIGKILLED
        code, output = forker.run(dump_args(teacher_path, out))
        assert code == 0, output
        assert tree(out) == tree(undisturbed / "gen0.zarr")
        trial += 1
        assert len(read_records(out.parent / "results.jsonl")) == trial
        longest /= 1 if deaths > before else 2
        assert trial < 20


def test_a_worker_killed_before_a_durable_call_leaves_its_part_to_the_other(
    tmp_path: Path, forker: Forker, teacher_path: Path, undisturbed: Path
) -> None:
    """Both workers die before their n-th call and the next two go on, until two survive."""
    out = tmp_path / "gen0.zarr"
    joining = [[*dump_args(teacher_path, out), "--join", "-q"]] * 2
    for call in (1, 5, 11, 17, 23, 31, 200):
        ends = forker.run_together(joining, kill_at_call=call)
        assert {code for code, _ in ends} <= {0, SIGKILLED}, ends
    assert tree(out) == tree(undisturbed / "gen0.zarr")


def slow_dump_args(teacher: Path, out: Path) -> list[str]:
    """Four images per forward pass: the shards after the third take long enough to be interrupted."""
    return [
        "dump",
        "--teacher",
        str(teacher),
        "--out",
        str(out),
        "--num-views",
        "18",
        "--batch-size",
        "4",
        "-q",
    ]


@pytest.fixture(scope="module")
def slow_whole(tmp_path_factory: pytest.TempPathFactory, forker: Forker, teacher_path: Path) -> Path:
    """The cache of a slow dump without interruption."""
    out = tmp_path_factory.mktemp("slow") / "gen0.zarr"
    assert forker.run(slow_dump_args(teacher_path, out))[0] == 0
    return out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_a_dump_finish_its_shard_and_print_one_line(
    tmp_path: Path, forker: Forker, teacher_path: Path, slow_whole: Path, number: int, code: int
) -> None:
    out = tmp_path / "gen0.zarr"
    args = slow_dump_args(teacher_path, out)
    third = out / ".regions" / "000002.json"
    ((ended, output),) = forker.run_together([args], signals=[(third, 0, number)])
    assert ended == code, output
    shown = re.fullmatch(r"stopped: (\d+) of 18 .*\n", output)
    assert shown, output
    assert int(shown[1]) == len(list(out.glob(".regions/*.json"))) < 18
    assert not list(out.glob(".claims/*.json"))
    assert forker.run(args)[0] == 0
    assert tree(out) == tree(slow_whole)


def test_a_second_signal_ends_a_dump_at_once_and_silently(
    tmp_path: Path, forker: Forker, teacher_path: Path
) -> None:
    out = tmp_path / "gen0.zarr"
    args = slow_dump_args(teacher_path, out)
    third = out / ".regions" / "000002.json"
    # SIGSTOP, so that the shard cannot be finished between the two signals.
    numbers = (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT)
    ((ended, output),) = forker.run_together([args], signals=[(third, 0, number) for number in numbers])
    assert (ended, output) == (143, "")


@pytest.mark.parametrize("save_every", ["0", "60"])
def test_training_killed_at_random_instants_ends_with_the_same_weights(
    tmp_path: Path, forker: Forker, undisturbed: Path, save_every: str
) -> None:
    chance = random.Random(int(save_every))
    expected = load_checkpoint(undisturbed / "gen1.pt")
    out = tmp_path / "killed" / "gen1.pt"
    args = train_args(undisturbed / "gen0.zarr", out, "--save-every", save_every)
    deaths, longest = 0, 0.5
    while deaths < 5:
        code, output = forker.run(args, kill_after=chance.uniform(0.1, 1) * longest)
        assert code in (0, SIGKILLED), output
        deaths += code == SIGKILLED
        if code == 0:  # finished before the kill: the next kill comes sooner, in a new run
            shutil.rmtree(out.parent)
            longest /= 2
    code, output = forker.run(args)
    assert code == 0, output
    found = load_checkpoint(out)
    assert found.fingerprint == expected.fingerprint
    assert found.header["history"] == expected.header["history"]
    assert [r["weights"] for r in read_records(out.parent / "results.jsonl")] == [found.fingerprint]
    assert sorted(p.name for p in out.parent.iterdir()) == ["gen1.pt", "gen1.pt.jsonl", "results.jsonl"]
    assert epoch_log(out) == found.header["history"]


def test_training_killed_before_each_durable_call(tmp_path: Path, forker: Forker, undisturbed: Path) -> None:
    out = tmp_path / "gen1.pt"
    args = train_args(undisturbed / "gen0.zarr", out, "--save-every", "0")
    for call in (1, 2, 3, 5, 8, 13, 21, 34, 41):
        code, output = forker.run(args, kill_at_call=call)
        assert code in (0, SIGKILLED), output
    code, output = forker.run(args)
    assert code == 0, output
    assert load_checkpoint(out).fingerprint == load_checkpoint(undisturbed / "gen1.pt").fingerprint


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_between_steps_and_the_same_command_goes_on(
    tmp_path: Path, forker: Forker, undisturbed: Path, number: int, code: int
) -> None:
    out = tmp_path / "gen1.pt"
    args = train_args(undisturbed / "gen0.zarr", out, "--epochs", "400", "--eval-every", "0", "-q")
    begun = out.with_name("gen1.pt.resume")
    ((ended, output),) = forker.run_together([[*args, "--save-every", "0"]], signals=[(begun, 0, number)])
    assert ended == code
    assert re.fullmatch(r"stopped: epoch \d+ of 400, step \d+ of 6; .*\n", output)
    state = load_tensors(begun)
    assert state["epoch"] * 6 + state["step"] > 0


def test_a_damaged_state_is_named_and_not_used(tmp_path: Path, forker: Forker, undisturbed: Path) -> None:
    out = tmp_path / "gen1.pt"
    args = train_args(undisturbed / "gen0.zarr", out, "--epochs", "400", "-q")
    state = out.with_name("gen1.pt.resume")
    forker.run_together([[*args, "--save-every", "0"]], signals=[(state, 0, signal.SIGTERM)])
    state.write_bytes(state.read_bytes()[:500])
    code, output = forker.run(args)
    assert code == BancacheError.exit_code
    assert "gen1.pt.resume" in output
    assert "Traceback" not in output


def test_without_memory_there_is_one_line_and_no_cache(
    tmp_path: Path, forker: Forker, teacher_path: Path
) -> None:
    """Large images and little memory: numpy cannot allocate an array."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (200, 10, 10, 3), np.uint8), np.arange(200) % 3
    np.savez(
        tmp_path / "large.npz",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        classes=np.array(CLASSES),
    )
    named = ["--teacher", str(teacher_path), "--data", f"npz:{tmp_path / 'large.npz'}", "--image-size", "900"]
    argv = ["dump", *named, "--out", str(tmp_path / "a.zarr"), "-q"]
    code, output = forker.run(argv, megabytes=300)
    assert code == 1, output
    assert [line for line in output.splitlines() if line.startswith("error: ")] == ["error: out of memory"]
    assert "Traceback" not in output
    assert re.search("hint: .*--batch-size", output)
    assert not (tmp_path / "a.zarr").exists()
