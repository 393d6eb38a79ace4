"""A study from a file: its arms differ in what the file says and in nothing else, and it goes on after anything."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contracts.calling import refuse, succeed
from contracts.killing import tree
from contracts.replaying import pretend_to_capture
from contracts.tiny import CPU
from sources.tiny import Heard

from bancache.cache.reader import open_cache
from bancache.errors import MismatchError, UsageError
from bancache.models.checkpoint import load_checkpoint
from bancache.report.results import Record, read_records
from bancache.study import running
from bancache.study.arms_file import read_study
from bancache.study.from_file import run_study
from bancache.study.running import Place
from bancache.system.configs import read_toml

ROOT = Path(__file__).parents[2]
ARMS = """
[arms.teacher]
start = 0
[arms.labels]
[arms.weight-2]
label_weight = 2
[arms.ban-1]
teacher = "teacher"
[arms.half]
teacher = "teacher"
loss_scale = 0.5
targets = "class-mean"
[arms.both]
members = ["labels", "ban-1"]
"""
Write = Callable[..., Path]


@pytest.fixture(scope="session")
def write(npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Return what writes a study of the tiny data, by default with the arms above."""

    def made(arms: str = ARMS, *, seeds: str = "[0, 1]", study: str = "", recipe: str = "") -> Path:
        path = tmp_path_factory.mktemp("study") / "arms.toml"
        path.write_text(f"""
[study]
seeds = {seeds}
baseline = "labels"
views = "crop1-flip"
num_views = 2
{study}
[data]
source = "npz:{npz}"
[model]
name = "convnet-4"
[recipe]
epochs = 1
batch_size = 16
{recipe}
{arms}""")
        return path

    return made


def run(file: Path, out: Path, seeds: tuple[int, ...] | None = None, **place: Any) -> list[Record]:
    return run_study(read_study(file), out, Place(device=CPU, eval_every=0, **place), seeds)


def lasting(records: list[Record]) -> list[Record]:
    """Return records without times and speeds."""
    volatile = ("time", "seconds", "images_per_second", "out")
    return [{key: value for key, value in record.items() if key not in volatile} for record in records]


