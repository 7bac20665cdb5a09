"""Lists whose paths lead out of a folder in every way, read by everything that reads lists."""

import pyarrow
import pytest
from pyarrow import parquet

from data import recordio, verification
from data.faces import open_faces
from data.images import encode_png
from data.pairs import open_pairs
from data.synthetic import SyntheticFaces
from photos.sources import open_sources
from scoring import score_images
from utils.files import stay_within

FACE = encode_png(SyntheticFaces(1, 1, seed=1).read(0))
WAYS = {
    "absolute": "{folder}/out/a.png",
    "dots": "../out/a.png",
    "inner dots": "p/../../out/a.png",
    "link": "link.png",
    "linked folder": "linked/a.png",
    "link to a link": "again.png",
}
GOOD = "p/a.png"


def write(path, name, line, heading=""):
    path.write_text(heading + "".join(line.format(name=name) for name in (GOOD, name)))
    return path


def write_parquet(path, name):
    parquet.write_table(pyarrow.table({"path": [GOOD, name]}), path)
    return path


READERS = {
    "lst of faces": lambda at, name: open_faces(str(write(at / "l.lst", name, "1\t0\t{name}\n"))),
    "txt of faces": lambda at, name: open_faces(str(write(at / "l.txt", name, "{name} 0\n"))),
    "txt of photos": lambda at, name: list(open_sources(write(at / "l.txt", name, "{name}\n"))),
    "csv of photos": lambda at, name: list(
        open_sources(write(at / "l.csv", name, "{name},x\n", "path,who\n"))
    ),
    "parquet of photos": lambda at, name: list(open_sources(write_parquet(at / "l.parquet", name))),
    "pairs": lambda at, name: open_pairs(write(at / "l.csv", name, "p/b.png,{name},1\n"), at),
}


@pytest.fixture
def folder(tmp_path):
    for path in ("in/p/a.png", "in/p/b.png", "out/a.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(FACE)
    (tmp_path / "in/link.png").symlink_to("../out/a.png")
    (tmp_path / "in/linked").symlink_to(tmp_path / "out")
    (tmp_path / "in/again.png").symlink_to("link.png")
    yield tmp_path / "in"
    stay_within(None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reader", READERS)
def test_a_listed_path_that_leads_out_is_refused_with_its_line(folder, reader, way):
    name, read = WAYS[way].format(folder=folder.parent), READERS[reader]
    read(folder, name)
    stay_within(folder)
    read(folder, "p/../p/b.png")
    with pytest.raises(ValueError, match=r"lies outside of .*in \(--within\)$") as error:
        read(folder, name)
    where = {"parquet of photos": "l.parquet: row 1", "csv of photos": "l.csv:3"}
    assert name in str(error.value)
    assert where.get(reader, "2: ") in str(error.value)


@pytest.mark.parametrize("read", [open_faces, lambda path: list(open_sources(path))])
def test_a_link_in_a_folder_is_refused(folder, read):
    (folder / "again.png").unlink()
    (folder / "link.png").unlink()
    (folder / "p" / "c.png").symlink_to("a.png")
    stay_within(folder)
    with pytest.raises(ValueError, match=r"in/linked lies outside"):
        read(str(folder))
    (folder / "linked").unlink()
    read(str(folder))


def test_commands_take_the_flag(folder, refused, tmp_path):
    listed = write(folder / "l.lst", "../out/a.png", "1\t0\t{name}\n")
    pairs = write(folder / "pairs.csv", "../out/a.png", "p/b.png,{name},1\n")
    for main, flags in (
        (recordio.main, ["--images", str(listed), "--out", str(tmp_path / "pack")]),
        (verification.main, ["--pairs", str(pairs), "--images", str(folder), "--out", "x.bin"]),
        (score_images.main, [str(listed), "--model", "demo", "--out", str(tmp_path / "s.csv")]),
    ):
        refused(main([*flags, "--within", str(folder)]), "../out/a.png lies outside of")
        refused(lambda main=main, flags=flags: main([*flags, "--within", "nowhere"]), "no such")
