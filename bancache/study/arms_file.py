"""arms.toml, a study that is written before its first run: its tables are checked when they are read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from msgspec import Meta, Struct, defstruct

from bancache.encodings import check_encoding_name
from bancache.errors import UsageError
from bancache.models.names import LIBRARIES, canonical_name, is_third_party, parse_name, split_weights
from bancache.sources.spec import DataSpec
from bancache.study.arms import Arm, Given
from bancache.study.given import open_given
from bancache.system import configs
from bancache.system.checked import Address, Finite, Size, Text, checked
from bancache.training.defaults import default_recipe
from bancache.training.recipe import Recipe, own_name
from bancache.views.space import ViewSpace

Tables = dict[str, dict[str, Any]]

# Names become files: nothing that a file system, a shell or a table takes for something else.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_RECIPE = tuple(field.name for field in fields(Recipe))
# What a model without a teacher has no use for.
_OF_STUDENTS = ("loss", "temperature", "alpha", "targets", "loss_scale", "share_layers")
_OF_GIVEN = ("checkpoint", "weights", "fingerprint")

_Whole = Annotated[int, Meta(ge=0, lt=1 << 31)]
_Positive = Annotated[int, Meta(ge=1, lt=1 << 31)]
_Pixels = Annotated[int, Meta(ge=8, le=4096)]
_Seed = Annotated[int, Meta(ge=0, lt=1 << 53)]


class _Study(Struct):
    seeds: Annotated[list[_Seed], Meta(min_length=1, max_length=10_000)]
    baseline: Text | None = None
    views: Text | None = None
    num_views: _Positive | Literal["all"] | None = None
    encoding: Text | None = None
    batch_size: _Positive | None = None
    profile: Literal["default", "compact", "mmap"] | None = None


class _Data(Struct):
    source: Address
    limit: Size | None = None
    image_size: _Whole | None = None
    skip_bad: bool = False
    decoder: _Whole | None = None
    balanced: bool = True


class _Model(Struct):
    name: Text | None = None
    image_size: Annotated[list[_Pixels], Meta(min_length=2, max_length=2)] | None = None
    dropout: Annotated[float, Meta(ge=0, lt=1)] | None = None
    checkpoint_activations: bool | None = None
    classes: _Whole | None = None
    channels: _Whole | None = None


def _recipe_fields() -> list[tuple[str, Any, Any]]:
    """Return the settings of a recipe as optional fields; names of losses and the like are checked by the recipe."""
    kinds: dict[Any, Any] = {
        int: _Whole,
        float: Finite,
        bool: bool,
        tuple[float, ...]: Annotated[list[Finite], Meta(max_length=99)],
    }
    return [(name, kinds.get(hint, Text) | None, None) for name, hint in get_type_hints(Recipe).items()]


_Recipe = defstruct("_Recipe", [("preset", Text | None, None), *_recipe_fields()])
_Arm = defstruct(
    "_Arm",
    [
        ("teacher", Text | None, None),
        ("start", _Whole | None, None),
        ("label_weight", Annotated[float, Meta(gt=0, lt=1e300)] | None, None),
        ("members", Annotated[list[Text], Meta(min_length=2, max_length=1000)] | None, None),
        ("model", Text | None, None),
        ("share_layers", Literal["copy", "freeze", "none"] | None, None),
        *((name, Text | None, None) for name in _OF_GIVEN),
        *_recipe_fields(),
    ],
)
_TABLES: dict[str, Any] = {"study": _Study, "data": _Data, "model": _Model, "recipe": _Recipe}


@dataclass(frozen=True)
class StudyFile:
    """A file that was read and checked: its tables, its data, the recipe that its arms change, and the arms."""

    path: Path
    tables: Tables
    data: DataSpec
    recipe: Recipe
    arms: tuple[Arm, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the study."""
        return tuple(self.tables["study"]["seeds"])


def read_study(path: Path) -> StudyFile:
    """Read arms.toml.

    Raises:
        UsageError: It is missing or not TOML, a name is unknown (the hint has the nearest), a value makes no sense, or a
            teacher or a member does not stand above the arm that names it.
    """
    tables = configs.read_toml(path)
    _require_known(tables, [*_TABLES, "arms"], f"{path}")
    for title, kind in _TABLES.items():
        _check(tables.setdefault(title, {}), kind, path, title)
    arms = tables.setdefault("arms", {})
    if not isinstance(arms, dict) or not arms:
        raise UsageError(f"{path} has no arms", hint="add a table for each, such as [arms.labels]")
    for name, table in arms.items():
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{path}: an arm is called '{name[:100]}'", hint="use at most 100 letters, digits and . _ + -"
            )
        for key, value in table.items() if isinstance(table, dict) else ():
            if isinstance(value, dict):
                raise UsageError(
                    f"{path}: arms.{name} holds a table '{key[:100]}'",
                    hint=f'a name with a dot stands in quotes: [arms."{name}.{key[:100]}"]',
                )
        _check(table, _Arm, path, f"arms.{name}")
    with _naming(path):
        _check_names(tables["study"], tables["model"])
        spec, settings = DataSpec(**tables["data"]), dict(tables["recipe"])
        recipe = default_recipe(spec.kind, settings.pop("preset", None), **_plain(settings))
    found = tuple(_arms(path, arms, recipe))
    baseline = tables["study"].setdefault("baseline", found[0].name)
    if baseline not in arms:
        raise _unknown(f"{path}: study.baseline: no arm is called '{baseline[:100]}'", baseline, arms)
    return StudyFile(path, tables, spec, recipe, found)


