from __future__ import annotations

import errno
import importlib
import inspect
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import InlinePool
from make_video import write_video
from test_train import toy

from fitrec_cache import cli
from fitrec_cache import predict as predict_module
from fitrec_cache.cache import Cache
from fitrec_cache.common.files import check_writable, write_atomic
from fitrec_cache.errors import StoreError, UsageError
from fitrec_cache.extraction import prefetch
from fitrec_cache.storage.root import open_root
from fitrec_cache.wording import visible

COMMANDS = {
    "extract": "extract",
    "train_head": "train",
    "sweep": "sweep",
    "reproduce": "reproduce",
    "predict": "predict",
    "export": "export",
    "watch": "watch",
    "info": "info",
    "pack": "pack",
    "check": "check",
    "doctor": "doctor",
    "learn": "learn",
    "params": "params",
    "audit": "audit",
    "compare": "compare",
    "report": "report",
}
SMALL = ["--samples", "4", "--frame-size", "64", "--precision", "fp32", "--device", "cpu", "--workers", "1"]


@pytest.fixture
def call(monkeypatch, capsys):
    """``call(*arguments)`` runs the command in this process: (exit code, standard output, standard error)."""
    monkeypatch.setattr(prefetch, "DecoderPool", InlinePool)
    monkeypatch.setattr(predict_module, "DecoderPool", InlinePool)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fitrec-cache", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


def test_each_of_several_files_that_cannot_be_written_is_told_and_a_wrapped_error_once(call, monkeypatch):
    def several():
        try:
            raise StoreError("cannot write t.csv")
        finally:
            raise StoreError("cannot write p.png")

    def wrapped():
        try:
            raise StoreError("no room")
        except StoreError as error:
            raise UsageError("no room for t.csv") from error

    def tried_again():
        try:
            raise UsageError("too few clips")
        except UsageError:
            raise UsageError("too few clips")  # noqa: B904

    for app, code, said in (
        (several, 1, "Error: cannot write t.csv\nError: cannot write p.png\n"),
        (wrapped, 2, "Error: no room for t.csv\n"),
        (tried_again, 2, "Error: too few clips\n"),
    ):
        monkeypatch.setattr(cli, "app", app)
        assert call("predict") == (code, "", said)


@pytest.fixture
def call_json(call):
    """As ``call`` with ``--json``: (exit code, the one JSON value)."""

    def run(*arguments):
        code, out, _ = call(*arguments, "--json")
        return code, json.loads(out)  # raises if there is anything else

    return run


def parameters(function, *, without=()):
    found = inspect.signature(function).parameters.values()
    plain = [(p.name, tuple(p.default) if isinstance(p.default, list) else p.default) for p in found]
    return [pair for pair in plain if pair[0] not in without]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_names_order_and_defaults_of_its_function(name):
    function = getattr(importlib.import_module(f"fitrec_cache.{COMMANDS[name]}"), name)
    of_callers = ("progress", "tell", "lost", "note", "families", "compared")
    assert parameters(getattr(cli, name), without=("as_json",)) == parameters(function, without=of_callers)


@pytest.mark.parametrize(
    ("name", "shown"), [("extract", "20"), ("train-head", "the recipe's"), ("audit", "taken from the data")]
)
def test_help_says_what_holds_where_an_option_is_left_out(call, name, shown):
    assert f"[default: ({shown})]" in " ".join(call(name, "--help")[1].replace("│", " ").split())


def test_a_folder_on_the_way_that_may_not_be_entered_is_told(call, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "/private/cache/cache.json")

    monkeypatch.setattr("pathlib.Path.is_file", refuse)
    code, _, said = call("info", "--cache", "/private/cache")
    assert (code, said) == (1, "Error: /private/cache/cache.json cannot be reached: Permission denied\n")


@pytest.mark.parametrize(
    "words",
    [
        ("info", "--cache"),
        ("check", "--cache"),
        ("train-head", "--out", "run", "--features"),
        ("predict", "video.avi", "--run"),
        ("compare",),
    ],
)
def test_a_name_that_no_file_can_have_is_told(call, words, video_folder):
    words = [str(next(video_folder.rglob("*.avi"))) if word == "video.avi" else word for word in words]
    code, _, said = call(*words, "a" * 300)
    assert code in (1, 2)
    assert said.startswith("Error: ")
    assert "a" * 50 in said
    assert "Traceback" not in said


