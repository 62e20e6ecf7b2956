"""One thread for each test process: the nets are small, and two processes share the machine."""

from importlib.util import find_spec

if find_spec("torch"):  # else all is skipped
    import torch

    torch.set_num_threads(1)
