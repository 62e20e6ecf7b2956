"""The shell command as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import nqm
from nqm.cli import main
from nqm.papers import all_figures
from nqm.papers.network_figures import NETWORK_FIGURES


def shell(capsys, *words):
    """(exit code, stdout, stderr) of `nqm words`."""
    try:
        code = main(list(words))
    except SystemExit as end:  # argparse's way out
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_steps_tunes_what_is_left_out(capsys):
    code, out, _ = shell(capsys, "steps", "--batch-size", "4096", "--target", "0.01", "--power", "0.5", "--json")
    best = nqm.tune(
        nqm.NoisyQuadratic.power_law(10_000), nqm.Preconditioned(nqm.SGD(nqm.FREE), 0.5), batch_size=4096, target=0.01
    )
    answer = json.loads(out)
    assert code == 0
    assert (answer["steps"], answer["lr"], answer["status"]) == (
        best.steps,
        best.optimizer.hyperparameters["lr"],
        "tuned",
    )


@pytest.mark.parametrize("crossing", ["first", "last"])
def test_steps_of_a_given_optimizer(capsys, crossing):
    code, out, _ = shell(
        capsys, "steps", "--batch-size", "65536", "--target", "0.01", "--lr", "1", "--momentum", "0.99", "--dim", "1e3",
        "--exponent", "1.5", "--nesterov", "--ema", "0.5", "--crossing", crossing, "--json",
    )  # fmt: skip
    optimizer = nqm.EMA(nqm.SGD(1.0, 0.99, nesterov=True), 0.5)
    expected = nqm.steps_to_target(nqm.NoisyQuadratic.power_law(1000, 1.5), optimizer, 65536, 0.01, crossing=crossing)
    assert code == 0
    assert json.loads(out)["steps"] == expected


def test_unreachable_is_an_answer(capsys):
    code, out, _ = shell(capsys, "steps", "--batch-size", "1", "--target", "0.01", "--lr", "1", "--json")
    assert code == 0
    assert json.loads(out)["steps"] is None  # JSON has no inf
    code, out, _ = shell(capsys, "steps", "--batch-size", "1", "--target", "0.01", "--lr", "1")
    assert code == 0
    assert "inf" in out
    floor = nqm.steady_state_risk(nqm.NoisyQuadratic.power_law(10_000), nqm.SGD(1.0), 1)
    assert f"unreachable: the risk ends at {floor:.6g}\n" in out
    code, out, _ = shell(capsys, "steps", "--batch-size", "1", "--target", "0.01", "--lr", "3")
    assert code == 0
    assert "unreachable: it diverges" in out


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize(
    "words",
    [
        "steps --batch-size 1 --target 0.01 --lr 3",
        "steps --batch-size inf --target 0.01 --lr 0.5",
        "sweep --batch-sizes 1 4k --target 1e-9 --lr 1 --dim 100",
        "schedule --batch-size inf --steps 9 --dim 10 --pieces 3",
        "schedule --batch-size 1 --target 1e-300 --dim 10 --pieces 3",
    ],
)
def test_json_has_null_where_a_number_is_infinite(capsys, words):
    """NaN and Infinity are no JSON, though Python reads and writes them."""
    code, out, _ = shell(capsys, *words.split(), "--json")
    assert code == 0
    json.loads(out, parse_constant=refuse)
    assert "null" in out


def test_least_risk_after_given_steps(capsys):
    words = ("steps", "--batch-size", "256", "--steps", "2k", "--json")
    code, out, _ = shell(capsys, *words)
    best = nqm.tune(nqm.NoisyQuadratic.power_law(10_000), nqm.SGD(nqm.FREE), 256, steps=2000)
    assert code == 0
    told = json.loads(out)
    assert (told["steps"], told["risk"], told["lr"], told["status"]) == (2000, best.risk, best.optimizer.lr, "tuned")
    code, out, _ = shell(capsys, *words, "--lr", "0.5")
    assert json.loads(out)["risk"] == nqm.risk(nqm.NoisyQuadratic.power_law(10_000), nqm.SGD(0.5), 256, 2000)


@pytest.mark.parametrize(("suffixed", "plain"), [("4k", "4000"), ("1.5M", "1500000"), ("64", "6.4e1")])
def test_numbers_have_suffixes_as_in_scaling(capsys, suffixed, plain):
    for words in (
        "steps --target 0.1 --dim 1k --batch-size {}",
        "sweep --target 0.1 --dim 100 --json --batch-sizes 32 {}",
        "schedule --dim 100 --pieces 4 --steps 100 --json --batch-size {}",
        "schedule --dim 100 --pieces 4 --steps 100 --json --batch-size free --lr 0.5 --examples 9{}",
    ):
        answers = [shell(capsys, *words.format(number).split()) for number in (suffixed, plain)]
        if "9{" not in words or suffixed != "64":
            assert answers[0] == answers[1]
            assert answers[0][0] == 0


def run(words, **settings):
    """The shell command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "nqm", *words.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings
    )


