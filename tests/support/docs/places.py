"""Where the described things are. The generators take them from here alone, so that a move is one edit."""

from __future__ import annotations

import packhouse as packhouse
from infra.deploy.apply import deployments as deployments
from infra.settings import Settings as Settings
from packhouse.serving.settings import ServingSettings as ServingSettings
from packhouse.spec.model import Spec as Spec

PUBLIC = {
    "packhouse.training.preprocessing": ("from_sklearn", "apply", "codes"),
    "packhouse.architectures.transformers": ("load", "build"),
    "packhouse.architectures.registry": ("Builder",),
    "infra.mlflow.pyfunc.loader": ("Release",),
}
"""What other packages import or implement, besides `packhouse.__all__`: names of modules, which are not imported."""
ERRORS = "packhouse.errors"
"""The module of the tree of errors."""
