"""Both colour orders are tried: which one is said to be better, and when that cannot be said."""

import json
import re
import statistics

import numpy as np
import pytest
import torch

from data.synthetic import SyntheticFaces
from data.verification import write_bin
from export import colours
from export.colour_order import main
from export.colours import colour_check, d_prime, require_colour_order, some_images
from models.backbones.base import BackboneOutput, Preprocessing
from tests.helpers import ROOT

WEIGHTS = ROOT / "demo" / "backbone.pth"
DEMO = "iresnet:layers=(1,1,1,1),widths=(8,16,32,64),embedding_size=64"
SIZE = 112


class Reads:
    """A backbone for people who are told apart by the two halves of one channel."""

    def __init__(self, channel, color="RGB"):
        self.channel = channel
        self.preprocessing = Preprocessing(color=color)

    def __call__(self, images):
        values = self.preprocessing(images)
        values = values.mean(1) if self.channel is None else values[:, self.channel]
        embedding = torch.stack([values[:, :56].mean((1, 2)), values[:, 56:].mean((1, 2))], 1)
        return BackboneOutput(embedding, embedding)


def painted(pairs, seed=0):
    """Pairs whose red says who it is, while green and blue are drawn anew for each image."""
    rng = np.random.default_rng(seed)
    mated = np.arange(pairs) < pairs // 2  # as in LFW: all of one kind come first
    images = []
    for is_one in mated:
        person = rng.integers(0, 256, 2)
        for _ in range(2):
            image = np.repeat(rng.integers(0, 256, (2, 1, 3)), 56, axis=0).repeat(SIZE, axis=1)
            image[:56, :, 0], image[56:, :, 0] = person
            images.append(image.astype(np.uint8))
            if not is_one:
                person = rng.integers(0, 256, 2)
    return images, mated


@pytest.fixture
def red(tmp_path):
    write_bin(tmp_path / "red.bin", *painted(120))
    return str(tmp_path / "red.bin")


def test_the_order_that_reads_the_right_channel_is_better(red):
    check = colour_check(Reads(0), red)
    assert (check.recorded.color, check.other.color, check.verdict) == ("RGB", "BGR", "recorded")
    assert check.recorded.d_prime > check.other.d_prime + 1
    assert check.recorded.eer < check.other.eer - 0.2
    assert (check.pairs, check.mated, check.non_mated, check.coloured) == ("red", 60, 60, 1.0)
    assert "RGB is better: the recorded order is right" in check.describe()
    require_colour_order(check, "unused")


def test_the_swapped_order_is_found_and_refused(red):
    right, check = colour_check(Reads(0), red), colour_check(Reads(0, color="BGR"), red)
    assert (check.recorded.color, check.other.color, check.verdict) == ("BGR", "RGB", "other")
    assert (check.recorded, check.other) == (right.other, right.recorded)
    assert check.interval == pytest.approx((-right.interval[1], -right.interval[0]), rel=0.1)
    assert "RGB is better: the recorded order is WRONG" in check.describe()
    with pytest.raises(ValueError, match=r"wrong colour order: RGB separates red better than the "):
        require_colour_order(check, "advice")
    with pytest.raises(ValueError, match=r'for RGB is preprocessing=\{"color":"RGB"\}: advice$'):
        require_colour_order(check, "advice")


@pytest.mark.parametrize(("recorded", "right"), [((0, 1), True), ((127.5, 127.5), False)])
def test_a_scaling_that_separates_people_better_is_named(recorded, right, red):
    class Pixels(Reads):
        """It wants values in 0..255: others come out of its first layer all the same."""

        def __call__(self, images):
            output = super().__call__(images)
            return output._replace(embedding=output.embedding.relu().floor() - 127)

    backbone = Pixels(0)
    backbone.preprocessing = Preprocessing(mean=recorded[0], scale=recorded[1])
    check = colour_check(backbone, red)
    assert ("x is right, as recorded" in check.describe()) == right
    assert json.loads(json.dumps(check.to_dict()))["trials"][0]["mean"] == recorded[0]
    if not right:
        assert "RGB x is better: (x - 127.5) / 127.5, as recorded, is WRONG" in check.describe()
        wanted = 'preprocessing={"color": "RGB", "mean": 0.0, "scale": 1.0}: advice'
        with pytest.raises(ValueError, match=re.escape(wanted)):
            require_colour_order(check, "advice")


def grey(images):
    return [image[..., :1].repeat(3, axis=2) for image in images]