def test_a_reader_that_leaves_hears_no_complaint():
    """As head -1 does, but before the first line, so that it is always too early."""
    with run("figures --list") as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


def test_letters_that_a_terminal_lacks_are_question_marks(tmp_path):
    """Messages name the user's files, in whatever letters."""
    ascii_only = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }
    (tmp_path / "é.csv").write_text("N,B,K,loss\n", encoding="utf-8")
    script = "import sys; from nqm.cli import main; sys.exit(main(['scaling', '\\u00e9.csv']))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={**ascii_only, "PYTHONPATH": os.getcwd()},
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("figures zhang2019-1 --out {}/x", "--out: expected a folder"),
        ("sweep --batch-sizes 8 --target 0.1 --plot {}/x.png", "--plot: expected a file"),
        ("schedule --batch-size 8 --target 0.1 --plot {}/x.png", "--plot: expected a file"),
        ("scaling example --plot {}/x.png", "--plot: expected a file"),
        ("validate --quick --out {}/x", "--out: expected a folder"),
    ],
)
def test_where_nothing_can_be_written_is_said_before_the_work(capsys, tmp_path, monkeypatch, words, option):
    """A file in the place of a folder: it is so for root too, who may write anywhere."""
    (tmp_path / "taken").write_text("", encoding="utf-8")
    for work in ("nqm.cli.schedule.optimize_schedule", "nqm.cli.sweep.sweep", "nqm.papers.gallery.write_figures"):
        monkeypatch.setattr(work, None)  # it is not begun
    code, out, err = shell(capsys, *words.format(tmp_path / "taken").split())
    assert (code, out) == (2, "")
    assert f"{option} that can be written, got '{tmp_path / 'taken'}" in err
    assert len(err.strip().splitlines()) == 1


def test_an_interrupted_sweep_prints_what_is_done(capsys, monkeypatch):
    class Bar:
        def __init__(self, **_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, cells):
            raise KeyboardInterrupt

    monkeypatch.setattr("tqdm.tqdm", Bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code = main(["sweep", "--batch-sizes", "8", "16", "--target", "0.3", "--dim", "10", "--json"])
    captured = capsys.readouterr()
    assert code == 130
    assert [cell["batch_size"] for cell in json.loads(captured.out)["cells"]] == [8.0]
    assert "interrupted; the table has what is done of 2 cells" in captured.err


def test_sweep_prints_a_table_and_draws(capsys, tmp_path):
    picture = tmp_path / "deep" / "sweep.png"
    code, out, _ = shell(
        capsys, "sweep", "--batch-sizes", "16", "1024", "--target", "0.1", "--dim", "100", "--plot", str(picture)
    )
    assert code == 0
    assert "critical batch size at target 0.1" in out
    assert "does not reach both ends" in out  # two batch sizes say little
    assert "SGD(lr=nqm.FREE)" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in picture.parent.iterdir()] == ["sweep.png"]
    code, out, _ = shell(capsys, "sweep", "--batch-sizes", "16", "1024", "--target", "0.1", "--dim", "100", "--json")
    assert [cell["batch_size"] for cell in json.loads(out)["cells"]] == [16, 1024]


def test_schedule_prints_and_draws(capsys, tmp_path):
    problem, picture = nqm.NoisyQuadratic.power_law(100), tmp_path / "schedule.png"
    words = ("schedule", "--batch-size", "64", "--target", "0.1", "--pieces", "4", "--dim", "100")
    best = nqm.optimize_schedule(problem, 64, target=0.1, pieces=4)
    code, out, _ = shell(capsys, *words, "--plot", str(picture))
    assert code == 0
    assert f"steps  {best.steps}\n" in out
    assert "converged" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, out, _ = shell(capsys, *words, "--json")
    told = json.loads(out)
    assert told["lr"] == {"values": best.schedule.values.tolist(), "lengths": best.schedule.lengths.tolist()}
    assert told["batch_size"] == 64.0
    assert told["risk"] == best.risk
    assert nqm.risk(problem, nqm.SGD(nqm.Schedule(**told["lr"])), 64, told["steps"]) == best.risk


def test_schedule_of_batch_sizes_and_of_a_shape(capsys):
    words = ("schedule", "--steps", "40", "--dim", "100", "--json")
    code, out, _ = shell(capsys, *words, "--batch-size", "free", "--examples", "4000", "--lr", "0.5", "--pieces", "4")
    assert code == 0
    told = json.loads(out)
    assert told["lr"] == 0.5
    assert sorted(told["batch_size"]["values"]) == told["batch_size"]["values"]  # it ramps up
    assert told["examples"] == pytest.approx(4000)
    code, out, _ = shell(capsys, *words, "--batch-size", "64", "--shape", "linear", "--max-lr", "none")
    assert code == 0
    values = json.loads(out)["lr"]["values"]  # 40 pieces of a step
    assert values == pytest.approx(nqm.schedules.linear(values[0], 40).values, rel=1e-9)


