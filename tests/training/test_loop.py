"""One run from its first step to its checkpoint: what is recorded, what resumes, what is shared."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.calling import call, refuse, succeed
from contracts.stopping import StopAfter
from contracts.tiny import CPU, RECIPE, architecture, dump_tiny

from bancache.cache.reader import Cache
from bancache.dumping import DumpSettings, dump
from bancache.errors import DataError, MismatchError, StoppedError, UsageError
from bancache.loader import Batch
from bancache.models.checkpoint import Checkpoint, load_checkpoint
from bancache.models.teacher import build_from, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import Recipe, Run, TrainerOptions, run_for_cache, run_for_labels, train
from bancache.training.build import make_model, make_optimizer, teacher_file
from bancache.training.record import run_record
from bancache.training.step import objective
from bancache.views import ViewSpace
from bancache.views.model_input import Normalization

ENDS = ("first_layer.weight", "last_layer.weight", "last_layer.bias")
DENSENET, MATCH = "densenet-bc-10-4", "match-wrn-1-0.5@densenet-bc-10-4"


@pytest.fixture
def labels_run(spec: DataSpec, data: ImageSet) -> Run:
    return run_for_labels(architecture(), RECIPE, 0, spec, data, "crop1-flip")


def test_the_example_in_the_documentation_of_run_for_labels_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The indented block of its docstring, after the imports that it names, with fewer epochs."""
    from bancache import DataSpec, TrainerOptions

    block = re.search(r":\n\n(.*?)\n\n(?=\S)", inspect.getdoc(run_for_labels) or "", re.DOTALL)
    assert block is not None
    monkeypatch.chdir(tmp_path)
    names = {"torch": torch, "train": train, "run_for_labels": run_for_labels, "Recipe": Recipe}
    names |= {"DataSpec": DataSpec, "TrainerOptions": TrainerOptions}
    exec(textwrap.dedent(block[1]).replace("epochs=15", "epochs=2"), names)
    assert load_checkpoint(Path("gen0.pt")).header["recipe"]["epochs"] == 2
    assert "'accuracy'" in capsys.readouterr().out


def test_paths_may_be_strings(tmp_path: Path, labels_run: Run, data: ImageSet, held_out: ImageSet) -> None:
    options = TrainerOptions(f"{tmp_path}/a.pt", CPU, tensorboard=f"{tmp_path}/events")
    assert options.state_path == tmp_path / "a.pt.resume"
    train(replace(labels_run, recipe=replace(RECIPE, epochs=1)), data, held_out, options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "a.pt.jsonl", "events"]


# What is recorded.


def test_the_last_epochs_test_is_recorded_and_never_the_best_one(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet
) -> None:
    """A run that is best in the middle: a learning rate that jumps up at the end spoils it."""
    spoiling = Recipe(
        epochs=4, batch_size=16, lr=0.05, schedule="step", weight_decay=0, milestones=(0.75,), gamma=400
    )
    run = run_for_labels(architecture(), spoiling, 0, spec, data, "crop1-flip")
    header = train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU)).checkpoint.header
    tested = [entry["test_accuracy"] for entry in header["history"]]
    assert max(tested) > tested[-1]
    assert header["test"]["accuracy"] == tested[-1]
    said = succeed("evaluate", tmp_path / "a.pt")
    assert said["members"][0]["accuracy"] == tested[-1]


@pytest.mark.parametrize(
    ("every", "expected"), [(0, [4]), (1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3, 4]), (9, [4])]
)
def test_the_test_split_is_looked_at_as_often_as_asked_and_at_the_end(
    tmp_path: Path,
    labels_run: Run,
    data: ImageSet,
    held_out: ImageSet,
    teacher_path: Path,
    every: int,
    expected: list[int],
) -> None:
    """And looking changes nothing: the weights are those of the teacher that was looked at every epoch."""
    options = TrainerOptions(tmp_path / "a.pt", CPU, eval_every=every)
    checkpoint = train(labels_run, data, held_out, options).checkpoint
    assert [e["epoch"] for e in checkpoint.header["history"] if "test_accuracy" in e] == expected
    assert checkpoint.fingerprint == load_checkpoint(teacher_path).fingerprint