@pytest.fixture(scope="module")
def whole(write: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed study of two seeds."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(write(), Path("x"))
    return folder / "x"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies are written to the same name in different folders: a cache's digest contains its teacher's name."""
    monkeypatch.chdir(tmp_path)


def test_each_arm_of_each_seed_has_a_line(whole: Path) -> None:
    records = read_records(whole / "results.jsonl")
    for seed in (0, 1):
        mine = [record for record in records if record["seed"] == seed]
        assert [(r["kind"], r.get("name", r.get("net"))) for r in mine] == [
            ("arm", "teacher"), ("arm", "labels"), ("arm", "weight-2"), ("dump", None), ("arm", "ban-1"),
            ("arm", "half"), ("agreement", "ban-1"), ("agreement", "half"), ("arm", "both"),
            ("train", "teacher"), ("train", "labels"), ("train", "weight-2"), ("train", "ban-1"), ("train", "half"),
        ]  # fmt: skip
        lines = {record["name"]: record for record in mine if record["kind"] == "arm"}
        assert lines["both"]["weights"] == [lines["labels"]["weights"], lines["ban-1"]["weights"]]
        assert [line.get("loss") for line in lines.values()] == [
            "labels", "labels", "labels", "ban-l", "ban-l class-mean x0.5", None,
        ]  # fmt: skip
        assert mine[6]["with"][0]["weights"] == lines["teacher"]["weights"]


@pytest.mark.parametrize("seed", [0, 1])
def test_arms_of_a_seed_share_first_weights_order_and_views(whole: Path, seed: int) -> None:
    """One seed decides the first two, the view space and the number of views the third; the first teacher has its own."""
    folder = whole / f"seed{seed}"
    names = ("teacher", "labels", "weight-2", "ban-1", "half")
    headers = [load_checkpoint(folder / f"{name}.pt").header for name in names]
    shared = [[header[key] for key in ("seed", "view_space", "num_views")] for header in headers]
    assert shared[1:] == [shared[1]] * 4
    assert all(one != other for one, other in zip(shared[0], shared[1], strict=True))
    assert shared[1][1] == open_cache(folder / "teacher.zarr").manifest.view_space
    different = {key for key in headers[1] if headers[1][key] != headers[2][key]}
    assert different <= {"label_weight", "history", "test", "seconds", "images_per_second"}


def test_generations_are_a_study_that_writes_itself(whole: Path, npz: Path) -> None:
    """Teacher and student have the bits that they have there."""
    succeed(
        "generations", "--data", f"npz:{npz}", "--model", "convnet-4", "--views", "crop1-flip", "--num-views", "2",
        "--epochs", "1", "--batch-size", "16", "--generations", "1", "--out", "y", "-q",
    )  # fmt: skip
    for mine, theirs in (("teacher", "gen0"), ("ban-1", "gen1")):
        found = load_checkpoint(whole / "seed0" / f"{mine}.pt").fingerprint
        assert found == load_checkpoint(Path("y") / "seed0" / f"{theirs}.pt").fingerprint


def test_the_table_of_two_arms_and_two_seeds_is_that_of_their_checkpoints(write: Write) -> None:
    """Computed again from each model's errors: means, their spread, and the mean of the paired differences."""
    told = succeed("study", write("[arms.labels]\n[arms.heavy]\nlabel_weight = 2"), "--out", "x", "-q")
    first, second = (
        [succeed("evaluate", f"x/seed{seed}/{name}.pt")["ensemble"]["error"] for seed in (0, 1)]
        for name in ("labels", "heavy")
    )
    labels, heavy = told["arms"]
    assert (labels["name"], heavy["name"], told["baseline"]) == ("labels", "heavy", "labels")
    assert (labels["errors"], heavy["errors"]) == (first, second)
    assert heavy["error"] == pytest.approx((second[0] + second[1]) / 2)
    assert heavy["error_spread"] == pytest.approx(abs(second[0] - second[1]) / 2**0.5)
    differences = [second[0] - first[0], second[1] - first[1]]
    assert heavy["difference"] == pytest.approx(sum(differences) / 2)
    assert (heavy["difference_interval"], heavy["missing"]) == (None, [])
    assert "| heavy | label\\_weight = 2 |" in Path("x/table.md").read_text()
    assert "label_weight = 2" in Path("x/page.html").read_text()


class Killed(BaseException):
    """An exception that no code catches."""


def test_killed_before_or_after_any_piece_of_work_it_ends_the_same(
    write: Write, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process i dies at the i // 2 th call of any of these: before the work if i is even, after it if odd."""
    file, deaths, calls = write(seeds="[0]"), 0, itertools.count()

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            here = next(calls) == deaths // 2
            if here and deaths % 2 == 0:
                raise Killed
            done = real(*args, **kwargs)
            if here:
                raise Killed
            return done

        return called

    for name in ("train_side_by_side", "dump", "append_once"):
        monkeypatch.setattr(running, name, dying(getattr(running, name)))
    while True:
        calls = itertools.count()
        try:
            records = run(file, Path("x"))
            break
        except Killed:
            deaths += 1
            assert deaths < 60
    assert deaths >= 2 * (5 + 1 + 6)  # models, caches, and their lines
    expected = [record for record in read_records(whole / "results.jsonl") if record["seed"] == 0]
    assert lasting(records) == lasting(expected)


def test_the_arms_of_one_teacher_train_side_by_side_on_a_gpu_to_the_same_bits(
    write: Write, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed = pretend_to_capture(monkeypatch)
    run(write(), Path("x"))
    assert replayed == [
        6,
        6,
        6,
    ]  # six steps: of three arms of two seeds in two groups, then of two students of both
    for path in whole.glob("seed*/*.pt"):
        assert (
            load_checkpoint(Path("x") / path.relative_to(whole)).fingerprint
            == load_checkpoint(path).fingerprint
        )


def test_arms_that_cannot_be_trained_are_refused_before_the_first(write: Write, tmp_path: Path) -> None:
    arm = "[arms.teacher]\nstart = 0\n[arms.labels]\n[arms.hot]\nteacher = 'teacher'\n"
    for more, study, value in (
        ("loss = 'kd'\ntemperature = 4.0", "encoding = 'topk-2'", "hot: .*'topk-2'.* 1.* 4"),
        ("model = 'torchvision:none'", "", "none"),
        ("model = 'convnet-2'\nshare_layers = 'copy'", "", "first_layer"),
    ):
        with pytest.raises(UsageError, match=value):
            run(write(arm + more, study=study), tmp_path / "x")
        assert not list((tmp_path / "x").iterdir())
    refuse(2, "seed 1 ", "study", write(), "--seeds", "1,1", "--out", tmp_path / "x", hint="--seeds")


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        (("[recipe]", "classes = 7\n[recipe]"), ("model.classes", "7", "3")),
        (("[recipe]", "channels = 1\n[recipe]"), ("model.channels", "1", "3")),
        (('"crop1-flip"\nnum_views = 2', '"rrc-flip"\nnum_views = "all"'), ("rrc-flip",)),
    ],
)
def test_a_model_of_other_data_and_all_of_endless_views_are_refused(
    setting: tuple[str, str], values: tuple[str, ...], write: Write, tmp_path: Path
) -> None:
    file = write()
    before = file.read_text()
    assert before.count(setting[0]) == 1
    file.write_text(before.replace(*setting))
    refuse(2, (str(file), *values), "study", file, "--out", tmp_path / "x")
    assert not list((tmp_path / "x").iterdir())


def test_seeds_may_be_run_one_by_one_and_the_same_call_adds_nothing(write: Write, whole: Path) -> None:
    file = write()
    for seeds in ((1,), (0,), (0, 1)):
        records = run(file, Path("x"), seeds)
    assert sorted(map(str, lasting(records))) == sorted(
        map(str, lasting(read_records(whole / "results.jsonl")))
    )
    before = tree(Path("x"))
    run(file, Path("x"))
    assert tree(Path("x")) == before


def test_its_copy_says_all_that_the_file_leaves_to_defaults(write: Write, whole: Path) -> None:
    """So another folder that is made from the copy is of the same study."""
    copy = read_toml(whole / "arms.toml")
    assert copy["study"] == {
        "baseline": "labels", "seeds": [0, 1], "views": "crop1-flip", "num_views": 2, "encoding": "root4",
        "batch_size": 256, "profile": "default",
    }  # fmt: skip
    assert copy["model"]["classes"] == 3
    assert copy["recipe"]["schedule"] == "onecycle"
    assert list(copy["arms"]) == ["teacher", "labels", "weight-2", "ban-1", "half", "both"]
    (out := Path("x")).mkdir()
    (out / "arms.toml").write_bytes((whole / "arms.toml").read_bytes())
    few = Path("few.toml")
    few.write_bytes((whole / "arms.toml").read_bytes())
    refuse(2, "seed 5 .*0, 1", "study", few, "--out", out, "--seeds", "5", hint="--seeds", keep=out)
    assert read_study(out / "arms.toml").tables == copy


def test_its_copy_is_of_the_same_images(write: Write) -> None:
    """A limit takes equally many of each class unless the file says otherwise, and then the copy says so, too."""
    file = write("[arms.labels]", seeds="[0]")
    plain = file.read_text()
    for out, limited, balanced in (("x", "limit = 48", True), ("y", "limit = 48\nbalanced = false", False)):
        file.write_text(plain.replace("[data]", f"[data]\n{limited}"))
        run(file, Path(out))
        copy = read_study(Path(out) / "arms.toml")
        assert (copy.data.limit, copy.data.balanced) == (48, balanced)


def test_arms_and_seeds_may_be_added(write: Write) -> None:
    run(write("[arms.labels]", seeds="[0]"), Path("x"))
    before = tree(Path("x"))
    run(write("[arms.heavy]\nlabel_weight = 2\n[arms.labels]", seeds="[0, 1]"), Path("x"))
    after = tree(Path("x"))
    models = {name for name in set(after) - set(before) if name.endswith(".pt")}
    assert models == {"seed0/heavy.pt", "seed1/heavy.pt", "seed1/labels.pt"}
    assert after["results.jsonl"].startswith(before["results.jsonl"])
    assert after["seed0/labels.pt"] == before["seed0/labels.pt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": ARMS.replace("label_weight = 2", "label_weight = 3")}, r"arms\.weight-2: .*2.*3"),
        ({"arms": ARMS.replace("[arms.half]", "[arms.halved]")}, r"arms\.half: .*class-mean.*None"),
        ({"seeds": "[1, 2]"}, r"study\.seeds: .*\[0, 1\].*\[1, 2\]"),
        ({"recipe": "lr = 0.3"}, r"recipe\.lr: .*0\.2.*0\.3"),
        ({"study": 'encoding = "float16"'}, r"study\.encoding: .*root4.*float16"),
    ],
    ids=["changed arm", "lost arm", "lost seed", "recipe", "encoding"],
)
def test_another_study_is_refused_with_both_values(
    write: Write, whole: Path, change: dict[str, str], message: str
) -> None:
    before = tree(whole)
    with pytest.raises(MismatchError, match=message) as caught:
        run(write(**change), whole)
    assert "--out" in caught.value.hint
    assert tree(whole) == before