def test_every_command_is_compared_and_says_what_it_is_for(call):
    assert {c.callback.__name__ for c in cli.app.registered_commands} == COMMANDS.keys()
    for name in COMMANDS:
        code, out, _ = call(name.replace("_", "-"), "--help")
        assert code == 0
        assert "Example: fitrec-cache" in " ".join(out.split())


def test_extract_json_has_its_keys_and_the_exit_code_says_if_clips_failed(call_json, tmp_path, weights):
    (tmp_path / "videos" / "Hop").mkdir(parents=True)
    write_video(tmp_path / "videos" / "Hop" / "a.mp4", 6)
    backbone = ["--backbone", weights("test_resnet")]
    arguments = ["extract", tmp_path / "videos", "--cache", tmp_path / "c", *backbone, *SMALL]
    code, found = call_json(*arguments)
    assert code == 0
    assert (found["clips"], found["done"], found["reused"], found["failed"]) == (1, 1, 0, [])
    assert found["backbones"]["test_resnet"]["dim"] == 96
    assert (tmp_path / "c" / "features" / found["backbones"]["test_resnet"]["features"]).is_dir()
    assert found["seconds"] > 0
    (tmp_path / "videos" / "Hop" / "bad.mp4").touch()
    code, found = call_json(*arguments)
    assert code == 1
    path = str(tmp_path / "videos" / "Hop" / "bad.mp4")
    assert found["failed"] == [
        {"clip_id": "Hop/bad.mp4", "path": path, "reason": "file is empty (0 bytes): copy or download it again"}
    ]
    assert (found["done"], found["reused"]) == (0, 1)


def test_extract_text_names_failures(call, tmp_path, weights):
    (tmp_path / "videos" / "Hop").mkdir(parents=True)
    (tmp_path / "videos" / "Hop" / "bad.mp4").touch()
    code, out, _ = call("extract", tmp_path / "videos", "--cache", tmp_path / "c", "--backbone", weights("test_resnet"))
    assert code == 1
    assert "failed: Hop/bad.mp4: file is empty (0 bytes): copy or download it again" in out
    assert "1 clip: 0 done, 0 reused, 1 failed" in out


RUN_KEYS = {
    "variant", "backbone", "split", "seed", "n_train", "n_val", "n_test", "accuracy", "top5_accuracy", "f1_weighted",
    "f1_macro", "recall_macro", "accuracy_ci95", "guessing", "epochs", "seconds",
}  # fmt: skip


def test_the_others_print_one_json_value_with_their_keys(call_json, tmp_path, cache_folder, video_folder):
    run, video = tmp_path / "run", next(video_folder.rglob("*.avi"))
    train = ["train-head", "--cache", cache_folder, "--variant", "mean", "--backbone", "test_resnet", "--epochs", 2]
    code, found = call_json(*train, "--out", run, "--seed", 0, "--seed", 1)
    assert code == 0
    assert [r["seed"] for r in found["runs"]] == [0, 1]
    assert found["runs"][0].keys() >= RUN_KEYS
    assert found["accuracy_mean"] == pytest.approx(sum(r["accuracy"] for r in found["runs"]) / 2)
    assert "accuracy_std" in found
    code, found = call_json("predict", "--run", run, video, tmp_path / "gone.mp4", "--device", "cpu")
    assert code == 1  # one is missing
    assert found[0].keys() == {
        "path",
        "answer",
        "model",
        "may_be_unknown",
        "top",
        "attention",
        "unknown",
        "heads",
        "trained_on",
        "median_lengths",
        "warnings",
    }
    assert found[0]["top"][0].keys() == {"label", "probability"}
    assert found[0]["attention"][0].keys() == {"pts_seconds", "weight"}
    assert found[1]["reason"] == "file not found"
    code, found = call_json("info", "--cache", cache_folder, "--clips")
    assert (code, found["clips"], len(found["clip_list"])) == (0, 12, 12)
    code, found = call_json("pack", "--cache", cache_folder, "--backbone", "test_resnet", "--out", tmp_path / "p.h5")
    assert (code, found["clips"], found["frames"], found["dim"]) == (0, 12, 4, 96)
    code, found = call_json("check", "--cache", cache_folder)
    assert (code, found["problems"]) == (0, [])


def test_params_json_has_its_keys_and_the_papers_totals(call_json):
    code, found = call_json("params")
    assert code == 0
    rows = found["variants"]
    assert all(
        {"name", "paper_total", "paper_trainable", "total", "trainable", "head_trainable"} <= r.keys() for r in rows
    )
    assert {133_835, 27_852_579} <= {r["paper_total"] for r in rows}


