"""How well a detector finds faces: scenes with known landmarks, and photos without any face.

python benchmarks/detectors.py --faces lfw_dev --weights mbf_y1.pth --photos photos/ \
    --detectors mtcnn centerface:weights=centerface.onnx

python benchmarks/detectors.py --portraits cfp.rec:frontal cfp.rec:profile \
    --detectors mtcnn:second_look=false mtcnn

Scenes are aligned faces, scaled, turned and laid on backgrounds, so the true landmarks are those of
the template. Needs nothing but the files named; a few minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._common import print_table, write_json
from benchmarks._scenes import NOT_FACES, Picture, Scene, portraits, scenes
from data.faces import open_faces
from models.frozen import FrozenBackbone
from models.run import open_backbone
from photos.align import REFERENCE, align, similarity_transforms
from photos.detectors import Detections, Detector, FaceSearch, open_detector
from utils.cli import run_command

SIZES = (24, 32, 48, 64, 96, 144, 216, 400)  # sides of the pasted faces, in pixels
SUFFIXES = {".jpg", ".jpeg", ".png"}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 0, or 2 after a mistake in the arguments."""
    args = _parser().parse_args(argv)
    return run_command(lambda: _body(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Recall, landmarks and false alarms.")
    add = parser.add_argument
    add("--faces", help="aligned faces: folder, list file or .rec pack")
    add("--weights", help="file with the backbone's weights")
    add(
        "--portraits",
        nargs="*",
        default=[],
        metavar="PACK[:WORD]",
        help="packs of aligned faces, of those whose name in the .lst has the word: whole photos "
        "of one face each are made of them",
    )
    add("--most", type=int, default=1000, help="portraits of each (1000)")
    add("--backbone", default="mobilefacenet", help="name or name:option=value (mobilefacenet)")
    add("--photos", nargs="*", default=[], help="folders of photos; what is found is counted")
    add("--detectors", nargs="+", default=["mtcnn"], help="name or name:option=value (mtcnn)")
    add(
        "--scenes",
        type=int,
        default=12,
        help="per size of face, and pictures per kind of no face (12)",
    )
    add("--json", help="write the figures here")
    return parser


def _body(args: argparse.Namespace) -> int:
    if bool(args.faces) != bool(args.weights):
        raise ValueError("--faces and --weights go together: they are for the scenes")
    rows: list[dict[str, Any]] = []
    for text in args.detectors:
        detector = open_detector(text)
        for size in SIZES if args.faces else ():
            some = list(scenes(open_faces(args.faces), size, args.scenes))
            frozen = open_backbone(args.backbone, args.weights, "cpu", "fp32")
            rows.append({"detector": text, "size": size} | _figures(detector, some, frozen))
        for pack in args.portraits:
            rows.append(
                {"detector": text, "portraits": pack} | _portraits(detector, pack, args.most)
            )
        rows += [
            {"detector": text, "no face": name} | _alarms(detector, name, args.scenes)
            for name in NOT_FACES
        ]
        for folder in args.photos:
            found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
            rows += [{"detector": text, "photo": one.name} | _photo(detector, one) for one in found]
    for kind in ("size", "portraits", "no face", "photo"):
        table = [row for row in rows if kind in row]
        if table:
            print_table(list(table[0]), [list(row.values()) for row in table])
            print()
    write_json(args.json, rows, "cpu")
    return 0


def _figures(detector: Detector, scenes: Sequence[Scene], frozen: FrozenBackbone) -> dict[str, Any]:
    """Recall, false alarms, error of the landmarks, cosines, seconds per scene."""
    there, extra, errors, moved, pairs = 0, 0, [], [], []
    started = time.perf_counter()
    answers = [detector(scene.picture) for scene in scenes]
    seconds = (time.perf_counter() - started) / len(scenes)
    for scene, answer in zip(scenes, answers, strict=True):
        chosen = _matched(scene, answer)
        there += len(scene.faces)
        extra += len(answer.boxes) - len(chosen)
        for row, found in chosen.items():
            points, true = answer.landmarks[found].astype(np.float64), scene.landmarks[row]
            to_template = similarity_transforms(np.stack([points, true]))
            errors.append(_mapped(to_template[1], points) - REFERENCE)
            moved.append(_mapped(to_template[0], true) - REFERENCE)
            sides = (align(scene.picture, points), align(scene.picture, true))
            pairs.append((scene.faces[row], *sides))
    nothing = np.full((1, 5, 2), np.nan)
    offsets = np.array(errors) if errors else nothing
    shifts = np.linalg.norm(moved if moved else nothing, axis=2).mean(axis=1)
    return {
        "faces": there,
        "recall": len(errors) / there,
        "false": extra,
        "landmarks": float(np.linalg.norm(offsets, axis=2).mean()),
        "bias x": float(offsets[..., 0].mean()),
        "bias y": float(offsets[..., 1].mean()),
        "alignment": float(shifts.mean()),
        "alignment p95": float(np.quantile(shifts, 0.95)),
        **_cosines(pairs, frozen),
        "seconds": seconds,
    }


def _mapped(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    mapped: NDArray[np.float64] = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped


def _matched(scene: Scene, answer: Detections) -> dict[int, int]:
    """Row of the scene's face to the row of its detection: the landmarks' centres are near."""
    found: dict[int, int] = {}
    if not len(answer.boxes):
        return found
    for row, true in enumerate(scene.landmarks):
        between = np.linalg.norm(true[0] - true[1])
        gaps = np.linalg.norm(answer.landmarks.mean(axis=1) - true.mean(axis=0), axis=1)
        nearest = int(gaps.argmin())
        if gaps[nearest] < 0.5 * between and nearest not in found.values():
            found[row] = nearest
    return found


def _cosines(
    pairs: Sequence[tuple[Picture, Picture, Picture]], frozen: FrozenBackbone
) -> dict[str, float]:
    """Mean cosine of the face before it was pasted with itself, cut out by found / true points."""
    if not pairs:
        return {"cosine": float("nan"), "cosine true": float("nan")}
    sides = [np.stack(one) for one in zip(*pairs, strict=True)]
    before, found, true = (_unit(frozen, one) for one in sides)
    return {
        "cosine": float((before * found).sum(axis=1).mean()),
        "cosine true": float((before * true).sum(axis=1).mean()),
    }


def _unit(frozen: FrozenBackbone, faces: Picture) -> NDArray[np.float32]:
    parts = [
        frozen(torch.from_numpy(some)).embedding
        for some in np.split(faces, range(64, len(faces), 64))
    ]
    found: NDArray[np.float32] = torch.nn.functional.normalize(torch.cat(parts)).numpy()
    return found


def _portraits(detector: FaceSearch, pack: str, most: int) -> dict[str, Any]:
    """How many faces of portraits are found, and at which look."""
    path, _, word = pack.partition(":")
    lines = Path(path).with_suffix(".lst").read_text(encoding="utf-8").splitlines()
    rows = [row for row, line in enumerate(lines) if word in line.split("\t")[-1]]
    chosen = np.random.default_rng(1).permutation(rows)[:most]
    found = second = near = turned = 0
    seconds = []
    for scene in portraits(open_faces(path), chosen, seed=1):
        started = time.perf_counter()
        answer = detector.search(scene.picture)
        seconds.append(time.perf_counter() - started)
        found += len(answer.faces.scores) > 0
        second += answer.at_second_look
        near += len(_matched(scene, answer.faces))
        turned += answer.turned > 0
    return {
        "photos": len(chosen),
        "found": found / len(chosen),
        "in its place": near / len(chosen),
        "at second look": second,
        "called turned": turned,
        "seconds, median": float(np.median(seconds)),
    }


def _alarms(detector: Detector, name: str, count: int) -> dict[str, Any]:
    """What is found in pictures of one kind."""
    random = np.random.default_rng(0)
    answers = [detector(NOT_FACES[name](random)).scores for _ in range(count)]
    scores = np.concatenate(answers)
    return {
        "pictures": count,
        "with any": sum(len(answer) > 0 for answer in answers),
        "found": len(scores),
        "surest": float(scores.max(initial=0)),
    }


def _photo(detector: Detector, path: Path) -> dict[str, Any]:
    """What is found in a photo, and how long it takes."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path}: not an image")
    started = time.perf_counter()
    answer = detector(np.ascontiguousarray(picture[..., ::-1]))
    seconds = time.perf_counter() - started
    height, width = picture.shape[:2]
    widths = (answer.boxes[:, 2] - answer.boxes[:, 0]).round().astype(int)
    surest = ", ".join(
        f"{score:.3f} ({wide} px)" for score, wide in zip(answer.scores, widths, strict=True)
    )
    return {
        "pixels": f"{width}x{height}",
        "found": len(widths),
        "score (width)": surest,
        "seconds": seconds,
    }


if __name__ == "__main__":
    raise SystemExit(main())
