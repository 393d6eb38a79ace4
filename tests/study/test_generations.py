"""The born-again sequence: resumable at every step, no two models alike, every ancestor recorded."""

from __future__ import annotations

import base64
import io
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts.calling import refuse, succeed
from contracts.killing import Forker, tree
from contracts.replaying import pretend_to_capture
from contracts.tiny import CPU, RECIPE, architecture
from PIL import Image

from bancache.cache.reader import open_cache
from bancache.errors import DataError, MismatchError, StoppedError, UsageError
from bancache.evaluation import members
from bancache.evaluation.predict import Evaluator
from bancache.loader.open import open_loader
from bancache.models.checkpoint import load_checkpoint
from bancache.models.teacher import build_from
from bancache.report.results import Record, read_records
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.study import running
from bancache.study.generations import Experiment, run_generations
from bancache.system.configs import read_toml
from bancache.system.signals import Interrupt
from bancache.views import ViewSpace
from bancache.views.model_input import Normalization

VOLATILE = {"time", "seconds", "images_per_second"}


@pytest.fixture(scope="module")
def experiment(spec: DataSpec) -> Experiment:
    """Two generations of students, each of two epochs of six steps, with caches of two shards."""
    return Experiment(
        data=spec,
        architecture=architecture(),
        recipe=replace(RECIPE, epochs=2),
        views="crop1-flip",
        num_views=2,
        encoding="root4",
        batch_size=32,
        generations=2,
        seeds=(0,),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, experiment: Experiment) -> Path:
    """The folder of an undisturbed experiment with two seeds."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_generations(replace(experiment, seeds=(0, 1)), Path("x"), device=CPU)
    return folder / "x"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Experiments are written to the same name in different folders: a cache's digest contains its teacher's name."""
    monkeypatch.chdir(tmp_path)


def lasting(records: list[Record]) -> list[Record]:
    """Return records without times and speeds."""
    return [{key: value for key, value in record.items() if key not in VOLATILE} for record in records]


def of_seed(records: list[Record], seed: int) -> list[Record]:
    return [record for record in records if record["seed"] == seed]


def weights(out: Path, seed: int = 0) -> list[str]:
    """Return the fingerprints of a seed's models, oldest first."""
    paths = sorted((out / f"seed{seed}").glob("gen*.pt"))
    return [load_checkpoint(path).fingerprint for path in paths]


class StopAfter(Interrupt):
    """Requests a stop after some checks."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._left = times

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            self.signal_number = 15

    @property
    def requested(self) -> bool:
        self._count()
        return self.signal_number is not None

    def check(self, progress: str, hint: str = "run the same command to go on") -> None:
        self._count()
        super().check(progress, hint)


def test_the_seeds_of_a_gpu_train_side_by_side_to_the_same_bits(
    experiment: Experiment, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed = pretend_to_capture(monkeypatch)
    records = run_generations(replace(experiment, seeds=(0, 1)), Path("x"), device=CPU)
    assert replayed == [12] * 3  # of generations 0, 1 and 2: two epochs of six steps, each of both seeds
    assert [record["side_by_side"] for record in records if record["kind"] == "run"] == [2] * 6
    assert [weights(Path("x"), seed) for seed in (0, 1)] == [weights(whole, seed) for seed in (0, 1)]


@pytest.mark.parametrize("times", [3, 14])
def test_stopped_again_and_again_it_ends_the_same(
    tmp_path: Path, experiment: Experiment, whole: Path, times: int
) -> None:
    """Steps of training and shards of dumps: wherever it stops, the same call goes on from there."""
    out, stops = Path("x"), 0
    while True:
        try:
            records = run_generations(experiment, out, device=CPU, interrupt=StopAfter(times))
            break
        except StoppedError:
            stops += 1
            assert stops < 40
    assert stops >= 2
    assert weights(out) == weights(whole)
    assert lasting(records) == lasting(of_seed(read_records(whole / "results.jsonl"), 0))
    assert not list(out.rglob("*.resume"))
    assert not list(out.rglob("*.partial"))


class Killed(BaseException):
    """An exception that no code catches."""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (running, "train_side_by_side"),
        (running, "dump"),
        (running, "append_once"),
        (members, "predict_with"),
    ],
    ids=["train", "dump", "append_once", "predict_with"],
)
def test_killed_before_or_after_any_piece_of_work_it_ends_the_same(
    experiment: Experiment, whole: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """Process i dies at its i // 2 th call of the function: before the work if i is even, after it if odd."""
    real, calls, deaths = getattr(module, name), itertools.count(), 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        here = next(calls) == deaths // 2
        if here and deaths % 2 == 0:
            raise Killed
        done = real(*args, **kwargs)
        if here:
            raise Killed
        return done

    monkeypatch.setattr(module, name, dying)
    out = Path("x")
    while True:
        calls = itertools.count()
        try:
            records = run_generations(experiment, out, device=CPU)
            break
        except Killed:
            deaths += 1
            assert deaths < 40
    assert deaths >= 4
    assert weights(out) == weights(whole)
    assert lasting(records) == lasting(of_seed(read_records(whole / "results.jsonl"), 0))


