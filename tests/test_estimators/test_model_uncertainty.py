"""Ensemble, Laplace and typicality: the formulas against slow ones, the files, one pass."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.covariance import ledoit_wolf

from data.faces import open_faces
from estimators.base import Batch
from estimators.ensemble import disagreement_of, mean_of
from estimators.froq import chosen_layers
from estimators.laplace import best_precision
from estimators.typicality import shrunk_covariance
from evaluation import compare, fit_fusion, verification_risk_fnmr
from evaluation.open_model import open_model
from models.heads.base import to_sigma_sq
from tests.helpers import TINY, TINY_NAME
from utils.config import Branch, Method
from utils.methods import build

FACES = "synthetic:identities=6,images=3,seed=1"
OUTPUTS = ("probability", "variance")


def head(output, dim=1):
    return Method("gap_fc2", output=output, hidden=8, dim=dim)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_run):
    """Folder with the runs `all` (branches p-0 to p-2, v-0, v-1) and `far` (another backbone)."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("near", "other")):
        torch.manual_seed(seed)
        torch.save(build("models.backbones", TINY).state_dict(), folder / f"{name}.pth")
    kinds = {"p": ("probability", 1, "idq", 3), "v": ("variance", 16, "mls", 2)}
    branches = [
        Branch(f"{name}-{seed}", head=head(output, dim), loss=Method(loss), seed=seed)
        for name, (output, dim, loss, seeds) in kinds.items()
        for seed in range(seeds)
    ]
    write_run(folder / "all", weights=folder / "near.pth", branches=branches, seed=0)
    write_run(folder / "far", weights=folder / "other.pth", head=head("probability"))
    return folder


@pytest.fixture(scope="module")
def images():
    faces = open_faces(FACES)
    return np.stack([faces.read(row) for row in range(len(faces))])


def estimate(run, text, images):
    return open_model(run, device="cpu").with_estimator(text).estimator(Batch(images))


def fit(run, what, out=None, faces=FACES):
    where = ["--model_dir", str(run), "--faces", faces, "--device", "cpu"]
    return fit_fusion.main([*where, "--fit", what, *(["--out", str(out)] if out else [])])


@pytest.mark.parametrize(("group", "output"), [("p", "probability"), ("v", "variance")])
def test_an_ensemble_is_the_mean_and_the_disagreement_of_its_heads(runs, images, group, output):
    run = runs / "all" / f"{group}-0"
    folders = sorted((runs / "all").glob(f"{group}-*"))
    each = np.stack([estimate(one, "trained_head", images).sigma_sq for one in folders])
    name = f"ensemble:runs={runs / 'all' / group}"
    mean = estimate(run, name, images)
    np.testing.assert_allclose(mean.sigma_sq, each.mean(axis=0), rtol=1e-5)
    apart = estimate(run, f"{name},of=disagreement", images).sigma_sq
    if output == "probability":
        p = np.stack([each[..., 0], 1 - each[..., 0]]).astype(np.float64)
        expected = entropy(p.mean(axis=1)) - entropy(p).mean(axis=0)
    else:
        expected = np.log(each).var(axis=0).mean(axis=1)
    np.testing.assert_allclose(apart[:, 0], expected, rtol=1e-3, atol=1e-8)
    np.testing.assert_array_equal(mean.mu, estimate(run, "trained_head", images).mu)


def test_disagreement_keeps_its_digits_and_is_nought_for_equal_members():
    raws = np.array([-30.0, -31.0])[:, None, None]
    p = np.exp(raws[:, 0, 0])  # as small as that, the entropy is p (1 - log p)
    expected = p.mean() * (1 - np.log(p.mean())) - (p * (1 - np.log(p))).mean()
    assert disagreement_of(raws, "probability")[0, 0] == pytest.approx(expected, rel=1e-6)
    for output in OUTPUTS:
        assert disagreement_of(np.full((3, 2, 1), 0.3), output).tolist() == [[0], [0]]
    assert mean_of(np.log([[[0.5]], [[1.5]]]), "variance") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ensemble:runs={}/all", r"expected RUN/GROUP.*\(groups in .*all: p, v\)"),
        ("ensemble:runs={}/all/q", "groups in .*all: p, v"),
        ("ensemble:runs={}/nowhere/p", "groups in .*nowhere: none"),
        ("ensemble:runs={}/far/p", "groups in .*far: none"),
        ("ensemble:runs={}/all/p,of=spread", "of = 'spread': must be one of mean, disagreement"),
        ("typicality:reference={}/none.npz", r"no file .*none\.npz: fit it with .* --fit typ"),
        ("laplace:reference={}/far/x.npz,of=spread", "of = 'spread': must be one of variance"),
    ],
)
def test_what_cannot_be_opened(runs, text, message):
    with pytest.raises(ValueError, match=message):
        open_model(runs / "all" / "p-0", device="cpu").with_estimator(text.format(runs))