def test_a_line_of_history_has_what_an_epoch_was_like(teacher_path: Path) -> None:
    header = load_checkpoint(teacher_path).header
    assert [entry["epoch"] for entry in header["history"]] == [1, 2, 3, 4]
    for entry in header["history"]:
        assert set(entry) == {"epoch", "loss", "train_accuracy", "learning_rate", "test_accuracy"}
        assert 0 <= entry["train_accuracy"] <= 1
    steps = 4 * 6
    rates = [RECIPE.learning_rate(epoch * 6 + 5, steps) for epoch in range(4)]
    assert [entry["learning_rate"] for entry in header["history"]] == rates
    losses = [entry["loss"] for entry in header["history"]]
    assert losses[0] < 1.5 and losses[-1] < 0.5 * losses[0]  # noqa: PT018 (one statement: it starts near ln 3 and falls)


def test_the_checkpoint_says_all_that_a_next_generation_needs(teacher_path: Path, data: ImageSet) -> None:
    header = load_checkpoint(teacher_path).header
    assert header["architecture"] == architecture()
    assert header["classes"] == list(data.classes)
    assert header["data_fingerprint"] == data.fingerprint
    assert Path(header["data"]["source"].removeprefix("npz:")).is_absolute()
    assert (header["views"], header["num_views"], header["generation"]) == ("crop1-flip", 18, 0)
    assert (header["lineage"], header["cache"], header["share_ends"]) == ([], None, "none")
    assert header["recipe"]["epochs"] == 4


def test_splits_that_one_net_cannot_take_are_refused(
    tmp_path: Path, labels_run: Run, data: ImageSet, held_out: ImageSet
) -> None:
    smaller = ImageSet(held_out.images[:, :8], held_out.labels, held_out.classes, "smaller", "test")
    with pytest.raises(DataError, match=r"\(10, 10, 3\).*\(8, 10, 3\)"):
        train(labels_run, data, smaller, TrainerOptions(tmp_path / "a.pt", CPU))
    renamed = ImageSet(held_out.images, held_out.labels, ("a", "b", "c"), "renamed", "test")
    with pytest.raises(DataError):
        train(labels_run, data, renamed, TrainerOptions(tmp_path / "a.pt", CPU))


# How it computes.


def test_bfloat16_autocast_works_on_the_cpu_and_resumes(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet, teacher_path: Path
) -> None:
    run = run_for_labels(architecture(), replace(RECIPE, amp=True), 0, spec, data, "crop1-flip")
    whole = train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU)).checkpoint
    assert whole.header["test"]["accuracy"] > 0.5
    assert all(value.dtype in (torch.float32, torch.int64) for value in whole.state.values())
    assert whole.fingerprint != load_checkpoint(teacher_path).fingerprint
    with pytest.raises(StoppedError, match=r"2 of 4.*3 of 6"):
        train(run, data, held_out, TrainerOptions(tmp_path / "c.pt", CPU), interrupt=StopAfter(8))
    assert (
        train(run, data, held_out, TrainerOptions(tmp_path / "c.pt", CPU)).checkpoint.fingerprint
        == whole.fingerprint
    )
    # A teacher that was trained so answers so, unless asked otherwise.
    succeed("dump", "--teacher", tmp_path / "a.pt")
    assert succeed("info", tmp_path / "a.zarr")["compute"]["precision"] == "bfloat16"
    succeed("dump", "--teacher", tmp_path / "a.pt", "--precision", "float32", "--out", tmp_path / "b.zarr")