@pytest.mark.parametrize(
    ("channel", "pairs", "change", "message"),
    [
        (None, 120, list, "no clear difference on these pairs\n"),
        (0, 120, grey, "all images are grey"),
        (1, 6, list, "no clear difference on these pairs: too few pairs"),  # green tells nobody
    ],
    ids=["a backbone without colour", "grey images", "few pairs"],
)
def test_when_no_order_is_better_it_says_why(channel, pairs, change, message, tmp_path):
    images, mated = painted(pairs)
    write_bin(tmp_path / "set.bin", change(images), mated)
    check = colour_check(Reads(channel), str(tmp_path / "set.bin"))
    assert check.verdict == "cannot tell"
    assert (check.mated, check.non_mated) == (pairs // 2, pairs // 2)
    assert message in check.describe()
    require_colour_order(check, "unused")


def test_two_orders_that_are_equally_good_are_seldom_judged(monkeypatch):
    monkeypatch.setattr(colours, "_DRAWS", 400)
    rng = np.random.default_rng(5)
    mated = np.arange(200) < 100
    judged, found = 0, 0
    for _ in range(40):
        shared = rng.normal(0.6 * mated, 0.15)
        one, two, worse = (
            (shared + rng.normal(0, noise, 200)).astype(np.float32) for noise in (0.1, 0.1, 0.4)
        )
        low, high = colours._bootstrap(one, two, mated)
        judged += low > 0 or high < 0
        found += colours._bootstrap(one, worse, mated)[0] > 0
    assert judged <= 3  # 0.4 are expected at 99 %
    assert found >= 38


def test_d_prime_is_the_distance_of_means_in_standard_deviations():
    scores = np.array([0.9, 0.7, 0.8, 0.1, 0.3, -0.1, 0.2], np.float32)
    mated = np.array([1, 1, 1, 0, 0, 0, 0], bool)
    one, two = scores[:3].astype(float).tolist(), scores[3:].astype(float).tolist()
    spread = ((statistics.pvariance(one) + statistics.pvariance(two)) / 2) ** 0.5
    wanted = (statistics.fmean(one) - statistics.fmean(two)) / spread
    assert d_prime(scores, mated) == pytest.approx(wanted, rel=1e-12)


def test_faces_with_identities_and_lists_of_pairs(tmp_path):
    check = colour_check(Reads(0), "faces:synthetic:identities=5,images=3,seed=4", 4)
    assert (check.mated, check.non_mated) == (4, 4)
    from data.images import encode_png

    lines = []
    images, mated = painted(8)
    for row in range(8):
        for side in range(2):
            (tmp_path / f"{row}{side}.png").write_bytes(encode_png(images[2 * row + side]))
        lines.append(f"{row}0.png,{row}1.png,{int(mated[row])}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    check = colour_check(Reads(0), f"pairs:{tmp_path}/pairs.csv", 3)
    assert (check.mated, check.non_mated) == (3, 3)
    assert check.recorded.eer == 0


def test_the_demo_backbone_wants_rgb_and_the_script_is_loud(capsys):
    flags = ["--backbone_weights", str(WEIGHTS), "--pairs", "synthetic:pairs=140,seed=4"]
    assert main(["--backbone_name", DEMO, *flags]) == 0
    out, err = capsys.readouterr()
    assert "on 70 mated and 70 non-mated synthetic:pairs=140,seed=4" in out
    assert "RGB is better: the recorded order is right" in out
    assert "error" not in err
    assert main(["--backbone_name", f'{DEMO},preprocessing={{"color":"BGR"}}', *flags]) == 2
    out, err = capsys.readouterr()
    assert "BGR recorded  EER" in out
    assert "RGB swapped   EER" in out
    assert "the recorded order is WRONG" in out
    assert "error: wrong colour order: RGB separates synthetic:pairs=140,seed=4 better" in err
    assert 'preprocessing={"color":"RGB"}: set it before a head is trained' in err


def test_rows_are_read_as_they_are_stored(tmp_path, monkeypatch):
    """The recorded order must be what the scorer uses: an unchanged image to the backbone."""
    faces = SyntheticFaces(4, 1, 3)
    images = [faces.read(row) for row in range(4)]
    write_bin(tmp_path / "a.bin", images * 2, [True, True, False, False])
    seen = []

    class Spy(Reads):
        def __call__(self, batch):
            seen.append(batch.numpy())
            return super().__call__(batch)

    colour_check(Spy(0), str(tmp_path / "a.bin"))
    assert np.array_equal(some_images(str(tmp_path / "a.bin"), 2), np.stack(images * 2))
    assert len(seen) == 2 * len(colours.SCALINGS)
    assert np.array_equal(seen[0], np.stack(images * 2))
    assert np.array_equal(seen[1], np.stack(images * 2)[..., [2, 1, 0]])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pairs", "lfw"], "--pairs lfw: name a .bin file, faces:FOLDER"),
        (["--pairs", "none.bin"], "none.bin"),
        (["--pairs", "photos:here"], "unknown kind of set 'photos:here'"),
        (["--pairs", "one.bin"], "one: 2 mated and 1 non-mated pairs"),
        (["--pairs", "synthetic:pairs=4", "--count", "-3"], "is not a count"),
        (["--pairs", "synthetic:pairs=4", "--count", "1"], "needs 2 pairs of each kind"),
    ],
)
def test_mistakes_are_one_line(flags, message, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    write_bin(tmp_path / "one.bin", painted(3)[0], [True, True, False])
    backbone = ["--backbone_name", DEMO, "--backbone_weights", str(WEIGHTS)]
    refused(lambda: main([*backbone, *flags]), message)


def test_a_check_can_be_stored(red):
    check = colour_check(Reads(0), red)
    assert json.loads(json.dumps(check.to_dict())) == check.to_dict()
    assert check.to_dict()["recorded"]["color"] == "RGB"
