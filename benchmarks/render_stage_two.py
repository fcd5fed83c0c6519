"""Tables of stage two, from ``results/stage_two.json``, and runs on other processors, from folders beside it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from render_stage_one import ROOT, pipelines, span, table

RESULTS = ROOT / "benchmarks/results/stage_two.json"

NOT_YET = "Not measured yet: `benchmarks/stage_two.py` has this part."


#: Runs on two cores of other processors.
OTHERS = {
    "AMD EPYC, Zen 4": RESULTS.with_name("zen4"),
    "Xeon, AMX hidden": RESULTS.with_name("intel_fp32"),
    "Xeon with AMX": RESULTS.with_name("amx"),
    "AMD EPYC, AVX2 only": RESULTS.with_name("avx2"),
}


def load(path: Path = RESULTS) -> dict[str, Any]:
    return json.loads(path.read_text())


def percent(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1%}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1%}{spread}"


def stage_two() -> str:
    """For the README."""
    k = load()["keras"]
    ours, keras = (
        " and ".join(
            f"{k['epoch_seconds'][f'{who}_{name}']['median']:.2f} s in {name}"
            for name in ("bf16", "fp32")
            if f"{who}_{name}" in k["ratio"]
        )
        for who in ("ours", "keras")
    )
    return (
        f"An epoch of the ResNet50 head from the cache ({k['clips']['train']} clips to train, {k['clips']['val']} to "
        f"validate) takes {ours}; the same head in Keras takes {keras} (medians of {k['seeds']} seeds)."
    )


def stage_two_keras() -> str:
    k = load()["keras"]
    names = {"keras_fp32": "Keras", "keras_bf16": "Keras, `mixed_bfloat16`"}
    names |= {f"ours_{p}": f"`train-head --set precision={p}`" for p in ("fp32", "bf16")}
    rows = [
        [
            name,
            span(k["epoch_seconds"][key]),
            span(k["first_epoch_seconds"][key], 1),
            span(k["ratio"][key], 1),
            percent(k["accuracy"][key]),
        ]
        for key, name in names.items()
        if key in k["ratio"]
    ]
    n = k["clips"]
    accuracy = f"test accuracy, {k['seeds']} seeds, mean ± sd"
    text = table(["", "seconds per epoch", "first epoch", "times as fast as Keras", accuracy], rows)
    return (
        f"{text}\n\n{n['train']} training, {n['val']} validation and {n['test']} test clips, split {k['split']}; "
        f"{k['epochs']} epochs at a learning rate of {k['learning_rate']:g}; tensorflow {k['versions']['tensorflow']}, "
        f"Keras {k['versions']['keras']}."
    )


def stage_two_variants() -> str:
    if "variants" not in load():
        return NOT_YET
    v = load()["variants"]
    rows = [
        [
            r["variant"],
            r["backbone"],
            f"{r['seconds']:.0f}",
            f"{r['stages']['load']:.1f}",
            f"{r['stages']['train']:.0f}",
            str(max(r["epochs"])),
            percent(r["accuracy"]),
        ]
        for r in v["rows"]
    ]
    rows.append(["**all**", "", f"**{v['seconds']:.0f}**", "", "", "", ""])
    head = ["variant", "features", "seconds, whole command", "of it load", "train", "epochs", "test accuracy"]
    lines = [table(head, rows), ""]
    for r in load().get("pixels", {"rows": []})["rows"]:
        lines.append(
            f"- `{r['variant']}`, on frames: {r['epoch_seconds']:.0f} s per epoch of {r['clips']:,} clips "
            f"(training and validation), and {r['load_seconds']:.0f} s once to read the frames."
        )
    return "\n".join(lines)


def stage_two_load() -> str:
    r = load()["load"]
    size = " x ".join(f"{n:,}" for n in r["shape"])
    peaks = ", ".join(f"{b / 1e9:.2f} GB (recipe `{name}`)" for name, b in r["peak_bytes"].items())
    return (
        f"Loading {size} features ({r['feature_bytes'] / 1e6:.0f} MB, float16) from the cache, warm: "
        f"{span(r['seconds'])} s. Peak memory of a whole `train-head` process on them: {peaks}. The limit that we set "
        f"is twice the features plus 1.5 GB: {r['allowed_bytes'] / 1e9:.2f} GB."
    )


class EveryEpoch(NamedTuple):
    """Training without a cache, extrapolated, beside training with one.

    Attributes:
        seconds: Of a clip in an epoch, by the way that decodes and embeds it.
        epochs: How many.
        clips: Those of an epoch.
        ours: Seconds with a cache, in all.
    """

    seconds: dict[str, float]
    epochs: int
    clips: int
    ours: float

    @property
    def ratio(self) -> float:
        """By the faster way."""
        return self.epochs * self.clips * min(self.seconds.values()) / self.ours


def every_epoch(folder: Path = RESULTS.parent) -> EveryEpoch:
    """Return what the two parts that measure it found; the plain loop is that of stage one, without a head."""
    e = load(folder / "stage_two.json")["end_to_end"]
    plain = pipelines(load(folder / "stage_one.json"))["resnet50"]["seconds_per_clip"]["plain"]["median"]
    return EveryEpoch(
        seconds={"DataLoader, batches of 8": e["seconds_per_clip_and_epoch"], "plain loop": plain},
        epochs=e["epochs"],
        clips=e["clips"]["an_epoch"],
        ours=e["clips"]["all"] * e["extract_seconds_per_clip"] + e["epochs"] * e["our_epoch_seconds"],
    )


def stage_two_end_to_end() -> str:
    e, all_ways = load()["end_to_end"], every_epoch()
    rows = [
        [
            f"decode and embed every epoch: {way}",
            f"{taken:.2f}",
            f"{taken * all_ways.clips:,.0f}",
            f"{all_ways.epochs * all_ways.clips * taken / 3600:.1f}",
        ]
        for way, taken in all_ways.seconds.items()
    ]
    ours = f"{e['extract_seconds_per_clip']:.2f}, once", f"{e['our_epoch_seconds']:.2f}", f"{all_ways.ours / 3600:.2f}"
    text = table(
        ["", "seconds per clip", "seconds per epoch", f"hours, {e['epochs']} epochs"],
        [*rows, ["`extract` once, `train-head`", *ours]],
    )
    n = e["measured_clips"]
    return (
        f"{text}\n\nIn all {all_ways.ratio:.0f} times as fast as the faster of the first two. Measured: one epoch of "
        f"{n} clips, the [plain way](#stage-one-video-to-features) of stage one (without a head), extracting the "
        f"same {n} clips, epochs on all cached clips. Extrapolated: to {e['epochs']} epochs of {all_ways.clips:,} "
        f"clips (training and validation), and to extracting {e['clips']['all']:,}. Most of this is what any cache "
        "gains: a script that saves its features once has the same advantage. How much faster `extract` is than such "
        'a script is in the column "plain / `extract`" [above](#stage-one-video-to-features).'
    )


def stage_two_seeds() -> str:
    if "seeds" not in load():
        return NOT_YET
    rows = [
        [
            recipe,
            str(r["epochs"]),
            span(r["seconds"]["in_turn"], 1),
            span(r["seconds"]["at_once"], 1),
            f"{r['seconds']['in_turn']['median'] / r['seconds']['at_once']['median']:.2f}",
            "yes" if r["same_weights"] else "no",
        ]
        for recipe, r in load()["seeds"].items()
        if recipe != "machine"
    ]
    return table(["recipe", "epochs", "in turn, s", "at once, s", "times as fast", "same bits"], rows)


def others_stage_one() -> str:
    """Stage one on other processors."""
    rows = []
    for name, folder in OTHERS.items():
        found = pipelines(load(folder / "stage_one.json"))
        for backbone in sorted(found):
            p = found[backbone]
            rows.append(
                [
                    name,
                    backbone,
                    *(f"{1 / p['seconds_per_clip'][way]['median']:.2f}" for way in ("extract", "extract_eager")),
                    span(p["extract_over_limit"]),
                    span(p["plain_over_extract"], 1),
                    str(p.get("clips_a_repeat", p["clips"])),
                ]
            )
    head = ["two cores of", "backbone", "`extract --compile`, clips/s", "without `--compile`"]
    return table([*head, "time with it / limit", "plain way's time / that", "clips a repeat"], rows)


def others_stage_two() -> str:
    """Stage two on other processors, a column each."""
    found = [load(folder / "stage_two.json") for folder in OTHERS.values()]
    rows = [
        ["an epoch of the ResNet50 head in fp32, s; Keras' time / that", *(_epoch(r["keras"], "fp32") for r in found)],
        ["the same in bf16", *(_epoch(r["keras"], "bf16") for r in found)],
        ["test accuracy: Keras, fp32, bf16 (mean ± sd of 3 seeds)", *(_accuracies(r["keras"]) for r in found)],
        ["all heads on features, three seeds each, s", *(f"{r['variants']['seconds']:.0f}" for r in found)],
        ["loading 1,332 x 20 x 2,048 features, s", *(span(r["load"]["seconds"]) for r in found)],
        ["peak memory of `train-head` on them, GB", *(_peak(r["load"]) for r in found)],
        [
            "50 epochs end to end / `extract` once and train",
            *(f"{every_epoch(folder).ratio:.0f}" for folder in OTHERS.values()),
        ],
        ["two seeds at once: times as fast as in turn, by recipe", *(_at_once(r["seeds"]) for r in found)],
    ]
    return table(["", *OTHERS], rows)


def _epoch(k: dict[str, Any], precision: str) -> str:
    key = f"ours_{precision}"
    return f"{span(k['epoch_seconds'][key])}; {span(k['ratio'][key], 1)}" if key in k["ratio"] else ""


def _accuracies(k: dict[str, Any]) -> str:
    keys = [key for key in ("keras_fp32", "ours_fp32", "ours_bf16") if key in k["accuracy"]]
    return f"{', '.join(percent(k['accuracy'][key]) for key in keys)} (n = {k['clips']['test']})"


def _peak(r: dict[str, Any]) -> str:
    return ", ".join(f"{recipe} {b / 1e9:.2f}" for recipe, b in r["peak_bytes"].items())


def _at_once(seeds: dict[str, Any]) -> str:
    ratios = {
        recipe: r["seconds"]["in_turn"]["median"] / r["seconds"]["at_once"]["median"]
        for recipe, r in seeds.items()
        if recipe != "machine"
    }
    return ", ".join(f"{recipe} {ratio:.2f}" for recipe, ratio in ratios.items())


BLOCKS = {
    "others-stage-one": others_stage_one,
    "others-stage-two": others_stage_two,
    "stage-two": stage_two,
    "stage-two-keras": stage_two_keras,
    "stage-two-variants": stage_two_variants,
    "stage-two-load": stage_two_load,
    "stage-two-end-to-end": stage_two_end_to_end,
    "stage-two-seeds": stage_two_seeds,
}
