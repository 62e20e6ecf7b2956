"""The backend "numpy" where Numba cannot be imported, as in a browser; and that it agrees with compiled code."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

BLOCK = "import sys\nsys.modules['numba'] = None\n"

QUESTIONS = """
import json, os
import numpy as np
import nqm
from nqm import scaling

schedule = nqm.Schedule([0.3, 0.02, 0.0, 0.1], [200, 30, 150, 250])
ramp = nqm.Schedule([1e3, 4e3], [150, 480])
problem = nqm.NoisyQuadratic([1.0, 0.3, 0.05], [1.0, 0.3, 0.05], [1.0, 1.0, 2.0])
features = nqm.NoisyQuadratic([1.0, 0.3, 0.05], noise_model="gaussian-features", label_noise=0.1)
made = {"SGD": nqm.SGD(0.3), "momentum": nqm.SGD(0.1, 0.9), "average": nqm.EMA(nqm.SGD(0.1, 0.9), 0.9)}
found = {}
for name, optimizer in made.items():
    found[name, "risk"] = nqm.risk(problem, optimizer, 16, [1, 100, 10**6])
    follow = optimizer.with_values(lr=schedule)
    found[name, "risk along"] = nqm.risk(problem, follow, ramp, [100, 250, 600])
    middle = nqm.risk(problem, follow, ramp, [100, 225, 300, 450])
    for crossing in ("first", "last"):
        found[name, "steps", crossing] = nqm.steps_to_target(problem, optimizer, 1e4, [0.5, 0.01], crossing)
        along = [nqm.steps_to_target(problem, follow, ramp, target, crossing) for target in 1.001 * middle]
        found[name, "steps along", crossing] = along
    best = nqm.tune(problem, optimizer.with_values(lr=nqm.FREE), 1e3, 0.05)
    found[name, "tune"] = [best.steps, best.risk]
free = nqm.tune(problem, nqm.SGD(nqm.FREE, nqm.FREE), 1e3, 0.05)
found["tune"] = [free.steps]
found["features"] = nqm.risk(features, nqm.SGD([0.1, 0.2], 0.5), 8, [[3], [700]]).ravel()
found["features along"] = nqm.risk(features, nqm.SGD(nqm.Schedule([0.3, 0.1], 50)), 8, [20, 100])
found["steps, features"] = [
    nqm.steps_to_target(features, nqm.SGD(0.1, 0.5), 64, target, crossing)
    for target in (0.5, 0.1) for crossing in ("first", "last")
]
best = nqm.optimize_schedule(problem, 64.0, steps=50, pieces=3, restarts=0)
found["optimize_schedule"] = [best.risk]
N, B, K = (np.array(a, dtype=float) for a in zip(*[
    (n, b, k) for n in (1e5, 1e6, 1e7) for b in (64, 512) for k in (500, 4000)
]))
fit = scaling.fit_runs(N, B, K, 1.7 + 400.0 * N**-0.34 + 60.0 * (B * K) ** -0.28)
found["fit_runs"] = fit.losses(N[:3], B[:3], K[:3])[0]
print(json.dumps({str(k): np.asarray(v, dtype=float).tolist() for k, v in found.items()}))
"""


def answers(before, backend):
    done = subprocess.run(
        [sys.executable, "-c", before + QUESTIONS], capture_output=True, text=True, check=False,
        env={**os.environ, "NQM_BACKEND": backend},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_without_numba():
    """Steps are the same, numbers to 1e-9, and losses of a fit, whose search stops somewhere near the best, to 1e-6."""
    found, expected = answers(BLOCK, "numpy"), answers("", "numba")
    assert found.keys() == expected.keys()
    for name, values in found.items():
        tolerance = 0.0 if "steps" in name else 1e-6 if name == "fit_runs" else 1e-9
        np.testing.assert_allclose(values, expected[name], rtol=tolerance, err_msg=name)
