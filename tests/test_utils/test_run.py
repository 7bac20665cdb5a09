import json
import logging
from contextlib import suppress
from pathlib import Path

import pytest

from utils.config import from_json, load_config, override
from utils.run import (
    LOGGER,
    MetricsFile,
    environment,
    new_run_folder,
    record_run,
    start_logging,
    stop_logging,
)

CONFIG_FILE = Path(__file__).resolve().parents[2] / "config/config_ir50_idq_loss_glint360k.py"


def config_in(folder):
    return override(load_config(CONFIG_FILE), [f"log_dir={folder}"])


def test_run_folders_are_numbered_and_never_shared(tmp_path):
    config = config_in(tmp_path)
    names = [new_run_folder(config, None).name for _ in range(3)]
    assert names == ["glint_ir50_idq", "glint_ir50_idq-2", "glint_ir50_idq-3"]


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"already holds a run: python network\.py --resume"):
        new_run_folder(config_in(tmp_path), tmp_path)


def test_the_record_of_a_run(tmp_path):
    config = load_config(CONFIG_FILE)
    record_run(tmp_path, config, CONFIG_FILE, device="cpu")
    assert (tmp_path / "config.py").read_text() == CONFIG_FILE.read_text()
    assert from_json((tmp_path / "config.json").read_text()) == config
    record_run(tmp_path, config, None, device="cpu:1")
    record, resumed = json.loads((tmp_path / "environment.json").read_text())
    assert resumed["device"] == "cpu:1"
    assert record["packages"]["torch"] == environment()["packages"]["torch"] is not None
    assert record["device"] == "cpu"


@pytest.mark.parametrize("damaged", [b"", b"[{", b"\xff\xfe", b"{}"])
def test_a_damaged_record_stops_no_run(tmp_path, damaged, caplog):
    (tmp_path / "environment.json").write_bytes(damaged)
    record_run(tmp_path, load_config(CONFIG_FILE), None, device="cpu")
    assert "environment.json is damaged" in caplog.text
    [start] = json.loads((tmp_path / "environment.json").read_text())
    assert start["device"] == "cpu"


def test_metrics_go_on_from_the_step_of_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    for step in (10, 20, 30):
        metrics.write(global_step=step, loss=step / 10)
    metrics.close()
    damaged = [b'{"global_step": 40, "lo', b"null", b"7", b"\xff\xfe", b"[" * 99999, b"{}"]
    path.write_bytes(path.read_bytes() + b"\n".join([*damaged, b'{"global_step": 15, "loss": 5}']))
    metrics = MetricsFile(path, resume_at=20)
    metrics.write(global_step=30, loss=9.0)
    metrics.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["global_step"], line["loss"]) for line in lines] == [
        (10, 1),
        (20, 2),
        (15, 5),
        (30, 9),
    ]


def test_logging_reaches_console_and_file_once(tmp_path, capsys):
    start_logging(tmp_path / "a.txt")
    start_logging(tmp_path / "log.txt")
    LOGGER.info("hello")
    stop_logging()
    assert capsys.readouterr().out == "hello\n"
    assert (tmp_path / "log.txt").read_text() == "hello\n"
    assert not LOGGER.handlers
    assert not logging.getLogger().handlers or LOGGER.propagate is False


def test_a_log_on_a_full_disk_ends_the_run_with_its_name():
    start_logging(Path("/dev/full"))
    try:
        with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
            LOGGER.info("hello")
    finally:
        with suppress(OSError):
            stop_logging()
        LOGGER.handlers.clear()