def test_check_that_finds_a_problem_exits_with_1(call_json, tmp_path, cache_folder):
    cache = shutil.copytree(cache_folder, tmp_path / "cache")
    next(cache.glob("features/*/part-*")).write_bytes(b"")
    code, found = call_json("check", "--cache", cache)
    assert (code, len(found["problems"])) == (1, 1)


@pytest.fixture
def places(tmp_path, cache_folder, video_folder, weights):
    """Names that the arguments of WRONG use."""
    old = tmp_path / "old"
    old.mkdir()
    (old / "cache.json").write_text('{"format_version": 0}')
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "run.json").write_text("{}")
    return {
        "tmp": tmp_path,
        "cache": cache_folder,
        "videos": video_folder,
        "weights": weights("test_resnet"),
        "old": old,
        "one_class": toy(tmp_path / "one.h5", labels=["Hop"] * 60),
        "toy": toy(tmp_path / "toy.h5"),
    }


WRONG = [
    (2, "extract {videos} --cache {tmp}/c --backbone resnet5", "unknown backbone 'resnet5'. Did you mean one of "),
    (2, "extract {videos} --cache {tmp}/c --backbone {weights} --preset natve", "Did you mean 'native'"),
    (2, "extract {videos} --cache {tmp}/c --backbone test_resnet={tmp}/gone.pth", "gone.pth not found"),
    (2, "extract {videos} --cache {tmp}/c --backbone test_vit={tmp}/toy.h5", "toy.h5 is not a plain state dict"),
    (2, "extract {videos} --cache {tmp}/c --backbone {weights} --classes Hopp", "Hopp"),
    (2, "extract {tmp}/none --cache {tmp}/c --backbone {weights}", "no such file or folder"),
    (2, "extract {tmp}/empty --cache {tmp}/c --backbone {weights}", "no videos in"),
    (2, "extract --cache {tmp}/none --backbone {weights}", "no cache at"),
    (1, "extract {videos} --cache {old} --backbone {weights}", "format version 0, this program reads version 1"),
    (2, "extract {videos} --cache {tmp} --backbone {weights}", "exists and is not a cache"),
    (2, "train-head --features {toy} --out {tmp}/r --variant meen", "Did you mean 'mean'"),
    (2, "train-head --features {toy} --out {tmp}/r --variant mean --split grup", "unknown split 'grup'"),
    (2, "train-head --features {toy} --out {tmp}/r --variant vit-lstm --attention dott", "unknown attention 'dott'"),
    (2, "train-head --features {toy} --out {tmp}/r --variant mean --attention dot", "no LSTM states"),
    (2, "train-head --features {one_class} --out {tmp}/r --variant mean", "one class, 'Hop'"),
    (2, "train-head --features {toy} --out {tmp}/taken --variant mean", "already holds a run made with other settings"),
    (2, "train-head --features {tmp}/none.h5 --out {tmp}/r", "not found"),
    (2, "train-head --out {tmp}/r", "either --cache DIR or --features FILE"),
    (2, "train-head --cache {cache} --out {tmp}/r --variant mean --backbone resnet50", "unknown backbone 'resnet50'"),
    (2, "train-head --cache {tmp}/none --out {tmp}/r", "no cache at"),
    (1, "train-head --cache {old} --out {tmp}/r", "format version 0"),
    (2, "predict --run {tmp}/none {videos}", "no run at"),
    (1, "predict --run {tmp}/taken {videos}", "run.json has version None"),
    (2, "predict --run {tmp}/none {tmp}/a.mp4 {tmp}/b.mp4#t=1,2", "no such file: "),
    (2, "watch {tmp}/a.mp4 --run {tmp}/none", "no such file: "),
    (2, "info --cache {tmp}/none", "no cache at"),
    (1, "check --cache {old}", "format version 0"),
    (2, "check --cache {cache} --recompute -1", "recompute is -1"),
    (2, "pack --cache {cache} --backbone test_resnet --out {toy}", "exists"),
    (2, "params --classes 1", "classes 1: expected at least 2"),
    (2, "pack --cache {cache} --out {tmp}/no/x.h5", "there is no folder {tmp}/no. Make it first"),
    (2, "train-head --features {cache} --out {tmp}/r", "is a folder: expected an HDF5 file"),
    (2, "extract {videos} --cache {toy} --backbone {weights}", "toy.h5 is a file: expected the folder of a cache"),
    (2, "extract {toy} --cache {tmp}/c --backbone {weights}", "toy.h5 is of another kind: expected a folder"),
    (2, "extract {videos} --cache= --backbone {weights}", "--cache= is empty: expected a value"),
]


