from __future__ import annotations

import hashlib
import math
import threading
import zipfile
from functools import partial
from http.client import BadStatusLine, IncompleteRead, InvalidURL
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import matplotlib.cbook
import numpy as np
import pytest
import torch
from make_tflite import make_task
from PIL import Image

from fitrec_cache.backbones import backbone as module
from fitrec_cache.backbones import blazepose
from fitrec_cache.backbones.backbone import best_precision, load_backbone
from fitrec_cache.backbones.blazepose import PoseModel, describe
from fitrec_cache.backbones.pose_file import kept_file
from fitrec_cache.backbones.pretrained import BackboneChoice, weights_are_here
from fitrec_cache.dataset.find_clips import find_clips
from fitrec_cache.errors import UsageError, WeightsError
from fitrec_cache.extract import extract
from fitrec_cache.settings.poses import POSE_DIM, POSES
from fitrec_cache.video.resizing import fit_into

NAME = "blazepose_full"
REAL = Path(__file__).parents[2] / "shared" / "weights" / "pose_landmarker_full.task"


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_task(tmp_path_factory.mktemp("pose") / "small.task")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder for downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path


def standing():
    """A person facing the camera with arms hanging down; only the points that are measured matter."""
    points = torch.zeros(33, 3)
    sides = ((7, 8, 0.07, -0.6), (11, 12, 0.2, -0.5), (13, 14, 0.2, -0.2), (15, 16, 0.2, 0.1), (19, 20, 0.2, 0.2))
    sides += ((23, 24, 0.1, 0.0), (25, 26, 0.1, 0.4), (27, 28, 0.1, 0.8), (31, 32, 0.1, 0.8))
    for left, right, x, y in sides:
        points[left], points[right] = torch.tensor([x, y, 0.0]), torch.tensor([-x, y, 0.0])
    points[[31, 32], 2] = -0.2  # toes point to the camera
    return points


def parts(row):
    """A description in its parts, in their own units."""
    values = row / 6
    return values[:99].view(33, 3), values[99:165].view(33, 2), values[165:198], values[198:224], values[224]


def described(space, place=None, visible=0.5):
    place = space[:, :2] if place is None else place
    return describe(space[None], place[None], torch.full((1, 33), visible))[0]


def test_a_pose_is_described_by_points_angles_and_slopes():
    space, place, visible, angles, found = parts(described(standing()))
    torch.testing.assert_close(space, standing())
    longest = math.hypot(0.1, 0.8)  # from between the hips to an ankle
    torch.testing.assert_close(place, standing()[:, :2] / longest)
    assert visible.tolist() == pytest.approx([0.5] * 33)
    assert found == 1
    cosines, slopes = angles[:10].tolist(), angles[10:].tolist()
    elbow, shoulder, hip, knee, ankle = cosines[::2]
    assert cosines[1::2] == pytest.approx(cosines[::2])  # the same on both sides
    assert elbow == pytest.approx(-1, abs=1e-4)  # stretched
    assert knee == pytest.approx(-1, abs=1e-4)
    assert ankle == pytest.approx(0, abs=1e-4)  # a right angle
    assert shoulder == pytest.approx(0.5 / math.hypot(0.1, 0.5), abs=1e-4)  # between the upper arm and the trunk
    assert hip == pytest.approx(-0.5 / math.hypot(0.1, 0.5), abs=1e-4)
    assert slopes[:8] == pytest.approx([1] * 8, abs=1e-4)  # limbs hang down
    assert slopes[8:10] == pytest.approx([0.5 / math.hypot(0.1, 0.5)] * 2, abs=1e-4)  # from shoulders to hips
    assert slopes[10:14] == pytest.approx([0] * 4, abs=1e-4)  # feet, shoulders and hips are level
    assert slopes[14:] == pytest.approx([0.1 / math.hypot(0.13, 0.1)] * 2, abs=1e-4)  # from ears down to shoulders


@pytest.mark.parametrize("degrees", [30, 90, 180, 250])
def test_neither_the_direction_of_the_camera_nor_the_place_on_the_picture_matters(degrees):
    angle = math.radians(degrees)
    x, y, z = standing().unbind(1)
    seen = torch.stack([math.cos(angle) * x - math.sin(angle) * z, y, math.sin(angle) * x + math.cos(angle) * z], 1)
    torch.testing.assert_close(parts(described(seen))[0], standing(), atol=1e-5, rtol=0)
    torch.testing.assert_close(parts(described(seen))[3], parts(described(standing()))[3], atol=1e-4, rtol=0)
    place = standing()[:, :2]
    moved = described(standing(), place=place * 0.3 + 0.4)
    torch.testing.assert_close(moved, described(standing()), atol=1e-4, rtol=0)


