"""Scores of single faces: photos in, one row per face out.

    from evaluation.scoring import load_scorer
    scorer = load_scorer("runs/NAME")
    result = scorer(["photo.jpg"])
"""
