from __future__ import annotations

import json

import pytest
from conftest import SMALL

from fitrec_cache.extract import extract
from fitrec_cache.extraction.history import FOLDER, history
from fitrec_cache.info import info
from fitrec_cache.texts import info_text


@pytest.fixture
def cache(tmp_path, video_folder, weights, inline):
    given = {"cache": tmp_path / "cache", "backbone": [weights("test_resnet")], **SMALL}
    first = extract(video_folder, **given)
    assert extract(video_folder, **given).done == 0
    return tmp_path / "cache", first


def test_an_extraction_that_did_something_is_kept(cache):
    folder, report = cache
    (kept,) = history(folder)
    assert (kept.done, kept.backbones, kept.device) == (12, ("test_resnet, preset native, fp32",), "cpu")
    assert kept.seconds == pytest.approx(report.seconds, abs=0.06)
    assert kept.bottleneck == report.bottleneck
    assert kept.stages["embed"] == pytest.approx(report.stages["embed"], abs=0.06)
    assert kept.ended.endswith("+00:00")


def test_info_shows_it(cache):
    folder, report = cache
    assert info(cache=folder).to_dict()["history"][0]["done"] == 12
    shown = f"12 clips in {round(report.seconds, 1):.0f} s, mostly {report.bottleneck}: test_resnet, preset native"
    assert shown in info_text(info(cache=folder))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "\xff", '{"ended": "soon"}', '{"ended": "2026-01-01", "backbones": 3}', "[" * 100_000]
)
def test_what_is_no_history_is_passed_over(cache, text):
    folder, _ = cache
    (path,) = (folder / FOLDER).iterdir()
    (folder / FOLDER / "other.json").write_bytes(text.encode("latin-1"))
    assert [e.done for e in history(folder)] == [12]
    entry = json.loads(path.read_text())
    (folder / FOLDER / "earlier.json").write_text(json.dumps(entry | {"ended": "2001-01-01T00:00:00+00:00", "done": 3}))
    assert [e.done for e in history(folder)] == [3, 12]
