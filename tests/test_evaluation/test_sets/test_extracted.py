"""Extracted folders as a reader finds them, and as labelled faces under evaluation."""

import json
import os
import shutil

import numpy as np
import pytest

from data.extracted import Bad, Shard, ShardFolder, open_extracted
from data.features import Embeddings
from evaluation import compare
from evaluation.sets.stored import open_stored
from evaluation.verification_risk_fnmr import main
from report.words import caution_sentence

TOTAL, SIZE, COLUMNS = 43, 6, ("idq", "norm:x=1")
NOT_OK = [3, 20]


def arrays():
    rng = np.random.default_rng(0)
    label = np.arange(TOTAL) // 4
    person = rng.normal(size=(label[-1] + 1, SIZE))
    mu = (person[label] + 0.3 * rng.normal(size=(TOTAL, SIZE))).astype(np.float16)
    sigma_sq = rng.uniform(size=(TOTAL, 2)).astype(np.float32)
    mu[NOT_OK], sigma_sq[NOT_OK] = np.nan, np.nan
    ok = ~np.isin(np.arange(TOTAL), NOT_OK)
    return label.astype(np.int64), mu, sigma_sq, ok


@pytest.fixture(params=["npy", "parquet"])
def extracted(request, tmp_path):
    """A folder of five shards of ten images, the last one of three, two of the images bad."""
    label, mu, sigma_sq, ok = arrays()
    folder = tmp_path / "some.faces"
    folder.mkdir()
    shards = ShardFolder(folder, request.param, TOTAL, 10, COLUMNS, "made so")
    for number in range(5):
        rows = np.arange(*shards.bounds(number))
        shard = Shard(
            rows, label[rows], mu[rows], sigma_sq[rows], ok[rows], [f"face\udcff {r}" for r in rows]
        )
        bad = [Bad(row, f"face\udcff {row}", 'no, "image"') for row in rows.tolist() if not ok[row]]
        shards.write(number, shard, bad, {})
    about = {"columns": COLUMNS, "embedding_size": SIZE, "format": request.param}
    about |= {"images": TOTAL, "shard_images": 10}
    (folder / "about.json").write_text(json.dumps(about))
    return folder


def test_rows_in_any_order(extracted):
    label, mu, sigma_sq, ok = arrays()
    found = open_extracted(extracted)
    assert len(found) == TOTAL
    assert found.columns == COLUMNS
    for rows in ([0], [42, 3, 3, 17, 9, 10, 0], [], np.arange(TOTAL)[::-1]):
        taken = found.take(rows)
        rows = np.asarray(rows, int)
        np.testing.assert_array_equal(taken.row, rows)
        np.testing.assert_array_equal(taken.label, label[rows])
        np.testing.assert_array_equal(taken.embedding, mu[rows])
        np.testing.assert_array_equal(taken.uncertainty, sigma_sq[rows])
        np.testing.assert_array_equal(taken.ok, ok[rows])
        assert [name.rpartition(" ")[2] for name in taken.name] == [str(row) for row in rows]
    for row in (-1, TOTAL):
        with pytest.raises(IndexError, match=rf"row {row} of 43"):
            found.take([0, row])


def test_shards_in_order(extracted):
    shards = list(open_extracted(extracted))
    assert [len(shard) for shard in shards] == [10, 10, 10, 10, 3]
    np.testing.assert_array_equal(np.concatenate([shard.row for shard in shards]), np.arange(TOTAL))


def test_a_shard_that_is_cut_under_its_reader_is_one_line(extracted):
    folder = open_extracted(extracted)
    shard = folder.shard(1)
    before = shard.embedding.copy()
    for path in extracted.glob("shards/*/embedding.npy"):
        os.truncate(path, 150)
    for path in extracted.glob("shards/*.parquet"):
        os.truncate(path, 150)
    np.testing.assert_array_equal(shard.embedding, before)  # a copy, not a mapped file
    for read in (lambda: folder.shard(1), lambda: folder.take([13])):
        with pytest.raises(ValueError, match="000001"):
            read()


