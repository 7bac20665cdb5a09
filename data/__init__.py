"""Labelled, aligned faces: sources, `.bin` sets, pairs, sampler, loader; stored embeddings of them.

Imports utils; everything above it may import it.
"""

import utils  # noqa: F401 - takes Ctrl-C over before large imports run