@pytest.mark.parametrize(("group", "output"), [("p", "probability"), ("v", "variance")])
def test_laplace_is_that_of_the_hessian_by_autograd(runs, images, group, output):
    run = runs / "all" / f"{group}-1"
    assert fit(run, "laplace") == 0
    model = open_model(run, device="cpu")
    last = model.head.layers[-1]
    with torch.no_grad():
        inputs = model.head.layers[:-1](
            model.frozen(torch.from_numpy(images)).features.unflatten(
                1, model.frozen.features_shape
            )
        ).double()
    ones = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    scale = getattr(model.head, "gamma", torch.ones(1)).detach().double()
    shift = getattr(model.head, "beta", torch.zeros(1)).detach().double()
    theta = torch.cat([last.weight, last.bias[:, None]], dim=1).detach().double()
    raw = scale * (ones @ theta.T) + shift

    def loss(row):  # of the first output, with targets that the model itself expects
        own = scale * (ones @ row) + shift
        if output == "probability":
            target = own.sigmoid().detach()
            return torch.nn.functional.binary_cross_entropy_with_logits(
                own, target, reduction="sum"
            )
        return ((raw[:, 0].exp() / own.exp() + own) / 2).sum()

    hessian = torch.autograd.functional.hessian(loss, theta[0]).numpy()
    with np.load(run / "laplace.npz") as stored:
        precision = float(stored["precision"])
    full = hessian + precision * np.eye(len(hessian))
    variance = scale.item() ** 2 * np.einsum("bi,ij,bj->b", ones, np.linalg.inv(full), ones)
    name = f"laplace:reference={run / 'laplace.npz'}"
    spread = estimate(run, name, images)
    np.testing.assert_allclose(spread.sigma_sq[:, 0], variance, rtol=1e-3)
    mean = estimate(run, f"{name},of=mean", images).sigma_sq
    shrink = np.sqrt(1 + math.pi * variance / 8) if output == "probability" else 1
    extra = 0 if output == "probability" else variance / 2
    moved = raw / torch.as_tensor(shrink).reshape(-1, 1) + torch.as_tensor(extra).reshape(-1, 1)
    expected = to_sigma_sq(moved, output)
    np.testing.assert_allclose(mean, expected.numpy(), rtol=1e-3)
    grid = np.exp(np.linspace(-20, 20, 4001))
    evidence = [
        len(theta) * multivariate_evidence(hessian, p) - p * float(theta.square().sum())
        for p in grid
    ]
    assert precision == pytest.approx(grid[np.argmax(evidence)], rel=0.02)


def multivariate_evidence(hessian, precision):
    """Log of the ratio of the prior's and the posterior's determinants."""
    size = len(hessian)
    return size * np.log(precision) - np.linalg.slogdet(hessian + precision * np.eye(size))[1]


def test_the_best_precision_grows_with_smaller_weights():
    curvature = np.array([0.0, 1.0, 100.0])
    assert best_precision(curvature, 0.1, 1) > best_precision(curvature, 10.0, 1)


def test_typicality_is_the_distance_under_the_covariance_of_ledoit_and_wolf(runs, images):
    run = runs / "all" / "p-0"
    assert fit(run, "typicality") == 0
    model = open_model(run, device="cpu")
    model.frozen.give_stages()
    x = model.frozen(torch.from_numpy(images)).stages.numpy().astype(np.float64)
    covariance, _ = ledoit_wolf(x)
    apart = x - x.mean(axis=0)
    expected = np.sqrt(np.einsum("bi,ij,bj->b", apart, np.linalg.inv(covariance), apart))
    typical = estimate(run, f"typicality:reference={run / 'typicality.npz'}", images)
    np.testing.assert_allclose(typical.sigma_sq[:, 0], expected, rtol=1e-3)
    np.testing.assert_allclose(shrunk_covariance(x), covariance, rtol=1e-6, atol=1e-12)
    with pytest.raises(ValueError, match="2 faces with the same features have no covariance"):
        shrunk_covariance(np.ones((2, 3)))


