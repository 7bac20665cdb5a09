"""What extraction/extract.py writes, against `embed_images`, and as docs/scale.md says."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from data.extracted import open_extracted
from data.faces import FaceImages, open_faces
from data.recordio import RecordWriter
from evaluation.embed import embed_images
from evaluation.open_model import open_models
from models.frozen import FrozenBackbone
from tests.test_docs.test_docs import examples, execute, section

METHODS = ["embedding_norm", "brightness"]


def expected(images, backbone, texts, *, flip=False, batch_size=4):
    weights = dict(zip(["backbone_name", "backbone_weights"], backbone[1::2], strict=True))
    if not all(text in METHODS for text in texts):
        weights["backbone_name"] = None
    methods = open_models(texts, device="cpu", **weights)
    faces = FaceImages(open_faces(str(images)), images)
    return methods.names, embed_images(methods.estimator, faces, batch_size, name="f", flip=flip)


@pytest.mark.parametrize("form", ["npy", "parquet"])
@pytest.mark.parametrize("flip", [False, True])
def test_heads_are_those_of_embed_images_to_the_last_bit(
    form, flip, run, runs, images, backbone, tmp_path
):
    texts = [str(runs["idq"]), "embedding_norm", f"wide={runs['mls']}"]
    names, found = expected(images, backbone, texts, flip=flip)
    flags = ["--format", form, "--dtype", "float32", *(["--flip"] if flip else [])]
    assert run(tmp_path / "out", "--methods", *texts, *flags, model=[]) == 0
    read = open_extracted(tmp_path / "out")
    assert read.columns == names == ("idq", "embedding_norm", "wide")
    assert [len(shard) for shard in read] == [8, 8, 8, 2]
    every = read.take(np.arange(26))
    assert every.embedding.dtype == every.uncertainty.dtype == np.float32
    np.testing.assert_array_equal(every.embedding, found.mu)
    np.testing.assert_array_equal(every.uncertainty, found.sigma_sq)
    np.testing.assert_array_equal(every.row, np.arange(26))
    np.testing.assert_array_equal(every.label, np.arange(26) // 2)
    assert every.ok.all()
    assert every.name[25] == "p12/25.jpg"


def test_any_method_goes_beside_them(run, images, backbone, tmp_path):
    _, found = expected(images, backbone, METHODS)
    assert run(tmp_path / "out", "--methods", *METHODS, "--dtype", "float32") == 0
    every = open_extracted(tmp_path / "out").take(np.arange(26))
    np.testing.assert_array_equal(every.embedding, found.mu)
    np.testing.assert_array_equal(every.uncertainty, found.sigma_sq)


def test_float16_rounds_the_embedding_alone(run, images, backbone, tmp_path, capsys):
    _, found = expected(images, backbone, ["embedding_norm"])
    assert run(tmp_path / "out") == 0
    assert capsys.readouterr().out == (f"{tmp_path}/out: 26 images, all embedded; 4 shards\n")
    every = open_extracted(tmp_path / "out").take(range(26))
    assert every.embedding.dtype == np.float16
    np.testing.assert_array_equal(every.embedding, found.mu.astype(np.float16))
    np.testing.assert_array_equal(every.uncertainty, found.sigma_sq)


@pytest.fixture
def change_embedding(monkeypatch):
    """Return a function that lets the backbone's embeddings go through another one."""

    def change(function):
        forward = FrozenBackbone.forward

        def changed(self, images):
            output = forward(self, images)
            return output._replace(embedding=function(output.embedding.clone()))

        monkeypatch.setattr(FrozenBackbone, "forward", changed)

    return change


def test_an_embedding_that_float16_spoils_is_refused(run, tmp_path, change_embedding, refused):
    change_embedding(lambda embedding: embedding * 1e7)
    refused(run(tmp_path / "out"), "too large or too small for float16; name another --out")
    assert run(tmp_path / "other", "--dtype", "float32") == 0


