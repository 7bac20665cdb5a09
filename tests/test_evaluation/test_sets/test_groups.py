"""Files of groups: what each image is in, what is counted, what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.metrics.comparisons import Comparisons
from evaluation.sets.groups import MOST_GROUPS, read_groupings
from evaluation.sets.score_files import read_scores

NAMES = ["Ann/1.jpg", "Ann/2.jpg", "Bob/1.jpg", "Bob/2.jpg", "Cy/1.jpg", "Cy/2.jpg"]
FACES = Comparisons(
    "made",
    np.float32([0.9, 0.8, 0.1]),
    np.array([True, True, False]),
    np.int32([[0, 1], [2, 3], [0, 4]]),
    np.zeros(6, np.float32),
    np.repeat(np.arange(3), 2),
    np.arange(6),
    name_of=NAMES.__getitem__,
)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "groups.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def notes(grouping):
    return {
        caution.kind: (caution.facts["count"], caution.facts["total"])
        for caution in grouping.cautions
    }


def test_people_are_folders_and_every_other_column_is_a_grouping(file):
    path = file("person;sex;age\nAnn;f;young\nBob;m;Unknown\nDan;m;old\n")
    sex, age = read_groupings(path, FACES)
    assert (sex.name, sex.groups, sex.place.tolist()) == ("sex", ("f", "m"), [0, 0, 1, 1, -1, -1])
    assert (age.groups, age.place.tolist()) == (("young",), [0, 0, -1, -1, -1, -1])
    assert notes(sex) == {"groups_absent": (1, 3), "groups_missing": (2, 6)}
    assert notes(age) == {**notes(sex), "groups_unknown": (2, 6)}


@pytest.mark.parametrize("heading", ["path", "image", "KEY"])
def test_photos_by_path(file, heading):
    rows = "".join(f"{name.replace('/', chr(92))},{name[-5]}\n" for name in NAMES)
    [pose] = read_groupings(file(f"{heading},photo:pose\n{rows}"), FACES)
    assert pose.groups == ("1", "2")
    assert pose.place.tolist() == [0, 1] * 3
    assert not pose.cautions


def test_rows_without_names_go_by_number(file):
    [found] = read_groupings(
        file("path,g\n0,a\n1,a\n4,b\n"), replace(FACES, name_of="row {}".format)
    )
    assert found.place.tolist() == [0, 0, -1, -1, 1, -1]


def test_people_and_images_of_a_score_file(file, tmp_path):
    scores = tmp_path / "scores.csv"
    scores.write_text(
        "score,mated,quality_a,quality_b,image_a,image_b,identity_a,identity_b\n"
        ".9,1,50,60,x1,x2,X,X\n.2,0,50,70,x1,y1,X,Y\n"
    )
    read = read_scores(scores)
    [by_person] = read_groupings(file("person,g\nX,a\nY,b\n"), read)
    [by_path] = read_groupings(file("path,g\nx1,a\nx2,a\ny1,b\n"), read)
    assert by_person.place.tolist() == by_path.place.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line names the columns (none)"),
        ("name,sex\nAnn,f\n", "give one of path"),
        ("path,person,sex\n1,Ann,f\n", "give one of path"),
        ("person,sex,sex\nAnn,f,f\n", "another name for each"),
        ("person,sex\nAnn\n", "line 2: 1 fields"),
        ("person,sex\nAnn,f\nAnn,m\n", "line 3: 'Ann' has sex 'm', but 'f'"),
        ("person,sex\nZoe,f\n", "none of its 1 people is in made, whose first is 'Ann'"),
        ("person,sex\nAnn,?\n", "column sex has 0 groups"),
        (
            "person,age\n" + "".join(f"{age},{age}\n" for age in range(MOST_GROUPS + 1)),
            f"column age has {MOST_GROUPS + 1} groups",
        ),
        ("path,sex\nAnn/1.jpg,f\nAnn/2.jpg,m\n", "Ann/1.jpg in 'f' and Ann/2.jpg in 'm'"),
    ],
)
def test_what_is_refused(file, text, message):
    path = file(text)
    with pytest.raises(ValueError, match="groups.csv") as error:
        read_groupings(path, FACES)
    assert message in str(error.value)


def test_without_identities_mated_pairs_tell_who_is_one_person(file):
    unknown = replace(FACES, identity=None)
    with pytest.raises(ValueError, match="photo:sex"):
        read_groupings(file("path,sex\nBob/1.jpg,f\nBob/2.jpg,m\n"), unknown)
    [fine] = read_groupings(file("path,sex\nAnn/1.jpg,f\nBob/2.jpg,m\n"), unknown)
    assert fine.groups == ("f", "m")


def test_people_without_names_are_refused(file, tmp_path):
    by_person = file("person,sex\nAnn,f\n")
    for nameless in (
        replace(FACES, name_of="row {}".format),
        replace(FACES, name_of=lambda row: f"all/{row}.jpg"),
    ):
        with pytest.raises(ValueError, match="by path instead of person"):
            read_groupings(by_person, nameless)
    with pytest.raises(ValueError, match="no file of groups"):
        read_groupings(tmp_path / "missing.csv", FACES)
