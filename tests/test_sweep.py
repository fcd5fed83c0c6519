from __future__ import annotations

import json
import pickle
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from test_splits import make_split
from test_train import CLASSES, toy
from typer.testing import CliRunner

from fitrec_cache import sweep as module
from fitrec_cache.cli import app
from fitrec_cache.errors import DivergedError, FitrecError, StoreCorrupt, StoreError, UsageError
from fitrec_cache.evaluation.paired import holm
from fitrec_cache.pack import read_pack
from fitrec_cache.settings.recipes import get_recipe
from fitrec_cache.sweep import sweep
from fitrec_cache.texts import sweep_text
from fitrec_cache.train import train_head
from fitrec_cache.training import problem as problem_module
from fitrec_cache.training.loading import load_clips
from fitrec_cache.training.problem import Problem, accuracy

FAST = {"variant": "mean", "epochs": 3, "trials": 4, "finalists": 2, "split": ["group"], "seed": [0, 1]}


@pytest.fixture
def features(tmp_path):
    return toy(tmp_path / "toy.h5", noise=1.5)


def problem_of(features, *, variant="mean", **asked):
    return Problem.of(load_clips(None, features, variant, (), None, progress=False), variant=variant, **asked)


def found(report):
    return {k: v for k, v in report.to_dict().items() if k not in ("seconds", "out", "commands")}


def test_a_search_finds_settings_that_train_head_takes(tmp_path, features):
    report = sweep(out=tmp_path / "sweep", features=features, **FAST)
    stored = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert stored["commands"] == list(report.commands)
    assert report.tries["finished"] + report.tries["given_up"] == 4
    assert report.n_val == 24
    assert report.splits == ("group seed 0", "group seed 1")
    again = [f["val_accuracy_again"] for f in report.finalists]
    assert again == sorted(again, reverse=True)
    words = shlex.split(report.commands[0])
    assert words[:2] == ["fitrec-cache", "train-head"]
    assert CliRunner().invoke(app, words[1:]).exit_code == 0  # as it is printed
    run = json.loads((tmp_path / "sweep" / "trained-1" / "seed-1" / "run.json").read_text())
    assert run["training"]["learning_rate"] == report.finalists[0]["settings"]["learning_rate"]


def test_some_classes_are_searched_on_and_named_in_the_command(tmp_path, features):
    one, other = CLASSES[0].upper(), CLASSES[2]
    told: list[str] = []
    settings = {"classes": f"{one},{other}", "tell": told.append}
    report = sweep(out=tmp_path / "sweep", features=features, **FAST | {"trials": 1}, **settings)
    assert list(report.notes) == told
    assert "20 clips of other classes left out, as asked by --classes" in report.notes
    words = shlex.split(report.commands[0])
    assert words[words.index("--classes") + 1] == f"{one},{other}"
    assert CliRunner().invoke(app, words[1:]).exit_code == 0
    run = json.loads((tmp_path / "sweep" / "trained-1" / "seed-0" / "run.json").read_text())
    assert run["labels"] == sorted([CLASSES[0], CLASSES[2]])
    with pytest.raises(UsageError, match="holds a search for something else"):
        sweep(out=tmp_path / "sweep", features=features, **FAST | {"trials": 1})
    more = ["--features", str(features), "--classes", CLASSES[1], "--out", str(tmp_path / "one")]
    refused = CliRunner().invoke(app, ["sweep", *more])
    assert "got one class" in str(refused.exception)
    rest = toy(tmp_path / "rest.h5", labels=[("Hop", "Squat", "unknown")[i % 3] for i in range(60)])
    with pytest.raises(UsageError, match="class 'unknown' could not be told from the answer"):
        sweep(out=tmp_path / "other", features=rest, **FAST)


