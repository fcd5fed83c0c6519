from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from fitrec_cache.common.png import FAINT, drawable_names
from fitrec_cache.errors import StoreError
from fitrec_cache.evaluation.attention import stand_out
from fitrec_cache.runs import attention_picture, run_pictures
from fitrec_cache.runs.attention_picture import AttentionStrip, attention_png
from fitrec_cache.runs.run_pictures import confusion_png, curves_png

GREEN, ORANGE, BLUE = (0, 158, 115), (213, 94, 0), (0, 114, 178)


def epochs(n):
    return [
        {"epoch": e, "train_loss": 2 / e, "val_loss": 3 / e, "train_accuracy": 1 - 1 / e, "val_accuracy": 0.8 - 0.8 / e}
        for e in range(1, n + 1)
    ]


def strip(steps=20, size=(24, 32), title="squat.mp4: Squat 0.83", weights=None):
    frames = np.zeros((steps, *size, 3), dtype=np.uint8)
    frames[..., 1] = np.linspace(60, 250, steps, dtype=np.uint8)[:, None, None]  # each frame its own green
    weights = np.full(steps, 1 / steps) if weights is None else np.asarray(weights)
    return AttentionStrip(title=title, frames=frames, pts_seconds=np.arange(steps) / 4, weights=weights)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, instead of files."""
    figures = []
    for module in (run_pictures, attention_picture):
        monkeypatch.setattr(module, "save_png", lambda figure, *_, **__: figures.append(figure))
    return figures


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def where(picture, colour):
    return np.argwhere((np.abs(picture - np.array(colour)) <= 2).all(axis=-1))


def test_curves_show_both_sides_and_mark_the_best_epoch(tmp_path):
    curves_png(epochs(10), tmp_path / "c.png", title="run", best_epoch=10)
    late = pixels(tmp_path / "c.png")
    for colour in (BLUE, ORANGE, GREEN):
        columns = where(late, colour)[:, 1]
        assert columns.min() < late.shape[1] / 2 < columns.max()  # in both panels
    curves_png(epochs(10), tmp_path / "c.png", title="run", best_epoch=1)
    early = pixels(tmp_path / "c.png")
    right_mark = [where(each, GREEN)[:, 1].max() for each in (early, late)]
    assert right_mark[0] < right_mark[1] - 300


def test_curves_are_named_by_their_sides_and_panels_show_their_measures(drawn):
    curves_png(epochs(2), "c.png", title="", best_epoch=1)
    found = [{line.get_label(): [*line.get_ydata()] for line in axes.get_lines()} for axes in drawn[0].axes]
    assert [(lines["training"], lines["validation"]) for lines in found] == [([2, 1], [3, 1.5]), ([0, 0.5], [0, 0.4])]


def test_the_kept_epoch_is_marked_where_it_lies(drawn):
    curves_png(epochs(4), "c.png", title="", best_epoch=2)
    for axes, value in zip(drawn[0].axes, (3 / 2, 0.8 - 0.8 / 2), strict=True):
        places = {line.get_label(): ([*line.get_xdata()], [*line.get_ydata()]) for line in axes.get_lines()}
        assert places["kept epoch (2)"] == ([2], [value])
        assert ([2, 2], [0, 1]) in places.values()  # from the bottom to the top


@pytest.mark.parametrize("n", [1, 2, 300])
def test_curves_of_any_length(tmp_path, n):
    curves_png(epochs(n), tmp_path / "c.png", title="$x_1$ 深蹲 " * 30, best_epoch=n)  # no warning: they are errors
    assert len(where(pixels(tmp_path / "c.png"), GREEN))


def test_curves_of_a_run_that_diverged(tmp_path):
    rows = [{**row, "val_loss": float("nan")} for row in epochs(3)]
    curves_png(rows, tmp_path / "c.png", title="run", best_epoch=1)
    assert (tmp_path / "c.png").is_file()


def test_confusion_colours_the_share_of_the_true_class(tmp_path):
    # Both rows are all right or all wrong, though one class has 100 times the clips: equal colours.
    confusion_png(np.array([[1, 0], [100, 0]]), ["A", "B"], tmp_path / "c.png", title="t")
    darkest = where(pixels(tmp_path / "c.png"), (8, 48, 107))  # the dark end of the map
    side = 2.6 * 130 / 2
    assert len(darkest) > 1.8 * side**2
    assert np.ptp(darkest[:, 0]) > 1.9 * side


def test_confusion_has_true_classes_in_rows(drawn):
    confusion_png(np.array([[1, 2], [3, 4]]), "ab", "c.png", title="")
    axes = drawn[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0, 0): "1", (1, 0): "2", (0, 1): "3", (1, 1): "4"
    }  # fmt: skip


def test_confusion_row_without_clips_is_grey(tmp_path):
    confusion_png(np.array([[3, 0, 1], [0, 0, 0], [0, 1, 3]]), list("ABC"), tmp_path / "c.png", title="t")
    assert len(where(pixels(tmp_path / "c.png"), (228, 228, 228))) > 10_000


@pytest.mark.parametrize("k", [1, 2, 35, 101])
def test_confusion_of_any_size_shows_every_class(tmp_path, k):
    names = [f"Class{i}$_$跳" for i in range(k)]
    confusion_png(np.eye(k, dtype=np.int64) * 1234, names, tmp_path / "c.png", title="long title " * 30)
    height, width, _ = pixels(tmp_path / "c.png").shape
    assert 400 < min(height, width) <= max(height, width) < 3500


def test_the_number_of_a_clip_stands_out_from_every_depth_of_colour(drawn):
    """White on the colour of 56 % had a contrast of 2.9."""
    for right in range(101):
        confusion_png(np.array([[right, 100 - right], [0, 1]]), "ab", "c.png", title="")
        axes = drawn[-1].axes[0]
        number = next(text for text in axes.texts if text.get_position() == (0 if right else 1, 0))
        colours = [to_rgb(number.get_color()), axes.collections[0].to_rgba((right or 100) / 100)[:3]]
        light = np.where((c := np.array(colours)) <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        dim, bright = sorted(light @ [0.2126, 0.7152, 0.0722])
        assert (bright + 0.05) / (dim + 0.05) > 3.9


def test_faint_letters_can_be_read_on_white():
    light = np.array(to_rgb(FAINT)[0])
    assert 1.05 / (((light + 0.055) / 1.055) ** 2.4 + 0.05) > 4.5


def test_the_lines_of_a_title_stay_lines(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_title", lambda _, text, **__: drawn.append(text))
    confusion_png(np.eye(9, dtype=np.int64), list("ABCDEFGHI"), tmp_path / "c.png", title="mean on net\naccuracy 50 %")
    assert drawn == ["mean on net\naccuracy 50 %"]


@pytest.mark.parametrize(("k", "numbers", "depth"), [(40, 40, 0.01), (41, 0, 0.1)])
def test_of_many_classes_a_single_clip_of_a_hundred_is_seen_by_its_colour(drawn, k, numbers, depth):
    confusion_png(np.eye(k, dtype=np.int64), [f"{i}" for i in range(k)], "c.png", title="")
    axes = drawn[0].axes[0]
    assert len(axes.texts) == numbers
    assert float(axes.collections[0].norm(0.01)) == pytest.approx(depth)


def test_attention_shows_the_frames_in_order(tmp_path):
    clip = strip()
    attention_png([clip], tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    places = [where(picture, frame[0, 0]).mean(axis=0) for frame in clip.frames]
    first, second = places[:10], places[10:]
    assert all(np.diff([x for _, x in row]).min() > 50 for row in (first, second))
    assert max(y for y, _ in first) < min(y for y, _ in second)


def test_attention_marks_the_frames_that_count_most(tmp_path):
    weights = np.full(20, 0.4 / 19)
    weights[13] = 0.6
    attention_png([strip(weights=weights)], tmp_path / "a.png")
    marked = where(pixels(tmp_path / "a.png"), ORANGE)
    cell = 130 * (1.35 + 0.08)
    assert 3 * cell < marked[:, 1].min() < marked[:, 1].max() < 4.3 * cell  # fourth in the second row
    attention_png([strip()], tmp_path / "b.png")
    assert not len(where(pixels(tmp_path / "b.png"), ORANGE))  # all alike: none stands out


def test_attention_bars_are_in_proportion(tmp_path):
    attention_png([strip(steps=5, weights=[0.2, 0.22, 0.19, 0.19, 0.2])], tmp_path / "even.png")
    attention_png([strip(steps=5, weights=[0.05, 0.8, 0.05, 0.05, 0.05])], tmp_path / "steep.png")
    even, steep = (len(where(pixels(tmp_path / name), BLUE)) for name in ("even.png", "steep.png"))
    assert even > 8 * steep > 0


def test_a_line_across_the_bars_is_where_all_would_count_the_same(drawn):
    weights = [0.4, 0.3, 0.1, 0.1, 0.1]
    attention_png([strip(steps=5, weights=weights)], "a.png")
    axes = drawn[0].axes[0]
    for weight, full, bar, line in zip(weights, axes.patches[1::3], axes.patches[2::3], axes.get_lines(), strict=True):
        floor, tall = full.get_y() + full.get_height(), full.get_height()  # downwards
        assert bar.get_height() / tall == pytest.approx(weight / 0.4)
        assert (floor - np.array(line.get_ydata())) / tall == pytest.approx([0.2 / 0.4] * 2)


def test_three_frames_at_most_stand_out():
    assert stand_out(np.array([0.2, 0.03, 0.23, 0.03, 0.22, 0.03, 0.21, 0.05])) == {2, 4, 6}
    assert stand_out(np.array([0.25, 0.22, 0.53])) == {2}


def test_below_each_frame_are_its_time_and_its_attention(drawn):
    attention_png([strip(steps=3, title="t", weights=[0.2, 0.6, 0.2])], "a.png")
    said = [text.get_text() for text in drawn[0].axes[0].texts]
    assert said[:7] == ["t", "0.00 s", "0.200", "0.25 s", "0.600", "0.50 s", "0.200"]


def test_a_head_that_weighs_all_frames_alike_has_no_bars(drawn):
    attention_png([strip(steps=3, title="t", weights=[1 / 3] * 3)], "a.png")
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.texts] == ["t", "0.00 s", "0.25 s", "0.50 s", "All frames count the same."]
    assert len(axes.patches) == 3  # the frames' edges


@pytest.mark.parametrize("size", [(24, 32), (32, 18)])
def test_attention_of_many_clips_fits_a_screen_in_reading_order(tmp_path, size):
    clips = [strip(size=size) for _ in range(20)]
    for number, clip in enumerate(clips):
        clip.frames[:] = (200, 20, 10 * number)  # each clip its own colour
    attention_png(clips, tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    height, width = picture.shape[:2]
    assert 0.5 < height / width < 2
    assert max(height, width) < 4500
    places = [tuple(where(picture, clip.frames[0, 0, 0]).mean(axis=0)) for clip in clips]
    (y, x), (y_next, x_next) = places[:2]
    assert y_next == pytest.approx(y, abs=2)
    assert x_next > x
    assert places == sorted(places, key=lambda place: (round(place[0], -2), place[1]))
    assert max(y for y, _ in places[-2:]) > 0.7 * height


@pytest.mark.parametrize("steps", [4, 20])
def test_the_title_of_a_clip_stays_in_its_column(tmp_path, steps):
    clips = [strip(steps, title="GX010234_SQUAT_SERIES_" * 20) for _ in range(12)]
    attention_png(clips, tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    middle = picture.shape[1] // 2
    assert (picture[:, middle - 8 : middle + 8] == 255).all()  # there are two columns
    assert (picture[:, middle - 300 : middle - 8] < 255).any()


@pytest.mark.parametrize(("steps", "size"), [(1, (8, 8)), (7, (160, 20)), (33, (9, 160)), (20, (64, 64))])
def test_attention_of_any_shape(tmp_path, steps, size):
    attention_png([strip(steps, size, "跳绳 $a$ " * 40), strip()], tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").shape[1] > 800


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "c.png"
    curves_png(epochs(2), path, title="t", best_epoch=1)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fitrec_cache.common.files.os.fsync", fail)
    with pytest.raises(StoreError, match="No space left on device"):
        curves_png(epochs(3), path, title="t", best_epoch=1)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["c.png"]


def test_no_window_system_is_touched():
    code = "import sys, fitrec_cache.runs.run_pictures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_confusion_matrix_of_hundreds_of_classes_takes_little_memory_and_is_no_larger_than_one_of_200(tmp_path):
    code = """if True:
        import resource, sys
        from pathlib import Path
        import numpy as np
        from fitrec_cache.runs.run_pictures import confusion_png
        for k in (2, 230):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            confusion_png(np.eye(k, dtype=np.int64), list(map(str, range(k))), Path(sys.argv[1]), title="t")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"""
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "c.png")], check=True, capture_output=True, text=True
    )
    height, width, _ = pixels(tmp_path / "c.png").shape
    assert 4000 < width < 4800
    assert 4000 < height < 4800
    assert int(told.stdout) < 400_000  # kB; the picture as floats takes 1,000,000


def test_names_that_look_the_same_in_a_picture_are_numbered():
    """The font has no Chinese signs, and long names are shortened in the middle."""
    assert drawable_names(["Squat", "Lunge"], longest=28) == ["Squat", "Lunge"]
    assert drawable_names(["\u6df1\u8e72", "\u5f13\u6b65"], longest=28) == ["1 ??", "2 ??"]
    assert len(set(drawable_names([f"{'a' * 30}{i}{'b' * 30}" for i in range(3)], longest=28))) == 3
