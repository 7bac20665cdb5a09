"""Verification sets: read `.bin` files without trusting them, and write them.

python data/verification.py --pairs pairs.csv --images FOLDER --out my.bin      (seconds)
"""

from __future__ import annotations

import logging
import pickle
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

if not __package__:  # run as a file: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils  # noqa: F401 - takes Ctrl-C over before large imports run

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.images import SIZE, Sizes, decode, encode_png, fingerprint, first_rows, to_112
from data.pairs import read_pairs
from data.safe_pickle import load_pickle
from utils.cli import Parser, run_command
from utils.files import naming, read_bytes, write_bytes

log = logging.getLogger("faceuq")

Image = bytes | NDArray[np.uint8]


@dataclass(frozen=True)
class VerificationSet:
    """N pairs of images; pair i is images 2i and 2i + 1.

    Attributes:
        name: for tables and messages.
        images: 2N encoded images (bytes), or decoded ones (uint8 (H, W, 3) RGB).
        mated: (N,) True where both show the same person.
        sizes: of the images that were decoded.
    """

    name: str
    images: Sequence[Image]
    mated: NDArray[np.bool_]
    sizes: Sizes = field(default_factory=Sizes, repr=False)

    def __post_init__(self) -> None:
        if not len(self.mated) or len(self.images) != 2 * len(self.mated):
            raise ValueError(
                f"{self.name}: {len(self.images)} images for {len(self.mated)} pairs; a set has "
                "two images for each pair, and at least one pair"
            )

    def __len__(self) -> int:
        """Return 2N, the number of images."""
        return len(self.images)

    def image_name(self, row: int) -> str:
        """Return the number of the row."""
        return str(row)

    def decode(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return images [start, stop) as (n, 112, 112, 3) RGB.

        Raises:
            ValueError: an image is damaged; the message has its number.
        """
        stop = min(stop, len(self.images))
        batch = np.empty((stop - start, SIZE, SIZE, 3), dtype=np.uint8)
        for place, image in enumerate(self.images[start:stop]):
            with naming(f"{self.name}: image {start + place}"):
                pixels = decode(image) if isinstance(image, bytes) else image
                batch[place] = to_112(pixels)
            self.sizes.add(*pixels.shape[:2])
        return batch

    def fingerprint(self, row: int) -> int:
        """Return 64 bits that equal images share (`images.fingerprint`)."""
        image = self.images[row]
        if isinstance(image, bytes):
            return fingerprint(image)
        return fingerprint(repr(image.shape).encode(), image.tobytes())

    def first_rows(self) -> NDArray[np.int64]:
        """Return (2N,) for each row the first one with the same image."""
        numbers = map(self.fingerprint, range(len(self.images)))
        return first_rows(np.fromiter(numbers, np.uint64, len(self.images)))


def read_bin(path: str | Path) -> VerificationSet:
    """Read an insightface `.bin` set: a pickle of (images, issame), from any Python or numpy.

    Only lists, tuples, bytes, strings, numbers and plain numpy arrays are built; nothing else in
    the file is looked up, let alone run.

    Raises:
        ValueError: no such file, damaged, unsafe (names what it asks for), or not such a set.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no verification set {path}")
    content = load_pickle(path)
    if not isinstance(content, (list, tuple)) or len(content) != 2:
        raise ValueError(f"{path}: expected (images, issame), found {type(content).__name__}")
    images, mated = content
    if isinstance(images, np.ndarray) and images.ndim:
        images = list(images)
    if not isinstance(images, (list, tuple)):
        raise ValueError(f"{path}: images are a {type(images).__name__}, not a list")
    return VerificationSet(
        str(path), [_image(image, path) for image in images], _flags(mated, path)
    )


def write_bin(
    path: str | Path, images: Iterable[Image], mated: Sequence[bool] | NDArray[np.bool_]
) -> None:
    """Write a `.bin` set that insightface's own loader reads.

    Images 2i and 2i + 1 are pair i, whose flag is mated[i]; pixels are encoded as PNG.

    Raises:
        ValueError: not two images for each flag.
    """
    path = Path(path)
    encoded = [image if isinstance(image, bytes) else encode_png(image) for image in images]
    flags = [bool(flag) for flag in mated]
    VerificationSet(str(path), encoded, np.array(flags, dtype=bool))
    write_bytes(path, pickle.dumps((encoded, flags), protocol=4))


def open_verification(target: str, dataset_path: str | Path | None) -> VerificationSet:
    """Open `<dataset_path>/lfw.bin` by the target `lfw`, or render `synthetic:pairs=600,seed=1`.

    Raises:
        ValueError: no such set; the message lists those in the folder.
    """
    if target.startswith("synthetic:"):
        from data.rendered import synthetic_options  # needed for rendered faces alone

        return synthetic_verification(**synthetic_options(target, synthetic_verification))
    _check_name(target, dataset_path)
    if dataset_path is None:
        raise ValueError(
            f"target {target!r} needs a dataset_path (--dataset_path FOLDER): the folder of "
            f"{target}.bin"
        )
    folder = Path(dataset_path)
    path = folder / f"{target}.bin"
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}: name the one with the .bin files")
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in folder.glob("*.bin"))) or "none"
        raise ValueError(f"no verification set {path} (sets in this folder: {names})")
    return replace(read_bin(path), name=target)