@pytest.mark.parametrize("steps", [0, 1, 5, 6, 7, 23])
def test_stopped_after_any_step_it_ends_with_the_same_bits(
    tmp_path: Path, labels_run: Run, data: ImageSet, held_out: ImageSet, teacher_path: Path, steps: int
) -> None:
    """Also when it is stopped again and again."""
    options = TrainerOptions(tmp_path / "a.pt", CPU)
    with pytest.raises(StoppedError):
        train(labels_run, data, held_out, options, interrupt=StopAfter(steps))
    assert options.state_path.exists()
    if steps < 20:
        with pytest.raises(StoppedError):
            train(labels_run, data, held_out, options, interrupt=StopAfter(2))
    ended = train(labels_run, data, held_out, options).checkpoint
    undisturbed = load_checkpoint(teacher_path)
    assert ended.fingerprint == undisturbed.fingerprint
    assert ended.header["history"] == undisturbed.header["history"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "a.pt.jsonl"]


def test_seeds_differ_in_weights_order_and_views(tmp_path: Path, spec: DataSpec, data: ImageSet) -> None:
    runs = [run_for_labels(architecture(), RECIPE, seed, spec, data, "crop1-flip") for seed in (0, 1)]
    models = [make_model(run, TrainerOptions(tmp_path / "a.pt", CPU)) for run in runs]
    assert not torch.equal(*(model.state_dict()["first_layer.weight"] for model in models))
    assert runs[0].space.seed != runs[1].space.seed


def test_kd_trains_at_temperature_4_from_a_root8_cache(tmp_path: Path, teacher_path: Path) -> None:
    """Its default encoding reaches that far; root4's does not, and says so (tests/cli/test_errors.py)."""
    cache, out = tmp_path / "gen0.zarr", tmp_path / "gen1.pt"
    succeed("dump", "--teacher", teacher_path, "--encoding", "root8", "--out", cache)
    argv = ("train-student", "--cache", cache, "--loss", "kd", "--temperature", "4", "--alpha", "0.7")
    said = succeed(*argv, "--out", out, "--lr", "0.05")
    assert said["loss"] == "kd"
    assert said["test_accuracy"] > 0.5
    header = load_checkpoint(out).header
    assert (header["recipe"]["temperature"], header["recipe"]["alpha"]) == (4.0, 0.7)
    # The next cache is for students that are trained like this one.
    succeed("dump", "--teacher", out)
    assert succeed("info", tmp_path / "gen1.zarr")["encoding"]["name"] == "root8"


def test_dropout_is_what_it_was_when_a_run_goes_on(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet
) -> None:
    small = {**architecture("wrn-10-1"), "dropout": 0.3}
    run = run_for_labels(small, replace(RECIPE, epochs=1), 0, spec, data, "flip")
    whole = train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU)).checkpoint
    with pytest.raises(StoppedError):
        train(run, data, held_out, TrainerOptions(tmp_path / "b.pt", CPU), interrupt=StopAfter(3))
    assert (
        train(run, data, held_out, TrainerOptions(tmp_path / "b.pt", CPU)).checkpoint.fingerprint
        == whole.fingerprint
    )
    plain = run_for_labels({**small, "dropout": 0.0}, replace(RECIPE, epochs=1), 0, spec, data, "flip")
    assert (
        train(plain, data, held_out, TrainerOptions(tmp_path / "c.pt", CPU)).checkpoint.fingerprint
        != whole.fingerprint
    )


# A teacher of one family, students of another.


@pytest.fixture(scope="module")
def densenet(
    tmp_path_factory: pytest.TempPathFactory, spec: DataSpec, data: ImageSet, held_out: ImageSet
) -> Path:
    """A folder with a DenseNet's checkpoint and its cache."""
    folder = tmp_path_factory.mktemp("densenet")
    run = run_for_labels(architecture(DENSENET), RECIPE, 0, spec, data, "flip")
    train(run, data, held_out, TrainerOptions(folder / "gen0.pt", CPU))
    teacher = load_teacher(str(folder / "gen0.pt"), device=CPU)
    normalization = Normalization.from_dict(teacher.header["normalisation"])
    asked = DumpSettings(ViewSpace.parse("flip"), 2, "root4", 96, normalization)
    dump(teacher, data, spec.resolved(), folder / "gen0.zarr", asked, device=CPU)
    return folder


