"""What goes into a model and comes out of it, in every runtime: named NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Outputs = Mapping[str, Array]
"""Name of an output -> its array, in the model's order."""
