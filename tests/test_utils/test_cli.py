import argparse
import ast
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from report.page import render
from utils.cli import Parser, count, count_or_all, positive, run_command, run_on_ranks, share
from utils.files import atomic_file

ROOT = Path(__file__).parents[2]


def raises(error):
    def body(*_):
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("lfw.bin:\nno such set"), 2, "error: lfw.bin: no such set\n"),
        (FileNotFoundError("none"), 2, "error: none\n"),
        (
            MemoryError("Unable to allocate 3 TiB"),
            2,
            "error: not enough memory: Unable to allocate 3 TiB\n",
        ),
        (KeyboardInterrupt(), 130, "stopped; give it again\n"),
    ],
)
def test_how_a_command_ends(error, code, said, capsys):
    assert run_command(raises(error), resume_hint="give it again") == code
    assert run_on_ranks("cpu", raises(error), resume_hint="give it again") == code
    assert capsys.readouterr().err == said * 2


def test_a_result_is_the_code_and_a_bug_is_not_hidden():
    assert run_command(lambda: 5) == 5
    assert run_on_ranks("mps", lambda world, device: world.size + len(device)) == 4
    with pytest.raises(KeyError):
        run_command(raises(KeyError("ours")))


def test_a_reader_that_has_seen_enough():
    program = (
        "import sys; from utils.cli import run_command\n"
        "sys.exit(run_command(lambda: [print('x' * 99, flush=True) for _ in range(9999)] and 0))"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=-1, stderr=-1) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(os.name == "nt", reason="closes streams by a shell")
def test_streams_that_are_closed_from_the_start():
    program = (
        "import sys; from utils.cli import run_command, say_error\n"
        "sys.exit(run_command(lambda: [print('x'), say_error('y')] and 3))"
    )
    closed = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-c", program]
    assert subprocess.run(closed, cwd=ROOT).returncode == 3


def test_flags_are_whole_and_the_closest_one_is_named(capsys):
    parser = Parser("What it does:\n\n    python it.py --target lfw", "The end.")
    parser.add_argument("--target", type=count, required=True)
    for argv in (["--target", "3", "--targe", "3"], ["--targe", "3"], ["--tagret=3"]):
        with pytest.raises(SystemExit) as end:
            parser.parse_args(argv)
        assert end.value.code == 2
        err = capsys.readouterr().err
        assert "did you mean --target?" in err
        assert err.count("\n") == 1
    assert "\n    python it.py --target lfw\n" in parser.format_help()


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (count, {"0": 0, "12": 12}, ["-1", "x", "1.5", ""]),
        (positive, {"1": 1}, ["0", "-1", "²"]),
        (count_or_all, {"all": "all", "7": 7}, ["0", "none"]),
        (share, {"1e-3": 0.001}, ["0", "1", "nan", "x"]),
    ],
)
def test_types_of_values(read, good, bad):
    assert {text: read(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="is not|neither|does not"):
            read(text)


def test_a_package_that_is_not_installed_is_one_line(capsys):
    def body():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    assert run_command(body) == 2
    error = capsys.readouterr().err
    assert "torch" in error
    assert "requirements.txt" in error
    assert error.count("\n") == 1


SLOW_IMPORT = """
import sys, time
sys.stdout.write("importing\\n"), sys.stdout.flush()
try:
    time.sleep(0.5)
except BaseException:
    raise ImportError("what a library makes of it")
"""
PROGRAMS = {
    "an import": "import slow; time.sleep(60)",
    "work": "print('working', flush=True); time.sleep(60)",
    "a library": "\n  print('working', flush=True)\n  try: time.sleep(60)\n"
    "  except BaseException: raise RuntimeError('what a library makes of it')",
}


def interrupted(command, name, **options):
    """Exit code and stderr of a process that gets a signal after its first line."""
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, **options) as process:
        process.stdout.readline()
        process.send_signal(getattr(signal, name))
        return process.communicate(timeout=60)[1], process.returncode


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("during", PROGRAMS)
def test_signals_end_a_command_in_one_line(tmp_path, name, during):
    (tmp_path / "slow.py").write_text(SLOW_IMPORT)
    body = f"def body():{' ' if during != 'a library' else ''}{PROGRAMS[during]}\n"
    program = f"import sys, time; from utils.cli import run_command\n{body}"
    program += "sys.exit(run_command(body, resume_hint='give it again'))"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    err, code = interrupted([sys.executable, "-c", program], name, env=environment)
    assert (err, code) == ("stopped; give it again\n", 130)


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_a_signal_that_is_ignored_from_the_start_stays_ignored(name):
    program = (
        "import sys, time; from utils.cli import run_command\n"
        "from utils.long_work import StopRequest\n"
        "def body():\n  print('working', flush=True)\n  time.sleep(0.3)\n"
        "  with StopRequest() as stop: print('stopping', flush=True); time.sleep(0.3)\n"
        "  return 7 + stop.is_requested\nsys.exit(run_command(body))"
    )
    number = getattr(signal, name)
    ignored = {"preexec_fn": lambda: signal.signal(number, signal.SIG_IGN), "cwd": ROOT}
    assert interrupted([sys.executable, "-c", program], name, **ignored) == ("", 7)