def test_a_pack_has_its_keys_as_names(run, images, tmp_path):
    faces = open_faces(str(images))
    with RecordWriter(tmp_path / "pack") as writer:
        for row in range(10):
            writer.write_image(int(faces.labels[row]), faces.encoded(row))
    assert run(tmp_path / "out", source=tmp_path / "pack.rec") == 0
    assert list(open_extracted(tmp_path / "out").shard(1).name) == ["9", "10"]
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["sources"][0]["bytes"] == (tmp_path / "pack.rec").stat().st_size
    assert (about["images"], about["identities"]) == (10, 5)


def test_sources_that_are_joined_keep_whole_names(run, images, backbone, tmp_path):
    faces = open_faces(str(images))
    for name in "ab":
        with RecordWriter(tmp_path / name) as writer:
            for row in range(5):
                writer.write_image(int(faces.labels[row]), faces.encoded(row))
    sources = [str(tmp_path / "a.rec"), str(tmp_path / "b.rec")]
    assert run(tmp_path / "out", "--images", *sources) == 0
    every = open_extracted(tmp_path / "out").take(range(10))
    assert [every.name[row] for row in (0, 9)] == [f"{sources[0]}: key 1", f"{sources[1]}: key 5"]
    np.testing.assert_array_equal(every.label, [0, 0, 1, 1, 2, 3, 3, 4, 4, 5])
    np.testing.assert_allclose(every.uncertainty[:5], every.uncertainty[5:], rtol=1e-5)


def test_scores_of_a_file_are_found_by_name(run, images, tmp_path, refused):
    rows = [(f"p{row // 2:02d}/{row:02d}.jpg", row / 100) for row in range(26)]
    scores = tmp_path / "scores.csv"
    with scores.open("w", newline="") as file:
        csv.writer(file).writerows([("name", "uncertainty"), *rows])
    assert run(tmp_path / "out", "--methods", f"theirs={scores}") == 0
    every = open_extracted(tmp_path / "out").take(np.arange(26))
    np.testing.assert_allclose(every.uncertainty[:, 0], np.arange(26) / 100, rtol=1e-6)
    scores.write_text("name,uncertainty\np00/00.jpg,1\n")
    code = run(tmp_path / "other", "--methods", f"theirs={scores}")
    refused(code, "no score for 7 of 8 images, the first is 'p00/01.jpg'")
    assert not (tmp_path / "other" / "shards").exists()


@pytest.fixture
def damaged(images, tmp_path):
    """The faces with three files that are no images, two of them in one batch."""
    from shutil import copytree

    copytree(images, tmp_path / "damaged")
    for row in (4, 5, 25):
        path = tmp_path / "damaged" / f"p{row // 2:02d}" / f"{row:02d}.jpg"
        path.write_bytes(b"no image" if row == 4 else b"")
    return tmp_path / "damaged"


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_unreadable_images_are_listed_by_name(form, run, damaged, images, tmp_path, capsys):
    flags = ["--format", form, "--max_bad_share", "0.5"]
    assert run(tmp_path / "good", "--format", form) == 0
    assert run(tmp_path / "out", *flags, source=damaged) == 0
    assert "26 images, 3 without embedding (see bad.csv); 4 shards" in capsys.readouterr().out
    with (tmp_path / "out" / "bad.csv").open(newline="") as file:
        header, *bad = csv.reader(file)
    assert header == ["row", "name", "reason"]
    named = [("4", "p02/04.jpg"), ("5", "p02/05.jpg"), ("25", "p12/25.jpg")]
    assert [tuple(row[:2]) for row in bad] == named
    assert all(reason and ".jpg" not in reason for _, _, reason in bad)
    found, good = open_extracted(tmp_path / "out"), open_extracted(tmp_path / "good")
    assert found.num_bad == 3
    assert [(one.row, one.name) for one in found.bad()] == [(int(r), n) for r, n, _ in bad]
    every, all_good = found.take(range(26)), good.take(range(26))
    np.testing.assert_array_equal(np.flatnonzero(~every.ok), [4, 5, 25])
    assert np.isnan(every.embedding[~every.ok]).all()
    assert np.isnan(every.uncertainty[~every.ok]).all()
    np.testing.assert_array_equal(every.embedding[every.ok], all_good.embedding[every.ok])
    np.testing.assert_array_equal(every.label, all_good.label)


