"""packhouse: from trained weights to a verified release.

`packhouse.stage` ends a training script. Importing this brings in neither torch nor an orchestrator.
"""

from packhouse.staging import Staged, Standardise, stage

__all__ = ["Staged", "Standardise", "stage"]
__version__ = "0.1.0"