def test_bad_images_keep_their_reason(extracted):
    found = open_extracted(extracted)
    assert found.num_bad == 2
    assert [(one.row, one.reason) for one in found.bad()] == [(r, 'no, "image"') for r in NOT_OK]


def test_a_parquet_shard_is_a_plain_table(extracted):
    parquet = pytest.importorskip("pyarrow.parquet")
    if list(extracted.glob("shards/*.parquet")):
        table = parquet.read_table(extracted / "shards")
        plain = ["row", "label", "name", "ok", "reason"]
        scores = [f"uncertainty_{name}" for name in COLUMNS]
        assert table.column_names == [*plain, *scores, "embedding"]
        assert len(table) == TOTAL
        assert table.schema.field("embedding").type.list_size == SIZE
        assert table["reason"].null_count == TOTAL - 2


def test_evaluation_takes_it_as_labelled_faces(extracted, tmp_path):
    label, mu, sigma_sq, ok = arrays()
    found = open_stored(extracted).comparisons()
    (note,) = found[0][1].notes
    assert "2 of 43 images have no embedding and are left out" in caution_sentence(note)
    assert [name for name, _ in found] == list(COLUMNS)
    for place, (_, one) in enumerate(found):
        path = tmp_path / f"{place}.npz"
        Embeddings(mu[ok], sigma_sq[ok][:, [place]], label[ok]).save(path)
        ((_, expected),) = open_stored(path).comparisons()
        np.testing.assert_array_equal(one.scores, expected.scores)
        np.testing.assert_array_equal(one.mated, expected.mated)
        np.testing.assert_array_equal(one.uncertainty, expected.uncertainty)
    with pytest.raises(ValueError, match="its columns are one method each; sigma_sizes"):
        open_stored(extracted).comparisons((1, 1))


def test_scripts_take_it(extracted, tmp_path, capsys):
    assert main(["--features", str(extracted), "--report", str(tmp_path / "report")]) == 0
    out = capsys.readouterr().out
    assert "(idq)" in out
    assert "(norm:x=1)" in out
    assert compare.main(["--features", f"ours={extracted}", "--replicates", "5"]) == 0
    out = capsys.readouterr().out
    assert "ours idq" in out
    assert "ours norm:x=1" in out


def test_incomplete_and_other_folders_are_refused(extracted, tmp_path, refused):
    path = next(path for path in extracted.glob("shards/000002*"))
    moved = shutil.move(path, tmp_path / path.name)
    with pytest.raises(ValueError, match=r"incomplete: 1 of 5 shards are missing, the first is 2"):
        open_extracted(extracted)
    refused(main(["--features", str(extracted)]), "give the command of extraction/extract.py again")
    shutil.move(moved, path)
    about = json.loads((extracted / "about.json").read_text())
    del about["format"]
    (extracted / "about.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"about\.json does not say format"):
        open_extracted(extracted)
    (extracted / "about.json").write_text("{")
    with pytest.raises(ValueError, match=r"about\.json is damaged"):
        open_extracted(extracted)
    with pytest.raises(ValueError, match=r"was not written by extraction/extract\.py: it has no"):
        open_extracted(tmp_path)


def test_shards_of_two_runs_are_refused(extracted):
    label, mu, sigma_sq, ok = arrays()
    rows = np.arange(40, 43)
    form = json.loads((extracted / "about.json").read_text())["format"]
    other = ShardFolder(extracted, form, TOTAL, 10, COLUMNS, "made otherwise")
    path = other.path(4)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    shard = Shard(rows, label[rows], mu[rows], sigma_sq[rows], ok[rows], ["a", "b", "c"])
    other.write(4, shard, [], {})
    with pytest.raises(ValueError, match="made with 2 different settings"):
        open_extracted(extracted)
