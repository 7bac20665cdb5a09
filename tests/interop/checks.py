"""The table that both sides of the comparison print; standard library only."""

import hashlib
import sys
from typing import Any


def digest(data: bytes) -> str:
    """Name bytes by the start of their SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


class Checks:
    """Collects comparisons; `finish` prints them and gives the exit status."""

    def __init__(self, title: str) -> None:
        self.lines = [title]
        self.failed = 0

    def equal(self, what: str, found: Any, expected: Any) -> None:
        """Note whether two values are equal."""
        same = found == expected
        self.failed += not same
        count = f"{len(expected)}" if isinstance(expected, (list, dict)) else ""
        self.lines.append(f"  {what:<58} {count:>5}  {'ok' if same else 'DIFFERS'}")
        if not same:
            self.lines += [
                f"    found    {str(found)[:200]}",
                f"    expected {str(expected)[:200]}",
            ]

    def finish(self) -> int:
        """Print the table; 1 where anything differs."""
        sys.stdout.write("\n".join(self.lines) + "\n")
        return 1 if self.failed else 0