def test_of_a_twisted_body_the_middle_between_shoulders_and_hips_faces_the_camera():
    twisted = torch.zeros(33, 3)
    twisted[11], twisted[12] = torch.tensor([0.1, -0.5, 0.1]), torch.tensor([-0.1, -0.5, -0.1])
    twisted[23], twisted[24] = torch.tensor([0.1, 0.0, -0.1]), torch.tensor([-0.1, 0.0, 0.1])
    torch.testing.assert_close(parts(described(twisted))[0], twisted, atol=1e-5, rtol=0)


def test_a_lying_person_is_told_from_a_standing_one():
    lying = standing()[:, [1, 0, 2]] * torch.tensor([-1.0, 1.0, 1.0])  # turned on the picture by a quarter
    assert not torch.allclose(described(lying), described(standing()), atol=1)


class Given(torch.nn.Module):
    """A network that gives what it is told, and keeps what it was given."""

    def __init__(self, side, *outputs):
        super().__init__()
        self.size, self.outputs, self.seen = (side, side), outputs, None

    def forward(self, x):
        self.seen = x
        return self.outputs


def model(monkeypatch, detector, landmarks):
    found = iter((detector, landmarks))
    monkeypatch.setattr(blazepose, "TFLiteGraph", lambda *args: next(found))
    return PoseModel(b"", b"")


def a_person(anchor, hips, up, score=5.0):
    """Outputs of a first network that sees one person, in shares of the picture."""
    boxes, scores = torch.zeros(1, 2254, 12), torch.full((1, 2254, 1), -9.0)
    at = torch.tensor([(anchor % 56 // 2 + 0.5) / 28, (anchor // 56 + 0.5) / 28])  # on the first map, two at a place
    boxes[0, anchor, 4:6] = 224 * (torch.tensor(hips) - at)
    boxes[0, anchor, 6:8] = 224 * (torch.tensor(hips) + torch.tensor(up) - at)
    scores[0, anchor] = score
    return boxes, scores


@pytest.mark.parametrize(("up", "turns"), [((0.0, -0.2), 0), ((0.2, 0.0), 1), ((0.0, 0.2), 2)])
def test_the_person_is_cut_out_upright(monkeypatch, up, turns):
    """The square is 2 * 1.25 * 0.2 = half the picture: as many pixels as the second network takes."""
    random = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, 512, 512, generator=random)
    points = torch.randn(1, 39, 5, generator=random)
    points[..., :2] = torch.rand(1, 39, 2, generator=random) * 256
    world = torch.rand(1, 117, generator=random)
    landmarks = Given(256, points.view(1, 195), torch.tensor([[0.9]]), world)
    detector = Given(224, *a_person(800, (0.5, 0.5), up))
    pose = model(monkeypatch, detector, landmarks)
    row = pose(picture)[0]
    middle = torch.rot90(picture[..., 128:384, 128:384], turns, (2, 3))
    torch.testing.assert_close(landmarks.seen, middle, atol=1e-3, rtol=0)
    assert detector.seen.mean().item() == pytest.approx(2 * picture.mean().item() - 1, abs=1e-3)  # pixels: -1 to 1

    # What was found in the square is put back: turned as the person is, and seen from the hips.
    along, across = torch.tensor(up) / 0.2, torch.tensor([-up[1], up[0]]) / 0.2  # up and right of the person
    place = (points[0, :33, :1] / 256 - 0.5) * across - (points[0, :33, 1:2] / 256 - 0.5) * along
    metres = world.view(39, 3)[:33]
    space = torch.cat([metres[:, :1] * across - metres[:, 1:2] * along, metres[:, 2:]], 1)
    visible = 1 / (1 + (-points[:, :33, 3]).exp())
    torch.testing.assert_close(row, describe(space[None], place[None], visible)[0], atol=2e-4, rtol=0)


def test_outside_the_picture_is_black(monkeypatch):
    landmarks = Given(256, torch.zeros(1, 195), torch.tensor([[0.9]]), torch.zeros(1, 117))
    pose = model(monkeypatch, Given(224, *a_person(0, (0.0, 0.5), (0.0, -0.2))), landmarks)
    pose(torch.ones(1, 3, 512, 512))  # the person stands at the left edge
    assert not landmarks.seen[..., :127].any()
    assert landmarks.seen[..., 129:].min() > 0.999


def test_frames_without_a_person_are_zero(monkeypatch):
    def pose(present):
        landmarks = Given(256, torch.rand(1, 195), torch.tensor([[present]]), torch.rand(1, 117))
        return model(monkeypatch, Given(224, *a_person(0, (0.5, 0.5), (0.0, -0.2))), landmarks)

    assert not pose(0.49)(torch.rand(1, 3, 512, 512)).any()
    assert pose(0.5)(torch.rand(1, 3, 512, 512))[0, -1] == 6


def test_a_frame_is_fitted_into_a_square_with_its_proportions():
    frames = torch.full((2, 3, 90, 160), 200, dtype=torch.uint8)
    square = fit_into(frames, (512, 512))
    assert square.shape == (2, 3, 512, 512)
    assert (square[:, :, 112:400] == 200).all()  # 288 of 512 rows
    assert not square[:, :, :112].any()
    assert not square[:, :, 400:].any()
    upright = fit_into(frames.transpose(2, 3), (512, 512))
    assert torch.equal(upright, square.transpose(2, 3))
    assert fit_into(frames[..., :1, :].expand(2, 3, 1, 160).repeat(1, 1, 1, 20), (512, 512))[0, 0].any(dim=1).sum() == 1


def test_a_backbone_gives_the_same_vector_for_a_frame_whatever_is_beside_it(task):
    backbone = load_backbone(f"{NAME}={task}", device="cpu")
    clip = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 90, 160), dtype=np.uint8))
    features = backbone.embed(clip)
    assert features.shape == (6, POSE_DIM)
    assert features.any(axis=1).sum() in range(1, 6)  # some with a person, some without
    for i in range(6):
        np.testing.assert_allclose(backbone.embed(clip[i : i + 1])[0], features[i], atol=0.02)
    identity = backbone.identity()
    assert (identity["backbone"], identity["precision"], identity["preprocessing"]["output"]) == (
        NAME,
        "fp32",
        "pose, version 1",
    )


