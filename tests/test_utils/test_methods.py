import pytest

from utils.config import Method
from utils.methods import available, build, find


@pytest.mark.parametrize("package", ["losses", "models.heads", "models.backbones"])
def test_every_method_file_exports_exactly_one_class(package):
    names = available(package)
    assert names
    for name in names:
        assert isinstance(find(package, name), type)


def test_private_modules_are_no_methods():
    assert not [name for name in available("losses") if name.startswith("_")]


def test_an_unknown_name_lists_the_known_ones_and_the_closest():
    with pytest.raises(ValueError, match=r"unknown name 'idp' in losses; did you mean 'idq'\?"):
        find("losses", "idp")
    with pytest.raises(ValueError, match=r"known: distill, fast_mls, idq, mls, pcnet"):
        find("losses", "zzz")


def test_build_passes_options_and_only_the_runtime_objects_that_are_named():
    loss = build("losses", Method("idq", scale=8.0), embedding_size=512)
    assert loss.scale == 8.0


def test_build_refuses_unknown_options_and_says_what_there_is():
    with pytest.raises(ValueError, match=r"losses\.idq: no option 's'; it takes \(.*scale"):
        build("losses", Method("idq", s=16))


def test_an_option_with_the_name_of_a_runtime_object_is_refused():
    head = Method("fc2", output="probability", features_shape=(1, 1, 1))
    with pytest.raises(ValueError, match=r"'features_shape' is set by the program"):
        build("models.heads", head, features_shape=(512, 7, 7), embedding_size=512)
