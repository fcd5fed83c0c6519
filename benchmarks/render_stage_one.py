"""Tables and the picture of stage one, from ``results/stage_one.json`` and, of one table, another processor's."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from fitrec_cache.wording import between

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/stage_one.json"

#: Precisions on a processor that was built for AMX, which its virtual machine hides.
RESULTS_HIDDEN = RESULTS.parent / "intel_fp32/stage_one.json"
#: Precisions on the generation of AMD's processors before.
RESULTS_ZEN4 = RESULTS.parent / "zen4/stage_one.json"
#: Stage one on a GPU, if anybody measured it: benchmarks/gpu.py.
RESULTS_GPU = RESULTS.with_name("gpu.json")
#: What the demo printed.
DEMO = RESULTS.with_name("demo.txt")
PICTURE = ROOT / "docs/performance.png"


def load(path: Path = RESULTS) -> dict[str, Any]:
    return json.loads(path.read_text())


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(["| " + " | ".join(r) + " |" for r in (head, ["---"] * len(head), *rows)])


def span(value: dict[str, Any], digits: int = 2) -> str:
    return f"{value['median']:.{digits}f} ({value['min']:.{digits}f} to {value['max']:.{digits}f})"


def pipelines(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {k.removeprefix("pipeline-"): v for k, v in result.items() if k.startswith("pipeline-")}


def stage_one() -> str:
    """For the README: clips a second, how far from the limit and from the plain way, and the default backbone's."""
    rows, found = [], pipelines(load())
    for name, p in found.items():
        rate = {k: 1 / v["median"] for k, v in p["seconds_per_clip"].items()}
        rows.append(
            [
                name,
                f"{rate['plain']:.2f}",
                f"{rate['extract_eager']:.2f} ({p['plain_over_extract_eager']['median']:.1f} x)",
                f"{rate['extract']:.2f} ({p['plain_over_extract']['median']:.1f} x)",
                f"{p['extract_over_limit']['median']:.2f}",
            ]
        )
    head = ["backbone", "plain way, clips/s", "`extract`", "`extract --compile`", "time over the hardware's limit"]
    repeats = len(p["seconds_per_clip"]["plain"]["all"])
    sizes = (between(min(ns := [p[k] for p in found.values()]), max(ns)) for k in _CLIPS)
    text = "Medians of {} repeats, of {} real clips each with `--compile`, {} without and {} by the plain way."
    return f"{table(head, rows)}\n\n{text.format(repeats, *sizes)} {_default_backbone()}"


#: How many clips a repeat takes: with ``--compile``, without, and by the plain way.
_CLIPS = ("clips_a_repeat", "clips_not_compiled", "clips_a_part")


def _default_backbone() -> str:
    """Say how fast the demo extracted."""
    said = re.compile(r"extract .*--backbone (\S+)\n(?:note: .*\n)*.*?(\d+) done.* in ([\d.]+) s")
    backbone, n, seconds = said.findall(DEMO.read_text())[0]
    return (
        f"With the default backbone, {backbone}, the demo above extracted its {n} drawn clips in {seconds} s on two "
        f"cores of an Intel Xeon, {int(n) / float(seconds):.1f} a second."
    )


def machines() -> str:
    """Say on which machine each part of both stages was measured."""
    found: dict[str, list[str]] = {}
    for path in (RESULTS, RESULTS.with_name("stage_two.json")):
        for part, measured in json.loads(path.read_text()).items():
            if part != "seconds":
                found.setdefault(_machine(measured["machine"]), []).append(f"`{part}`")
    return "\n".join(f"- {', '.join(parts)}: {text}" for text, parts in found.items())


