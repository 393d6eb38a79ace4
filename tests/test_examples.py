"""The programs in examples/ run and teach."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bancache_cli import main

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the examples' own first lines make, with a teacher of two epochs and five views."""
    folder = tmp_path_factory.mktemp("examples")
    teacher = str(folder / "gen0.pt")
    assert main(["train-teacher", "--data", "digits", "--out", teacher, "--epochs", "2", "-q"]) == 0
    assert main(["dump", "--teacher", teacher, "--num-views", "5", "-q"]) == 0
    return str(folder / "gen0.zarr")


def load(name: str) -> dict[str, Any]:
    """Return what a file in examples/ defines."""
    return runpy.run_path(str(EXAMPLES / name))


def in_a_process(name: str, *lines: str) -> str:
    """Run lines after a file in examples/, where the warnings of its framework are its own affair."""
    code = (EXAMPLES / name).read_text().replace("__main__", "not now") + "\n" + "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_loop_of_ones_own(cache: str) -> None:
    means = load("plain_loop.py")["train"](cache, epochs=3)
    assert len(means) == 3
    assert means[-1] < 0.6 * means[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloader_of_ones_own(cache: str, workers: int) -> None:
    means = load("torch_dataloader.py")["train"](cache, epochs=3, workers=workers)
    assert len(means) == 3
    assert means[-1] < 0.8 * means[0]


@pytest.mark.skipif(find_spec("lightning") is None, reason="lightning is not installed")
def test_lightning_shows_the_epoch_that_it_is_in(cache: str, tmp_path: Path) -> None:
    """Every batch has the views of its epoch, with a worker; stopped in epoch 1, also where it goes on."""
    shown = in_a_process(
        "lightning_student.py",
        "class Watched(Student):",
        "    def training_step(self, batch, index):",
        "        dataset = ViewDataset(cache)",
        "        dataset.set_epoch(self.current_epoch)",
        "        assert dataset[batch.samples].views.tolist() == batch.views.tolist(), self.current_epoch",
        "        print('epoch', self.current_epoch)",
        "        return super().training_step(batch, index)",
        "    def on_train_batch_end(self, *_):",
        "        if self.global_step == 30:",  # an epoch has 22 steps
        "            self.trainer.save_checkpoint(out)",
        "            self.trainer.should_stop = True",
        f"cache, out = {cache!r}, {str(tmp_path / 'net.ckpt')!r}",
        "quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator='cpu')",
        "trainer(3, **quiet).fit(Watched(cache, workers=1))",
        "print('stopped')",
        "trainer(3, **quiet).fit(Watched(cache, workers=1), ckpt_path=out)",
        "print('loss', train(cache, epochs=3))",
    )
    before, after = (re.findall(r"epoch (\d)", part) for part in shown.split("stopped"))
    assert before[:30] == ["0"] * 22 + ["1"] * 8
    assert set(after) == {"1", "2"}
    assert float(shown.split()[-1]) < 2.0


@pytest.mark.skipif(
    find_spec("transformers") is None or find_spec("accelerate") is None,
    reason="transformers is not installed",
)
def test_transformers_shows_the_epoch_that_it_is_in(cache: str, tmp_path: Path) -> None:
    """The loss falls, and each epoch shows the views of its number."""
    shown = in_a_process(
        "transformers_student.py",
        "seen = []",
        "plain = as_inputs",
        "def as_inputs(rows):",
        "    seen.append(rows[0])",
        "    return plain(rows)",
        f"log = train({cache!r}, {str(tmp_path)!r}, epochs=4)",
        f"dataset = ViewDataset({cache!r})",
        "steps = len(seen) // 4",
        "for epoch in range(4):",
        "    dataset.set_epoch(epoch)",
        "    for view in seen[epoch * steps : (epoch + 1) * steps]:",
        "        assert dataset[int(view.samples)].views == view.views, epoch",
        "print('losses', *log)",
    )
    losses = [float(word) for word in shown.split("losses")[-1].split()]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
