"""Photos from wherever they are: files, folders, lists, `.bin`, `.rec`, Parquet and videos.

For scoring them (docs/score_photos.md); photos/decode.py decodes them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from photos.decode import Photo
from photos.files import FolderSource, ListSource, PhotoSource
from photos.items import Item, Source
from photos.packs import BinSource, ParquetSource, RecSource
from photos.video import VIDEO_SUFFIXES, VideoSource

__all__ = ["Item", "Sources", "open_sources", "read_ahead"]

LIST_SUFFIXES = frozenset((".txt", ".lst", ".csv"))


class Sources:
    """All items of some inputs, in the order of the inputs; may be gone through repeatedly.

    Attributes:
        skipped: how many files of folders were left out because they are no photos, by suffix;
            complete once all items were iterated over.
    """

    def __init__(self, sources: Sequence[Source], skipped: Counter[str]) -> None:
        self._sources = sources
        self._skipped = skipped

    @property
    def skipped(self) -> dict[str, int]:
        """Number of files in folders that were left out, by suffix; most frequent first."""
        return dict(self._skipped.most_common())

    def __iter__(self) -> Iterator[Item]:
        return self.items()

    def items(self, skip: int = 0) -> Iterator[Item]:
        """Yield the items after the first `skip`, which are not read: to go on after a stop."""
        self._skipped.clear()
        left = skip
        for source in self._sources:
            for item in source.items(max(left, 0)):
                left -= 1
                if item is not None:
                    yield item

    def count(self) -> int | None:
        """Return the number of items, None with a video; lists folders, opens packs and lists."""
        counts = [source.count() for source in self._sources]
        return None if None in counts else sum(count or 0 for count in counts)


def open_sources(inputs: str | Path | Sequence[str | Path], *, every: int = 1) -> Sources:
    """Open photos, folders, lists, packs and videos. Nothing is read before it is asked for.

    Args:
        inputs: photos of any suffix; folders, with all photos and `.rec` packs in them; `.txt`,
            `.lst` or `.csv` lists; `.bin` sets; `.rec` packs; `.parquet` files; videos.
        every: of a video, every so many frames, beginning with the first.

    Raises:
        ValueError: an input that does not exist, a Parquet file that holds no photos, no input.
    """
    if every < 1:
        raise ValueError(f"every = {every}: take every frame (1), every second (2), or so")
    paths = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    if not paths:
        raise ValueError("no photos given: name files, folders, lists, .bin, .rec or videos")
    skipped: Counter[str] = Counter()
    return Sources([_open(str(path), every, skipped) for path in paths], skipped)


def read_ahead(
    items: Iterable[Item], workers: int, depth: int
) -> Iterator[tuple[Item, Photo | ValueError]]:
    """Load items in threads, and yield them in order with their photo or why there is none.

    Args:
        items: iterated over in the calling thread.
        workers: threads.
        depth: items at most that are being loaded or wait to be taken; memory holds so many photos.

    Raises:
        ValueError: fewer than one thread or item.
    """
    if workers < 1 or depth < 1:
        raise ValueError(f"{workers} threads and {depth} items ahead: both must be at least 1")
    return _read_ahead(iter(items), workers, depth)


def _read_ahead(
    items: Iterator[Item], workers: int, depth: int
) -> Iterator[tuple[Item, Photo | ValueError]]:
    waiting: deque[tuple[Item, Future[Photo | ValueError]]] = deque()
    pool = ThreadPoolExecutor(min(workers, depth), thread_name_prefix="photos")
    try:
        for item in items:
            waiting.append((item, pool.submit(_outcome, item)))
            if len(waiting) == depth:
                first, photo = waiting.popleft()
                yield first, photo.result()
        while waiting:
            first, photo = waiting.popleft()
            yield first, photo.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _outcome(item: Item) -> Photo | ValueError:
    try:
        return item.load()
    except ValueError as error:
        return error


def _open(path: str, every: int, skipped: Counter[str]) -> Source:
    if Path(path).is_dir():
        return FolderSource(path, skipped)
    if not Path(path).exists():
        raise ValueError(
            f"no such input: {path} (a photo, folder, list, .bin, .rec, .parquet or video)"
        )
    suffix = Path(path).suffix.lower()
    if suffix in LIST_SUFFIXES:
        return ListSource(path)
    if suffix in (".parquet", ".pq"):
        return ParquetSource(path)
    if suffix in VIDEO_SUFFIXES:
        return VideoSource(path, every)
    if suffix == ".bin":
        return BinSource(path)
    return RecSource(path) if suffix == ".rec" else PhotoSource(path)
