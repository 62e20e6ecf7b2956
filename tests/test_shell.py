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


@pytest.mark.parametrize("command", ["steps", "sweep", "figures"])
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
        ("steps --batch-size -3 --target 0.01", "batch_size: expected finite real numbers in (0, inf), got -3"),
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