def test_there_is_a_command_a_split_with_features_and_seeds(tmp_path, cache_folder):
    settings = {"backbone": ["test_resnet"], "preset": "native", "split": ["group", "random"], "seed": [5]}
    report = sweep(out=tmp_path / "a b", cache=cache_folder, **FAST | settings)
    words = shlex.split(report.commands[1])
    asked = words[2 : words.index("--variant")]
    assert asked == [
        "--cache",
        str(cache_folder),
        "--backbone",
        "test_resnet",
        "--preset",
        "native",
        "--split",
        "random",
        "--seed",
        "5",
    ]
    assert words[-2:] == ["--out", str(tmp_path / "a b" / "trained-2")]


def test_recipes_are_compared_clip_by_clip_and_by_groups(features):
    """The p-value is that of the sign test: with k units won and none lost, 2 / 2^k."""
    problem = problem_of(features, split=["group"], seed=[0, 1], epochs=1)
    # of two splits; a group's clips are one unit, whichever split judges them
    judged = [each.val_ids for each in problem.splits]
    groups = sorted({problem.units[clip] for side in judged for clip in side})
    won = set(groups[1:])
    theirs = [np.zeros(len(side), dtype=bool) for side in judged] * 3  # three seeds
    ours = [np.array([problem.units[clip] in won for clip in side]) for side in judged] * 3
    assert problem.p_value(ours, theirs) == pytest.approx(2 / 2 ** len(won))
    assert 1 < len(won) < len(problem.units)
    assert problem.p_value(theirs, theirs) == 1


def test_features_are_kept_once_however_many_splits_there_are(tmp_path):
    path = toy(tmp_path / "wide.h5", d=1000)
    asked = {"split": ["kfold:5"], "seed": [0, 1, 2], "epochs": 1}
    problem = problem_of(path, **asked)
    assert len(problem.splits) == 15
    assert len(pickle.dumps(problem)) < 1.5 * 60 * 4 * 1000 * 2  # bytes of float16


def test_what_is_judged_is_what_training_saw_last(features, monkeypatch):
    problem = problem_of(features, split=["group"], seed=[0], epochs=3)
    fitted, fit = [], problem_module.fit
    monkeypatch.setattr(problem_module, "fit", lambda *a, **k: fitted.append(fit(*a, **k)) or fitted[-1])
    right = problem.judge(get_recipe("native").change(epochs=3), None, [0, 1])
    kept = [each.history[each.best_epoch - 1]["val_accuracy"] for each in fitted]
    assert [each.mean() for each in right] == pytest.approx(kept)
    assert accuracy(right) == pytest.approx(np.mean(kept))
    assert 0 < accuracy(right) < 1