def with_rate(file: StudyFile, lr: float) -> StudyFile:
    """Return a file whose recipe has another learning rate, for all arms that do not name their own."""
    recipe, table = replace(file.recipe, lr=lr), {**file.tables["recipe"], "lr": lr}
    arms = tuple(_arms(file.path, file.tables["arms"], recipe))
    return replace(file, tables={**file.tables, "recipe": table}, recipe=recipe, arms=arms)


def _check(table: Any, kind: Any, path: Path, title: str) -> None:
    if isinstance(table, dict):
        _require_known(table, kind.__struct_fields__, f"{path}: {title}")
    checked(table, kind, name=f"{path}: {title}", error=UsageError, hint="correct the file")


def _require_known(table: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    for key in table:
        if key not in known:
            raise _unknown(f"{what} has an unknown setting '{key[:100]}'", key, known)


def _unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    near = difflib.get_close_matches(name[:100], known, n=1)
    return UsageError(
        what, hint=f"did you mean '{near[0]}'?" if near else f"known: {', '.join([*known][:40])}"
    )


@contextmanager
def _naming(place: object) -> Iterator[None]:
    """Let an error say in which place of a file it is."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{place}: {error}", hint=error.hint) from error


def _check_names(study: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    if len(set(study["seeds"])) < len(study["seeds"]):
        raise UsageError("study.seeds has a seed twice", hint="list every seed once")
    if "views" in study:
        ViewSpace.parse(study["views"])
    if "encoding" in study:
        check_encoding_name(study["encoding"])
    if "name" in model:
        parse_name(model["name"])


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a recipe in a table, with tuples as a recipe has them."""
    settings = {key: value for key, value in table.items() if key in _RECIPE}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


def _arms(path: Path, tables: Mapping[str, Mapping[str, Any]], recipe: Recipe) -> Iterator[Arm]:
    above: dict[str, Arm] = {}
    for name, table in tables.items():
        with _naming(f"{path}: arms.{name}"):
            above[name] = _arm(name, table, replace(recipe, **_plain(table)), above)
        yield above[name]


def _arm(name: str, table: Mapping[str, Any], recipe: Recipe, above: Mapping[str, Arm]) -> Arm:
    """Return an arm whose teacher or members are among the arms ``above`` it."""
    teacher, members = table.get("teacher"), table.get("members", ())
    models = [arm.name for arm in above.values() if not arm.members]
    for other, known in ((teacher, above), *((member, models) for member in members)):
        if other is not None and other not in known:
            raise _unknown(
                f"no {'arm' if other == teacher else 'model'} above it is called '{other[:100]}'",
                other,
                known,
            )
    line = {"kind": "arm", "name": name}
    if members:
        if len(table) > 1 or len(set(members)) < len(members):
            raise UsageError(
                "an ensemble has members, each once, and no other setting", hint="leave the others out"
            )
        line, generation = {**line, "members": members}, max(above[member].generation for member in members)
        return Arm(
            name=name, file=name, recipe=recipe, generation=generation, members=tuple(members), line=line
        )
    if any(key in table for key in _OF_GIVEN):
        return Arm(name=name, file=name, recipe=recipe, start=0, given=_given(table), line=line)
    _require_meaning(table, recipe, above.get(teacher or ""))
    generation = above[teacher].generation + 1 if teacher else 0
    start = table.get("start", max(1, generation))
    return Arm(
        name=name,
        file=name,
        recipe=recipe,
        start=start,
        generation=generation,
        model=canonical_name(table["model"]) if "model" in table else "",
        teacher=teacher,
        share_layers=table.get("share_layers"),
        label_weight=float(table.get("label_weight", 1)),
        # Those of the students that it stands beside; the first teacher stands beside none.
        views_of=start - 1 if teacher is None and start else None,
        beside=(teacher,) if teacher else (),
        line=line,
    )


def _given(table: Mapping[str, Any]) -> Given:
    """Return the teacher that a table names, which has no setting of a training."""
    if "checkpoint" not in table or {*table} - {*_OF_GIVEN}:
        raise UsageError(
            "an arm that is there already has a checkpoint, and its weights if that is a model of torchvision or timm",
            hint='leave the other settings out: checkpoint = "gen0.pt"',
        )
    name, weights = table["checkpoint"], table.get("weights")
    if is_third_party(name) and parse_name(name).family not in LIBRARIES:
        raise _code(f"teacher '{name}'", "give the checkpoint of a student of it")
    if is_third_party(name) != (weights is not None):
        raise UsageError(
            f"weights are for a model of torchvision or timm, and that needs them: {name}",
            hint='checkpoint = "timm:resnet18" and weights = "FILE", or a checkpoint alone',
        )
    file = Path(name) if weights is None else split_weights(weights)[0]
    return Given(partial(open_given, name, weights), table.get("fingerprint", ""), file)


def _require_meaning(table: Mapping[str, Any], recipe: Recipe, teacher: Arm | None) -> None:
    """Raise ``UsageError`` for a setting that changes nothing in a model with or without a teacher, and for code."""
    if teacher is None and (found := [key for key in _OF_STUDENTS if key in table]):
        raise UsageError(f"{found[0]} means nothing without a teacher", hint='add teacher = "NAME"')
    if teacher is not None and "label_weight" in table:
        raise UsageError("label_weight means nothing with a teacher", hint="use loss_scale, or leave it out")
    if own_name(recipe.loss):
        raise _code(
            f"loss '{recipe.loss}'",
            "train such students one by one: `bancache train-student` takes --loss module:function",
        )
    if teacher is not None and teacher.members and table.get("share_layers", "none") != "none":
        raise UsageError(
            f"layers are shared with one teacher, and {teacher.name} is an ensemble",
            hint="leave out share_layers",
        )


def _code(what: str, hint: str) -> UsageError:
    return UsageError(
        f"a study goes on from what its folder records, and that cannot be code: {what}", hint=hint
    )
