"""What the inputs hold, in which order, how to go on in the middle; damage stays in its row."""

import gc
import os
import pickle
import re
import sys
import tracemalloc
from pathlib import Path
from shutil import rmtree

import cv2
import numpy as np
import pytest

from data.faces import PackFaces
from data.images import decode, encode_jpeg, encode_png
from data.recordio import RecordWriter, pack_record
from data.verification import read_bin, write_bin
from photos.decode import Photo, read_photo
from photos.sources import Item, ParquetSource, open_bin, open_rec, open_sources, read_ahead


def picture(seed=0, height=112, width=112):
    small = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def fill(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def rows(sources):
    return [(item.file, item.index, item.aligned) for item in sources]


def outcome(item):
    try:
        return item.load()
    except ValueError as error:
        return str(error)


def same(one, other):
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return np.array_equal(one.pixels, other.pixels) and one.note == other.note


def names(folder, sources):
    return [os.path.relpath(item.file, folder) for item in sources]


TREE = dict.fromkeys(
    (
        *("b.jpg", "a/2.PNG", "a/10.png", "a.webp", "c/d/e/f.heic", "c/.hidden/x.jpg"),
        *(".hidden.jpg", "c/notes.txt", "c/notes.TXT", "c/movie.mp4", "c/README"),
    ),
    b"",
)


def test_a_folder_gives_its_photos_by_name_and_counts_the_rest(tmp_path):
    fill(tmp_path, TREE)
    sources = open_sources([str(tmp_path)])
    assert sources.skipped == {}
    expected = ["a.webp", "a/10.png", "a/2.PNG", "b.jpg", "c/d/e/f.heic"]
    for _ in range(2):
        assert names(tmp_path, sources) == expected
        assert sources.skipped == {".txt": 2, ".mp4": 1, "without suffix": 1}
    assert sources.count() == 5
    assert sources.skipped == {".txt": 2, ".mp4": 1, "without suffix": 1}
    assert rows(sources)[0] == (str(tmp_path / "a.webp"), None, None)


def test_inputs_come_in_their_order_and_may_come_twice(tmp_path):
    fill(tmp_path, TREE)
    one, folder = str(tmp_path / "b.jpg"), str(tmp_path / "a")
    found = [item.file for item in open_sources([one, folder, one])]
    assert found == [one, f"{folder}/10.png", f"{folder}/2.PNG", one]
    assert [item.file for item in open_sources(one)] == [one]
    assert [item.file for item in open_sources(Path(one))] == [one]


def test_paths_stay_as_the_user_wrote_them(tmp_path, monkeypatch):
    listed = b"b.jpg\n./b.jpg\n/else/where.jpg\n../up.jpg\n"
    fill(tmp_path, {"in/b.jpg": b"", "in/list.txt": listed, "empty/x.txt": b"", "none": b"text"})
    monkeypatch.chdir(tmp_path)
    inputs = ["in", "./in/../in/b.jpg", "in/list.txt", "empty", "none"]
    expected = ["in/b.jpg", "./in/../in/b.jpg", "in/b.jpg", "in/./b.jpg", "/else/where.jpg"]
    items = list(open_sources(inputs))
    assert [item.file for item in items] == [*expected, "in/../up.jpg", "none"]
    assert outcome(items[-1]) == "not an image (4 bytes, starting b'text')"


@pytest.mark.parametrize(
    ("inputs", "every", "message"),
    [
        (["nowhere.jpg"], 1, r"^no such input: nowhere.jpg \(a photo, folder, list"),
        ([], 1, "^no photos: name files"),
        (["."], 0, "^every = 0: take every frame"),
    ],
)
def test_mistakes(inputs, every, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        open_sources(inputs, every=every)


def test_links_are_followed_but_not_in_circles(tmp_path):
    fill(tmp_path, {"in/a/1.jpg": b"", "in/b/2.jpg": b"", "out/3.jpg": b"", "out/deep/4.jpg": b""})
    (tmp_path / "in/a/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/b/self").symlink_to(tmp_path / "in/b/self")
    (tmp_path / "in/b/self.jpg").symlink_to(tmp_path / "in/b/self.jpg")
    (tmp_path / "in/b/gone.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "in/link.jpg").symlink_to(tmp_path / "out/3.jpg")
    for number in range(12):  # each leads to all: as many ways through as there are orders
        (tmp_path / f"out/way{number}").mkdir()
        for other in range(12):
            (tmp_path / f"out/way{number}/{other}").symlink_to(tmp_path / f"out/way{other}")
    (tmp_path / "in/z").symlink_to(tmp_path / "out")
    sources = open_sources(str(tmp_path / "in"))
    expected = ["a/1.jpg", "b/2.jpg", "b/gone.jpg", "b/self.jpg", "link.jpg", "z/3.jpg"]
    assert names(tmp_path / "in", sources) == [*expected, "z/deep/4.jpg"]
    assert sources.count() == 7
    gone, circle = [outcome(item) for item in sources][2:4]
    assert (gone, circle) == ("No such file or directory", "Too many levels of symbolic links")


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path):
    fill(tmp_path, {"a.jpg": b"", "b/1.jpg": b"", "c.jpg": b""})
    items = iter(open_sources(str(tmp_path)))
    assert next(items).file.endswith("a.jpg")
    rmtree(tmp_path / "b")
    with pytest.raises(OSError, match=r"b: the folder cannot be listed \(No such file"):
        next(items)


@pytest.mark.parametrize("source", ["in", "list.txt"])
def test_a_photo_that_is_missing_is_unreadable_and_a_folder_that_is_gone_is_an_error(
    source, tmp_path
):
    fill(tmp_path, {f"in/{name}.png": encode_png(picture()) for name in "abcd"})
    (tmp_path / "list.txt").write_text("".join(f"in/{name}.png\n" for name in "abcd"))
    items = pickle.loads(pickle.dumps(list(open_sources(str(tmp_path / source)))))
    assert isinstance(outcome(items[0]), Photo)
    (tmp_path / "in/b.png").unlink()
    assert outcome(items[1]) == "No such file or directory"
    assert isinstance(outcome(items[2]), Photo)
    (tmp_path / "in").rename(tmp_path / "away")
    with pytest.raises(OSError, match="gone while it is read"):
        items[3].load()


def test_names_that_are_no_text(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    Path(os.fsdecode(name)).write_bytes(encode_png(picture()))
    (tmp_path / "list.txt").write_bytes(b"x.png\n\xff\xfe.png\n")
    (item,) = open_sources(str(tmp_path))
    assert np.array_equal(item.load().pixels, picture())
    _, listed = open_sources(str(tmp_path / "list.txt"))
    assert np.array_equal(listed.load().pixels, picture())


def test_a_file_that_cannot_be_read_says_why(tmp_path, monkeypatch):
    fill(tmp_path, {"empty.jpg": b"", "ok.png": encode_png(picture())})
    os.mkfifo(tmp_path / "pipe.jpg")
    empty, ok, pipe = open_sources(str(tmp_path))
    assert outcome(empty) == "empty file"
    assert outcome(pipe) == "not a regular file"
    assert outcome(Item(str(tmp_path))) in ("Is a directory", "not a regular file")
    assert outcome(Item("a\0b.jpg")) == "embedded null byte"
    monkeypatch.setattr("photos.sources.LONGEST_FILE", 10)
    assert outcome(ok) == f"too large: {len(encode_png(picture()))} bytes, more than 10"


LISTS = {
    "plain.txt": "a.jpg\nb c.jpg\n",
    "windows.txt": "\ufeffa.jpg\r\nb c.jpg\r\n",
    "remarks.txt": "# photos\n\na.jpg\n   \nb c.jpg",
    "labels.lst": "0\t3\ta.jpg\n1\t-4.0\tb c.jpg\n",
    "labels2.lst": "1\ta.jpg\t3\nb c.jpg\t7\n",
    "head.csv": "label,Path\n3,a.jpg\n4,b c.jpg\n",
    "quotes.csv": 'file,who\r\n"a.jpg","x, y"\r\n\r\n"b c.jpg",z\r\n',
    "headless.csv": "a.jpg,0\nb c.jpg,1\n",
    "short.csv": "image\na.jpg\nb c.jpg\n",
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lists(name, encoding, tmp_path):
    content = LISTS[name].removeprefix("\ufeff") if encoding == "utf-16" else LISTS[name]
    fill(tmp_path, {f"in/{name}": content.encode(encoding), "in/a.jpg": encode_jpeg(picture())})
    sources = open_sources(str(tmp_path / "in" / name))
    assert [item.file for item in sources] == [f"{tmp_path}/in/a.jpg", f"{tmp_path}/in/b c.jpg"]
    assert sources.count() == 2
    first, second = (outcome(item) for item in sources)
    assert same(first, read_photo(encode_jpeg(picture())))
    assert second == "No such file or directory"


@pytest.mark.parametrize("content", [b"a.jpg\nb\0.jpg\nc.jpg\n", b"a.jpg\n" + b"x" * 70_000])
@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_what_is_not_a_list(content, name, tmp_path):
    fill(tmp_path, {name: content, "b.jpg": b""})
    why = r"list.*: not a list of paths, one a line \(line 2 is not text, or endless\)"
    with pytest.raises(ValueError, match=why):
        open_sources([tmp_path / name, tmp_path / "b.jpg"])


def test_a_csv_row_without_its_column(tmp_path):
    fill(tmp_path, {"list.csv": b"who,path\nx,a.jpg\ny\n\nz,\n"})
    _, second, third = open_sources(str(tmp_path / "list.csv"))
    assert second.file == str(tmp_path / "list.csv")
    assert outcome(second) == "line 3 names no photo"
    assert outcome(third) == "line 5 names no photo"


@pytest.fixture
def bin_file(tmp_path):
    images = [encode_png(picture(seed)) for seed in range(5)] + [encode_jpeg(picture(5, 90, 60))]
    write_bin(tmp_path / "set.bin", images, [True, False, True])
    return str(tmp_path / "set.bin")


def test_a_bin_gives_the_faces_that_the_rest_of_the_project_sees(bin_file):
    items = list(open_sources(bin_file))
    assert rows(items) == [(bin_file, row, True) for row in range(6)]
    pixels = np.stack([item.load().pixels for item in items])
    assert np.array_equal(pixels, read_bin(bin_file).decode(0, 6))
    assert [item.load().note for item in items] == [""] * 5 + ["resized from 60x90"]
    assert open_sources(bin_file).count() == 6


def test_a_bin_that_is_damaged_or_unsafe(tmp_path, bin_file):
    content = Path(bin_file).read_bytes()
    fill(tmp_path, {"cut.bin": content[:-40], "no.bin": b"cos\nsystem\n(S'false'\ntR."})
    with pytest.raises(ValueError, match=r"cut.bin: damaged or cut short \("):
        list(open_sources(str(tmp_path / "cut.bin")))
    with pytest.raises(
        ValueError, match=r"no.bin: refused, nothing was run: it asks for os.system"
    ):
        list(open_sources(str(tmp_path / "no.bin")))


def test_packs_with_a_damaged_image(tmp_path):
    images = [encode_png(picture()), encode_jpeg(picture())[:300], b"x", encode_png(picture())]
    write_bin(tmp_path / "set.bin", images, [True, False])
    with RecordWriter(tmp_path / "set") as writer:
        for key, encoded in enumerate(images):
            writer.write(key, pack_record(float(key), key, encoded))
    for suffix, keys in ((".bin", ("", "")), (".rec", ("key 1: ", "key 2: "))):
        first, cut, text, last = map(outcome, open_sources(str(tmp_path / f"set{suffix}")))
        assert same(first, last)
        assert cut.startswith((f"{keys[0]}damaged JPEG (", f"{keys[0]}cut off: "))
        assert text.startswith(f"{keys[1]}not an image (1 bytes")


def test_a_bin_that_was_replaced_is_read_again(bin_file):
    (first, *_) = open_sources(bin_file)
    before = first.load()
    write_bin(bin_file, [encode_png(picture(77, 112, 110))] * 2, [True])
    os.utime(bin_file, ns=(1, 1))
    (again, _) = open_sources(bin_file)
    assert not same(again.load(), before)


@pytest.fixture(params=[True, False], ids=["identities", "bare"])
def pack(request, tmp_path):
    path = tmp_path / "pack" / "faces.rec"
    path.parent.mkdir()
    write_pack(path, 6, identities=request.param)
    return path


def write_pack(path, count, *, identities):
    with RecordWriter(path.with_suffix("")) as writer:
        for number in range(count):
            encoded = encode_jpeg(picture(number))
            if identities:
                writer.write_image(number // 2, encoded, f"{number}.jpg")
            else:
                writer.write(number + 3, pack_record(float(number // 2), number + 3, encoded))


def damage(path, key, length=8):
    """Overwrite the start of a record, where its magic stands."""
    lines = path.with_suffix(".idx").read_text().split()
    at = int(dict(zip(lines[::2], lines[1::2], strict=True))[str(key)])
    content = bytearray(path.read_bytes())
    content[at : at + length] = bytes(length)
    path.write_bytes(content)


def test_a_pack_gives_the_faces_that_the_rest_of_the_project_sees(pack):
    faces = PackFaces(pack)
    for given in (pack, pack.parent):
        sources = open_sources(str(given))
        assert rows(sources) == [(str(pack), row, True) for row in range(6)]
        assert sources.count() == 6
        for item in sources:
            assert np.array_equal(item.load().pixels, faces.read(item.index))
    assert set(sources.skipped) <= {".idx", ".lst", "without suffix"}


@pytest.mark.parametrize("key", [3, 5, 8])
def test_a_damaged_record_is_a_row_and_the_others_stay(pack, key):
    damage(pack, key)
    found = [outcome(item) for item in open_sources(str(pack))]
    whole = [decode(encode_jpeg(picture(number))) for number in range(6)]
    first = 1 if (pack.parent / "faces.lst").exists() else 3
    gone = key - first
    expected = [face for row, face in enumerate(whole) if row != gone]
    assert len(found) == len(expected) + 1
    (message,) = (one for one in found if isinstance(one, str))
    assert re.fullmatch(rf"key {key} at offset (\d+): no record starts at byte \1", message)
    assert found.index(message) == min(gone, 6)
    photos = [one for one in found if isinstance(one, Photo)]
    for photo, face in zip(photos, expected, strict=True):
        assert np.array_equal(photo.pixels, face)


def test_a_pack_whose_first_record_is_damaged_gives_all_its_images(tmp_path):
    path = tmp_path / "faces.rec"
    write_pack(path, 6, identities=True)
    damage(path, 0)
    sources = open_sources(str(path))
    first, *others = [outcome(item) for item in sources]
    assert first.startswith("key 0 at offset")
    assert [photo.pixels.shape for photo in others] == [(112, 112, 3)] * 6
    assert sources.count() == 7


@pytest.mark.parametrize("content", [b"123", b"x" * 400])
def test_what_is_not_a_pack(content, tmp_path):
    fill(tmp_path, {"a.rec": content, "c.jpg": b""})
    with pytest.raises(ValueError, match=r"a.rec: (3 bytes are not a record|.* no record starts)"):
        list(open_sources(str(tmp_path)))


@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
def test_a_pack_that_is_cut_short_is_an_error(pack, left):
    content = pack.read_bytes()
    pack.write_bytes(content[: int(left * len(content))])
    for read in (lambda: list(open_sources(str(pack))), lambda: PackFaces(pack)):
        with pytest.raises(ValueError, match=r"faces.rec is cut short at \d+ bytes"):
            read()


def test_a_pack_that_was_replaced_while_it_is_read_is_an_error(tmp_path, bin_file):
    write_pack(tmp_path / "a.rec", 6, identities=True)
    for path in (str(tmp_path / "a.rec"), bin_file):
        item, *_ = open_sources(path)
        item.load()
        open_bin.cache_clear()
        open_rec.cache_clear()
        os.utime(path, ns=(1, 1))
        with pytest.raises(OSError, match="was replaced while it was read"):
            item.load()


def video(path, frames, codec="MJPG"):
    """Frame i has 12 i of red, and 255 - 12 i of blue."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (64, 48))
    assert writer.isOpened()
    for number in range(frames):
        red = min(12 * number, 255)
        writer.write(np.full((48, 64, 3), (255 - red, 128, red), np.uint8))
    writer.release()
    return str(path)


@pytest.mark.parametrize(
    ("name", "codec"), [("v.avi", "MJPG"), ("v.mp4", "mp4v"), ("V.MKV", "MJPG")]
)
@pytest.mark.parametrize("every", [1, 4, 100])
def test_every_nth_frame_of_a_video(name, codec, every, tmp_path):
    path = video(tmp_path / name, 20, codec)
    sources = open_sources(path, every=every)
    items = list(sources)
    assert rows(items) == [(path, frame, None) for frame in range(0, 20, every)]
    for item in reversed(items):
        photo = item.load()
        assert photo.pixels.shape == (48, 64, 3)
        red = 12 * item.index
        assert np.abs(photo.pixels.mean(axis=(0, 1)) - (red, 128, 255 - red)).max() <= 12
    assert sources.count() is None


def test_a_video_that_cannot_be_read_is_one_row(tmp_path, capfd):
    playlist = b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"
    whole = Path(video(tmp_path / "whole.mp4", 20, "mp4v")).read_bytes()
    files = {"empty.mp4": b"", "list.mp4": playlist, "cut.mp4": whole[:-400], "no.mkv": bytes(999)}
    fill(tmp_path, files)
    os.mkfifo(tmp_path / "pipe.avi")
    paths = [str(tmp_path / name) for name in (*files, "pipe.avi")]
    items = list(open_sources(paths))
    assert rows(items) == [(path, None, None) for path in paths]
    told = ["not a video that OpenCV can read, or damaged"] * 2
    told = ["empty file", "a text file, not a video", *told, "not a regular file"]
    assert [outcome(item) for item in items] == told


def test_a_video_that_breaks_off_says_so(tmp_path):
    path = Path(video(tmp_path / "v.avi", 40))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    items = list(open_sources(str(path), every=3))
    assert all(isinstance(outcome(item), Photo) for item in items[:-1])
    assert 3 < len(items) < 13
    assert outcome(items[-1]).startswith(f"the video breaks off: {items[-1].index} of about 40 fr")


def parquet(path, columns, **options):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    files.write_table(pyarrow.table(columns), path, **options)
    return str(path)


def test_parquet_with_images_or_paths(tmp_path):
    encoded = [encode_png(picture(seed)) for seed in range(50)]
    encoded[7], encoded[8] = None, b"text"
    for name, column in [
        ("plain.parquet", encoded),
        ("nested.pq", [{"bytes": one, "path": "x.png"} for one in encoded]),
    ]:
        path = parquet(tmp_path / name, {"image": column, "path": ["y"] * 50}, row_group_size=20)
        sources = open_sources(path)
        assert rows(sources) == [(path, row, None) for row in range(50)]
        assert sources.count() == 50
        found = [outcome(item) for item in sources]
        assert found[7:9] == ["the row is empty", "not an image (4 bytes, starting b'text')"]
        for row in (0, 6, 19, 20, 49):
            assert np.array_equal(found[row].pixels, picture(row))
    path = parquet(tmp_path / "p.parquet", {"who": [1, 2, 3], "file": ["a.jpg", "/b.jpg", None]})
    first, second, third = open_sources(path)
    assert (first.file, first.index, second.file) == (str(tmp_path / "a.jpg"), None, "/b.jpg")
    assert (third.file, third.index, outcome(third)) == (path, 2, "the row is empty")


def test_parquet_that_holds_no_photos(tmp_path, monkeypatch):
    path = parquet(tmp_path / "p.parquet", {"who": [1], "image": [2]})
    with pytest.raises(ValueError, match=r"no column `image` with .*columns are who, image$"):
        open_sources(path)
    fill(tmp_path, {"bad.parquet": b"PAR1 no"})
    with pytest.raises(ValueError, match="bad.parquet: not a Parquet file, or damaged"):
        open_sources(str(tmp_path / "bad.parquet"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="p.parquet: .*needs pyarrow, which is not installed"):
        open_sources(path)


def test_parquet_that_unpacks_to_far_more_is_refused_and_a_large_column_is_buffered(
    tmp_path, monkeypatch
):
    path = parquet(tmp_path / "p.parquet", {"image": [bytes(4 << 20)] * 2}, compression="zstd")
    assert not ParquetSource(str(path))._is_large
    monkeypatch.setattr("photos.sources._LARGE_COLUMN", 100)
    source = ParquetSource(str(path))
    assert source._is_large
    assert len(list(source.items(0))) == 2
    monkeypatch.setattr("photos.sources.MOST_UNPACKED", -1e9)
    with pytest.raises(ValueError, match=r"p\.parquet: image would unpack to 4\d+ bytes"):
        ParquetSource(str(path))


def test_parquet_that_is_damaged_inside(tmp_path):
    encoded = [encode_png(picture(seed)) for seed in range(40)]
    options = {"row_group_size": 20, "compression": "none", "use_dictionary": False}
    path = parquet(tmp_path / "p.parquet", {"image": encoded}, **options)
    content = bytearray(Path(path).read_bytes())
    middle = content.index(encoded[20]) - 60
    content[middle : middle + 40] = b"\xff" * 40
    Path(path).write_bytes(content)
    found = []
    with pytest.raises(ValueError, match="p.parquet: damaged from row 20 on"):
        found.extend(open_sources(path))


@pytest.fixture
def everything(tmp_path, bin_file):
    fill(tmp_path, {f"tree/{name}": encode_png(picture(3)) for name in TREE})
    fill(tmp_path, {"list.txt": b"tree/b.jpg\nmissing.jpg\n", "broken.avi": b"xx"})
    write_pack(tmp_path / "tree/b/faces.rec", 4, identities=True)
    inputs = ["tree", "list.txt", bin_file, "tree/b/faces.rec", "v.avi", "broken.avi", "tree/b.jpg"]
    video(tmp_path / "v.avi", 9)
    return open_sources([str(tmp_path / name) for name in inputs], every=2)


def test_iteration_can_start_anywhere(everything):
    whole = list(everything)
    skipped = everything.skipped
    assert len(whole) == 9 + 2 + 6 + 4 + 5 + 1 + 1
    for skip in range(len(whole) + 2):
        rest = list(everything.items(skip))
        assert rest == whole[skip:]
        assert all(same(outcome(a), outcome(b)) for a, b in zip(rest, whole[skip:], strict=True))
        assert everything.skipped == skipped


def test_parquet_can_be_entered_anywhere_without_reading_what_lies_before(tmp_path, monkeypatch):
    encoded = [encode_png(picture(seed)) for seed in range(12)]
    path = parquet(tmp_path / "p.parquet", {"image": encoded}, row_group_size=5)
    sources = open_sources([path, path])
    whole = list(sources)
    read = []
    original = ParquetSource._values

    def values(self, file, group):
        read.append(group)
        return original(self, file, group)

    monkeypatch.setattr(ParquetSource, "_values", values)
    for skip, groups in [(0, [0, 1, 2] * 2), (4, [0, 1, 2] * 2), (5, [1, 2, 0, 1, 2]), (22, [2])]:
        read.clear()
        assert list(sources.items(skip)) == whole[skip:]
        assert read == groups


def test_items_survive_a_journey(everything):
    for item in everything:
        copy = pickle.loads(pickle.dumps(item))
        assert copy == item
        assert same(outcome(copy), outcome(item))
        assert same(outcome(item), outcome(item))


def test_threads_load_what_one_loads(everything):
    alone = [outcome(item) for item in everything]
    for _ in range(3):
        together = list(read_ahead(everything, workers=6, depth=9))
        assert [item for item, _ in together] == list(everything)
        for (_, photo), expected in zip(together, alone, strict=True):
            assert same(str(photo) if isinstance(photo, ValueError) else photo, expected)


def peak_of(sources):
    """Most memory that Python holds at once while items go by, and their number."""
    gc.collect()
    tracemalloc.start()
    try:
        number = sum(1 for _ in sources)
        return tracemalloc.get_traced_memory()[1], number
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_a_list(tmp_path):
    (tmp_path / "folder 0").mkdir()
    (tmp_path / "folder 0" / "photo 0.jpg").touch()
    for count in (1000, 100_000):
        lines = (f"folder {n % 100}/photo {n}.jpg\n" for n in range(count))
        (tmp_path / f"{count}.txt").write_text("".join(lines))
    few, many = (peak_of(open_sources(f"{tmp_path}/{count}.txt")) for count in (1000, 100_000))
    assert (few[1], many[1]) == (1000, 100_000)
    assert many[0] < few[0] + 50_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", "# made by hand\npath\na.png\nsub/c.png\n"),
        ("l.csv", "id,image_path,label\n1,a.png,x\n2,sub/c.png,y\n"),
        ("l.csv", "id;Filename\n1;a.png\n2;sub\\c.png\n"),
        ("l.csv", "path\na.png\nsub\\c.png\n"),
        ("l.csv", "age,img\n3,a.png\n4,sub/c.png\n"),
        ("l.csv", "3,a.png\n4,sub/c.png\n"),
        ("l.tsv", "file\tage\na.png\t3\nsub/c.png\t4\n"),
        ("l.txt", "a.png\r\nsub\\c.png\r\n"),
        ("l.lst", "# made by hand\n0\ta.png\n1\tsub\\c.png\n"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_other_tools_name_their_photos(tmp_path, name, text, encoding):
    fill(tmp_path, {"a.png": b"", "sub/c.png": b"", name: text.encode(encoding)})
    files = [item.file for item in open_sources(tmp_path / name)]
    assert files == [str(tmp_path / "a.png"), str(tmp_path / "sub/c.png")]


def test_the_first_photo_of_a_table_may_be_missing(tmp_path):
    (tmp_path / "b.png").touch()
    (tmp_path / "l.csv").write_text("a.png,1\nb.png,2\n")
    assert [Path(item.file).name for item in open_sources(tmp_path / "l.csv")] == ["a.png", "b.png"]


def test_a_text_that_names_no_file_is_not_a_list(tmp_path):
    (tmp_path / "README.txt").write_text("Photos of the summer.\nAsk before use.\n")
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"README.txt: none of its first 100 lines names a file"):
        open_sources(tmp_path / "README.txt")
    items = open_sources([tmp_path / "README.txt", tmp_path / "a.png"])
    assert [item.file for item in items] == [str(tmp_path / "a.png")]
    assert items.skipped == {".txt": 1}