@pytest.mark.parametrize(("code", "line", "reason"), WRONG, ids=[w[1][:60] for w in WRONG])
def test_wrong_use_gives_one_clear_error_and_the_right_exit_code(call, places, code, line, reason):
    got, out, err = call(*line.format(**places).split())
    assert got == code
    assert err.startswith("Error: ")
    assert reason.format(**places) in err
    assert "Traceback" not in err
    assert all(line.startswith("note: ") for line in out.splitlines())  # what was found before


@pytest.mark.parametrize("failed", [(), ("Hop/a.mp4",)])
@pytest.mark.parametrize("name", ["learn", "reproduce"])
def test_the_exit_code_says_if_a_clip_failed(call_json, monkeypatch, tmp_path, name, failed):
    made = SimpleNamespace(failed=failed, extracted=SimpleNamespace(failed=failed, unread=()), to_dict=dict)
    monkeypatch.setattr(f"fitrec_cache.{name}.{name}", lambda *_, **__: made)
    assert call_json(name, tmp_path, "--out", tmp_path / "out") == (int(bool(failed)), {})


def test_a_reader_that_goes_does_not_stop_the_work(tmp_path, places):
    """As with ``| head -1``: notes come before the work, which once they did not."""
    command = f"extract {places['videos']} --cache {tmp_path / 'c'} --backbone {places['weights']} --samples 4"
    program = [sys.executable, "-m", "fitrec_cache", *command.split()]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.close()
    assert len(Cache(tmp_path / "c").clips()) == 12


def program_of(command, places):
    return [sys.executable, "-m", "fitrec_cache", *command.format(**places).split()]


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>&1"])
def test_streams_that_are_closed_or_full_stop_no_work(tmp_path, places, streams):
    """As of services, and of a log on a full disk."""
    program = program_of("extract {videos} --cache {tmp}/c --backbone {weights} --samples 4", places)
    shell = ["sh", "-c", f'"$@" {streams}', "sh", *program]
    done = subprocess.run(shell, capture_output=True, text=True, check=True)
    assert len(Cache(tmp_path / "c").clips()) == 12
    assert "Traceback" not in done.stderr
    lost = "note: standard output cannot be written: No space left on device\n"
    assert (lost in done.stderr) == (streams == ">/dev/full")


