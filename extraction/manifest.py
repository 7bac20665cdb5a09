"""What an extracted folder was made from and how: written once, and compared on every later start.

For extraction/extract.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.faces import Faces
from evaluation.open_model import DEMO, LoadedModels, named
from evaluation.sets.extracted import ABOUT
from evaluation.sets.open_set import FaceImages
from utils.files import file_sha256
from utils.run import environment

VERSION = 1
_NAMES = 1024  # of the source's images, evenly spread, that its identity is taken from


def name_giver(faces: Faces, sources: Sequence[str]) -> Callable[[int], str]:
    """Return what calls a row by its path below the folder or list, or its key in the pack.

    Of several sources joined, names stay whole: keys of two packs may be the same.
    """
    if len(sources) > 1:
        return faces.name
    path = Path(sources[0])
    return FaceImages(faces, path if path.is_dir() else path.parent).image_name


def about_source(
    faces: Faces, sources: Sequence[str], name_of: Callable[[int], str]
) -> dict[str, Any]:
    """Say what the faces are: files with size and time, and a hash of labels and some names.

    Cost: half a second for 17 M images.
    """
    content = hashlib.sha256(np.ascontiguousarray(faces.labels).data)
    for row in np.unique(np.linspace(0, len(faces) - 1, _NAMES).astype(np.int64)).tolist():
        content.update(os.fsencode(name_of(row)) + b"\0")
    return {
        "images": len(faces),
        "identities": faces.num_classes,
        "sources": [_about_file(source) for source in sources],
        "content_sha256": content.hexdigest(),
    }


def _about_file(source: str) -> dict[str, Any]:
    path = Path(source)
    packs = sorted(path.glob("*.rec")) if path.is_dir() else []
    file = packs[0] if packs else path
    if not file.is_file():  # a folder of images, or rendered faces
        return {"path": source}
    found = file.stat()
    return {"path": str(file), "bytes": found.st_size, "modified": int(found.st_mtime)}


def about_methods(
    texts: Sequence[str],
    models: LoadedModels,
    backbone_weights: str | None,
) -> dict[str, Any]:
    """Say what the numbers come from: methods, and the SHA-256 of every file of weights."""
    files: list[Path] = []
    for _, what in named(texts):
        path = DEMO if what == "demo" else Path(what)
        files += sorted(path.rglob("best.pt")) if path.is_dir() else [path] * path.is_file()
    host = models.backbone
    frozen, backbone = host.frozen, host.provenance.backbone_sha256
    if not backbone and backbone_weights is not None:
        backbone = file_sha256(backbone_weights)
    return {
        "columns": list(models.names),
        "methods": list(texts),
        "options": [what for _, what in named(texts) if what != "demo" and not Path(what).exists()],
        "weights": [{"file": str(file), "sha256": file_sha256(file)} for file in files],
        "backbone_sha256": backbone,
        "preprocessing": None if frozen is None else frozen.preprocessing.to_dict(),
        "embedding_size": host.embedding_size,
        "precision": str((frozen and frozen.dtype) or "float32").removeprefix("torch."),
    }


def claim(folder: Path, about: Mapping[str, Any]) -> str:
    """Write about.json into a new folder, or compare with the one that is there.

    Returns:
        A hash of all that results depend on, stored with every shard.

    Raises:
        ValueError: the folder was made with something else (named), or holds other files.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder}: names a folder, but a file is there")
    folder.mkdir(parents=True, exist_ok=True)
    about = {"version": VERSION, **about, "first_start": environment()}
    file = folder / ABOUT
    if not file.exists():
        if any(entry.name[0] != "." for entry in folder.iterdir()):
            raise ValueError(f"{folder} holds other files and no {ABOUT}: name an empty folder")
        temporary = file.with_name(f".{ABOUT}.{socket.gethostname()}-{os.getpid()}.tmp")
        temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        temporary.replace(file)
    try:
        there = _compared(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged ({error}): delete {folder}") from error
    for name, value in _compared(about).items():
        if there.get(name) != value:
            raise ValueError(
                f"{folder} was made with {name} {there.get(name)!r}, not {value!r}: give what it "
                "was made with, or name another --out"
            )
    return hashlib.sha256(json.dumps(there, sort_keys=True).encode()).hexdigest()


def _compared(about: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what may differ from start to start: where files are, and what started it."""
    kept = {name: value for name, value in about.items() if name not in ("first_start", "methods")}
    kept["sources"] = [
        {name: value for name, value in source.items() if name != "path"}
        for source in kept["sources"]
    ]
    kept["weights"] = [file["sha256"] for file in kept["weights"]]
    return kept