def test_more_seeds_and_generations_add_only_what_is_missing(
    tmp_path: Path, experiment: Experiment, whole: Path
) -> None:
    out = Path("x")
    run_generations(replace(experiment, generations=1), out, device=CPU)
    first = tree(out)
    run_generations(experiment, out, device=CPU)
    second = tree(out)
    records = run_generations(replace(experiment, seeds=(0, 1)), out, device=CPU)
    third = tree(out)
    for before, after, added in (
        (first, second, {"seed0/gen1.zarr", "seed0/gen2.pt"}),
        (second, third, {f"seed1/{name}" for name in ("gen0.pt", "gen0.zarr", "gen1.pt", "gen1.zarr", "gen2.pt", "views.json")}),
    ):  # fmt: skip
        new = {name for name in after if name not in before}
        assert {"/".join(name.removesuffix(".jsonl").split("/")[:2]) for name in new} == added
        assert all(
            after[name] == before[name] for name in before if name not in ("run.toml", "results.jsonl")
        )
        assert after["results.jsonl"].startswith(before["results.jsonl"])
    asked_at_once = read_records(whole / "results.jsonl")
    assert sorted(map(str, lasting(records))) == sorted(map(str, lasting(asked_at_once)))
    assert third["run.toml"] == (whole / "run.toml").read_bytes()


