"""One thread for each test process: the nets are small, and two processes share the machine."""

import torch

torch.set_num_threads(1)