def test_a_folder_is_of_a_study_or_of_generations(write: Write, whole: Path, npz: Path) -> None:
    other = Path("y")
    other.mkdir()
    (other / "run.toml").write_text("")
    refuse(2, "generations", "study", write(), "--out", other, hint="--out", keep=other)
    argv = ("--data", f"npz:{npz}", "--model", "convnet-4", "--epochs", "1", "--out", whole)
    refuse(2, "study", "generations", *argv, hint="--out", keep=whole)


def test_a_student_that_begins_as_its_teacher_did_is_noted(write: Write) -> None:
    heard = Heard()
    run(write('[arms.labels]\n[arms.ban]\nteacher = "labels"', seeds="[0]"), Path("x"), progress=heard)
    assert [note for note in heard.notes if "start" in note and "ban" in note and "labels" in note]


def test_the_study_that_is_to_be_run_can_be_read() -> None:
    found = read_study(ROOT / "benchmarks" / "results" / "study" / "arms.toml")
    models = [arm for arm in found.arms if not arm.members]
    assert (len(found.seeds), len(models), {arm.recipe.epochs for arm in models}) == (10, 20, {10})
    changes = {arm.recipe.targets for arm in models}
    assert changes >= {"none", "smooth0.1", "max-uniform", "permute-rest", "shuffle-in-class", "class-mean"}


