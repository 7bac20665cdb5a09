import pickle

import pytest
import torch

from models.load import load_checkpoint, save_checkpoint


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran code from a checkpoint')",))


def test_round_trip(tmp_path):
    payload = {"head": {"w": torch.arange(3.0)}, "step": 7, "best": None, "config": "{}"}
    save_checkpoint(tmp_path / "last.pt", payload)
    loaded = load_checkpoint(tmp_path / "last.pt")
    assert torch.equal(loaded["head"]["w"], payload["head"]["w"])
    assert (loaded["step"], loaded["best"], loaded["config"]) == (7, None, "{}")


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_checkpoint(path, {"step": lambda: None})
    assert load_checkpoint(path)["step"] == 1


@pytest.mark.parametrize("legacy", [True, False], ids=["plain pickle", "zip"])
def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, legacy):
    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "x": Bomb()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        ValueError, match=r"evil\.pt holds .*exec, which is not a tensor and could run code"
    ):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken", None])
def test_a_damaged_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"w": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(ValueError, match=r"last\.pt is not a file of tensors, or is incomplete"):
        load_checkpoint(path)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(ValueError, match=r"no file .*none\.pt"):
        load_checkpoint(tmp_path / "none.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt is not a checkpoint of network\.py"):
        load_checkpoint(tmp_path / "other.pt")
