"""The table of docs/reliability.md from torture.json; sections that were not run are left out."""

from __future__ import annotations

from typing import Any


def table(result: dict[str, Any]) -> str:
    about = result["about"]
    lines = ["| promise | tried | came out | test in CI |", "|---|---|---|---|"]
    for name, rows in ROWS.items():
        if name in result:
            lines += [f"| {' | '.join(row)} |" for row in rows(result[name])]
    machine, versions = about["machine"], ", ".join(f"{k} {v}" for k, v in sorted(about["versions"].items()))
    return "\n".join(
        [
            *lines,
            "",
            f"On {machine['cores']} cores ({machine['architecture']}, {machine['system']}), clips of "
            f"`{about['videos']}`, {about['backbone']}; {versions}. All of it took {_minutes(result)} minutes.",
        ]
    )


def _minutes(result: dict[str, Any]) -> int:
    """Return how long all sections took together."""
    return round(sum(result[name]["seconds"] for name in ROWS if name in result) / 60)


def _no(n: int, one: str, many: str | None = None) -> str:
    """Return how many there are, in words if there are none."""
    return f"no {one}" if n == 0 else f"{n:,} {one if n == 1 else many or f'{one}s'}"


def kill(r: dict[str, Any]) -> list[tuple[str, ...]]:
    bad = r["caches_that_did_not_open"] + r["promised_rows_missing"] + r["damaged_parts"]
    main, decoder, inside = (
        r[f"kills_{k}"] for k in ("of_the_main_process", "of_a_decoder_process", "inside_a_commit")
    )
    return [
        (
            "SIGKILL at any moment",
            f"{r['kills']} kills at random moments of `extract` ({main} of the main process, {decoder} of a decoder; "
            f"{inside} inside a commit), {r['clips_a_part']} clips a part, {r['caches_finished']} caches of "
            f"{r['clips_a_cache']} clips finished",
            f"{bad or 'nothing'} unreadable, missing although reported done, or damaged; "
            f"{_no(r['caches_that_differ'], 'cache')} different from an undisturbed run in any bit; at most "
            f"{r['most_clips_lost']} embedded clips lost by a kill; "
            f"{_no(r['decoder_processes_left_behind'], 'decoder process', 'decoder processes')} left behind",
            "`test_extract.py`, `test_torture.py`",
        )
    ]


def stop(r: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for key, what in (
        ("disk_full", "disk full"),
        ("file_size_limit", "file size limit"),
        ("read_only", "file system becomes read-only"),
    ):
        case = r[key]
        if "not_tried" in case:
            rows.append((what, case["not_tried"], "-", "`test_store.py`"))
            continue
        lost = case["missing"] + case["damaged"] + case["unopened"]
        same = "same bits after going on" if case["finished_afterwards"] and not case["differs"] else "DIFFERS"
        says = "the reason" if case["says_why"] else "NO reason"
        came = f"exit code {case['exit_code']} with {says}; {lost or 'nothing'} lost or damaged; {same}"
        rows.append((what, "during `extract`", came, "`test_store.py`"))
    c = r["ctrl_c"]
    came = (
        f"exit code {', '.join(c['exit_codes'])}; "
        f"{_no(c['embedded_clips_not_stored'], 'finished clip')} missing from the store; "
        f"{c['missing'] + c['damaged'] + c['unopened'] or 'nothing'} lost or damaged; "
        f"{'DIFFERS' if c['differs'] else 'same bits after going on'}"
    )
    return [*rows, ("Ctrl-C", f"{c['interruptions']} at random moments", came, "`test_extract.py`, `test_cli.py`")]


def damage(r: dict[str, Any]) -> list[tuple[str, ...]]:
    kinds = sorted({c["damage"].replace("_", "-") for c in r["cases"]})
    came = f"{r['as_promised']} of {r['tried']}: named, set aside, exactly their clips redone, same bits"
    return [("Damage is found", f"{', '.join(kinds)} parts of each kind", came, "`test_check.py`, `test_store.py`")]


def many(r: dict[str, Any]) -> list[tuple[str, ...]]:
    worst = max(x["done_twice"] for x in r["rounds"])
    return [
        (
            "Many at once",
            f"{len(r['rounds'])} times {r['processes']} `extract` on one cache of {r['clips']} clips, "
            f"{r['clips_a_part']} a part, and a reader ({r['reads_while_writing']} reads)",
            f"{r['damaged'] or 'nothing'} damaged, missing or different; {_no(r['reads_failed'], 'read')} failed; "
            f"{_no(worst, 'clip')} done twice{' in one of these, at most' * bool(worst)}",
            "`test_claims.py`, `test_torture.py`",
        )
    ]


def fuzz(r: dict[str, Any]) -> list[tuple[str, ...]]:
    main, decoders = r["main_process_mb"], r["largest_decoder_process_mb"]
    return [
        (
            "Broken files",
            f"{r['mutations']:,} mutations (truncated, bits flipped, headers edited, spliced) of real clips: "
            f"{', '.join(r['outcomes'])}",
            f"{r['done']:,} done, {r['failed_with_reason']:,} failed with a reason; "
            f"{_no(r['crashes_contained'], 'crash', 'crashes')}, {_no(r['hangs_contained'], 'hang')}; "
            f"main process {main[0]} MB after the first 100, {main[-1]} MB at the end; decoders at most "
            f"{max(decoders)} MB",
            "`test_video.py`, `test_decoding.py`, `test_torture.py`",
        )
    ]


def hostile(r: dict[str, Any]) -> list[tuple[str, ...]]:
    rows, tests = [], "`test_store.py`, `test_predict.py`, `test_clips.py`"
    for key, what in (
        ("hdf5_parts", "Hostile HDF5 parts"),
        ("mutated_hdf5_parts", "Parts with flipped bits and a checksum that fits"),
        ("run_json", "`run.json` with odd values"),
        ("manifests", "Hostile manifests"),
    ):
        x = r[key]
        other = x["tried"] - x.get("refused", 0) - x.get("harmless", 0)
        came = (
            f"{x.get('refused', 0)} refused with a clear error, {x.get('harmless', 0)} harmless, "
            f"{other or 'none'} otherwise (traceback, hang, crash); at most {x['slowest_s']} s and {x['peak_mb']} MB"
        )
        rows.append(
            (
                what,
                f"{x['tried']} calls of the command line",
                came,
                tests,
            )
        )
    return rows


ROWS = {"kill": kill, "stop": stop, "damage": damage, "many": many, "fuzz": fuzz, "hostile": hostile}