def test_figures_are_listed(capsys):
    code, out, _ = shell(capsys, "figures", "--list")
    assert (code, len(out.splitlines())) == (0, len(all_figures()) + len(NETWORK_FIGURES))
    for name, listing in NETWORK_FIGURES.items():
        (line,) = [line for line in out.splitlines() if line.startswith(f"{name} ")]
        assert line.endswith(f"(networks: {listing.full:g} minutes on one core, {listing.quick:g} with --quick)")
    some = ("figures", "--list", "zhang2019-4", "nqm-ramp")
    code, out, _ = shell(capsys, *some)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["zhang2019-4", "nqm-ramp"]
    assert list(json.loads(shell(capsys, *some, "--json")[1])) == ["zhang2019-4", "nqm-ramp"]


@pytest.mark.parametrize("command", ["steps", "sweep", "schedule", "figures"])
def test_help_has_an_example(capsys, command):
    code, out, _ = shell(capsys, command, "--help")
    assert code == 0
    assert f"nqm {command}" in out.split("example:")[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "expected a COMMAND out of steps, sweep, schedule, scaling, figures, validate, warmup, got none"),
        ("dance", "dance"),
        ("steps", "--batch-size"),
        ("steps --batch-size -3 --target 0.01", "batch_size: expected real numbers in (0, inf], got -3"),
        ("steps --batch-size 8 --target nan", "target"),
        ("steps --batch-size 8 --target 0.1 --lr fast", "expected a number or 'free'"),
        ("steps --batch-size 8 --target 0.1 --momentum 1", "momentum"),
        ("steps --batch-size 8 --target 0.1 --power 2", "power"),
        ("steps --batch-size 8 --target 0.1 --ema 1.5", "decay"),
        ("steps --batch-size 8 --target 0.1 --dim 2.5", "dim: expected whole numbers"),
        ("steps --batch-size 8 --target 0.1 --exponent -1", "exponent"),
        ("steps --batch-size 8 --target 0.1 --crossing last", "--crossing last"),
        ("sweep --target 0.1 --batch-sizes 0", "batch_sizes"),
        ("sweep --target 0.1 --workers 0", "--workers"),
        (
            "sweep --target 0.3 --batch-sizes 8 --dim 10 --plot picture.xyz",
            "picture.xyz: expected a file name ending in",
        ),
        ("steps --batch-size 4q --target 0.1", "expected a finite number above 0, got '4q'"),
        ("steps --batch-size 8", "one of the arguments --target --steps is required"),
        ("steps --batch-size 8 --steps 5 --lr 0.1 --crossing last", "--crossing last: expected --target"),
        ("sweep --target 0.1 --batch-sizes 4q", "got '4q'"),
        ("schedule --batch-size 4q --steps 5", "expected a number or 'free', got '4q'"),
        ("schedule --batch-size 8", "one of the arguments --target --steps is required"),
        ("schedule --batch-size 8 --target 0.1 --steps 5", "not allowed with argument"),
        ("schedule --batch-size 8 --steps 5 --pieces 9", "got 9 pieces for 5 steps"),
        ("schedule --batch-size 8 --steps 5 --pieces 0", "pieces: expected whole numbers from 1"),
        ("schedule --batch-size 8 --steps 0", "steps: expected whole numbers from 1"),
        ("schedule --batch-size 8 --steps nan", "steps"),
        ("schedule --batch-size 8 --steps 5 --lr 0.1", "expected lr nqm.FREE"),
        ("schedule --batch-size free --steps 5", "expected examples together with batch_size"),
        ("schedule --batch-size free --examples 2 --steps 5", "examples: expected at least one"),
        ("schedule --batch-size 8 --steps 5 --max-lr high", "expected a number, 'stable' or 'none'"),
        ("schedule --batch-size 8 --steps 5 --max-lr -1", "max_lr"),
        ("schedule --batch-size 8 --steps 5 --shape square", "--shape"),
        ("schedule --batch-size 8 --steps 5 --plot picture.xyz", "expected a file name ending in"),
        ("figures nothing", "unknown figure 'nothing': expected one of zhang2019-1"),
        ("figures --list nothing", "unknown figure 'nothing': expected one of zhang2019-1"),
        ("figures --bins 1", "--bins"),
        ("figures wen2020-3 nothing", "unknown figure 'nothing': expected one of zhang2019-1"),
        ("figures wen2020-3 --workers 0", "--workers: expected at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line_and_code_2(capsys, words, told):
    code, out, err = shell(capsys, *words.split())
    assert code == 2
    assert out == ""
    assert told in err
    assert len(err.strip().splitlines()) == 1