def match_run(folder: Path, spec: DataSpec, data: ImageSet, mode: Any, **recipe: Any) -> tuple[Run, Cache]:
    from bancache.cache.reader import open_cache

    cache = open_cache(folder / "gen0.zarr")
    chosen = replace(RECIPE, **recipe)
    return run_for_cache(architecture(MATCH), chosen, 1, spec, data, cache, share_layers=mode), cache


def test_a_densenets_cache_trains_a_match_wrn_end_to_end(
    densenet: Path, tmp_path: Path, data: ImageSet
) -> None:
    """From the cache alone a student of another family learns; by default it has the teacher's ends, frozen."""
    cache = ("train-student", "--cache", densenet / "gen0.zarr", "--model", MATCH)
    said = succeed(*cache, "--out", tmp_path / "gen1.pt")
    assert (said["model"], said["generation"], said["share_layers"]) == (MATCH, 1, "freeze")
    assert said["test_accuracy"] > 0.5
    student, teacher = load_checkpoint(tmp_path / "gen1.pt"), load_checkpoint(densenet / "gen0.pt")
    ends = sum(teacher.state[name].numel() for name in ENDS)
    assert said["trainable"] == said["parameters"] - ends
    for name in ENDS:
        assert torch.equal(student.state[name], teacher.state[name])
    header = student.header
    assert header["share_ends"] == "freeze"
    assert [a["model"] for a in header["lineage"]] == [DENSENET]
    assert header["lineage"][0]["share_ends"] == "freeze"
    assert header["lineage"][0]["weights"] == teacher.fingerprint
    # Its own student inherits the net, and by default shares nothing: the teacher's frame is not a DenseNet's name.
    succeed("dump", "--teacher", tmp_path / "gen1.pt")
    grandchild = succeed("train-student", "--cache", tmp_path / "gen1.zarr", "--epochs", "1")
    assert (grandchild["model"], grandchild["share_layers"]) == (MATCH, "none")
    assert [r.get("share_ends") for r in load_checkpoint(tmp_path / "gen2.pt").header["lineage"]] == [
        "freeze",
        None,
    ]


@pytest.mark.parametrize("mode", ["copy", "freeze", "none"])
def test_ends_begin_as_the_teachers_and_only_frozen_ones_stay(
    densenet: Path, tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet, mode: Any
) -> None:
    """Frozen parameters get neither a gradient nor weight decay, which would shrink them."""
    run, cache = match_run(densenet, spec, data, mode, weight_decay=0.1)
    options = TrainerOptions(tmp_path / f"{mode}.pt", CPU, teacher=teacher_file(cache))
    teacher = load_checkpoint(densenet / "gen0.pt")
    model = make_model(run, options)
    begun = {name: model.state_dict()[name].clone() for name in ENDS}
    assert all(torch.equal(begun[name], teacher.state[name]) == (mode != "none") for name in ENDS)
    learning = {id(p) for group in make_optimizer(model, run.recipe).param_groups for p in group["params"]}
    frozen = {name for name, parameter in model.named_parameters() if id(parameter) not in learning}
    assert frozen == (set(ENDS) if mode == "freeze" else set())
    ended = train(run, data, held_out, options, cache=cache).checkpoint
    assert all(torch.equal(ended.state[name], begun[name]) == (mode == "freeze") for name in ENDS)