def _check_name(target: str, dataset_path: str | Path | None) -> None:
    """Refuse what is not the name of a `.bin` file, and say what was probably meant."""
    path, folder = Path(target), None if dataset_path is None else Path(dataset_path)
    if folder is not None and (folder / f"{target}.bin").is_file():
        return
    if path.suffix == ".bin":
        raise ValueError(
            f"target {target!r}: give the folder and the name apart, as in --dataset_path "
            f"{path.parent} --target {path.stem}"
        )
    if path.exists():
        names = ",".join(sorted(file.stem for file in path.glob("*.bin")))
        also = f"pairs:{target} for a list of pairs" if path.is_file() else ""
        also = f"--dataset_path {target} --target {names} for its .bin files" if names else also
        raise ValueError(
            f"target {target!r} is a path: give faces:{target} for labelled faces"
            + (f", or {also}" if also else "")
        )
    if folder is not None and any(folder.glob("*.rec")) and not any(folder.glob("*.bin")):
        raise ValueError(
            f"{folder} has no {target}.bin, but a pack of labelled faces: give --target "
            f"faces:{folder}"
        )


def synthetic_verification(
    pairs: int, seed: int = 1, identities: int | None = None, severity: float = 1.0
) -> VerificationSet:
    """Render a verification set: mated and non-mated pairs in turn, every image another one.

    The images are JPEG (quality 95) bytes. The seed names the population: choose another one than
    for training. By default there are two people or more, one for every four pairs; `severity`
    scales the strength of all degradations.

    Raises:
        ValueError: a count below 1 (identities: below 2), a negative seed, or a bad severity.
    """
    from data.rendered import verification_images

    images, mated = verification_images(pairs, seed, identities, severity)
    name = f"synthetic:pairs={pairs},seed={seed}"
    name += "" if identities is None else f",identities={identities}"
    name += "" if severity == 1 else f",severity={severity}"
    return VerificationSet(name, list(images), mated)


def write_bin_from_pairs(
    pairs_file: str | Path, image_root: str | Path, out: str | Path, *, progress: bool = False
) -> int:
    """Write a `.bin` set from a list of pairs, files byte for byte; return the number of pairs.

    The list has CSV lines `path_a,path_b,same` (same = 1 or 0; a header line is skipped), or is
    LFW's `pairs.txt`; paths are relative to `image_root`.

    Raises:
        ValueError: a line that is not a pair, or an image that cannot be read; with its line.
    """
    pairs, left_out = read_pairs(Path(pairs_file), Path(image_root))
    for kind, count, where in left_out:
        text = "%s: %d %s left out (the first is in %s)"
        log.warning(text, pairs_file, count, kind.replace("_", " "), where)
    images, sizes = [], Sizes()
    for pair in tqdm(pairs, desc=str(out), unit="pair", disable=None if progress else True):
        images += [_checked(path, pair.where, sizes) for path in (pair.first, pair.second)]
    write_bin(out, images, [pair.mated for pair in pairs])
    sizes.warn(str(out))
    return len(pairs)


def _checked(path: Path, where: str, sizes: Sizes) -> bytes:
    try:
        encoded = read_bytes(path)
        sizes.add(*decode(encoded).shape[:2])
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{where}: {path}: {what}") from error
    return encoded


def _image(image: object, path: Path) -> Image:
    if isinstance(image, bytes):
        return image
    if isinstance(image, bytearray):
        return bytes(image)
    if isinstance(image, str):  # bytes of Python 2
        return image.encode("latin1")
    if isinstance(image, np.ndarray) and image.dtype.kind == "S" and image.size == 1:
        return bytes(image.item())
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        if image.size == max(image.shape, default=0) > 3:  # OpenCV 4's imencode gives (n, 1)
            return image.tobytes()
        if image.ndim == 3 and image.shape[2] == 3:
            return image
    raise ValueError(f"{path}: an image is a {type(image).__name__}, not encoded bytes")


def _flags(mated: object, path: Path) -> NDArray[np.bool_]:
    if isinstance(mated, (list, tuple)) and any(isinstance(flag, (list, tuple)) for flag in mated):
        mated = None  # NumPy would look into it, at any depth
    try:
        flags = np.asarray(mated)
    except ValueError:
        flags = np.empty(())
    if flags.ndim != 1 or flags.dtype.kind not in "biuf" or not np.isin(flags, (0, 1)).all():
        raise ValueError(f"{path}: issame is not a list of True and False")
    return flags.astype(np.bool_)


def main(argv: Sequence[str] | None = None) -> int:
    """Write a `.bin` set from a pairs list and a folder of images."""
    parser = Parser(main.__doc__, __doc__)
    parser.add_argument("--pairs", required=True, help="CSV path_a,path_b,same or LFW pairs.txt")
    parser.add_argument("--images", required=True, help="folder that the paths start from")
    parser.add_argument("--out", required=True, help="the .bin file to write")
    options = parser.parse_args(argv)

    def write() -> int:
        count = write_bin_from_pairs(options.pairs, options.images, options.out, progress=True)
        sys.stdout.write(f"{options.out}: {count} pairs\n")
        return 0

    return run_command(write)


if __name__ == "__main__":
    sys.exit(main())
