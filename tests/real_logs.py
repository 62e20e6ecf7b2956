"""Real training logs. They are not part of the project: tests that need them look beside the checkout."""

from pathlib import Path

import numpy as np
import pytest

from nqm import schedules
from nqm.scaling.logs import LossCurve

DATA = Path(__file__).parents[2] / "shared" / "data"
real_logs = pytest.mark.skipif(
    not DATA.exists(), reason="real training logs are not part of the project: none in ../shared/data"
)


def read_curve(size, name):
    """A published curve, with its schedule (see the data's README)."""
    table = np.genfromtxt(DATA / "lr_curves" / size / f"{name}.csv", delimiter=",", names=True)
    steps = table["step"].astype(int)
    peak, up, last = 3e-4, 2160, int(steps[-1])
    rest = {
        "constant": lambda: schedules.constant(peak, last),
        "cosine": lambda: schedules.cosine(peak, int(name.split("_")[1]) - up, 0.1),
        "wsd": lambda: schedules.wsd(peak, 24000 - up, 0, 4000, "exponential", 0.1),
        "wsdcon": lambda: schedules.constant(peak, 8000 - up).then(
            schedules.constant(1e-5 * int(name.split("_")[1]), last)
        ),
    }[name.split("_")[0]]()
    schedule = schedules.warmup(rest, up)
    np.testing.assert_allclose(schedule(steps), table["lr"], rtol=1e-9)
    return LossCurve(steps, table["loss"], schedule)
