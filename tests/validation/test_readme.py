"""The README's lines about real networks run as they stand; the last one, which trains for minutes, on a small job."""

from pathlib import Path

import numpy as np

from nqm.validation.measurement import measure as measuring


def test_lines_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "DENSE_LIMIT", 100)  # EKFAC, which takes a twentieth of the time
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    code = text.split("## Check against real networks")[1].split("```python\n")[1].split("```")[0]
    head, last = code.rsplit("measure_steps(", 1)
    space: dict = {}
    exec(head.replace("predict_steps(measured", "predicted = predict_steps(measured"), space)
    assert space["measured"].floor < 0.05
    assert np.all(np.isfinite(space["predicted"].table["steps"]))
    assert space["predicted"].names == ["SGD", "momentum", "K-FAC"]
    small = last.replace("[4, 64, 1024]", "[64]").replace('["SGD", "momentum", "K-FAC"]', '["K-FAC"]').rstrip()
    assert small.count("K-FAC") == 1
    quick = small.split(")")[0] + ", trials=2, rounds=1, seeds=1, progress=False)"
    exec(f"found = measure_steps({quick}", space)
    assert (tmp_path / "steps.jsonl").exists()
    assert space["found"].table["batch_size"].tolist() == [64]