def test_what_is_prepared_keeps_its_proportions_and_is_computed_in_fp32_where_others_are_not(task, monkeypatch):
    monkeypatch.setattr(module, "computes_in_bf16", lambda device: True)
    backbone = load_backbone(f"{NAME}={task}", device="cpu")
    assert (backbone.precision, best_precision("auto", "cpu")) == ("fp32", "bf16")
    frames = torch.full((1, 3, 90, 160), 200, dtype=torch.uint8)
    assert torch.equal(backbone.prepare(frames), fit_into(frames, (512, 512)))


def test_other_presets_and_precisions_are_refused(task):
    for settings in ({"preset": "grid"}, {"precision": "bf16"}):
        with pytest.raises(UsageError, match="blazepose_full has preset native and precision fp32 only"):
            load_backbone(f"{NAME}={task}", device="cpu", **settings)
    assert load_backbone(f"{NAME}={task}", device="cpu", precision="fp32").precision == "fp32"


def test_a_file_that_is_none_of_the_expected_is_refused(tmp_path, task):
    text = tmp_path / "text.task"
    text.write_text("no archive")
    expected = r"is not a model of MediaPipe's Pose Landmarker .* pose_landmarker_full\.task"
    with pytest.raises(WeightsError, match=expected):
        load_backbone(f"{NAME}={text}", device="cpu")
    other = tmp_path / "other.task"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("hand_detector.tflite", b"")
    with pytest.raises(WeightsError, match=r"is not a model of MediaPipe's Pose Landmarker .*pose_detector\.tflite"):
        load_backbone(f"{NAME}={other}", device="cpu")
    with zipfile.ZipFile(task) as archive, zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("pose_detector.tflite", archive.read("pose_detector.tflite"))
        packed.filelist[0].flag_bits = 1  # encrypted
    with pytest.raises(WeightsError, match=expected):
        load_backbone(f"{NAME}={other}", device="cpu")
    with zipfile.ZipFile(task) as archive, zipfile.ZipFile(other, "w") as swapped:
        for name, taken in (("detector", "landmarks_detector"), ("landmarks_detector", "detector")):
            swapped.writestr(f"pose_{name}.tflite", archive.read(f"pose_{taken}.tflite"))
    with pytest.raises(WeightsError, match=r"cannot be read \(0 outputs of shape \(2254, 12\), expected one\)"):
        load_backbone(f"{NAME}={other}", device="cpu")
    with pytest.raises(WeightsError, match=r"missing\.task not found: expected a \.task file, or `hub`"):
        load_backbone(f"{NAME}={tmp_path / 'missing.task'}", device="cpu")


