"""Pack a run into one model file: checksum, colour order and calibration are checked before.

For export/pack_model.py.
"""

from __future__ import annotations

import datetime
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.faces import FaceImages
from data.features import unit_rows
from data.synthetic import SyntheticFaces
from estimators.base import Batch, Estimate
from estimators.trained_head import TrainedHead
from evaluation.confidence.calibration import FILE_NAME, Calibration
from evaluation.open_model import from_run
from export.colours import colour_check, require_colour_order, some_images
from models.run import About, PackedModel, Run, code_version, load_packed, load_run, save_packed
from utils.files import atomic_path

FACES = 64  # of the pairs or rendered, to compare the written file with the run
LARGEST_DIFFERENCE = 1e-3  # of any number of an embedding of length 1


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """What is packed; see the flags of export/pack_model.py, which have these names.

    Raises:
        ValueError: an empty license, a folder as file, or options that do not go together.
    """

    model_dir: str
    out: Path
    license: str
    source: str = ""
    sha256: str | None = None
    label: str = ""
    pairs: str | None = None
    keep_color: bool = False
    calibration: str | None = None
    half: bool = False
    checkpoint: str = "best"
    created: str | None = None
    backbone_weights: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.out.is_dir():
            example = self.out / "model.pt"
            raise ValueError(f"--out {self.out}: is a folder; name a file, such as {example}")
        if not self.license.strip():
            raise ValueError('--license is empty; "unknown, research only" is an answer')
        if self.keep_color and self.pairs is None:
            raise ValueError("--keep_color goes with --pairs: no colour order is checked without")


def pack(options: PackOptions) -> None:
    """Write the model file, and say what was checked.

    Raises:
        ValueError: something is wrong with the run, and nothing was written.
    """
    run = load_run(
        options.model_dir,
        checkpoint=options.checkpoint,
        device=options.device,
        backbone_weights=options.backbone_weights,
    )
    calibration = _calibration(options, run)
    if options.half and not run.frozen.backbone.is_differentiable:
        raise ValueError("--half: an ONNX file stays as it is; leave it out")
    _compare_checksum(run, options.sha256)
    about = About(
        name=run.config.name,
        license=options.license.strip(),
        source=options.source.strip(),
        sha256=run.sha256,
        label=options.label.strip(),
        colour_check=_colours(run, options),
        created=options.created or datetime.date.today().isoformat(),
        version=code_version(),
    )
    out = options.out
    with atomic_path(out) as unchecked:
        save_packed(unchecked, run, about, calibration, half=options.half)
        _compare(run, load_packed(unchecked, str(run.frozen.device)), options)
    sys.stdout.write(f"wrote {out}: {out.stat().st_size / 1e6:.2f} MB\n")


def _compare(run: Run, packed: PackedModel, options: PackOptions) -> None:
    """Refuse a file that, read back, does not give the run's numbers."""
    if options.pairs:
        images = some_images(options.pairs, FACES // 4)
    else:
        images = FaceImages(SyntheticFaces(FACES, 1, 0)).decode(0, FACES)
    expected, written = _estimate(run, images), _estimate(packed, images)
    embedding = float(np.abs(unit_rows(written.mu) - unit_rows(expected.mu)).max(initial=0))
    uncertainty = np.abs(written.sigma_sq - expected.sigma_sq)
    relative = float((uncertainty / np.abs(expected.sigma_sq).clip(1e-30)).max())
    sys.stdout.write(
        f"read back: unit embeddings differ by {embedding:.1e} at most from the run's, "
        f"uncertainties by {relative:.1e} of themselves ({len(images)} faces)\n"
    )
    if not embedding <= LARGEST_DIFFERENCE:
        advice = "pack without --half, or give --pairs with real faces"
        raise ValueError(
            f"embeddings of the file differ by {embedding:.1e} from the run's, more than "
            f"{LARGEST_DIFFERENCE:g}; {advice if options.half else 'please report it'}"
        )


def _estimate(model: Run | PackedModel, images: NDArray[np.uint8]) -> Estimate:
    return TrainedHead(frozen=model.frozen, head=model.head)(Batch(images))


def _calibration(options: PackOptions, run: Run) -> dict[str, Any] | None:
    path = Path(options.calibration or Path(options.model_dir) / FILE_NAME)
    if not options.calibration and not path.is_file():
        _warn(
            f"no {path}: the model will give raw uncertainties alone; make it with "
            "evaluation/calibrate.py and pack again"
        )
        return None
    calibration = Calibration.load(path)
    from_run(run, calibrated=False).with_calibration(calibration, path)
    about = f"on {calibration.name}, uncertainties of {calibration.method}"
    sys.stdout.write(f"calibration: {about}\n")
    return calibration.to_dict()


def _compare_checksum(run: Run, published: str | None) -> None:
    file = run.files[1]
    if published not in (None, run.sha256):
        raise ValueError(
            f"{file} is not the published file: its SHA-256 is {run.sha256}, but --sha256 says "
            f"{published}; download it again, and train on the right one"
        )
    verified = "as published" if published else "not verified: --sha256 compares it"
    sys.stdout.write(f"SHA-256 of {file}: {run.sha256} ({verified})\n")


def _colours(run: Run, options: PackOptions) -> dict[str, Any] | None:
    if options.pairs is None:
        _warn("the colour order was not checked; --pairs lfw.bin does")
        return None
    check = colour_check(run.frozen, options.pairs)
    sys.stdout.write(check.describe())
    if not options.keep_color:
        advice = "train the head again with it, or pack as it is with --keep_color"
        require_colour_order(check, advice)
    elif check.verdict == "other":
        _warn("packed with the worse colour order, as --keep_color says")
    return {**check.to_dict(), "kept": options.keep_color}


def _warn(message: str) -> None:
    sys.stderr.write(f"warning: {message}\n")