@pytest.mark.parametrize("module", ["numpy.", "utils.distributed"])
@pytest.mark.parametrize("name", ["verification_risk_fnmr", "compare", "calibrate", "fit_fusion"])
def test_ctrl_c_while_a_script_starts_is_one_line(name, module):
    script = ROOT / "evaluation" / f"{name}.py"
    command = [sys.executable, "-X", "importtime", script, "--features", "none.npz"]
    with subprocess.Popen(command, stderr=-1, text=True) as process:
        while module not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
    assert process.returncode == 130
    assert "\nstopped" in f"\n{err}"
    assert "Traceback" not in err


def test_every_script_takes_ctrl_c_over_before_it_imports_anything_large():
    scripts = {path for path in ROOT.glob("[!.tb]*/*.py") if "__main__" in path.read_text("utf-8")}
    scripts = {path for path in scripts if "_is_script" not in path.read_text("utf-8")}
    assert len(scripts) > 12
    for path in [*scripts, ROOT / "network.py"]:
        nodes = ast.parse(path.read_text("utf-8")).body
        nodes = [inner for node in nodes for inner in (node, *getattr(node, "body", ()))]
        names = [
            getattr(node, "module", None) or node.names[0].name
            for node in nodes
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        first = next(x for x in names if x.partition(".")[0] not in sys.stdlib_module_names)
        top = ROOT / first.partition(".")[0] / "__init__.py"
        assert top.exists(), f"{path} imports {first} first"
        assert top.parent.name == "utils" or "\nimport utils" in top.read_text("utf-8"), path


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device; free space there, or name another folder"),
        (errno.EROFS, "Read-only file system; nothing can be written there: name another folder"),
        (errno.EACCES, "Permission denied; allow it, or name another place"),
        (errno.ENOENT, "No such file or directory"),
    ],
)
def test_errors_of_the_system_name_the_path_and_the_way_out(number, words, refused, tmp_path):
    def body():
        with atomic_file(tmp_path / "out") as file:
            raise OSError(number, os.strerror(number), file.name)

    refused(run_command(body), f"error: {tmp_path}/out: {words}")
    assert not list(tmp_path.iterdir())


HIDDEN = "\x1b[2J\u202egnp.exe\u200b\x07\x9b\ufeff"
SHOWN = r"\x1b[2J\u202egnp.exe\u200b\x07\x9b\ufeff"


def test_names_do_not_act_on_a_terminal(capsys):
    def body():
        sys.stdout.write(f"{HIDDEN} Zoë\u00a0人\n")
        tqdm.write(f"{HIDDEN}: bad", file=sys.stderr)
        sys.stderr.write("\x1b[A")  # tqdm's own
        raise ValueError(HIDDEN)

    assert run_command(body) == 2
    printed = capsys.readouterr()
    assert printed.out == f"{SHOWN} Zoë\u00a0人\n"
    assert printed.err.replace("\r", "") == f"{SHOWN}: bad\n\x1b[Aerror: {SHOWN}\n"
    page = render("doubtful.html", summary=[HIDDEN], photos=1, groups=[], without=[], listed=[])
    assert SHOWN in page
    assert not set(HIDDEN[:1] + HIDDEN[4:5] + HIDDEN[-4:]) & set(page)
