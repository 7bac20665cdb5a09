"""Photos to rows: a score per face, from Python (`scorer`), for files (`job`) or on a cluster.

Builds on photos, evaluation and report; only scripts and the top-level API import it.
"""
