"""The programs in examples/ run and teach."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import bancache as bc
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


def two_generations(
    cache: str, folder: Path, train: Callable[..., list[float]], **options: Any
) -> list[float]:
    """Do what an example's first lines say after the first dump; return the losses of the first two students."""
    first, second = str(folder / "gen1.pt"), str(folder / "gen2.pt")
    losses = train(cache, first, **options)
    assert main(["dump", "--teacher", first, "--num-views", "3", "-q"]) == 0
    losses += train(str(folder / "gen1.zarr"), second, **options)
    assert main(["dump", first, second, "--num-views", "3", "-q"]) == 0
    train(str(folder / "gen1-and-1.zarr"), str(folder / "gen3.pt"), **options)
    require_two_generations(folder)
    return losses


def second_generation(folder: Path) -> tuple[str, ...]:
    """Return the lines that let an example's gen1.pt teach gen2.pt, and both of them gen3.pt, in the same process."""
    names = ("gen1.pt", "gen1.zarr", "gen2.pt", "gen1-and-1.zarr", "gen3.pt")
    first, cache, second, both, third = (str(folder / name) for name in names)
    return (
        "from bancache_cli import main",
        f"assert main(['dump', '--teacher', {first!r}, '--num-views', '3', '-q']) == 0",
        f"train({cache!r}, {second!r}, epochs=2)",
        f"assert main(['dump', {first!r}, {second!r}, '--num-views', '3', '-q']) == 0",
        f"train({both!r}, {third!r}, epochs=2)",
    )


def require_two_generations(folder: Path) -> None:
    """Each has learned something, they can be evaluated together, and the third is a student of both."""
    paths = [folder / f"gen{k}.pt" for k in (1, 2, 3)]
    evaluation = bc.evaluate(paths)
    assert [member.accuracy > 0.3 for member in evaluation.members] == [True, True, True]
    first, second, third = map(bc.load_checkpoint, paths)
    assert (second.header["generation"], third.header["generation"]) == (2, 3)
    assert set(third.header["lineage"][-1]["members"]) == {first.fingerprint, second.fingerprint}


def test_a_loop_of_ones_own(cache: str, tmp_path: Path) -> None:
    means = two_generations(cache, tmp_path, load("plain_loop.py")["train"], epochs=3)
    assert len(means) == 6
    assert means[2] < 0.6 * means[0]
    found = bc.load_checkpoint(tmp_path / "gen2.pt").header["test"]["accuracy"]
    assert bc.evaluate(tmp_path / "gen2.pt").accuracy == found


def test_a_dataloader_of_ones_own(cache: str, tmp_path: Path) -> None:
    train = load("torch_dataloader.py")["train"]
    means = two_generations(cache, tmp_path, train, epochs=3, workers=0)
    assert len(means) == 6
    assert means[2] < 0.8 * means[0]
    assert train(cache, str(tmp_path / "again.pt"), epochs=1, workers=2)[0] == means[0]


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
        f"loss = train(cache, {str(tmp_path / 'gen1.pt')!r}, epochs=3)",
        *second_generation(tmp_path),
        "print('loss', loss)",
    )
    before, after = (re.findall(r"epoch (\d)", part) for part in shown.split("stopped"))
    assert before[:30] == ["0"] * 22 + ["1"] * 8
    assert set(after) == {"1", "2"}
    assert float(shown.split()[-1]) < 2.0
    require_two_generations(tmp_path)


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
        f"log = train({cache!r}, {str(tmp_path / 'gen1.pt')!r}, epochs=4)",
        f"dataset = ViewDataset({cache!r})",
        "steps = len(seen) // 4",
        "for epoch in range(4):",
        "    dataset.set_epoch(epoch)",
        "    for view in seen[epoch * steps : (epoch + 1) * steps]:",
        "        assert dataset[int(view.samples)].views == view.views, epoch",
        *second_generation(tmp_path),
        "print('losses', *log)",
    )
    losses = [float(word) for word in shown.split("losses")[-1].split()]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    require_two_generations(tmp_path)


@pytest.mark.skipif(
    find_spec("transformers") is None or find_spec("accelerate") is None,
    reason="transformers is not installed",
)
def test_transformers_takes_both_labels_of_mixed_views(tmp_path: Path) -> None:
    gen0, mixed = str(tmp_path / "gen0.pt"), str(tmp_path / "gen0.zarr")
    teach = ("train-teacher", "--data", "digits", "--views", "crop1-mixup0.8", "--epochs", "1", "--out", gen0)
    assert main([*teach, "-q"]) == 0
    assert main(["dump", "--teacher", gen0, "--num-views", "1", "-q"]) == 0
    shown = in_a_process(
        "transformers_student.py",
        "plain, seen = as_inputs, []",
        "def as_inputs(rows):",
        "    seen.append(plain(rows)['labels'])",
        "    return plain(rows)",
        f"log = train({mixed!r}, {str(tmp_path / 'gen1.pt')!r}, epochs=1)",
        "print('lam', *(len(set(labels['lam'].tolist())) > 1 for labels in seen))",
        "print('losses', *log)",
    )
    assert set(shown.split("lam ")[-1].split("\n")[0].split()) == {"True"}
    assert 0 < float(shown.split()[-1]) < 10
