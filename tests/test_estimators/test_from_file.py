import numpy as np
import pytest
import torch

from data.images import Sizes
from estimators.base import Batch
from estimators.from_file import FromFile
from evaluation.embed import embed_images, embed_pairs
from models.backbones.base import BackboneOutput


def frozen(images):
    """Stand for a backbone whose embedding is the mean colour."""
    return BackboneOutput(images.float().mean(dim=(1, 2)) + 1, torch.zeros(len(images), 1))


class Images:
    sizes = Sizes()

    def __len__(self):
        return 3

    def decode(self, start, stop):
        return np.zeros((min(stop, 3) - start, 112, 112, 3), np.uint8)

    def image_name(self, row):
        return f"dir/{'cab'[row]}.jpg"


def csv(tmp_path, text):
    path = tmp_path / "s.csv"
    path.write_text(text)
    return str(path)


def test_scores_go_by_the_names_of_the_set(tmp_path):
    path = csv(tmp_path, "name,quality\ndir/a.jpg,1\ndir/b.jpg,2\ndir/c.jpg,3\nelse.jpg,4\n")
    estimator = FromFile(path=path, frozen=frozen)
    found = embed_images(estimator, Images(), batch_size=2, name="some")
    assert found.sigma_sq[:, 0].tolist() == [-3, -1, -2]


def test_a_set_of_pairs_goes_by_row_numbers_also_after_another_set(tmp_path, tiny_pairs):
    rows = "".join(f"{row},{row}\n" for row in range(24))
    path = csv(tmp_path, f"name,uncertainty\n{rows}dir/a.jpg,1\ndir/b.jpg,2\ndir/c.jpg,3\n")
    estimator = FromFile(path=path, frozen=frozen)
    assert embed_images(estimator, Images(), name="some").sigma_sq[:, 0].tolist() == [3, 1, 2]
    (features,) = embed_pairs([estimator], tiny_pairs)
    assert features.sigma_sq[:, 0].tolist() == list(range(24))


def test_names_without_a_score_are_named_before_the_work(tmp_path):
    estimator = FromFile(path=csv(tmp_path, "a.jpg,1\n"), frozen=frozen)
    message = r"no score for 3 of 3 images, the first is 'dir/c\.jpg' \(the file has such as 'a\.jp"
    with pytest.raises(ValueError, match=message):
        embed_images(estimator, Images(), name="some")


@pytest.mark.parametrize(
    ("heading", "orientation", "sign"),
    [
        ("name,quality\n", None, -1),
        ("name,Uncertainty \n", None, 1),
        ("name,score\n", None, -1),
        ("", None, -1),
        ("name,score\n", "uncertainty", 1),
        ("name,uncertainty\n", "uncertainty", 1),
    ],
)
def test_direction_goes_by_the_heading(tmp_path, heading, orientation, sign):
    path = csv(tmp_path, f"{heading}a,5\n")
    assert FromFile(path=path, orientation=orientation).uncertainty_of(["a"]).tolist() == [5 * sign]


def test_direction_goes_by_the_array(tmp_path):
    for name, sign in (("uncertainty", 1), ("quality", -1)):
        np.savez(tmp_path / "scores.npz", key=["a"], **{name: [5]})
        estimator = FromFile(path=str(tmp_path / "scores.npz"))
        assert estimator.uncertainty_of(["a"]).tolist() == [5 * sign]


def test_images_without_names_or_a_backbone_are_refused(tmp_path):
    path, batch = csv(tmp_path, "0,1\n"), Batch(np.zeros((1, 112, 112, 3), np.uint8))
    with pytest.raises(ValueError, match="needs a backbone"):
        FromFile(path=path)(batch)
    with pytest.raises(ValueError, match="these have no names"):
        FromFile(path=path, frozen=frozen)(batch)


def test_a_contradiction_is_an_error(tmp_path):
    path = csv(tmp_path, "name,quality\na,5\n")
    message = r"orientation = 'uncertainty', but the file calls its scores 'quality'"
    with pytest.raises(ValueError, match=message):
        FromFile(path=path, orientation="uncertainty")