def test_each_training_of_a_search_has_its_seed_and_never_sees_validation_clips(features, monkeypatch):
    problem = problem_of(features, split=["group", "random"], seed=[0], epochs=1)
    asked, reported, fit = [], [], problem_module.fit
    monkeypatch.setattr(problem_module, "fit", lambda *sides, **k: asked.append((sides, k)) or fit(*sides, **k))
    recipe = get_recipe("native").change(epochs=1)
    right = problem.judge(recipe, None, [3, 5], lambda value, step: reported.append((value, step)))
    assert [(k["seed"], k["recipe"].refit) for _, k in asked] == [(3, False), (3, False), (5, False), (5, False)]
    for ((train, val), _), each in zip(asked, [*problem.splits] * 2, strict=True):
        assert (train.clips.tolist(), val.clips.tolist()) == (each.train.tolist(), each.val.tolist())
    assert reported == [(accuracy(right[:n]), n) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(("p", "within"), [(0.05, True), (0.049, False)])
def test_what_the_test_says_is_told(tmp_path, features, p, within):
    report = sweep(out=tmp_path / "sweep", features=features, **FAST | {"trials": 1})
    changed = replace(report, start_again=0.0, finalists=({**report.finalists[0], "val_accuracy_again": 0.5, "p": p},))
    assert changed.within_chance is within
    assert ("this difference may be due to chance" in sweep_text(changed)) is within
    assert ("may as well be kept; to train with the recipe found:" in sweep_text(changed)) is within
    first = (
        f"{report.start:.1%} with --recipe native, {report.finalists[0]['val_accuracy']:.1%} with the trial that was"
    )
    assert f"search: {first} chosen of 1; with other seeds 0.0% and 50.0%, the highest" in sweep_text(changed)
    assert all(command in sweep_text(changed) for command in changed.commands)
    assert ("test it once on others" in sweep_text(changed)) is not within
    worse = replace(changed, start_again=0.9)
    assert ("native's lead is more than chance would explain" in sweep_text(worse)) is not within
    assert "test it once on others" not in sweep_text(worse)


def test_p_values_are_adjusted_for_all_finalists(tmp_path, features, monkeypatch):
    p_values = iter([0.01, 0.5])
    monkeypatch.setattr(Problem, "p_value", lambda *_: next(p_values))
    report = sweep(out=tmp_path / "sweep", features=features, **FAST | {"trials": 6})
    assert [f["p"] for f in report.finalists] == pytest.approx([0.02, 0.5])


def test_what_the_test_labels_are_changes_nothing(tmp_path, features):
    train_head(out=tmp_path / "run", features=features, variant="mean", epochs=1, split="group", seed=[0])
    tested = set(json.loads((tmp_path / "run" / "run.json").read_text())["split"]["test"])
    settings = FAST | {"seed": [0]}
    lists = []
    with h5py.File(features, "r+") as file:
        ids = [i.decode() for i in file["clip_id"][()]]
        for name, keep in (("train.txt", lambda i: i not in tested), ("test.txt", lambda i: i in tested)):
            (tmp_path / name).write_text("".join(f"{i}\n" for i in ids if keep(i)))
            lists.append(str(tmp_path / name))
    settings["split"] = ["list:" + ",".join(lists)]
    before = found(sweep(out=tmp_path / "a", features=features, **settings))
    with h5py.File(features, "r+") as file:
        rows = [k for k, i in enumerate(ids) if i in tested]
        file["label"][rows] = np.roll(file["label"][()][rows], 1)
        values = file["features"][()]
        values[rows] = values[rows][::-1] * 3
        file["features"][...] = values
    after = found(sweep(out=tmp_path / "b", features=features, **settings))
    assert before == after


def test_a_search_goes_on_where_it_was(tmp_path, features, monkeypatch):
    sweep(out=tmp_path / "sweep", features=features, **FAST | {"trials": 3})
    scored = []
    judge = Problem.judge
    monkeypatch.setattr(Problem, "judge", lambda self, *a: scored.append(a) or judge(self, *a))
    report = sweep(out=tmp_path / "sweep", features=features, **FAST)
    assert report.tries["finished"] + report.tries["given_up"] == 4
    finalists = min(2, report.tries["finished"])
    assert len(scored) == 1 + 1 + finalists + 1  # the start, one new try, the finalists, the start with their seeds
    lines = [json.loads(line) for line in (tmp_path / "sweep" / "trials.log").read_text().splitlines()]
    rates = [line["param_value_internal"] for line in lines if line.get("param_name") == "learning_rate"]
    assert len(set(rates)) == 4  # it does not propose the same again
    with pytest.raises(UsageError, match="search for something else"):
        sweep(out=tmp_path / "sweep", features=features, **FAST | {"epochs": 4})


def test_several_processes_on_one_search_make_as_many_tries_as_asked_for_together(tmp_path, features, monkeypatch):
    judge, begun = Problem.judge, []

    def beside_another(self, *a):
        begun.append(a)
        if len(begun) == 2:  # the first is the start
            sweep(out=tmp_path / "sweep", features=features, **FAST | {"trials": 2})
        return judge(self, *a)

    monkeypatch.setattr(Problem, "judge", beside_another)
    report = sweep(out=tmp_path / "sweep", features=features, **FAST)
    assert report.tries["finished"] + report.tries["given_up"] == 4


def test_a_try_that_was_interrupted_is_none(tmp_path, features, monkeypatch):
    judge, begun = Problem.judge, []

    def interrupted(self, *a):
        begun.append(a)
        if len(begun) == 2:  # the first is the start
            raise KeyboardInterrupt
        return judge(self, *a)

    monkeypatch.setattr(Problem, "judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(out=tmp_path / "sweep", features=features, **FAST | {"trials": 1})
    report = sweep(out=tmp_path / "sweep", features=features, **FAST | {"trials": 1})
    assert report.tries == {"finished": 1, "given_up": 0}


def test_tries_that_were_given_up_are_not_made_up_for_when_a_search_goes_on(tmp_path, features, monkeypatch):
    begun = []

    def judged(self, recipe, attention, seeds, report=None):
        if list(seeds) == [0] and recipe != get_recipe("native"):
            begun.append(recipe)
            if len(begun) < 3:
                raise DivergedError("training diverged")
        return [np.ones(len(each.val), dtype=bool) for _ in seeds for each in self.splits]

    monkeypatch.setattr(Problem, "judge", judged)
    for _ in range(2):
        report = sweep(out=tmp_path / "sweep", features=features, **FAST | {"trials": 3})
        assert report.tries == {"finished": 1, "given_up": 2}
    assert len(begun) == 3


def test_a_search_on_other_sides_is_another_search(tmp_path, features):
    with h5py.File(features) as file:
        ids = sorted({i.decode() for i in file["clip_id"][()]})

    def name(tested):
        for side, inside in (("train", lambda i: i not in tested), ("test", lambda i: i in tested)):
            (tmp_path / f"{side}.txt").write_text("".join(f"{i}\n" for i in ids if inside(i)))
        rule = f"list:{tmp_path / 'train.txt'},{tmp_path / 'test.txt'}"
        return problem_of(features, split=[rule], seed=[0], epochs=1).name

    first = name(set(ids[::5]))
    assert name(set(ids[::5])) == first
    assert name(set(ids[1::5])) != first  # the same names of files


def test_a_search_for_another_head_or_on_other_features_is_another_search(features):
    def name(**other):
        asked = {"variant": "mean", "split": ["group"], "seed": [0], "epochs": 1}
        return problem_of(features, **asked | other).name

    first = name()
    assert name() == first
    with h5py.File(features, "r+") as file:
        file["features"][0, 0, 0] += 1
    assert len({first, name(), name(variant="vit-lstm"), name(epochs=2), name(seed=[1])}) == 5


def test_clips_tested_by_one_split_and_seen_in_another_are_told(tmp_path, features):
    report = sweep(out=tmp_path / "two", features=features, **FAST | {"trials": 1})
    data = read_pack(features)
    clips = {"clip_ids": data.clip_ids, "labels": data.labels, "groups": data.groups}
    splits = [make_split("group", **clips, seed=seed) for seed in (0, 1)]
    tested = [set(split.test.tolist()) for split in splits]
    both = tested[0] - tested[1] | tested[1] - tested[0]  # every clip is on some side of either
    n = len(tested[0] | tested[1])
    said = f"{len(both)} of {n} clips that one of these splits tests are in training or validation"
    assert report.notes[0].startswith(said)
    assert sweep(out=tmp_path / "one", features=features, **FAST | {"trials": 1, "seed": [0]}).notes == ()


def test_a_split_twice_is_refused_and_a_clip_of_two_splits_counts_once(tmp_path, features):
    with pytest.raises(UsageError, match="each once"):
        sweep(out=tmp_path / "s", features=features, **FAST | {"seed": [0, 0]})
    with pytest.raises(UsageError, match="split group seed 0 is asked for twice"):
        sweep(out=tmp_path / "s", features=features, **FAST | {"split": ["group", "auto"]})
    report = sweep(out=tmp_path / "s", features=features, **FAST | {"split": ["group", "random"], "trials": 1})
    sides = set()
    for split in ("group", "random"):
        for seed in (0, 1):
            trained = train_head(
                out=tmp_path / f"{split}{seed}", features=features, variant="mean", split=split, seed=[seed], epochs=1
            )
            sides |= set(json.loads((trained.runs[0].out / "run.json").read_text())["split"]["val"])
    assert report.n_distinct == len(sides) < report.n_val


def test_a_search_goes_on_after_a_full_disk_cut_its_journal(tmp_path, features, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = Path("sweep")  # a relative name
    sweep(out=out, features=features, **FAST | {"trials": 2})
    journal = out / "trials.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-15])
    assert sweep(out=out, features=features, **FAST | {"trials": 3}).tries["finished"] >= 1
    assert journal.read_bytes().startswith(whole[: whole[:-15].rfind(b"\n") + 1])

    append = module._optuna().storages.journal.JournalFileBackend.append_logs

    def with_room_for(lines):
        left = iter(range(lines))

        def full(self, logs):
            if next(left, None) is None:
                raise OSError(28, "No space left on device")
            append(self, logs)

        return full

    for lines in (0, 1, 4):
        monkeypatch.setattr("optuna.storages.journal.JournalFileBackend.append_logs", with_room_for(lines))
        with pytest.raises(StoreError, match=r"trials\.log: No space left on device\. Make room, then run the same"):
            sweep(out=out, features=features, **FAST | {"trials": 4})


def test_a_finalist_that_diverges_is_left_out(tmp_path, features, monkeypatch):
    judge = Problem.judge

    def judged(self, recipe, attention, seeds, report=None):
        if list(seeds) == [1, 2, 3] and recipe != get_recipe("native"):
            refused.append(recipe)
            if len(refused) == 1:
                raise DivergedError("training diverged")
        return judge(self, recipe, attention, seeds, report)

    refused = []
    monkeypatch.setattr(Problem, "judge", judged)
    report = sweep(out=tmp_path / "sweep", features=features, **FAST)
    assert len(refused) == 2
    assert len(report.finalists) == 1


@pytest.mark.parametrize("native", [0.0, 1.0])
def test_native_is_judged_by_the_seeds_of_the_finalists(tmp_path, features, monkeypatch, native):
    judge, asked = Problem.judge, []

    def judged(self, recipe, attention, seeds, report=None):
        right = judge(self, recipe, attention, seeds, report)
        if recipe == get_recipe("native"):  # with its steps: the one that train-head has
            asked.append(list(seeds))
            return [np.full_like(each, native) for each in right]
        return right

    monkeypatch.setattr(Problem, "judge", judged)
    report = sweep(out=tmp_path / "sweep", features=features, **FAST | {"variant": "vit-lstm", "trials": 2})
    assert asked == [[0], [1, 2, 3]]
    assert (report.start_again, report.beaten) == (native, native == 0.0)


def test_the_best_of_the_search_are_ranked_by_their_other_seeds(tmp_path, features, monkeypatch):
    """Here a higher rate is better in the search, and worse with other seeds."""
    found = {}

    def judged(self, recipe, attention, seeds, report=None):
        share = (np.log10(recipe.learning_rate) + 4) / 2  # of 1e-4 to 1e-2
        again = list(seeds) == [1, 2, 3]
        right = [np.arange(12) < 12 * (1 - share if again else share) for _ in seeds for _ in self.splits]
        found[recipe.learning_rate, again] = accuracy(right)
        return right

    monkeypatch.setattr(Problem, "judge", judged)
    monkeypatch.setattr(Problem, "p_value", lambda _, ours, theirs: abs(accuracy(ours) - accuracy(theirs)))
    report = sweep(out=tmp_path / "sweep", features=features, **FAST | {"trials": 6, "finalists": 3})
    native = get_recipe("native").learning_rate
    assert (report.start, report.start_again) == (found[native, False], found[native, True])
    searched = [value for (rate, again), value in found.items() if not again and rate != native]
    assert sorted(f["val_accuracy"] for f in report.finalists) == sorted(searched)[-3:]
    assert len(searched) == 6
    for finalist in report.finalists:
        rate = finalist["settings"]["learning_rate"]
        assert finalist["val_accuracy"] == found[rate, False]
        assert finalist["val_accuracy_again"] == found[rate, True]
    ranked = [f["val_accuracy_again"] for f in report.finalists]
    assert ranked == sorted(ranked, reverse=True)
    assert [f["p"] for f in report.finalists] == holm([abs(value - report.start_again) for value in ranked])


def test_a_sequence_head_is_searched_with_its_own_settings(tmp_path, features):
    report = sweep(out=tmp_path / "sweep", features=features, **FAST | {"variant": "vit-lstm", "trials": 2})
    assert {"attention", "skip_mean", "bidirectional", "differences"} <= report.finalists[0]["settings"].keys()


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_a_folder_with_trained_heads_is_refused(tmp_path, features, seeds):
    train_head(out=tmp_path / "run", features=features, variant="mean", seed=seeds, epochs=1)
    before = sorted((tmp_path / "run").rglob("*"))
    with pytest.raises(UsageError, match="holds trained heads"):
        sweep(out=tmp_path / "run", features=features, **FAST)
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_wrong_use_is_refused(tmp_path, features, monkeypatch):
    for changes, reason in (
        ({"variant": "meen"}, "Did you mean 'mean'"),
        ({"variant": "lrcn"}, "learns from frames"),
        ({"trials": 0}, "trials is 0"),
        ({"split": ["grup"]}, "unknown split"),
    ):
        with pytest.raises(UsageError, match=reason):
            sweep(out=tmp_path / "sweep", features=features, **FAST | changes)
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(FitrecError, match="pip install optuna"):
        sweep(out=tmp_path / "sweep", features=features, **FAST)


def reported(**more):
    """A report of a search whose best try has an attention."""
    best = {"settings": {"attention": "additive", "dropout": 0.5}, "val_accuracy": 0.9, "val_accuracy_again": 0.7}
    given = {
        "out": Path("o"), "variant": "vit-lstm", "backbone": "b", "splits": (),
        "sources": (("--features", "a b"), ("--features", "c")),
        "n_val": 1, "n_distinct": 1, "tries": {}, "start": 0.9, "start_again": 0.6, "space": {},
        "finalists": (best | {"p": 0.01}, best | {"val_accuracy_again": 0.5, "p": 1.0}), "notes": (), "seconds": 1.0,
    }  # fmt: skip
    return module.SweepReport(**given | more)


def test_the_command_says_attention_as_train_head_takes_it():
    words = "--variant vit-lstm --recipe native --attention additive --set dropout=0.5 --out"
    assert reported().commands == (
        f"fitrec-cache train-head --features 'a b' {words} o/trained-1",
        f"fitrec-cache train-head --features c {words} o/trained-2",
    )


@pytest.mark.parametrize(("start_again", "beaten"), [(0.6, True), (0.7, False), (0.8, False)])
def test_native_is_beaten_by_more_with_the_same_seeds_only(start_again, beaten):
    assert reported(start_again=start_again).beaten is beaten


class Trial:
    """Chooses what it is told to, else the first, or the least."""

    def __init__(self, **chosen):
        self.chosen, self.asked = chosen, {}

    def suggest_categorical(self, name, choices):
        self.asked[name] = choices
        return self.chosen.get(name, choices[0])

    def suggest_float(self, name, low, high, *, log):
        self.asked[name] = low, high, log
        return low


def test_what_a_head_has_no_place_for_is_not_searched():
    everything = {"normalise": "pca", "attention": "additive"}
    asked = {
        (variant, *chosen.values()): module._suggest(Trial(**chosen), variant).keys()
        for variant in ("mean", "vit-lstm")
        for chosen in (everything, everything | {"normalise": "standard"}, everything | {"attention": "none"})
    }
    for (variant, normalise, attention), found in asked.items():
        assert ("components" in found) == (normalise == "pca")
        assert ("attention" in found) == ("bidirectional" in found) == (variant == "vit-lstm")
        assert ("pooling" in found) == (variant == "vit-lstm" and attention == "additive")
    trial = Trial()
    module._suggest(trial, "mean")
    assert trial.asked["learning_rate"] == (1e-4, 1e-2, True)
    assert trial.asked["input_dropout"] == (0.0, 0.7, False)


def test_drawn_frames_are_a_share_of_those_there_are():
    problem = SimpleNamespace(epochs=7, values=np.zeros((3, 20, 2)))
    assert module._settings(problem, {"draw": 0.75, "balance": 0.5}) == {"draw": 15, "balance": 0.5, "epochs": 7}


def test_a_try_that_diverges_is_given_up():
    def judge(*_):
        raise DivergedError("training diverged")

    optuna = module._optuna()
    problem = SimpleNamespace(variant="mean", epochs=7, values=np.zeros((3, 20, 2)), splits=(), judge=judge)
    with pytest.raises(optuna.TrialPruned, match="diverged"):
        module._objective(optuna, problem)(Trial())


@pytest.mark.parametrize(("steps", "given_up"), [(1, True), (2, False)])
def test_a_try_is_given_up_before_its_last_split_only(steps, given_up):
    def judge(recipe, attention, seeds, report):
        for step in range(steps, 3):
            report(0.5, step)
        return [np.array([True, False])]

    optuna = module._optuna()
    problem = SimpleNamespace(variant="mean", epochs=7, values=np.zeros((3, 20, 2)), splits=(1, 2), judge=judge)
    trial = Trial()
    trial.report, trial.should_prune = lambda *_: None, lambda: True
    if given_up:
        with pytest.raises(optuna.TrialPruned):
            module._objective(optuna, problem)(trial)
    else:
        assert module._objective(optuna, problem)(trial) == 0.5


@pytest.mark.parametrize("name", ["trials.log", "sweep.json"])
@pytest.mark.parametrize("mine", [b"one line only", b'{"mine": 1}\n'])
def test_a_search_touches_no_file_of_the_users(tmp_path, features, name, mine):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(mine)
    with pytest.raises(UsageError, match=rf"{name} exists and is not"):
        sweep(features=features, variant="mean", out=tmp_path / "out", trials=1, finalists=1, epochs=1)
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [mine]


@pytest.mark.parametrize("begun", [b"", b"{", b'{"op_code', b'{"op_code":0,"wor'])
def test_a_journal_that_was_begun_is_one(tmp_path, begun):
    (tmp_path / "trials.log").write_bytes(begun)
    module._refuse_foreign_journal(tmp_path / "trials.log")


@pytest.mark.parametrize(
    ("found", "kept"), [(b'{"a": 1}\n{"b"', b'{"a": 1}\n'), (b"{}\n{}\n", b"{}\n{}\n"), (b"{", b"")]
)
def test_half_a_line_of_a_journal_is_cut_off(tmp_path, found, kept):
    (tmp_path / "trials.log").write_bytes(found)
    module._drop_half_line(tmp_path / "trials.log")
    assert (tmp_path / "trials.log").read_bytes() == kept


@pytest.mark.parametrize("damaged", [b"garbage\n", b"\xf6\xff\n", b"[1]\n", b'{"op_code": 0}\n', b'{"op_code": "x"}\n'])
def test_a_damaged_journal_is_named(tmp_path, damaged):
    (tmp_path / "trials.log").write_bytes(damaged)
    with pytest.raises(StoreCorrupt, match=r"trials\.log is damaged: .*\. Choose another --out, or remove it"):
        module._open_study(module._optuna(), tmp_path, "name")
