"""Predictions against real networks, with torch: measure a network, predict its training, train it, compare.

``pip install 'nqm[validation]'``. Nothing else in nqm loads torch.
"""

from .data import Data, load_data
from .nets import NETS, cnn, mlp, resnet8

__all__ = ["NETS", "Data", "cnn", "load_data", "mlp", "resnet8"]