def test_an_answer_that_cannot_be_written_is_an_error(tmp_path, places):
    shell = ["sh", "-c", '"$@" >/dev/full', "sh", *program_of("info --cache {cache}", places)]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_goes_is_an_interruption_unless_it_is_ignored(ignored, tmp_path):
    """As Ctrl-C, what is finished is committed; under nohup the work goes on."""
    script = (
        "import os, signal, sys, time\n"
        f"signal.signal(signal.SIGHUP, signal.{'SIG_IGN' if ignored else 'SIG_DFL'})\n"
        "from fitrec_cache import cli, info\n"
        "def hung_up(**_):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"
        "        time.sleep(0.2)\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"  # the shell says it, and the system
        "        time.sleep(0.2)\n"
        "        print('committed')\n"
        "    sys.exit('went on')\n"
        "info.info = hung_up\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "info", "--cache", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.split("\n")[0][:11]) == ((1, "went on") if ignored else (130, "Interrupted"))
    assert done.stdout == "committed\n"


def test_no_folder_for_temporary_files_is_told(call, monkeypatch, tmp_path):
    from fitrec_cache import info

    def none(**_):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(info, "info", none)
    code, _, err = call("info", "--cache", tmp_path)
    assert (code, err) == (1, "Error: no folder for temporary files can be written: set TMPDIR to one\n")


def test_no_room_for_a_thread_is_told(call, monkeypatch, tmp_path):
    from fitrec_cache import info

    def none(**_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(info, "info", none)
    code, _, err = call("info", "--cache", tmp_path)
    assert (code, err.split(":")[1]) == (1, " no further thread can be started")


def test_answers_are_printed_although_their_table_cannot_be_written(
    call, monkeypatch, tmp_path, cache_folder, video_folder
):
    run, video = tmp_path / "run", next(video_folder.rglob("*.avi"))
    call("train-head", "--cache", cache_folder, "--variant", "mean", "--out", run, "--set", "steps=0", "--epochs", 1)
    monkeypatch.setattr(predict_module, "DecoderPool", InlinePool)

    def full(*_):
        raise StoreError("cannot write t.csv: No space left on device")

    monkeypatch.setattr(predict_module, "_write_table", full)
    code, out, err = call("predict", "--run", run, video, "--device", "cpu", "--table", tmp_path / "t.csv", "--json")
    assert (code, len(json.loads(out)[0]["top"])) == (1, 3)
    assert err == "Error: cannot write t.csv: No space left on device\n"


def test_names_that_a_terminal_cannot_show_cost_no_work(tmp_path, places):
    videos = tmp_path / "videos"
    shutil.copytree(places["videos"], videos)
    next(videos.iterdir()).rename(videos / "\u6df1\u8e72")
    command = f"extract {videos} --cache {tmp_path / 'c'} --backbone {places['weights']} --samples 4"
    program = [sys.executable, "-m", "fitrec_cache", *command.split()]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(program, capture_output=True, check=True, env=environment)
    assert rb"\u6df1\u8e72" in done.stdout
    assert len(Cache(tmp_path / "c").clips()) == 12


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["extract", "", "--cache", "c"], "an argument is empty"),
        (["extract", "--cache", ""], "what follows --cache is empty"),
        (["predict", "--run", "r", "a.mp4", ""], "an argument is empty"),
    ],
)
def test_an_empty_argument_is_not_the_folder_one_is_in(call, tmp_path, monkeypatch, words, reason):
    """As of a variable of the shell that is not set; once the videos of any folder entered a cache."""
    monkeypatch.chdir(tmp_path)
    assert call(*words) == (2, "", f"Error: {reason}: expected a value. Is a variable of the shell not set?\n")
    assert not list(tmp_path.iterdir())


def test_a_value_may_end_with_an_equals_sign(call, places):
    code, _, err = call("train-head", "--features", places["toy"], "--out", places["tmp"] / "r", "--set=dropout=")
    assert (code, "--set 'dropout='" in err) == (2, True)


def test_a_command_in_an_error_can_be_pasted(call, tmp_path):
    folder = tmp_path / "my folder"
    folder.mkdir()
    assert f"`fitrec-cache train-head --out '{folder}'`" in call("compare", folder)[2]
    assert f"`fitrec-cache train-head --out '{folder}'`" in call("predict", "--run", folder, __file__)[2]
    open_root(folder, create=True)
    words = ["train-head", "--variant", "lrcn", "--out", tmp_path / "run"]
    assert f"`fitrec-cache extract VIDEOS --cache '{folder}'`" in call("info", "--cache", folder, "--clips")[2]
    assert f"`fitrec-cache extract VIDEOS --cache '{folder}'`" in call(*words, "--cache", folder)[2]


def test_a_folder_given_below_home_is_there(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert f"no cache at {tmp_path}/cache" in call("info", "--cache=~/cache")[2]


def test_too_little_memory_is_told(call, monkeypatch, tmp_path):
    from fitrec_cache import info

    def too_large(**_):
        raise MemoryError("Unable to allocate 9. TiB")

    monkeypatch.setattr(info, "info", too_large)
    code, _, err = call("info", "--cache", tmp_path)
    told = (
        "Error: too little memory (Unable to allocate 9. TiB): close other programs, or ask for less at once "
        "(--workers 1, --jobs 1, fewer clips or backbones)\n"
    )
    assert (code, err) == (1, told)


def test_missing_and_unknown_options_exit_with_2(call):
    for arguments in ("train-head", "extract --cash x", "unknown", "predict --run x"):
        assert call(*arguments.split())[0] == 2


def test_windows_is_told_what_to_do(call, monkeypatch):
    monkeypatch.setattr(cli, "os", SimpleNamespace(name="nt"))
    code, _, err = call("--help")
    assert (code, err) == (2, "Error: fitrec-cache needs Linux; on Windows run it in WSL\n")


def test_interruption_exits_with_130(call, monkeypatch, tmp_path):
    from fitrec_cache import info

    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "info", interrupt)
    assert call("info", "--cache", tmp_path)[0] == 130