def test_the_example_is_a_study() -> None:
    found = read_study(ROOT / "examples" / "arms.toml")
    arms = {arm.name: arm for arm in found.arms}
    assert (len(arms), found.seeds, found.recipe.epochs) == (20, (0, 1, 2), 15)
    assert [arms[name].start for name in ("teacher", "labels", "ban-1", "ban-2", "labels-2")] == [
        0,
        1,
        1,
        2,
        2,
    ]
    assert [arms[name].generation for name in ("labels-2", "ban-1", "ban-2")] == [0, 1, 2]
    assert (arms["half"].recipe.loss_scale, arms["epochs-x2"].recipe.epochs) == (0.5, 30)
    assert arms["weight-2-ensemble"].members == ("weight-2", "weight-2-2")


FINE = "[study]\nseeds = [0]\n[data]\nsource = 'digits'\n"
HOSTILE = {
    "no TOML": ("a = = 1", "TOML"),
    "empty": ("", "seeds"),
    "table for a list": ("[study.seeds]\n", "seeds"),
    "text for a table": (f"recipe = 3\n{FINE}[arms.a]", "recipe"),
    "no arms": (FINE, "arms"),
    "arms are a list": (f"arms = [1]\n{FINE}", "arms"),
    "an arm is a number": (f"{FINE}[arms]\na = 1", "arms.a"),
    "seed twice": (FINE.replace("[0]", "[0, 0]") + "[arms.a]", "seeds"),
    "seed below 0": (FINE.replace("[0]", "[-1]") + "[arms.a]", "seeds"),
    "no seeds": (FINE.replace("[0]", "[]") + "[arms.a]", "seeds"),
    "endless number": (FINE.replace("[0]", f"[{'9' * 5000}]") + "[arms.a]", ""),
    "name is a path": (f'{FINE}[arms."../../a"]', "../../a"),
    "name is empty": (f'{FINE}[arms.""]', "called"),
    "unknown table": (f"{FINE}[arms.a]\n[modle]", "modle"),
    "no such source": (FINE.replace("digits", "digit") + "[arms.a]", "digit"),
    "no such model": (f"{FINE}[model]\nname = 'resnet'\n[arms.a]", "resnet"),
    "no such views": (FINE.replace("seeds", "views = 'crops'\nseeds") + "[arms.a]", "crops"),
    "no such encoding": (FINE.replace("seeds", "encoding = 'root'\nseeds") + "[arms.a]", "root"),
    "no such baseline": (FINE.replace("seeds", "baseline = 'b'\nseeds") + "[arms.a]", "'b'"),
    "recipe of a wrong type": (f"{FINE}[recipe]\nlr = 'fast'\n[arms.a]", "lr"),
    "not finite": (f"{FINE}[recipe]\nlr = inf\n[arms.a]", "inf"),
    "too large for a float": (f"{FINE}[recipe]\nlr = 1{'0' * 400}\n[arms.a]", "lr"),
    "arm that trains nothing": (f"{FINE}[arms.a]\nepochs = 0", "arms.a"),
    "no such targets": (f"{FINE}[arms.a]\n[arms.b]\nteacher = 'a'\ntargets = 'means'", "means"),
    "its own teacher": (f"{FINE}[arms.a]\nteacher = 'a'", "'a'"),
    "teacher below it": (f"{FINE}[arms.a]\nteacher = 'b'\n[arms.b]", "'b'"),
    "one member": (f"{FINE}[arms.a]\n[arms.b]\nmembers = ['a']", "members"),
    "a member twice": (f"{FINE}[arms.a]\n[arms.b]\nmembers = ['a', 'a']", "members"),
    "ensemble that trains": (f"{FINE}[arms.a]\n[arms.b]\n[arms.c]\nmembers = ['a', 'b']\nlr = 1", "members"),
    "targets without a teacher": (f"{FINE}[arms.a]\ntargets = 'class-mean'", "targets"),
    "label weight with a teacher": (f"{FINE}[arms.a]\n[arms.b]\nteacher = 'a'\nlabel_weight = 2", "label_weight"),
    "code": (f"{FINE}[recipe]\nloss = 'os:system'\n[arms.a]", "os:system"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_makes_no_sense_is_refused_when_it_is_read(case: str, tmp_path: Path) -> None:
    text, value = HOSTILE[case]
    (file := tmp_path / "arms.toml").write_text(text)
    refuse(2, (str(file) if value else "", value), "study", file, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_name_with_a_dot_stands_in_quotes(tmp_path: Path) -> None:
    """Without them, TOML takes it for two names."""
    (file := tmp_path / "arms.toml").write_text(f"{FINE}[arms.smooth-0.1]")
    with pytest.raises(UsageError) as caught:
        read_study(file)
    assert '[arms."smooth-0.1"]' in caught.value.hint
    file.write_text(f"{FINE}{caught.value.hint.partition(': ')[2]}")
    assert [arm.name for arm in read_study(file).arms] == ["smooth-0.1"]


@pytest.mark.parametrize(
    ("text", "near"),
    [("[arms.a]\nlable_weight = 2", "label_weight"), ("[arms.a]\n[arms.b]\nteacher = 'aa'", "a"),
     ("[recipe]\nepoch = 2\n[arms.a]", "epochs")],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_the_nearest(text: str, near: str, tmp_path: Path) -> None:
    (file := tmp_path / "arms.toml").write_text(FINE + text)
    with pytest.raises(UsageError) as caught:
        read_study(file)
    assert f"'{near}'" in caught.value.hint


def test_teachers_answer_in_the_precision_that_they_were_trained_in(write: Write, tmp_path: Path) -> None:
    arms = '[arms.teacher]\nstart = 0\n[arms.labels]\n[arms.ban-1]\nteacher = "teacher"'
    for amp, precision in (("true", "bfloat16"), ("false", "float32")):
        out = tmp_path / precision
        run(write(arms, seeds="[0]", recipe=f"amp = {amp}"), out)
        assert open_cache(out / "seed0" / "teacher.zarr").manifest.compute["precision"] == precision