def _machine(m: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
    gpu = "with a GPU" if m["gpu"] else "no GPU"
    bf16 = f" ({', '.join(m['bf16_instructions'])})" if m.get("bf16_instructions") else ""
    generation = f" {'/'.join(map(str, m['generation']))}" if m.get("generation") else ""
    name = f"{m['processor'] or m['architecture']}{generation}{bf16}"
    return f"{m['cores']} cores of {name}, {m['memory_gb']:.0f} GB, {gpu}; {versions}."


def stage_one_pipeline() -> str:
    rows = []
    for name, p in pipelines(load()).items():
        s = p["seconds_per_clip"]
        rows.append(
            [
                name,
                *(span(s[k], 3) for k in ("ready", "decode", "extract", "extract_eager", "plain")),
                span(p["extract_over_limit"]),
                span(p["plain_over_extract"], 1),
                span(p["plain_over_extract_eager"], 1),
                f"{p['cosine_to_fp32_min']['compiled']:.5f}, {p['cosine_to_fp32_min']['eager']:.5f}",
            ]
        )
    return table(
        [
            "backbone",
            "ready tensors, s/clip",
            "decoding alone",
            "`extract --compile`",
            "`extract`",
            "plain way",
            "`--compile` / limit",
            "plain / `--compile`",
            "plain / `extract`",
            "lowest cosine to fp32: with `--compile`, without",
        ],
        rows,
    )


def stage_one_compiling(path: Path = RESULTS_HIDDEN) -> str:
    if "compiling" not in load(path):
        return "Not measured yet: `benchmarks/stage_one.py` has this part."
    rows = [
        [name, *(span(taken[which], 1) for which in ("first", "again"))]
        for name, taken in load(path)["compiling"]["seconds"].items()
    ]
    return table(["seconds to compile, Xeon, AMX hidden", "the first time", "again"], rows)


def stage_one_openvino(path: Path = RESULTS_HIDDEN) -> str:
    if "openvino" not in load(path):
        return "Not measured yet: `benchmarks/stage_one.py` has this part."
    found = load(path)["openvino"]
    rows = [
        [
            name,
            *(span(b["seconds_per_clip"][way], 3) for way in ("eager", "compiled", "openvino")),
            span(b["compiled_over_openvino"]),
            f"{b['preparing_seconds']['openvino']:.0f}",
        ]
        for name, b in found["backbones"].items()
    ]
    head = ["ready tensors, s/clip, Xeon, AMX hidden", "PyTorch", "compiled", "OpenVINO", "compiled / OpenVINO"]
    version = next(iter(found["backbones"].values()))["version"].split("-")[0]
    text = (
        f"fp32, {found['clips']} clips; lowest cosine between a clip's features by PyTorch and by OpenVINO {version}:"
    )
    least = min(b["cosine_to_eager_min"] for b in found["backbones"].values())
    return f"{table([*head, 'seconds to translate'], rows)}\n\n{text} {math.floor(least * 1e8) / 1e8:.8f}."


def stage_one_startup() -> str:
    s = load()["startup"]
    torch = "loads" if s["loads_torch"] else "does not load"
    return f"The program's `--help` takes {span(s['help_seconds'])} s and {torch} PyTorch."


def stage_one_precisions(path: Path = RESULTS) -> str:
    p = load(path)["precisions"]
    rows = []
    for what, taken in p["seconds"].items():
        medians = {name: taken[name]["median"] for name in taken}
        name = f"product of two matrices {p['side']:,} x {p['side']:,}" if what == "product" else what
        cells = [f"{span(row, 3)}" for row in taken.values()]
        rows.append([name, *cells, *(f"{medians[k] / medians['fp32']:.2f}" for k in ("bf16", "fp16"))])
    head = ["seconds", "fp32", "bf16", "fp16", "bf16 / fp32", "fp16 / fp32"]
    auto = f"`--precision auto` takes {p['auto']} there; backbones: {p['frames']} frames, network alone, not compiled."
    if ways := p.get("attention_in_bf16"):
        frames, heads, places, _ = p["places"]
        took = ", ".join(f"{way} {1e3 * taken['median']:.1f} ms" for way, taken in ways.items())
        auto += f" Attention in bf16 ({frames} frames, {heads} heads, {places} tokens): {took}."
    return f"{table(head, rows)}\n\n{auto}"


def stage_one_length() -> str:
    rows = [
        [
            f"{r['seconds_of_video']} s",
            f"{r['frames']:,}",
            f"{r['frames_decoded_for_it']:,}",
            f"{r['seconds']['median']:.2f}",
            f"{r['seconds_all_decoded']['median']:.2f}",
        ]
        for r in load()["length"]["rows"]
    ]
    return table(["video", "frames", "decoded", "seconds", "seconds, all decoded"], rows)


def stage_one_frames() -> str:
    f = load()["frames"]
    rows = [
        [
            name,
            f"{w['bytes_median'] / 1e3:,.0f} kB",
            f"{w['bytes_median'] / f['video']['bytes_median']:.1f}",
            f"{w['seconds_median'] * 1e3:.1f}",
            f"{w['check_seconds_median'] * 1e3:.1f}",
            f"{w['times_faster']:.1f}",
            ", ".join(f"{t['times_faster']:.1f} at {t['frames_median']:.0f}" for t in w["times_faster_by_length"]),
        ]
        for name, w in f["ways"].items()
    ]
    head = [
        "kept as",
        "bytes per clip",
        "times the video",
        "ms to read",
        "of it to check",
        "times faster",
        "by frames in the video",
    ]
    return table(head, rows)


def stage_one_larger() -> str:
    f = load()["frames"]
    names = [("as they are" if r["height"] is None else f"enlarged to {r['height']} lines") for r in f["larger"]]
    rows = [(f"the same clips, {name}", r) for name, r in zip(names, f["larger"], strict=True)]
    if f["ucf101"]:
        rows.append(("UCF101's own files", f["ucf101"]))
    return table(
        ["videos", "n", "kB per video", "kB of frames", "kB lossless", "ms to decode", "ms to read", "times faster"],
        [
            [
                name,
                str(r["clips"]),
                f"{r['video_bytes_median'] / 1e3:.0f}",
                f"{r['bytes_median'] / 1e3:.0f}",
                f"{r['lossless_bytes_median'] / 1e3:,.0f}",
                f"{r['video_seconds_median'] * 1e3:.0f}",
                f"{r['seconds_median'] * 1e3:.1f}",
                f"{r['times_faster']:.1f}",
            ]
            for name, r in rows
        ],
    )


def _own_ms(row: dict[str, Any]) -> float:
    """Return what a clip took, in milliseconds, without what a run takes to start."""
    return 1e3 * (row["seconds"] - row["stages"]["start"]) / row["clips"]


def stage_one_growth() -> str:
    rows = []
    for r in load()["growth"]["rows"]:
        worked = r["done"] > 0
        rows.append(
            [
                f"{r['clips']:,}",
                "first" if worked else "again",
                f"{_own_ms(r):.2f}",
                f"{r['stages']['start']:.2f}",
                f"{r['opening_seconds']:.2f}",
                f"{r['memory_mb_peak'] - r['memory_mb_imports']:.0f}",
                f"{r['files'] / r['clips']:.3f}",
                f"{r['bytes'] / r['clips'] / 1e3:.2f}",
            ]
        )
    head = ["clips", "run", "ms per clip", "start, s", "open, s", "MB above imports", "files per clip", "kB per clip"]
    return table(head, rows)


def stage_one_gpu() -> str:
    """What benchmarks/gpu.py found, or that nobody ran it."""
    if not RESULTS_GPU.exists():
        return "It has not been measured on a GPU."
    result = load(RESULTS_GPU)
    rows = []
    for name, ways in result["backbones"].items():
        for way, w in [(key, ways[key]) for key in ("eager", "compiled") if key in ways]:
            taken = {key: value["median"] for key, value in w["seconds_per_clip"].items()}
            run = [r for r in w["runs"] if r["way"] == "videos"][-1]
            rows.append(
                [
                    f"{name}, {way}, {w['precision']}",
                    f"{w['images_per_second']['ready']:,.0f}",
                    *(f"{1 / taken[key]:,.1f}" for key in ("videos", "frames")),
                    f"{100 * run['computing']:.0f} %, {run['gpu'].get('busy_percent', 0):.0f} %",
                    run["bottleneck"],
                    f"{w['processor']['seconds_per_clip'] / taken['ready']:,.0f}",
                    f"{w['cosine_to_processor_fp32_min']:.5f}",
                ]
            )
    head = [
        "backbone",
        "network alone, images/s",
        "from videos, clips/s",
        "from stored frames, clips/s",
        "computing, busy by nvidia-smi",
        "bottleneck",
        "network: times this machine's processor",
        "lowest cosine to the processor's fp32",
    ]
    found, decoding = result["gpu"], result["decode_seconds_per_clip"]
    gpu = f"{found['name']}, {found['memory_gb']} GB, CUDA {found['cuda']}" if found else "no GPU"
    about = f"{result['clips']} clips; decoding alone {1 / decoding:,.0f} clips/s; {gpu}, {_machine(result['machine'])}"
    return f"{table(head, rows)}\n\n{about}"


def draw() -> None:
    """Draw throughput, cost by length of video, and cost by number of clips."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    result = load()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    names = list(pipelines(result))
    for offset, (key, label) in enumerate(
        (("plain", "plain way"), ("extract_eager", "extract"), ("extract", "extract --compile"))
    ):
        rates = [1 / pipelines(result)[n]["seconds_per_clip"][key]["median"] for n in names]
        left.bar([i + 0.27 * offset for i in range(len(names))], rates, 0.25, label=label)
    left.set_xticks([i + 0.27 for i in range(len(names))], [n.split("_patch")[0] for n in names], fontsize=8)
    measured = pipelines(result)[names[0]]
    machine = f"{measured['machine']['cores']} cores of {measured['machine']['processor']}"
    left.set(title=f"Clips per second ({measured['clips']} clips, {machine})", ylabel="clips/s")
    left.legend(fontsize=8)
    rows = result["length"]["rows"]
    for key, label in (("seconds_all_decoded", "decode everything"), ("seconds", "extract")):
        middle.plot([r["seconds_of_video"] for r in rows], [r[key]["median"] for r in rows], "o-", label=label)
    middle.set(
        title="Time to decode one video", xlabel="seconds of video", ylabel="seconds", xscale="log", yscale="log"
    )
    middle.legend(fontsize=8)
    for worked, label in ((True, "first run"), (False, "repeat run (nothing new)")):
        some = [r for r in result["growth"]["rows"] if (r["done"] > 0) == worked]
        right.plot([r["clips"] for r in some], [_own_ms(r) for r in some], "o-", label=label)
    right.set(title="Overhead per clip, without start-up", xlabel="clips", ylabel="ms per clip")
    right.set(xscale="log", ylim=(0, None))
    right.legend(fontsize=8)
    for axes in (left, middle, right):
        axes.title.set_fontsize(10)
    figure.savefig(PICTURE, dpi=80, metadata={"Software": None})


BLOCKS = {
    "stage-one": stage_one,
    "machines": machines,
    "stage-one-pipeline": stage_one_pipeline,
    "stage-one-compiling": stage_one_compiling,
    "stage-one-openvino": stage_one_openvino,
    "stage-one-startup": stage_one_startup,
    "stage-one-precisions": stage_one_precisions,
    "stage-one-precisions-zen4": lambda: stage_one_precisions(RESULTS_ZEN4),
    "stage-one-precisions-hidden": lambda: stage_one_precisions(RESULTS_HIDDEN),
    "stage-one-length": stage_one_length,
    "stage-one-frames": stage_one_frames,
    "stage-one-larger": stage_one_larger,
    "stage-one-growth": stage_one_growth,
    "stage-one-gpu": stage_one_gpu,
}

if __name__ == "__main__":
    draw()
