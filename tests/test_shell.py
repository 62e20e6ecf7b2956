"""The shell command as a user types it."""

from __future__ import annotations

import json

import pytest

import nqm
from nqm.cli import main


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
    assert "unreachable" in out


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


@pytest.mark.parametrize("command", ["steps", "sweep", "schedule", "figures"])
def test_help_has_an_example(capsys, command):
    code, out, _ = shell(capsys, command, "--help")
    assert code == 0
    assert f"nqm {command}" in out.split("example:")[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "COMMAND"),
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
        ("figures --bins 1", "--bins"),
    ],
)
def test_bad_input_is_one_line_and_code_2(capsys, words, told):
    code, out, err = shell(capsys, *words.split())
    assert code == 2
    assert out == ""
    assert told in err
    assert len(err.strip().splitlines()) == 1
