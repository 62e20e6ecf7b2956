"""One thread for BLAS as well."""

from importlib.util import find_spec

import pytest

if find_spec("torch"):  # else all is skipped
    import torch
    from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """BLAS as well: two threads took six times the processor's time of one, on matrices of a hundred rows."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1, "blas"):
        yield
    torch.set_num_threads(before)
