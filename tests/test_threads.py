"""With how many threads is computed beside other programs; what these use is given."""

from __future__ import annotations

import json

import pytest
import torch
from test_train import toy

from fitrec_cache.backbones.backbone import Backbone
from fitrec_cache.common import threads as module
from fitrec_cache.common.cpu_contention import CpuContention
from fitrec_cache.common.threads import Threads, threads_beside_others, threads_set_to
from fitrec_cache.extract import extract
from fitrec_cache.train import train_head


@pytest.fixture
def machine(monkeypatch):
    """Make a machine with some cores, of which other programs use some, and as many threads."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def make(n_cores, used, *, allowed=None):
        monkeypatch.setattr(module, "cores", lambda: allowed or n_cores)
        monkeypatch.setattr("os.cpu_count", lambda: n_cores)
        monkeypatch.setattr(CpuContention, "used_by_others", lambda self: used)
        torch.set_num_threads(n_cores)

    with threads_set_to(torch.get_num_threads()):
        yield make


@pytest.mark.parametrize(
    ("n_cores", "used", "number"),
    [
        (2, 0.0, 2),
        (2, 0.2, 2),
        (2, 0.3, 1),
        (2, 1.0, 1),
        (2, 2.0, 1),  # one at least
        (8, 1.0, 7),
        (8, 1.1, 6),
        (8, None, 8),  # not known
        (1, 1.0, 1),
    ],
)
def test_threads_leave_the_cores_that_others_use(machine, n_cores, used, number):
    machine(n_cores, used)
    found = threads_beside_others()
    assert (found.number, found.usual) == (number, n_cores)
    assert torch.get_num_threads() == n_cores
    assert bool(found.notes) == (number < n_cores)


def test_what_is_told_names_the_cores_and_the_threads(machine):
    machine(4, 1.26)
    assert threads_beside_others().notes == [
        "other programs use 1.3 of 4 cores: computing with 2 of 4 threads, which is faster beside them; "
        "OMP_NUM_THREADS sets the number (a head's last bits depend on it)"
    ]


def test_a_number_that_the_user_chose_is_kept(machine, monkeypatch):
    machine(4, 2.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads_beside_others() == Threads(4, 4)


def test_programs_outside_a_container_do_not_count(machine):
    machine(4, 2.0, allowed=3)
    assert threads_beside_others() == Threads(4, 4)


def test_a_context_ends_with_the_threads_it_began_with():
    before = torch.get_num_threads()
    with threads_set_to(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("used", "threads"), [(0.0, 2), (0.9, 1)])
def test_a_training_computes_so_and_says_it(machine, tmp_path, used, threads):
    machine(2, used)
    call = {"out": tmp_path / "run", "features": toy(tmp_path / "toy.h5"), "variant": "mean", "epochs": 1}
    report = train_head(**call)
    assert len([note for note in report.notes if note.startswith("other programs use 0.9 of 2 cores")]) == 2 - threads
    assert json.loads((tmp_path / "run" / "run.json").read_text())["threads"] == report.threads == threads
    assert report.to_dict()["threads"] == threads
    assert torch.get_num_threads() == 2
    assert not [note for note in train_head(**call).notes if note.startswith("other")]  # nothing is left to train


def test_an_extraction_computes_so_and_says_it(machine, tmp_path, video_folder, weights, inline, monkeypatch):
    machine(2, 0.9)
    seen, embed = [], Backbone.embed_prepared
    monkeypatch.setattr(
        Backbone, "embed_prepared", lambda *given: seen.append(torch.get_num_threads()) or embed(*given)
    )
    report = extract(video_folder, cache=tmp_path / "cache", backbone=[weights("test_resnet")], device="cpu")
    assert seen[-report.done :] == [1] * 12
    assert any(note.startswith("other programs use 0.9 of 2 cores: computing with 1 of 2") for note in report.notes)
    assert torch.get_num_threads() == 2
