from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.torch
import scipy.stats
import torch

from fitrec_cache.errors import StoreCorrupt
from fitrec_cache.evaluation.calibration import Calibration
from fitrec_cache.runs.ensemble import Ensemble, keep_calibration
from fitrec_cache.runs.scored import ScoredRun

LABELS = ["Hop", "Lunge", "Squat", "Twist"]


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def seeds(tmp_path, n=400, *, temperatures=(1.5, 2.0, 2.5), rates=(0.1, 0.1, 0.1), val=None):
    """Write the outputs of heads that err each in their own way; return folders, settings and outputs."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, n)
    folders, settings, outputs = [], [], []
    for seed, (temperature, rate) in enumerate(zip(temperatures, rates, strict=True)):
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        logits = temperature * (np.eye(4)[truth] + rng.normal(0, 1, (n, 4)))
        outputs.append({"val_logits": torch.from_numpy(logits).float(), "val_targets": torch.from_numpy(truth)})
        outputs[-1]["val_attention"] = torch.full((n, 5), 0.2)
        safetensors.torch.save_file(outputs[-1], folder / "logits.safetensors")
        held = {"temperature": temperature, "threshold": 0.4, "false_alarm_rate": rate}
        clips = [f"c{i}" for i in range(n)] if val is None else val[seed]
        settings.append({"labels": LABELS, "split": {"val": clips}, "calibration": held})
        folders.append(folder)
    return folders, settings, outputs


def plain_mean(outputs, temperatures=(1.5, 2.0, 2.5)):
    pairs = zip(outputs, temperatures, strict=True)
    return np.mean([softmax(o["val_logits"].double().numpy() / t) for o, t in pairs], axis=0)


def test_the_mean_of_seeds_gets_the_temperature_and_threshold_that_a_search_finds(tmp_path):
    folders, settings, outputs = seeds(tmp_path)
    ensemble = Ensemble.of(folders, settings)
    mean, truth = plain_mean(outputs), outputs[0]["val_targets"].numpy()

    def loss(temperature):
        sharper = mean ** (1 / temperature)
        said = np.log(sharper / sharper.sum(axis=1, keepdims=True))[np.arange(len(truth)), truth].sum()
        return -said - scipy.stats.norm(0, 0.5).logpdf(min(np.log(temperature), 0))

    best = min(np.arange(0.2, 2, 0.001), key=loss)
    assert best < 0.8  # three heads that err apart are surer together than their mean says
    assert ensemble.mean.temperature == pytest.approx(best, abs=0.002)
    probabilities, unknown = ensemble([o["val_logits"].double() for o in outputs])
    expected = mean ** (1 / ensemble.mean.temperature)
    np.testing.assert_allclose(probabilities.numpy(), expected / expected.sum(axis=1, keepdims=True), rtol=1e-9)
    assert int(unknown.sum()) == 39  # fewer than the 40th least sure, as 40 / 401 < 10 % and 41 / 401 is not
    assert probabilities.amax(dim=1)[unknown].max() < probabilities.amax(dim=1)[~unknown].min()
    gap = [p.max(axis=1).mean() - (p.argmax(axis=1) == truth).mean() for p in (mean, probabilities.numpy())]
    assert gap[0] < -0.05 < abs(gap[1]) + gap[0] / 5 < 0.05


@pytest.mark.parametrize(
    ("thresholds", "mean", "given", "expected"),
    [
        ((0, 0, 0), None, None, False),
        ((0.1, 0, 0), None, None, False),  # most decide
        ((0.1, 0.2, 0), None, None, True),
        ((0.1, 0), None, None, False),  # half are not most
        ((0.1,), None, None, True),
        ((0.1, 0.2, 0), 0, None, False),
        ((0, 0, 0), 0.1, None, True),
        ((0, 0, 0), 0, 0.6, True),
        ((0.1, 0.2, 0.3), 0.1, 0, False),
    ],
)
def test_whether_any_answer_may_be_unknown(thresholds, mean, given, expected):
    single = tuple(Calibration(threshold=t) for t in thresholds)
    heads = Ensemble(single=single, mean=None if mean is None else Calibration(threshold=mean), threshold=given)
    assert heads.may_be_unknown(50) is expected
    assert not heads.may_be_unknown(1)
    _, unknown = heads([torch.zeros(1, 50)] * len(thresholds))  # each class has 2 %
    assert bool(unknown) is expected


def test_groups_that_one_seed_knows_count_for_the_threshold_of_all(tmp_path):
    """Runs of before do not know them: forty clips are ten recordings, which cannot tell 5 %."""
    folders, settings, _ = seeds(tmp_path, n=40, rates=(0.05, 0.05, 0.05))
    assert Ensemble.of(folders, settings).mean.threshold > 0
    settings[1]["val_groups"] = [f"g{i // 4}" for i in range(40)]
    assert Ensemble.of(folders, settings).mean.threshold == 0
    settings[1]["val_groups"] = ["g"]
    with pytest.raises(StoreCorrupt, match=r"'val_groups' in .* is damaged"):
        Ensemble.of(folders, settings)


def test_where_validation_clips_differ_the_heads_vote(tmp_path):
    folders, settings, _ = seeds(tmp_path, n=2, val=[["a", "b"], ["b", "a"], ["a", "b"]])
    ensemble = Ensemble.of(folders, settings)
    assert ensemble.mean is None
    sure, even = [2.0, 0, 0, 0], [0.0, 0, 0, 0]
    logits = [torch.tensor([[a, b, c, d] for a, b, c, d in rows]) for rows in ([sure, sure], [sure, even], [even] * 2)]
    probabilities, unknown = ensemble(logits)
    assert unknown.tolist() == [False, True]  # one and two of three are below 0.4
    by_hand = np.mean([softmax(x.numpy() / t) for x, t in zip(logits, (1.5, 2.0, 2.5), strict=True)], axis=0)
    np.testing.assert_allclose(probabilities.numpy(), by_hand, rtol=1e-5)


def test_half_of_the_heads_are_not_most(tmp_path):
    folders, settings, _ = seeds(tmp_path, n=2, val=[["a", "b"], ["b", "a"]], temperatures=(1.5, 2.0), rates=(0.1, 0.1))
    sure, even = torch.tensor([[2.0, 0, 0, 0]]), torch.zeros(1, 4)
    ensemble = Ensemble.of(folders, settings)
    assert [ensemble(each)[1].tolist() for each in ([sure, even], [even, even])] == [[False], [True]]


@pytest.mark.parametrize("rates", [(0.1, 0.1, 0.2), (0.1,)])
def test_one_head_and_heads_of_different_rates_keep_their_own_thresholds(tmp_path, rates):
    n = len(rates)
    folders, settings, _ = seeds(tmp_path, n=30, temperatures=(1.5, 2.0, 2.5)[:n], rates=rates)
    if n == 1:  # its outputs are not needed
        (folders[0] / "logits.safetensors").unlink()
    assert Ensemble.of(folders, settings) == Ensemble(
        single=tuple(
            Calibration(temperature=t, threshold=0.4, false_alarm_rate=r)
            for t, r in zip((1.5, 2.0, 2.5), rates, strict=False)
        )
    )


@pytest.mark.parametrize("split", [None, [], {}, {"val": None}])
def test_runs_that_do_not_name_their_validation_clips_keep_their_own_thresholds(tmp_path, split):
    folders, settings, _ = seeds(tmp_path, n=30)
    for one in settings:
        one["split"] = split
    assert Ensemble.of(folders, settings).mean is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_classes_that_no_head_finds_possible_do_no_harm(tmp_path, dtype):
    folders, settings, outputs = seeds(tmp_path)
    for folder, o in zip(folders, outputs, strict=True):
        o["val_logits"][0] = torch.tensor([3e4, 0, 0, -3e4])  # nothing but zeros beside one in any float
        o["val_targets"][0] = 3
        safetensors.torch.save_file(o, folder / "logits.safetensors")
    ensemble = Ensemble.of(folders, settings)
    assert ensemble.mean is not None
    probabilities, _ = ensemble([o["val_logits"].to(dtype) for o in outputs])
    assert probabilities.dtype == dtype
    assert probabilities.isfinite().all()
    assert probabilities[0].tolist() == pytest.approx([1, 0, 0, 0], abs=1e-30)


@pytest.mark.parametrize(
    "damage",
    [
        {"val_logits": torch.zeros(30, 3)},
        {"val_logits": torch.full((30, 4), float("nan"))},
        {"val_targets": torch.full((30,), 4)},
        {"val_targets": torch.zeros(30)},
        {"val_targets": torch.full((30,), -1)},
        {"val_targets": torch.zeros(29, dtype=torch.int64)},
        None,
    ],
)
def test_damaged_outputs_of_a_seed_are_named(tmp_path, damage):
    folders, settings, outputs = seeds(tmp_path, n=30)
    kept = {"test_logits": torch.zeros(1)} if damage is None else outputs[1] | damage
    safetensors.torch.save_file(kept, folders[1] / "logits.safetensors")
    with pytest.raises(
        StoreCorrupt, match=r"seed-1/logits.safetensors is damaged or does not fit .*Train the head again"
    ):
        Ensemble.of(folders, settings)
    (folders[1] / "logits.safetensors").write_text(json.dumps({}))
    with pytest.raises(StoreCorrupt, match=r"seed-1/logits.safetensors is damaged"):
        Ensemble.of(folders, settings)


def test_what_was_found_when_the_heads_were_trained_is_kept(tmp_path):
    """Also where a later version would fit otherwise, and where only heads and settings were copied."""
    folders, settings, _ = seeds(tmp_path, n=50)
    for number, (folder, one) in enumerate(zip(folders, settings, strict=True)):
        one["seed"] = number
        (folder / "run.json").write_text(json.dumps(one))
    fitted = Ensemble.of(folders, settings)
    runs = zip(folders, settings, strict=True)
    keep_calibration([ScoredRun(folder=f, run_json=one, validated=None, tested=None) for f, one in runs], fitted)
    held = [json.loads((folder / "run.json").read_text()) for folder in folders]
    for one in held:
        assert one["together"]["calibration"] == fitted.mean.to_dict()
        one["together"]["calibration"] |= {"temperature": 0.5, "threshold": 0.25}
    for folder in folders:
        (folder / "logits.safetensors").unlink()
    assert Ensemble.of(folders, held).mean == Calibration(temperature=0.5, threshold=0.25, false_alarm_rate=0.1)
    assert Ensemble.of(folders[:1], held[:1]).mean is None
    assert Ensemble.of(folders, held, threshold=0.6).threshold == 0.6  # which is asked for, and counts
    for odd in ({"seeds": [0, 1]}, {"seeds": [0, 1, 3]}, {"calibration": {}}):  # other seeds; another call
        others = [
            one | {"together": one["together"] | odd} if i < 1 or "seeds" in odd else one for i, one in enumerate(held)
        ]
        with pytest.raises(StoreCorrupt, match=r"logits\.safetensors is missing: copy the whole"):  # to be fitted
            Ensemble.of(folders, others)
    for odd in (3, {"seeds": [0, 1, 2]}, {"seeds": [0, 1, 2], "calibration": {"temperature": 0}}):
        with pytest.raises(StoreCorrupt, match=r"'together' in .*seed-0/run\.json is damaged"):
            Ensemble.of(folders, [one | {"together": odd} for one in held])
