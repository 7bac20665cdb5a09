"""Work on items in threads, ahead of whoever takes the results: reading and decoding of images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, depth: int
) -> Generator[Result, None, None]:
    """Yield `function(item)` for each item, in order.

    An error of the function is raised in the place of its result, and ends the iteration; so does a
    consumer that closes it. Both wait for what the threads are working on.

    Args:
        function: called in threads, several at a time.
        items: iterated over in the calling thread.
        workers: threads.
        depth: results at most that are being made or wait to be taken; memory holds so many.

    Raises:
        ValueError: fewer than one thread or item; raised with the first result.
    """
    if workers < 1 or depth < 1:
        raise ValueError(f"{workers} threads and {depth} items ahead: both must be at least 1")
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(min(workers, depth), thread_name_prefix="prefetch")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
