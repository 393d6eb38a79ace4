"""How much memory is free, within every limit around the process, and how much a computation takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bancache.errors import OutOfMemoryError
from bancache.system import memory
from bancache.system.batch_memory import Needs, free_bytes, measure
from bancache.system.memory import free_on_host
from bancache.system.peak_memory import peak_bytes
from bancache.system.progress import Silent


def machine(root: Path, files: dict[str, str]) -> Path:
    """Write files of the kernel below a folder."""
    for name, text in {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:  1000 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 1_024_000),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.current": "9"}, 1_024_000),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "500\n", "sys/fs/cgroup/memory.current": "200\n"}, 300),
        # Pages of files are taken back before anything is killed.
        (
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/step/memory.max": "max",
                "sys/fs/cgroup/job/step/memory.current": "100",
                "sys/fs/cgroup/job/memory.max": "500",
                "sys/fs/cgroup/job/memory.current": "450",
                "sys/fs/cgroup/job/memory.stat": "anon 250\ninactive_file 200\nactive_file 0\n",
            },
            250,
        ),
        (
            {
                "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/job\n0::/\n",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "700",
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "600",
                "sys/fs/cgroup/memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 50\n",
            },
            150,
        ),
        # A container sees its own group at the top, whatever its path outside.
        (
            {
                "proc/self/cgroup": "4:memory:/docker/0123\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "700",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "900",
            },
            0,
        ),
    ],
)  # fmt: skip
def test_the_smallest_limit_around_a_process_counts(tmp_path: Path, files: dict[str, str], free: int) -> None:
    assert free_on_host(machine(tmp_path, files)) == free


def test_the_peak_counts_what_lives_at_one_time_and_shared_memory_once() -> None:
    def work() -> None:
        first = torch.zeros(1000)
        second = first + 1
        _ = second[:500]
        del first
        third = second + 1
        assert len(third) == 1000

    assert peak_bytes(work) == 8000


def test_what_a_batch_needs_is_a_line_through_two_measurements() -> None:
    needs = measure(lambda count: (torch.zeros(5000), torch.zeros(count, 10_000)))
    assert needs.of(0) == pytest.approx(20_000 * 1.3, abs=4)
    assert needs.of(100) == pytest.approx((20_000 + 4_000_000) * 1.3, abs=200)


def test_a_batch_that_does_not_fit_is_halved_by_default_and_refused_if_it_was_asked_for() -> None:
    needs = Needs(100, 10)
    assert needs.fit(64, 1000, 1000, Silent()) == 64
    assert needs.fit(64, 1000, 900, Silent()) == 32
    assert needs.fit(64, 40, 700, Silent()) == 64
    assert needs.fit(64, 40, 600, Silent()) == 20
    with pytest.raises(OutOfMemoryError) as caught:
        needs.require(64, 700, "training")
    assert "--batch-size 60 or less" in caught.value.hint
    with pytest.raises(OutOfMemoryError) as caught:
        needs.require(64, 110, "training")
    assert all(name in caught.value.hint for name in ("--image-size", "--model", "--checkpoint-activations"))


def test_free_memory_of_the_host_is_some_and_not_more_than_the_machine_has() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < memory.free_on_host() <= total


def test_what_needs_more_than_is_free_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_on_host", lambda: 2_000_000_000)
    memory.require_memory(1_900_000_000, "labels", hint="")
    with pytest.raises(OutOfMemoryError, match=r"labels.*3\.5 GB.*2\.0 GB"):
        memory.require_memory(3_500_000_000, "labels", hint="")


def test_memory_of_a_gpu_that_torch_keeps_of_tensors_that_are_gone_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert free_bytes(torch.device("cuda")) == 1300
