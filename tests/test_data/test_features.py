import numpy as np
import pytest

from data.features import Embeddings, Features

MU = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
SIGMA = np.full((4, 1), 0.5, np.float32)
SAME = np.array([True, False])


@pytest.mark.parametrize("kind", [Features, Embeddings])
def test_saved_arrays_load_equal(tmp_path, made_up, kind):
    stored = made_up(pairs=12, columns=3)
    if kind is Embeddings:
        names = np.array([f"{row}.jpg" for row in range(24)])
        stored = Embeddings(stored.mu, stored.sigma_sq, np.arange(24) // 4 * 3, names)
    path = tmp_path / "deep" / "features.dat"
    stored.save(path)
    again = kind.load(path)
    for name in vars(stored):
        np.testing.assert_array_equal(getattr(again, name), getattr(stored, name))
        assert getattr(again, name).dtype == getattr(stored, name).dtype


def test_people_may_be_names_and_images_without(tmp_path):
    bare = Embeddings(np.eye(3), np.ones(3), np.array(["bob", "ann", "bob"]))
    assert bare.identity.tolist() == [1, 0, 1]
    assert bare.sigma_sq.shape == (3, 1)
    bare.save(tmp_path / "bare.npz")
    assert Embeddings.load(tmp_path / "bare.npz").name is None


def test_any_number_type_and_further_arrays_are_welcome(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, mu=MU.astype(np.int8), sigma_sq=SIGMA[:, 0], issame=[1, 0], params="words")
    features = Features.load(path)
    assert features.mu.dtype == features.sigma_sq.dtype == np.float32
    assert features.sigma_sq.shape == (4, 1)
    assert features.issame.tolist() == [True, False]


@pytest.mark.parametrize(
    ("mu", "sigma_sq", "issame", "message"),
    [
        (MU[:3], SIGMA, SAME, r"shapes do not fit: mu \(3, 2\), sigma_sq \(4, 1\), issame \(2,\)"),
        (MU, SIGMA[:2], SAME, r"expected \(2N, D\), \(2N, c\), \(N,\)"),
        (MU, SIGMA, SAME[None], "shapes do not fit"),
        (MU[:, :0], SIGMA, SAME, "shapes do not fit"),
        (MU, np.array([1, np.nan, np.nan, 1]), SAME, "sigma_sq has 2 of 4 values that are NaN"),
        (MU, np.array([1, np.inf, 0, 1]), SAME, "sigma_sq has 1 of 4 values that are NaN or inf"),
        (MU, np.array([1, 1e300, 0, 1]), SAME, "sigma_sq has 1 of 4 values that are NaN or inf"),
        (MU * np.float32("nan"), SIGMA, SAME, "mu has 8 of 8 values that are NaN"),
        (
            MU * [[1], [1], [0], [0]],
            SIGMA,
            SAME,
            "2 embeddings of length zero, .* in row 2",
        ),
        (MU, SIGMA, np.array([2, 0]), "issame must hold only true/false or 1/0"),
        (MU, SIGMA, np.array(["a", "b"]), "issame must hold only true/false or 1/0"),
        (MU.astype(str), SIGMA, SAME, "mu holds <U"),
    ],
)
def test_unsound_arrays_are_named(mu, sigma_sq, issame, message):
    with pytest.raises(ValueError, match=message):
        Features(mu, sigma_sq, issame)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"identity": [1, 2]}, r"shapes do not fit: mu \(3, 3\), .* expected \(M, D\), \(M, c\), "),
        ({"identity": [1.5, 2, 3]}, "identity holds float64, not names or whole numbers"),
        ({"name": ["a", "b"]}, r"\(2,\) names for 3 images"),
    ],
)
def test_unsound_embeddings_are_named(tmp_path, changed, message):
    arrays = {"mu": np.eye(3), "sigma_sq": np.ones(3), "identity": [1, 1, 2]} | changed
    np.savez(tmp_path / "e.npz", **arrays)
    with pytest.raises(ValueError, match=r"e\.npz: .*" + message):
        Embeddings.load(tmp_path / "e.npz")


def test_load_errors_name_the_file(tmp_path):
    missing = tmp_path / "none.npz"
    with pytest.raises(ValueError, match=r"no features file .*none\.npz"):
        Features.load(missing)

    whole = tmp_path / "whole.npz"
    np.savez_compressed(whole, mu=MU, sigma_sq=SIGMA, issame=SAME)
    content = bytearray(whole.read_bytes())
    bare = tmp_path / "bare.npy"
    np.save(bare, MU)
    for name, wrong in (
        ("text", b"not an archive"),
        ("empty", b""),
        ("cut", content[:200]),
        ("bare", bare.read_bytes()),
    ):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=rf"{name}\.npz: not an \.npz file \(or one that was"):
            Features.load(path)

    place = content.index(b"mu.npy") + 60
    content[place : place + 10] = bytes(10)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.npz: array mu: its header is damaged"):
        Features.load(damaged)

    partial = tmp_path / "partial.npz"
    np.savez(partial, mu=MU, other=SAME)
    with pytest.raises(ValueError, match=r"partial.npz: no array sigma_sq, issame \(it has: mu, o"):
        Features.load(partial)


def test_python_objects_are_refused_and_not_run(tmp_path):
    ran = []

    class Trap:
        def __reduce__(self):
            return (ran.append, (1,))

    path = tmp_path / "objects.npz"
    np.savez(path, mu=np.array([Trap()], dtype=object), sigma_sq=SIGMA, issame=SAME)
    with pytest.raises(
        ValueError, match=r"objects\.npz: array mu: it holds pickled objects: refused"
    ):
        Features.load(path)
    assert ran == []