def test_the_rest_of_a_net_begins_the_same_whether_ends_are_shared_or_not(
    densenet: Path, tmp_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    states = []
    for mode in ("copy", "none"):
        run, cache = match_run(densenet, spec, data, mode)
        states.append(
            make_model(run, TrainerOptions(tmp_path / "a.pt", CPU, teacher=teacher_file(cache))).state_dict()
        )
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == [
        "first_layer.weight",
        "last_layer.weight",
        "last_layer.bias",
    ]


@pytest.mark.parametrize("mode", ["copy", "freeze"])
def test_shared_ends_survive_a_stop(
    densenet: Path, tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet, mode: Any
) -> None:
    run, cache = match_run(densenet, spec, data, mode, epochs=2)
    ended: list[Checkpoint] = []
    for name, stops in (("whole", []), ("stopped", [1, 4, 3])):
        options = TrainerOptions(tmp_path / f"{name}.pt", CPU, teacher=teacher_file(cache))
        for steps in stops:
            with pytest.raises(StoppedError):
                train(run, data, held_out, options, cache=cache, interrupt=StopAfter(steps))
        ended.append(train(run, data, held_out, options, cache=cache).checkpoint)
    assert ended[0].fingerprint == ended[1].fingerprint
    # And a run that shares otherwise does not take the work over.
    other, _ = match_run(densenet, spec, data, "none", epochs=2)
    with pytest.raises(MismatchError, match=rf"share layers: .*{mode}.*none"):
        train(other, data, held_out, TrainerOptions(tmp_path / "whole.pt", CPU), cache=cache)


def test_ends_are_taken_only_from_the_very_teacher(
    densenet: Path, tmp_path: Path, teacher_path: Path
) -> None:
    """Its checkpoint is looked for beside the cache, may be named, and is known by its weights."""
    student = ("train-student", "--cache", densenet / "gen0.zarr", "--model", MATCH, "--epochs", "1", "-q")
    message = (
        r".*gen0\.pt: teacher: made with '[0-9a-f]{12}' \(the cache was\), but this run has '[0-9a-f]{12}'"
    )
    argv = (*student, "--share-layers", "copy", "--teacher", teacher_path, "--out", tmp_path / "a.pt")
    assert "--teacher" in refuse(4, message, *argv, keep=densenet)
    moved = tmp_path / "moved.pt"
    moved.write_bytes((densenet / "gen0.pt").read_bytes())
    assert succeed(*student, "--teacher", moved, "--out", tmp_path / "b.pt")["share_layers"] == "freeze"
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "x.zarr"
    alone.symlink_to(densenet / "gen0.zarr")
    assert (
        succeed("train-student", "--cache", alone, *student[3:], "--share-layers", "none")["share_layers"]
        == "none"
    )
    assert not (tmp_path / "a.pt").exists()


def test_a_teacher_is_found_beside_its_cache_or_where_it_was(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    cache = dump_tiny(teacher_path, spec, data, tmp_path / "gen0.zarr")[0].cache
    assert teacher_file(cache) == teacher_path
    (tmp_path / teacher_path.name).write_bytes(teacher_path.read_bytes())
    assert teacher_file(cache) == tmp_path / teacher_path.name


def test_ends_of_another_shape_are_refused_before_anything_is_written(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet
) -> None:
    cache = dump_tiny(teacher_path, spec, data, tmp_path / "gen0.zarr")[0].cache
    run = run_for_cache(architecture("convnet-8"), RECIPE, 1, spec, data, cache, share_layers="freeze")
    options = TrainerOptions(tmp_path / "gen1.pt", CPU, teacher=teacher_path)
    with pytest.raises(UsageError, match=r"first_layer: .*\(8, 3, 3, 3\).*\(4, 3, 3, 3\)"):
        train(run, data, held_out, options, cache=cache)
    with pytest.raises(UsageError) as caught:
        train(run, data, held_out, TrainerOptions(tmp_path / "gen1.pt", CPU), cache=cache)
    assert "--teacher" in caught.value.hint
    with pytest.raises(UsageError, match=r"copy, freeze, none.*'all'"):
        replace(run, share_layers="all")  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gen0.zarr"]


def test_files_older_than_shared_ends_are_those_of_runs_that_share_nothing(
    labels_run: Run, teacher_path: Path
) -> None:
    header = {**load_checkpoint(teacher_path).header}
    del header["share_ends"]
    labels_run.require_same(header, "old.pt")
    with pytest.raises(MismatchError, match=r"old\.pt: share layers: .*none.*copy"):
        replace(labels_run, share_layers="copy").require_same(header, "old.pt")
    del header["trainable"]
    record = run_record(Checkpoint({}, header, "0" * 64), Path("old.pt"), seed=0)
    assert record["trainable"] == record["parameters"]
    assert record["share_ends"] == "none"


def test_labels_that_count_twice_double_the_loss_and_its_gradient_and_nothing_else(labels_run: Run) -> None:
    batch = Batch(torch.empty(0), torch.tensor([0, 2]), None, np.arange(2), np.zeros(2, np.int64))
    found = []
    for weight in (1.0, 2.0):
        logits = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.0, 0.25]], requires_grad=True)
        loss = objective(replace(labels_run, label_weight=weight), logits, batch, torch.tensor(0))
        loss.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        found.append((loss.item(), logits.grad))
    # By hand: (ln(e + 1 + 1/e) - 1 + ln(e^0.5 + 1 + e^0.25) - 0.25) / 2.
    assert [loss for loss, _ in found] == pytest.approx([0.7634720, 1.5269440], abs=1e-6)
    assert torch.equal(found[1][1], 2 * found[0][1])


