"""Damaged files of strangers: drawn by hypothesis, and those that readers once failed on.

Every target gets the same inputs each time; run.py draws others for as long as wanted.
"""

import pickle
import zipfile
from io import BytesIO

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.check import Folder
from tests.fuzz.edits import edited
from tests.fuzz.targets import TARGETS

INPUTS = 150  # of a target whose reader takes 1 ms
NUMBER = st.integers(0, (1 << 30) - 1)
EDITS = st.lists(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER), min_size=1, max_size=4)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_files_end_in_one_line(target, tmp_path):
    folder = Folder(tmp_path, target)

    @settings(
        max_examples=min(300, max(25, int(INPUTS / target.cost))),
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(place=NUMBER, file=NUMBER, edits=EDITS)
    def check(place, file, edits):
        place %= len(folder.corpus)
        names = folder.editable[place]
        name = names[file // 2 % len(names)] if file % 2 else names[0]
        content = edited(folder.corpus[place][name], edits, folder.others(name))
        assert not folder.problem(place, name, content)

    check()


def npy(header, data=b""):
    header = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + data


def npz(entry, name="score"):
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.npy", entry)
    return file.getvalue()


DESCRIBED = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }"
FINDINGS = {  # name of the target: contents of its first file that were not answered in one line
    "npz": {
        "open bracket": npz(npy(DESCRIBED[:-3])),
        "not Python": npz(npy(DESCRIBED.replace("<f4", "<'4"))),
        "not an array": npz(b"text"),
        "offset": npz(npy(DESCRIBED, bytes(12))).replace(b"PK\x01\x02", b"PK\x01\x02\xff" * 2),
        "compression": npz(npy(DESCRIBED, bytes(12))).replace(
            b"\x14\0\0\0\0\0", b"\x14\0\0\0\x63\0"
        ),
        "letters": npz(npy(DESCRIBED.replace("<f4", "<U1"), b"\xff" * 12)),
    },
    "csv": {"heading ends in a comma": b"a,b,\n1,2\n"},
    "parquet": {"thrift": b"PAR1" + bytes(64) + b"\x20\0\0\0PAR1"},
    "quality files": {
        "score first": "quality;\ufeffimage\r\na.jpg;10\r\n".encode(),
        "beyond float32": b"a.jpg,1e300\nb.jpg,2\n",
    },
    "weights": {
        "endless word": b"\x80\2c" + b"a" * 200_000 + b"\nb\n.",
        "several disks": npz(b"").replace(b"PK\5\6", b"PK\6\7" + bytes(12) + b"\2\0\0\0PK\5\6"),
        "version": npz(b"").replace(b"PK\1\2\x14\3\x14", b"PK\1\2\x14\3\xff"),
        "name": npz(b"")
        .replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\0\x08", 1)
        .replace(b"score", b"\xffcore"),
    },
    "lists of faces": {
        "long name": b"a.png 0\n" + b"a" * 5000 + b" 1\n",
        "long number": b"9" * 60_000 + b"x 1\n",
    },
    "lists of pairs": {"long number": b"1\nab 1 " + b"9" * 5000, "no number": "1\nab 1 ²".encode()},
}


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, kinds in FINDINGS.items() for kind in kinds]
)
def test_what_was_found_stays_mended(name, kind, tmp_path):
    [target] = [target for target in TARGETS if target.name == name]
    folder = Folder(tmp_path, target)
    assert not folder.problem(0, folder.editable[0][0], FINDINGS[name][kind])


def test_a_file_that_is_run_is_noticed(tmp_path):
    from dataclasses import replace

    target = replace(TARGETS[0], read=lambda path: pickle.loads(path.read_bytes()))
    folder = Folder(tmp_path, target)
    assert "executed pickle.find_class" in folder.problem(0, "t.csv", b"cos\ngetcwd\n(tR.")
    target = replace(TARGETS[0], read=lambda path: eval(path.read_text()))
    assert "executed exec" in Folder(tmp_path / "2", target).problem(0, "t.csv", b"1 + 1")