def test_after_an_interruption_the_message_says_what_the_same_command_does(monkeypatch, capsys):
    for words, says in ((["--out", "x"], "continues from there"), (["--overwrite"], "trains everything again")):
        monkeypatch.setattr("sys.argv", ["fitrec-cache", "train-head", *words])
        with pytest.raises(SystemExit):
            cli._interrupted()
        assert capsys.readouterr().err == f"Interrupted: what was stored is kept, and the same command {says}.\n"


def test_the_installed_command_works_in_a_process_of_its_own(tmp_path, video_folder, weights, cache_folder):
    """The real thing once: decoder processes, exit code, nothing but JSON on standard output."""
    command = [sys.executable, "-c", "from fitrec_cache.cli import main; main()"]
    backbone = ["--backbone", weights("test_resnet")]
    arguments = ["extract", video_folder, "--cache", tmp_path / "c", *backbone, *SMALL, "--json"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert json.loads(done.stdout)["done"] == 12
    assert done.stderr == ""


def test_a_link_to_nothing_stays_one_where_writing_is_only_tried(tmp_path):
    link, target = tmp_path / "link.png", tmp_path / "target.png"
    link.symlink_to(target)
    check_writable(link, "--picture")
    assert link.is_symlink()
    assert not target.exists()


def test_a_file_in_a_folder_that_takes_no_other_is_found_out_before(tmp_path, monkeypatch):
    """Root may write into every folder, so the folder refuses by proxy."""
    path = tmp_path / "t.csv"
    path.write_text("before")
    check_writable(path, "--table")
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]
    assert path.read_text() == "before"
    opened = type(path).open

    def only_what_is_there(self, mode="r", **more):
        if self.parent == tmp_path and not self.exists():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(self, mode, **more)

    monkeypatch.setattr(type(path), "open", only_what_is_there)
    with pytest.raises(StoreError, match="Permission denied"):
        write_atomic(path, b"after")
    link = tmp_path.parent / f"{tmp_path.name}.csv"
    link.symlink_to(path)
    for tried in (path, link):
        with pytest.raises(UsageError, match=r"--table .*\.csv cannot be written: Permission denied"):
            check_writable(tried, "--table")


def test_what_steers_a_terminal_is_written_out(call, tmp_path):
    """Names that others gave: of a class, a column, a file; an end of a line stays one."""
    (tmp_path / "m.csv").write_text("path,label,gr\x1b[2Joup\nno.mp4,\u202eSquat\n")
    (tmp_path / "no.mp4").touch()
    code, out, err = call("extract", tmp_path / "m.csv", "--cache", tmp_path / "cache", *SMALL)
    assert code == 1
    assert r"gr\x1b[2Joup" in out + err
    assert "\x1b" not in out + err
    assert "\u202e" not in out + err
    assert visible("a\x1b[31m\u202eb\tc\nd") == "a\\x1b[31m\\u202eb\tc\nd"


def test_a_folder_that_has_been_deleted_is_told(tmp_path):
    (tmp_path / "gone").mkdir()
    there, python = shlex.quote(str(tmp_path / "gone")), shlex.quote(sys.executable)
    script = f"cd {there} && rmdir ../gone && {python} -P -m fitrec_cache doctor"
    found = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (2, "Error: the folder you are in has been deleted: change to another\n")


def test_a_library_that_memory_does_not_suffice_for_is_told(call, monkeypatch, tmp_path):
    from fitrec_cache import info

    def fails(**_):
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")

    monkeypatch.setattr(info, "info", fails)
    code, _, err = call("info", "--cache", tmp_path)
    assert code == 1
    assert err.startswith("Error: a library cannot be loaded (libtorch_cpu.so: failed to map")
    monkeypatch.setattr(info, "info", lambda **_: importlib.import_module("no_such_module"))
    with pytest.raises(ModuleNotFoundError):
        call("info", "--cache", tmp_path)


def test_a_folder_that_cannot_be_read_is_no_success(call, monkeypatch, tmp_path):
    from fitrec_cache import extract

    report = extract.ExtractReport(
        clips=1, done=1, reused=0, failed=(), backbones={}, features={}, seconds=1.0, stages={"embed": 1.0},
        beside={"decode": 0.0, "prepare": 0.0}, others=None, notes=(), unread=("v/Squat",),
    )  # fmt: skip
    for unread, code in ((("v/Squat",), 1), ((), 0)):
        found = replace(report, unread=unread)
        monkeypatch.setattr(extract, "extract", lambda *_, found=found, **__: found)
        assert call("extract", tmp_path, "--cache", tmp_path / "c")[0] == code
