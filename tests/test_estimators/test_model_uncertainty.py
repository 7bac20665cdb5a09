"""Ensemble, Laplace and typicality: the formulas against slow ones, the files, one pass."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy, multivariate_normal
from sklearn.covariance import ledoit_wolf

from data.faces import open_faces
from estimators.base import Batch
from estimators.ensemble import disagreement_of, mean_of
from estimators.laplace import best_precision
from estimators.typicality import shrunk_covariance
from evaluation import compare, fit_fusion, verification_risk_fnmr
from evaluation.open_model import open_model
from models.backbones.mobilefacenet import MobileFaceNet
from models.heads.base import to_sigma_sq
from utils.config import Branch, Method

FACES = "synthetic:identities=6,images=3,seed=1"
OUTPUTS = ("probability", "variance")


def head(output, dim=1):
    return Method("gap_fc2", output=output, hidden=8, dim=dim)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_run):
    """Folder with the runs `all` (branches p-0 to p-2, v-0, v-1) and `far` (another backbone)."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    network = MobileFaceNet(embedding_size=16)
    torch.save(network.state_dict(), folder / "near.pth")
    torch.save(MobileFaceNet(embedding_size=16).state_dict(), folder / "other.pth")
    fields = {"backbone": Method("mobilefacenet", embedding_size=16)}
    losses = {"p": ("probability", 1, Method("idq")), "v": ("variance", 2, Method("mls"))}
    branches = {
        f"{name}-{seed}": {"head": head(output, dim), "loss": loss, "head_seed": seed}
        for name, (output, dim, loss) in losses.items()
        for seed in range(3 if name == "p" else 2)
    }
    for name, own in branches.items():
        seed = own["head_seed"]
        write_run(folder / "all" / name, weights=folder / "near.pth", **fields, **own, seed=seed)
    named = [{"name": name} for name in branches]
    (folder / "all" / "config.json").write_text(json.dumps({"branches": named}))
    write_run(folder / "far", weights=folder / "other.pth", **fields, head=head("probability"))
    return folder