def test_froq_is_the_mean_log_length_of_the_chosen_layers(runs, images, monkeypatch):
    run, weights, fitted_on = runs / "all" / "p-0", np.array([0, 0.5, 0, 0, 0.5]), []
    monkeypatch.setattr(
        "estimators.froq.chosen_layers", lambda *rows: (fitted_on.extend(rows), weights)[1]
    )
    assert fit(run, "froq") == 0
    network, lengths = open_model(run, device="cpu").frozen.backbone, []
    for name in (*network.stages, "bn2"):
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output: lengths.append(output.detach().flatten(1).norm(dim=1))
        )
    embed = lambda batch: network(network.preprocessing(batch)).embedding.detach()  # noqa: E731
    levels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    embedding = embed(levels)
    observed = np.log(torch.stack(lengths, dim=1).numpy())
    noise = 10 * torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    covered = levels.clone()
    for top, left in itertools.product(range(14, 112, 28), repeat=2):
        covered[:, :, top : top + 14, left : left + 14] = 127.5
    copies = (levels.flip(3), (levels + noise).clamp(0, 255), covered)
    cosines = [torch.cosine_similarity(embedding, embed(copy)) for copy in copies]
    np.testing.assert_allclose(fitted_on[0], observed, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fitted_on[1], torch.stack(cosines).mean(dim=0), atol=1e-5)
    froq = estimate(run, f"froq:reference={run / 'froq.npz'}", images)
    np.testing.assert_allclose(froq.sigma_sq[:, 0], -observed @ weights, rtol=1e-4, atol=1e-5)


def test_layers_are_chosen_while_their_mean_follows_quality_better():
    rng = np.random.default_rng(0)
    quality = rng.normal(size=400)
    noise = rng.normal(size=(400, 4))
    observed = quality[:, None] * [1.0, 0.9, -1, 0] + noise * [1.0, 1.0, 0.1, 9]
    np.testing.assert_array_equal(chosen_layers(observed, quality), [0.5, 0.5, 0, 0])
    with pytest.raises(ValueError, match="no layer's length rises with the stability of 400"):
        chosen_layers(-quality[:, None], quality)


def test_a_fit_of_another_model_or_of_another_kind_is_refused(runs, images, tmp_path, capsys):
    own, other = runs / "all" / "p-0", runs / "all" / "p-2"
    paths = {name: tmp_path / f"{name}.npz" for name in ("laplace", "typicality")}
    for name, path in paths.items():
        assert fit(own, name, path) == 0
    estimate(other, f"typicality:reference={paths['typicality']}", images)  # no head takes part
    for run, name, path, message in (
        (other, "laplace", "laplace", r"laplace\.npz: fitted with another head: fit it with"),
        (runs / "far", "typicality", "typicality", "fitted with another backbone"),
        (own, "typicality", "laplace", r"no array mean"),
    ):
        with pytest.raises(ValueError, match=message):
            estimate(run, f"{name}:reference={paths[path]}", images)
    paths["laplace"].write_bytes(paths["laplace"].read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"laplace\.npz"):
        estimate(own, f"laplace:reference={paths['laplace']}", images)
    capsys.readouterr()
    assert fit(own, "embedding_norm", tmp_path / "x.npz") == 2
    assert "--fit embedding_norm: takes froq, laplace, typicality" in capsys.readouterr().err


def test_a_backbone_alone_and_every_command(runs, images, tmp_path, capsys):
    """Fit without a head; evaluate and compare, where a batch passes the backbone once."""
    backbone = ["--backbone_weights", str(runs / "near.pth"), "--device", "cpu"]
    backbone += ["--backbone_name", TINY_NAME]
    out = tmp_path / "typicality.npz"
    where = ["--model", "embedding_norm", "--faces", FACES, *backbone, "--out", str(out)]
    assert fit_fusion.main([*where, "--fit", "typicality"]) == 0
    assert fit_fusion.main([*where, "--fit", "laplace"]) == 2
    assert "laplace needs a head" in capsys.readouterr().err
    target = ["--target", f"faces:{FACES}"]
    methods = [f"typicality:reference={out}", f"d=ensemble:runs={runs}/all/p,of=disagreement"]
    name = ["--estimator", methods[0]]
    assert verification_risk_fnmr.main([*backbone, *target, *name]) == 0
    own = ["--methods", str(runs / "all" / "p-0"), *methods, "--device", "cpu"]
    assert compare.main([*own, *target, "--replicates", "20"]) == 0
    printed = capsys.readouterr().out
    assert "typicality" in printed