def test_too_many_unreadable_images_are_an_error(run, damaged, images, tmp_path, refused, capsys):
    """Of all 26 images; what is mended is embedded when the same command is given again."""
    message = "3 of 26 images read are bad, more than --max_bad_share 0.01 allows; such as "
    refused(run(tmp_path / "out", source=damaged), f"{message}{damaged}/p02/04.jpg: not an image")
    for row in (4, 5, 25):
        name = f"p{row // 2:02d}/{row:02d}.jpg"
        (damaged / name).write_bytes((images / name).read_bytes())
    assert run(tmp_path / "out", source=damaged) == 0
    said = capsys.readouterr()
    assert "000000 lists 2 bad images: made again" in said.err
    assert "26 images, all embedded" in said.out


def test_an_embedding_without_direction_is_bad(run, tmp_path, change_embedding):
    def spoil(embedding):
        embedding[0] = 0
        embedding[1, 3] = float("nan")
        return embedding

    change_embedding(spoil)
    assert run(tmp_path / "out", "--max_bad_share", "1") == 0
    bad = list(open_extracted(tmp_path / "out").bad())
    assert [image.row for image in bad][:5] == [0, 1, 4, 5, 8]
    reasons = {image.reason for image in bad}
    assert reasons == {"the embedding is no direction, or a value is not finite"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--part", "0/2"], "'0/2': write K/N with K from 1 to N"),
        (["--part", "3"], "'3': write K/N"),
        (["--shard_images", "0"], "'0' is not a whole number above 0"),
        (["--format", "csv"], "invalid choice: 'csv'"),
        (["--imgs", "x"], "did you mean --images?"),
        (["--max_bad_share", "2"], "--max_bad_share 2.0: must lie in 0..1"),
        (["--model", "RUN"], "--backbone_name does not go with it"),
        (["--execution", "cuda_graph", "--device", "cpu"], "execution = 'cuda_graph' needs a CUDA"),
        (["--device", "cuda:7"], "this machine has no such device"),
        (["--out", "file"], "file is a file, but a folder is needed"),
        (["--out", "full"], "full holds other files: name an empty folder"),
        (["--format", "parquet"], "pip install pyarrow"),
    ],
)
def test_mistakes_are_one_line(flags, message, run, runs, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    flags = [str(runs["idq"]) if flag == "RUN" else flag for flag in flags]
    refused(lambda: run(tmp_path / "out", *flags), message, alone=True)
    assert not (tmp_path / "out").exists()


def test_no_backbone_is_one_line(run, tmp_path, refused):
    refused(run(tmp_path / "out", model=[]), "embedding_norm needs a backbone")


PAGE = section("scale.md", "Embeddings and uncertainties of a whole data set")


def run_block(block):
    return execute(block.replace("70000", "20"), {"np": np})


def test_the_examples_read_what_is_written(run, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    methods = ["--methods", runs["idq"], "embedding_norm"]
    assert run("extracted/mine", *methods, model=[]) == 0
    one_shard, every, table = examples(PAGE)
    found = run_block(one_shard)
    assert found["embedding"].shape == (8, 16)
    assert found["ok"].all()
    assert 0 < found["uncertainty"].min() < found["uncertainty"].max() < 1
    assert run_block(every)["some"].row.tolist() == [5, 20, 12]
    Path("extracted/mine").rename("extracted/npy")
    assert run("extracted/mine", *methods, "--format", "parquet", model=[]) == 0
    assert run_block(every)["some"].row.tolist() == [5, 20, 12]
    read = run_block(table)["table"]
    assert read.column_names == ["name", "uncertainty_idq"]
    assert len(read) == 26


def test_the_tree_names_every_file(run, tmp_path):
    assert run(tmp_path / "out") == 0
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert re.search(rf"^ +{re.escape(path.name)} ", PAGE, re.MULTILINE), path.name
