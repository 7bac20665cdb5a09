"""Every command of README and docs/ runs: on stand-ins of the files it names, with small numbers.

Stand-ins have the names that the pages use (`runs/mine`, `my_faces`, `SCORES.csv`, ...). An
iResNet50 is replaced by a tiny one and a schedule by a single step, through the commands' flags.
"""

import hashlib
import importlib
import re
import shutil

import numpy as np
import pandas
import pytest
import torch

from data.synthetic import SyntheticFaces, synthetic_verification
from data.verification import write_bin
from models.heads.fc2 import FC2Head
from tests.helpers import TINY_NAME, write_people
from tests.test_docs.test_docs import COMMANDS, ROOT, blocks, text_of
from utils.config import Method
from utils.methods import build

PEOPLE = SyntheticFaces(identities=20, images=4, seed=3)
SMALL = (
    *("schedule.epochs=1", "schedule.steps_per_epoch=1", "schedule.drop_at=()", "device=cpu"),
    *("classes_per_batch=2", "images_per_class=2", "workers=1", "log_every=1"),
)
ELSEWHERE = {
    "adding_a_method": "test_examples.py writes the page's files and runs its commands",
    "tests/measure.py": "make test runs it",
    "benchmarks/": "measurements take minutes to hours",
    "export/export.py --model runs/student": "test_export exports a student that was trained",
    "scoring/score_images.py BUCKET.parquet": "test_score_images_ray starts a cluster",
    "demo/train_model.py": "test_demo trains a smaller one",
}


def elsewhere(page, words):
    for place, reason in ELSEWHERE.items():
        if page.stem == place or " ".join(words).startswith(place):
            return reason
    is_command = len(words) > 1 and words[-1] != "--config_file"
    return "" if is_command else "names a script"


RUN = [
    param for param in COMMANDS if not elsewhere(*param.values) and "--part" not in param.values[1]
]


def shrunk(text):
    """The same word with small numbers and the tiny network."""
    text = re.sub(r"identities=\d+,images=\d+", "identities=8,images=3", text)
    text = re.sub(r"pairs=\d+", "pairs=20", text)
    text = re.sub(r"(weights)=PATH", r"\1=mbf_y1.pth", text)
    name, colon, options = text.partition(":")
    if name == "iresnet50":
        return TINY_NAME + (f",{options}" if colon else "")
    return text


def small(script, words):
    """Arguments of a command with small numbers."""
    numbers = {"--identities": "8", "--images": "3", "--pairs": "20", "--replicates": "20"}
    arguments = [shrunk(word) for word in words]
    for flag, value in numbers.items():
        if flag in arguments and arguments[arguments.index(flag) + 1].isdigit():
            arguments[arguments.index(flag) + 1] = value
    if "--config_file" in arguments:
        arguments += [] if "--set" in arguments else ["--set"]
        place = arguments.index("--set") + 1
        settings = list(SMALL)
        if "ir50" in arguments[arguments.index("--config_file") + 1]:
            own = [word for word in arguments if word.startswith("backbone.")]
            arguments = [word for word in arguments if word not in own]
            options = "".join(f",{word.removeprefix('backbone.')}" for word in own)
            settings.append(f"backbone={TINY_NAME}{options}")
        arguments[place:place] = settings
    elif script == "network.py":
        assert "--resume" in arguments
    elif (
        not script.startswith(("data/", "photos/", "export/export"))
        and "--features" not in arguments
    ):
        arguments += ["--device", "cpu"]
    return arguments