def test_asking_again_does_nothing_and_asking_for_less_loses_nothing(
    whole: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(whole)
    monkeypatch.chdir(whole.parent)
    asked, out = replace(experiment, seeds=(0, 1)), Path("x")
    assert len(run_generations(asked, out, device=CPU)) == 2 * (3 + 2 + 1 + 2)
    assert tree(out) == before
    run_generations(replace(experiment, generations=1, seeds=(1,)), out, device=CPU)
    assert tree(out) == before


@pytest.mark.parametrize("profile", ["compact", "mmap"])
def test_another_profile_leaves_the_same_models(experiment: Experiment, whole: Path, profile: Any) -> None:
    out, other = Path("x"), replace(experiment, profile=profile)
    run_generations(other, out, device=CPU)
    assert weights(out) == weights(whole)
    assert {open_cache(path).manifest.profile for path in out.glob("seed0/*.zarr")} == {profile}
    expected = read_toml(whole / "run.toml")
    expected["sequence"] |= {"profile": profile, "seeds": list(experiment.seeds)}
    assert read_toml(out / "run.toml") == expected
    with pytest.raises(MismatchError, match=rf"sequence\.profile: .*{profile}.*None"):
        run_generations(experiment, out, device=CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": "flip"}, r"sequence\.views: .*crop1-flip.*flip"),
        ({"num_views": 3}, r"sequence\.num_views: .*2.*3"),
        ({"encoding": "float16"}, r"sequence\.encoding: .*root4.*float16"),
        ({"batch_size": 16}, r"sequence\.batch_size: .*32.*16"),
        ({"architecture": architecture("convnet-8")}, r"model\.name: .*convnet-4.*convnet-8"),
        ({"recipe": RECIPE}, r"recipe\.epochs: .*2.*4"),
        ({"recipe": replace(RECIPE, epochs=2, loss="ban")}, r"recipe\.loss: .*ban-l.*ban"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_other_settings_are_refused_with_both_values(
    whole: Path, experiment: Experiment, changes: dict[str, Any], message: str
) -> None:
    before = tree(whole)
    with pytest.raises(MismatchError, match=message) as caught:
        run_generations(replace(experiment, **changes), whole, device=CPU)
    assert "--out" in caught.value.hint
    assert tree(whole) == before


def test_other_images_are_refused(tmp_path: Path, experiment: Experiment, npz: Path) -> None:
    """By their number in run.toml, and by their content in the first checkpoint."""
    data, out = tmp_path / "data.npz", Path("x")
    data.write_bytes(npz.read_bytes())
    moved = replace(experiment, data=DataSpec(f"npz:{data}"), generations=1, recipe=replace(RECIPE, epochs=1))
    run_generations(moved, out, device=CPU)
    limited = replace(moved, data=replace(moved.data, limit=50))
    with pytest.raises(MismatchError, match=r"data\.limit: .*None.*50"):
        run_generations(limited, out, device=CPU)
    arrays = dict(np.load(data))
    order = np.random.default_rng(0).permutation(96)
    shuffled = {"train_images": arrays["train_images"][order], "train_labels": arrays["train_labels"][order]}
    np.savez(data, **{**arrays, **shuffled})
    before = tree(out)
    with pytest.raises(MismatchError, match=r"gen0\.pt: data fingerprint: .*'[0-9a-f]{12}'"):
        run_generations(moved, out, device=CPU)
    assert tree(out) == before


def test_a_sequence_needs_generations_and_seeds_that_differ(experiment: Experiment) -> None:
    for changes, value in (
        ({"generations": 0}, "0 generations"),
        ({"seeds": ()}, "no seeds"),
        ({"seeds": (1, 2, 1)}, "seed 1 "),
    ):
        with pytest.raises(UsageError, match=value):
            replace(experiment, **changes)


def test_what_no_student_could_do_is_refused_before_the_first_teacher(
    experiment: Experiment, tmp_path: Path
) -> None:
    kd, mean = replace(RECIPE, loss="kd", temperature=4.0), replace(RECIPE, targets="class-mean")
    for changes, value in (
        ({"recipe": kd}, "'root4'.* 1.* 4"),
        ({"recipe": mean, "views": "rrc-flip-mixup0.8"}, "'class-mean'"),
        ({"architecture": architecture("convnet-4") | {"dropout": 0.3}}, "dropout 0.3"),
    ):
        with pytest.raises(UsageError, match=value):
            run_generations(replace(experiment, **changes), tmp_path / "x", device=CPU)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("seed", [0, 1])
def test_every_generation_names_all_its_ancestors(whole: Path, seed: int) -> None:
    """Generation k has k of them, each with its weights and the digest of the cache through which it taught."""
    folder = whole / f"seed{seed}"
    nets = [load_checkpoint(folder / f"gen{k}.pt") for k in range(3)]
    digests = [open_cache(folder / f"gen{k}.zarr").digest for k in range(2)]
    for generation, net in enumerate(nets):
        lineage = net.header["lineage"]
        assert net.header["generation"] == generation == len(lineage)
        assert [ancestor["generation"] for ancestor in lineage] == list(range(generation))
        assert [ancestor["model"] for ancestor in lineage] == ["convnet-4"] * generation
        assert [ancestor["weights"] for ancestor in lineage] == [n.fingerprint for n in nets[:generation]]
        assert [ancestor["cache"] for ancestor in lineage] == digests[:generation]
        assert [a["accuracy"] for a in lineage] == [n.header["test"]["accuracy"] for n in nets[:generation]]


def test_no_two_models_and_no_two_teachers_are_alike(whole: Path) -> None:
    """Three generations and two seeds: six models, four teachers, four caches."""
    fingerprints = weights(whole, 0) + weights(whole, 1)
    assert len(set(fingerprints)) == 6
    caches = [open_cache(whole / f"seed{seed}" / f"gen{k}.zarr") for seed in (0, 1) for k in (0, 1)]
    taught_by = [cache.manifest.teacher["fingerprint"] for cache in caches]
    assert taught_by == [fingerprints[k] for k in (0, 1, 3, 4)]
    assert len({cache.digest for cache in caches}) == 4


def test_seeds_and_generations_differ_in_weights_order_and_views(whole: Path) -> None:
    headers = [
        load_checkpoint(whole / f"seed{seed}" / f"gen{k}.pt").header for seed in (0, 1) for k in range(3)
    ]
    assert len({header["seed"] for header in headers}) == 6
    assert len({header["view_space"]["seed"] for header in headers}) == 6
    for key in ("architecture", "recipe", "data_fingerprint", "normalisation", "views"):
        assert all(header[key] == headers[0][key] for header in headers)


def test_result_lines_say_which_is_which(whole: Path) -> None:
    records = read_records(whole / "results.jsonl")
    for seed in (0, 1):
        mine = of_seed(records, seed)
        assert [(r["kind"], r.get("generation", r.get("name"))) for r in mine] == [
            ("run", 0), ("dump", 0), ("run", 1), ("dump", 1), ("run", 2), ("ensemble", "Ens*2"),
            ("agreement", None), ("agreement", None),
        ]  # fmt: skip
        assert [r["loss"] for r in mine if r["kind"] == "run"] == ["labels", "ban-l", "ban-l"]
        assert [r["num_views"] for r in mine if r["kind"] == "run"] == [None, 2, 2]
        assert mine[5]["weights"] == weights(whole, seed)[1:]  # generation 0 is no member
        assert mine[5]["generations"] == [1, 2]
    assert {record["environment"]["device"] for record in records} == {"cpu"}


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory, experiment: Experiment, whole: Path) -> Path:
    """The undisturbed experiment, to which the controls of both seeds were added later."""
    folder = tmp_path_factory.mktemp("controlled")
    shutil.copytree(whole, folder / "x")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_generations(replace(experiment, seeds=(0, 1), controls=True), Path("x"), device=CPU)
    return folder / "x"


def test_controls_are_added_to_a_finished_experiment_and_change_nothing_of_it(
    controlled: Path, experiment: Experiment, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = tree(whole), tree(controlled)
    nets = ("labels1.pt", "labels2.pt", "labels1-weight2.pt")
    files = [*nets, *(f"{net}.jsonl" for net in nets)]
    assert set(after) - set(before) == {f"seed{seed}/{name}" for seed in (0, 1) for name in files}
    assert all(after[name] == before[name] for name in before if name not in ("run.toml", "results.jsonl"))
    assert after["results.jsonl"].startswith(before["results.jsonl"])
    assert after["run.toml"] == before["run.toml"].rstrip() + b"\ncontrols = true\n"
    monkeypatch.chdir(controlled.parent)
    run_generations(replace(experiment, seeds=(0, 1)), Path("x"), device=CPU)  # asked without them, they stay
    assert tree(controlled) == after


@pytest.mark.parametrize("seed", [0, 1])
def test_a_control_is_a_student_without_its_teacher(controlled: Path, seed: int) -> None:
    """Same initial weights, sample order and recipe; labels instead of a cache; other final weights."""
    folder = controlled / f"seed{seed}"
    for member in (1, 2):
        student = load_checkpoint(folder / f"gen{member}.pt").header
        control = load_checkpoint(folder / f"labels{member}.pt").header
        for key in ("seed", "architecture", "recipe", "data_fingerprint", "normalisation", "views"):
            assert control[key] == student[key]
        assert (control["generation"], control["lineage"], control["cache"]) == (0, [], None)
    heavy = load_checkpoint(folder / "labels1-weight2.pt").header
    light = load_checkpoint(folder / "labels1.pt").header
    assert {key for key in heavy if heavy[key] != light[key]} <= {
        "label_weight", "history", "test", "seconds", "images_per_second",
    }  # fmt: skip
    assert (heavy["label_weight"], light["label_weight"]) == (2.0, 1.0)
    # Before either has learned anything, the same images cost twice as much.
    assert heavy["history"][0]["loss"] > 1.5 * light["history"][0]["loss"]
    nets = [load_checkpoint(path).fingerprint for path in folder.glob("*.pt")]
    assert len(set(nets)) == 6


def test_controls_lines_say_which_is_which(controlled: Path) -> None:
    records = read_records(controlled / "results.jsonl")
    for seed in (0, 1):
        mine = of_seed(records, seed)[8:]
        assert [(r["kind"], r.get("role", r.get("name", r.get("net")))) for r in mine] == [
            ("control", "labels"), ("control", "labels"), ("control", "weight-2"), ("ensemble", "Ctl*2"),
            ("agreement", "labels-1"), ("agreement", "labels-2"), ("agreement", "weight-2"),
        ]  # fmt: skip
        assert [r["member"] for r in mine[:3]] == [1, 2, 1]
        assert {r["loss"] for r in mine[:4]} == {"labels"}
        assert mine[3]["members"] == [1, 2]
        assert mine[3]["weights"] == [r["weights"] for r in mine[:2]]
        said = succeed("evaluate", *[controlled / f"seed{seed}" / f"labels{k}.pt" for k in (1, 2)])
        assert said["ensemble"]["nll"] == mine[3]["test"]["nll"]


def test_agreement_is_the_share_of_test_images_with_the_same_likeliest_class(
    controlled: Path, held_out: ImageSet
) -> None:
    """Computed again from the predictions of each model."""
    folder, records = controlled / "seed0", of_seed(read_records(controlled / "results.jsonl"), 0)
    files = {
        "baseline": "gen0",
        "BAN-1": "gen1",
        "BAN-2": "gen2",
        "labels-1": "labels1",
        "labels-2": "labels2",
    }
    files["weight-2"] = "labels1-weight2"
    classes = {}
    for name, file in files.items():
        net = load_checkpoint(folder / f"{file}.pt")
        normal = Normalization.from_dict(net.header["normalisation"])
        classes[name] = Evaluator(held_out, normal, device=CPU).predict(build_from(net)).argmax(axis=1)
    lines = {r["net"]: {other["net"]: other["share"] for other in r["with"]} for r in records if "net" in r}
    assert {name: list(shares) for name, shares in lines.items()} == {
        "BAN-1": ["baseline"], "BAN-2": ["baseline", "BAN-1"],
        "labels-1": ["baseline"], "labels-2": ["baseline", "labels-1"], "weight-2": ["baseline"],
    }  # fmt: skip
    for name, shares in lines.items():
        for other, share in shares.items():
            same = sum(a == b for a, b in zip(classes[name], classes[other], strict=True))
            assert share == same / len(held_out)


def test_controls_killed_after_each_of_them_end_the_same(
    whole: Path, controlled: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after each checkpoint, before its result line."""
    shutil.copytree(whole, "x")
    module: Any = running
    real, deaths = module.train_side_by_side, 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        if (done := real(*args, **kwargs))[0].fresh:
            raise Killed
        return done

    monkeypatch.setattr(module, "train_side_by_side", dying)
    while True:
        try:
            records = run_generations(replace(experiment, seeds=(0, 1), controls=True), Path("x"), device=CPU)
            break
        except Killed:
            deaths += 1
    assert deaths == 6
    assert lasting(records) == lasting(read_records(controlled / "results.jsonl"))


def test_the_command_trains_controls_and_prints_one_object(npz: Path) -> None:
    """Two seeds, each with a student, its label-only baseline and the baseline with doubled CE weight."""
    said = succeed(
        "generations", "--data", f"npz:{npz}", "--model", "convnet-4", "--generations", "1", "--epochs", "1",
        "--seeds", "0,1", "--control", "--out", "x",
    )  # fmt: skip
    assert [(row["generation"], row["seed"]) for row in sorted(said["rows"], key=lambda r: r["seed"])] == [
        (0, 0), (1, 0), (0, 1), (1, 1),
    ]  # fmt: skip
    assert sorted((row["role"], row["member"], row["seed"]) for row in said["controls"]) == [
        ("labels", 1, 0), ("labels", 1, 1), ("weight-2", 1, 0), ("weight-2", 1, 1),
    ]  # fmt: skip
    assert all(Path(row["out"]).is_file() for row in (*said["rows"], *said["controls"]))
    assert "Against the controls" in Path(said["page"]).read_text()


def test_each_step_stands_for_itself(whole: Path, tmp_path: Path) -> None:
    """The commands for single steps read the files of a sequence."""
    said = succeed("train-student", "--cache", whole / "seed0" / "gen1.zarr", "--out", tmp_path / "other.pt")
    assert said["generation"] == 2
    assert said["weights"] not in weights(whole)
    members = [whole / "seed0" / f"gen{k}.pt" for k in (1, 2)]
    line = next(r for r in read_records(whole / "results.jsonl") if r["kind"] == "ensemble")
    assert succeed("evaluate", *members)["ensemble"]["nll"] == line["test"]["nll"]


def test_the_sample_views_are_those_that_students_are_trained_on(whole: Path, data: ImageSet) -> None:
    """Pixels and probabilities agree with those of a loader."""
    views = json.loads((whole / "seed0" / "views.json").read_text())
    assert [image["sample"] for image in views["images"]] == [0, 48, 95]  # spread over 96, 47.5 goes to even
    cache = open_cache(whole / "seed0" / "gen0.zarr")
    space = ViewSpace.from_dict(cache.manifest.view_space)
    normal = Normalization.from_dict(cache.manifest.pixels["normalisation"])
    loader = open_loader(whole / "seed0" / "gen0.zarr", batch_size=96)
    for image in views["images"]:
        sample = image["sample"]
        assert image["label"] == data.classes[data.labels[sample]]
        assert [view["view"] for view in image["views"]] == [
            int(space.view_ids(np.array([sample]), view_index)[0]) for view_index in (0, 1)
        ]
        for epoch, view in enumerate(image["views"]):  # the loader shows view index e in epoch e
            (batch,) = loader.epoch(epoch)
            place = int(np.flatnonzero(np.asarray(batch.samples) == sample)[0])
            shown = Image.open(io.BytesIO(base64.b64decode(view["png"])))
            seen = batch.images[place].permute(1, 2, 0).numpy() * np.array(normal.std) + np.array(normal.mean)
            np.testing.assert_array_equal(np.asarray(shown), seen.round())
            assert batch.targets is not None
            row = {data.classes[k]: float(p) for k, p in enumerate(batch.targets[place])}
            assert [name for name, _ in view["top"]] == sorted(row, key=lambda name: -row[name])
            assert dict(view["top"]) == pytest.approx(row, abs=6e-5)


def test_two_processes_that_work_on_different_seeds_may_share_a_folder(
    tmp_path: Path, forker: Forker, npz: Path
) -> None:
    """They leave the models, result lines and run.toml of one process, and the same command adds nothing."""
    argv = [
        "generations",
        "--data",
        f"npz:{npz}",
        "--model",
        "convnet-4",
        "--generations",
        "1",
        "--epochs",
        "1",
    ]
    together, alone = tmp_path / "together", tmp_path / "alone"
    ends = forker.run_together([[*argv, "--seeds", seed, "--out", str(together)] for seed in ("0", "1")])
    assert [code for code, _ in ends] == [0, 0], ends
    succeed(*argv, "--seeds", "0,1", "--out", alone)
    kinds = []
    for out in (together, alone):
        lines = read_records(out / "results.jsonl")
        kinds.append([[(r["kind"], r.get("generation")) for r in of_seed(lines, seed)] for seed in (0, 1)])
    assert kinds[0] == kinds[1]
    assert [weights(together, seed) for seed in (0, 1)] == [weights(alone, seed) for seed in (0, 1)]
    assert (together / "run.toml").read_bytes() == (alone / "run.toml").read_bytes()
    before = {name: content for name, content in tree(together).items() if "page" not in name}
    succeed(*argv, "--seeds", "0,1", "--out", together)
    assert {name: content for name, content in tree(together).items() if "page" not in name} == before


def test_an_ensemble_of_three_comes_with_one_of_two(tmp_path: Path, experiment: Experiment) -> None:
    records = run_generations(
        replace(experiment, generations=3, recipe=replace(RECIPE, epochs=1)), Path("x"), device=CPU
    )
    ensembles = [(r["name"], r["generations"]) for r in records if r["kind"] == "ensemble"]
    assert ensembles == [("Ens*2", [1, 2]), ("Ens*3", [1, 2, 3])]
    one = replace(experiment, generations=1, recipe=replace(RECIPE, epochs=1))
    assert not [r for r in run_generations(one, Path("y"), device=CPU) if r["kind"] == "ensemble"]


def test_a_torn_last_line_is_healed_and_its_work_recorded_again(
    tmp_path: Path, experiment: Experiment
) -> None:
    """A power cut in the middle of a line leaves half of it; the whole record is appended after it."""
    out = Path("x")
    short = replace(experiment, generations=1, recipe=replace(RECIPE, epochs=1))
    before = run_generations(short, out, device=CPU)
    content = (out / "results.jsonl").read_bytes()
    (out / "results.jsonl").write_bytes(content[:-40])
    assert lasting(run_generations(short, out, device=CPU)) == lasting(before)
    (out / "results.jsonl").write_bytes(b"3\n" + content)
    with pytest.raises(DataError, match="line 1 "):
        run_generations(short, out, device=CPU)


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("seed0/gen0.pt", 1, r".*gen0\.pt.*"),
        ("seed0/gen0.zarr/manifest.json", 3, r".*gen0\.zarr/manifest\.json.*"),
        ("run.toml", 1, r".*run\.toml.*"),
    ],
)
def test_a_damaged_file_stops_the_sequence_and_is_named(
    tmp_path: Path, npz: Path, name: str, code: int, message: str
) -> None:
    out = Path("x")
    argv = (
        "--data",
        f"npz:{npz}",
        "--model",
        "convnet-4",
        "--generations",
        "1",
        "--epochs",
        "1",
        "--out",
        out,
    )
    succeed("generations", *argv)
    (out / name).write_bytes((out / name).read_bytes()[:20])  # within the first value
    refuse(code, message, "generations", *argv, "-q", keep=out)