def test_a_weight_of_labels_that_teaches_nothing_is_refused(
    tmp_path: Path, labels_run: Run, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> None:
    """Zero, infinity, and any beside a teacher, whose loss has weights of its own; older files have 1."""
    for weight in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match=f"{weight:g}"):
            replace(labels_run, label_weight=weight)
    cache = dump_tiny(teacher_path, spec, data, tmp_path / "gen0.zarr")[0].cache
    with pytest.raises(UsageError, match="2"):
        replace(run_for_cache(architecture(), RECIPE, 1, spec, data, cache), label_weight=2.0)
    header = {**load_checkpoint(teacher_path).header}
    del header["label_weight"]
    labels_run.require_same(header, "old.pt")
    with pytest.raises(MismatchError, match=r"old\.pt: label weight: .*1\.0.*2\.0"):
        replace(labels_run, label_weight=2.0).require_same(header, "old.pt")


def test_checkpointed_activations_are_an_argument_of_the_net_and_change_no_bit(
    densenet: Path, tmp_path: Path, npz: Path
) -> None:
    teach = ("train-teacher", "--data", f"npz:{npz}", "--model", DENSENET, "--views", "flip", "--epochs", "2")
    plain = succeed(*teach, "--out", tmp_path / "plain.pt")
    saving = succeed(*teach, "--out", tmp_path / "saving.pt", "--checkpoint-activations")
    assert saving["weights"] == plain["weights"]
    headers = [load_checkpoint(tmp_path / f"{name}.pt").header for name in ("plain", "saving")]
    assert "checkpoint_activations" not in headers[0]["architecture"]
    assert headers[1]["architecture"] == {**headers[0]["architecture"], "checkpoint_activations": True}
    # It still answers, is told from the other run, and its student saves memory too.
    refuse(4, r".*plain\.pt: architecture's checkpoint activations: .*None.*True", *teach[:-2], "--epochs", "2",
           "--out", tmp_path / "plain.pt", "--checkpoint-activations", "-q")  # fmt: skip
    succeed("dump", "--teacher", tmp_path / "saving.pt")
    succeed("train-student", "--cache", tmp_path / "saving.zarr", "--out", tmp_path / "s.pt", "--epochs", "1")
    assert load_checkpoint(tmp_path / "s.pt").header["architecture"]["checkpoint_activations"] is True
    assert build_from(load_checkpoint(tmp_path / "s.pt")).training


def test_an_epoch_is_reported_when_it_ends(tmp_path: Path, teacher_path: Path, npz: Path) -> None:
    argv = (
        "train-teacher",
        "--data",
        f"npz:{npz}",
        "--model",
        "convnet-4",
        "--epochs",
        "3",
        "--eval-every",
        "2",
    )
    said = call(*argv, "--out", tmp_path / "a.pt").err.splitlines()
    lines = [line for line in said if line.startswith("epoch ")]
    assert ["test" in line for line in lines] == [False, True, False]