def write_scores(folder):
    """Scores, qualities and features under the names that the pages use."""
    rng = np.random.default_rng(0)
    mated = np.arange(4000) % 2 == 0
    score = np.where(mated, 0.5, 0.0) + rng.normal(0, 0.15, 4000)
    table = pandas.DataFrame({"score": score, "mated": mated, "quality": rng.random(4000)})
    table.to_csv(folder / "SCORES.csv", index=False)
    faces = folder / "my_faces"
    names = sorted(str(path.relative_to(faces)) for path in faces.rglob("*.png"))
    qualities = pandas.DataFrame({"image": names, "quality": rng.random(len(names))})
    qualities.to_csv(folder / "QUALITIES.csv", index=False)
    person = rng.normal(size=(200, 1, 16)) + rng.normal(0, 0.3, (200, 2, 16))
    person[::2, 1] = rng.normal(size=(100, 16))
    people = "".join(f"p{person:02},{'ab'[person % 2]}\n" for person in range(PEOPLE.num_classes))
    (folder / "GROUPS.csv").write_text(f"person,made-up\n{people}")
    encoded = [(faces / name).read_bytes() for name in names[:2]]
    pandas.DataFrame({"image": encoded}).to_parquet(folder / "BUCKET.parquet")
    np.savez(
        folder / "FILE.npz",
        mu=person.reshape(400, 16).astype(np.float32),
        sigma_sq=rng.random((400, 9)).astype(np.float32),
        issame=np.arange(200) % 2 == 1,
    )


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory, write_run, tiny_onnx):
    """A folder with everything that the pages name."""
    folder = tmp_path_factory.mktemp("stand_ins")
    shutil.copytree(ROOT / "config", folder / "config")
    demo = folder / "config" / "config_demo.py"
    demo.write_text(demo.read_text().replace("pairs=2000", "pairs=300"))
    shutil.copytree(ROOT / "demo", folder / "demo")
    for name in ("idq", "pcnet", "idq_gap", "../RUN"):
        write_run(folder / "runs" / name)
    weights = folder / "weights" / "glint360k_cosface_r50_fp16_0.1"
    weights.mkdir(parents=True)
    for path in ("backbone.pth", weights / "backbone.pth"):
        shutil.copy(folder / "runs" / "idq" / "backbone.pth", folder / path)
    shutil.copy(folder / "runs" / "idq" / "backbone.pth", folder / "FILE")
    shutil.copy(ROOT / "demo" / "backbone.pth", folder / "WEIGHTS")
    shutil.copy(tiny_onnx, folder / "w600k_r50.onnx")
    mobile = build("models.backbones", Method("mobilefacenet")).state_dict()
    for path in ("mbf_y1.pth", "FILE.pth", "weights/mbf_y1.pth"):
        torch.save(mobile, folder / path)
    folders = ("my_faces", "FOLDER", "FOLDER_OR_LIST", "PATH", "people", "faces_a", "PACK")
    for name in (*folders, "datasets/lfw_train"):
        write_people(folder / name, PEOPLE)
    for name in ("my_photos", "photos"):
        (folder / name).mkdir()
        shutil.copy(folder / "my_faces" / "p00" / "00.png", folder / name)
    pairs = synthetic_verification(24, seed=3)
    sets = [folder / "lfw.bin", folder / "my_sets" / "my.bin", folder / "datasets" / "lfw.bin"]
    for name in ("lfw", "cfp_fp", "agedb_30"):
        sets += [folder / place / f"{name}.bin" for place in ("DIR", "datasets/ms1m-retinaface-t1")]
    for path in sets:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bin(path, pairs.images, pairs.mated)
    write_scores(folder)
    for part in range(2):  # of a classifier
        rows = torch.randn(PEOPLE.num_classes // 2, 16)
        torch.save({"weight": rows}, folder / f"softmax_fc_gpu_{part}.pt")
    head = FC2Head(output="probability", features_shape=(8, 7, 7), hidden=256)
    torch.save(head.state_dict(), folder / "uncertainty_head_fc2_prob_0012_checkpoint.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        steps(folder)
    return folder


def steps(folder):
    """What a reader has by the time of the pages' commands, made by the commands themselves."""
    for _, title, text in blocks(text_of(ROOT / "docs" / "train.md")):
        if title:
            (folder / title).write_text(text)
    (folder / "pairs.csv").write_text("p00/00.png,p00/01.png,1\np00/00.png,p01/04.png,0\n")
    idq = "network.py --config_file config/config_ir50_idq_loss_glint360k.py"
    mobile = "train_images=my_faces backbone_weights=mbf_y1.pth"
    for command in (
        "data/recordio.py --images my_faces --out datasets/ms1m-retinaface-t1/train",
        "data/recordio.py --images my_faces --out datasets/glint360k/train",
        "data/recordio.py --images my_faces --out faces_b",
        "data/recordio.py --images my_faces --out faces",
        "network.py --config_file config/config_demo.py --model_dir runs/demo",
        f"{idq} --model_dir runs/glint_ir50_idq",
        "data/synthetic.py --out raw --format photos --identities 8 --images 3 --severity 0.3",
        "data/synthetic.py --out raw_test --format photos --identities 8 --images 3 --severity 0.3",
        "photos/align_faces.py raw --out ten",
        "photos/align_faces.py raw_test --out ten_test",
        "network.py --config_file config/config_demo.py --model_dir runs/ten"
        " --set train_images=ten",
        "network.py --config_file config/config_demo.py --model_dir runs/mine",
        "network.py --config_file config/config_demo.py --model_dir RUN_DIR",
        "network.py --config_file config/config_two_losses.py --model_dir runs/two",
        "network.py --config_file config/config_mbf_idq_grid_lfw.py --model_dir runs/teacher"
        f" --set {mobile}",
        "network.py --config_file config/config_mbf_student_lfw.py --model_dir runs/student"
        f" --set {mobile} head_weights=mbf_y1.pth teacher=runs/teacher",
        "export/pack_model.py --model_dir runs/mine --out model.pt --license none",
        "evaluation/calibrate.py --model model.pt --target faces:my_faces --out mine.json",
        "extraction/extract.py --images my_faces --out extracted/mine --methods runs/idq",
        "evaluation/fit_fusion.py --model_dir runs/idq_gap --faces my_faces --of trained_head"
        " runs/idq",
        "evaluation/fit_fusion.py --model_dir runs/mine --faces my_faces --fit typicality",
        "evaluation/fit_fusion.py --model_dir runs/demo --faces my_faces --of trained_head"
        " light_disagreement",
    ):
        script, *words = command.split()
        run(script, words)


def run(script, words):
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    assert module.main(small(script, words)) == 0


@pytest.mark.parametrize(("page", "words"), RUN)
def test_the_command_runs(page, words, stand_ins, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    shutil.copytree(stand_ins, folder)
    monkeypatch.chdir(folder)
    for script, flag in (("network.py", "--model_dir"), ("extraction/extract.py", "--out")):
        if words[0] == script and flag in words:
            shutil.rmtree(words[words.index(flag) + 1], ignore_errors=True)
    scores = {"start": "SCORES.csv", "train": "QUALITIES.csv"}.get(page.stem)
    if scores:
        shutil.copy(scores, "scores.csv")
    sha256 = hashlib.sha256((folder / "demo" / "backbone.pth").read_bytes()).hexdigest()
    run(words[0], [sha256 if word == "HEX" else word for word in words[1:]])