def test_frames_without_anybody_are_told(task, video_folder, tmp_path, inline, monkeypatch):
    empty = iter([0, 8, 3])  # frames of each clip in which nobody is found

    def embed(self, x):
        features = np.ones((len(x), POSE_DIM), np.float16)
        features[: next(empty, 0) if len(x) == 8 else 0] = 0  # a single frame is tried first
        return features

    monkeypatch.setattr(module.Backbone, "embed_prepared", embed)
    given = {"cache": tmp_path / "cache", "backbone": [f"{NAME}={task}"], "device": "cpu", "workers": 1, "samples": 8}
    clips = find_clips(video_folder).clips
    told = f"{NAME} found nobody in 11 of 96 frames, and in no frame of 1 clip: {clips[1].clip_id}"
    assert told in extract(video_folder, **given).notes
    assert not any("found nobody" in note for note in extract(video_folder, **given).notes)  # nothing is new


@pytest.fixture
def server(home, task, monkeypatch):
    """A server in the place of Google's, with the small file as the full model."""
    folder = home / "served" / "pose_landmarker_full" / "float16" / "1"
    folder.mkdir(parents=True)
    (folder / "pose_landmarker_full.task").write_bytes(task.read_bytes())
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(home / "served")))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{served.server_port}"
    monkeypatch.setattr("fitrec_cache.backbones.pose_file.POSES_ADDRESS", address)
    yield asked
    served.shutdown()
    served.server_close()


def test_the_file_is_downloaded_once_and_compared_with_the_published_sum(server, task, monkeypatch):
    choice = BackboneChoice.parse(NAME)
    assert choice == BackboneChoice(name=NAME, weights="hub")
    assert not weights_are_here(choice)
    with pytest.raises(WeightsError, match=rf"invalid hash value .*{POSES[NAME]}.*give a file: --backbone {NAME}=FILE"):
        load_backbone(NAME, device="cpu")
    assert not kept_file(NAME).exists()

    monkeypatch.setitem(POSES, NAME, hashlib.sha256(task.read_bytes()).hexdigest())
    fetched = load_backbone(NAME, device="cpu")
    assert fetched.weights_sha256 == load_backbone(f"{NAME}={task}", device="cpu").weights_sha256
    assert len(server) == 2
    load_backbone(NAME, device="cpu")
    assert len(server) == 2
    assert weights_are_here(choice)


@pytest.mark.parametrize("error", [BadStatusLine("hello"), IncompleteRead(b""), InvalidURL("nonnumeric port")])
def test_an_answer_that_is_none_is_no_crash(home, monkeypatch, error):
    def download(*args, **settings):
        raise error

    monkeypatch.setattr("fitrec_cache.backbones.pose_file.why_nothing_is_fetched", lambda address: "")
    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    with pytest.raises(WeightsError, match=r"could not be downloaded .* Without network, download https://storage"):
        load_backbone(NAME, device="cpu")

    kept_file(NAME).write_text("cut off")
    with pytest.raises(WeightsError, match=r"is not a model .*\. Delete it, and it is downloaded again"):
        load_backbone(NAME, device="cpu")


def test_without_network_the_error_says_what_to_download(home, monkeypatch):
    monkeypatch.setattr("fitrec_cache.backbones.pose_file.POSES_ADDRESS", "https://nowhere.invalid/models")
    for ask in (load_backbone, lambda name: weights_are_here(BackboneChoice.parse(name))):
        with pytest.raises(
            WeightsError,
            match=rf"could not be downloaded \(nowhere.invalid: .* download https://nowhere.invalid/models/"
            rf"pose_landmarker_full/float16/1/pose_landmarker_full.task elsewhere .*--backbone {NAME}=FILE",
        ):
            ask(NAME)


@pytest.mark.skipif(not REAL.is_file(), reason=f"no {REAL.name} in shared/weights: the published file is downloaded")
@pytest.mark.parametrize("turns", [0, 1])
def test_the_published_networks_find_a_person_upright_or_lying(turns):
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        photo = torch.from_numpy(np.rot90(np.array(Image.open(file)), turns).copy()).permute(2, 0, 1)[None]
    space, place, visible, _, found = parts(torch.from_numpy(load_backbone(f"{NAME}={REAL}").embed(photo)[0]).float())
    assert found == pytest.approx(1, abs=1e-3)
    up = torch.tensor([[0.0, -1.0], [-1.0, 0.0]][turns])
    head, shoulders, hips = place[[7, 8]].mean(0), place[[11, 12]].mean(0), place[[23, 24]].mean(0)
    assert (head - shoulders) @ up > 0.1
    assert (shoulders - hips) @ up > 0.3
    assert visible[[7, 8, 11, 12]].min() > 0.9
    assert 0.2 < (space[11] - space[12]).norm() < 0.6  # metres from shoulder to shoulder
