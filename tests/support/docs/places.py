"""Where the described things are. The generators import them from here alone, so that a move is one edit."""

from __future__ import annotations

from infra.deploy.apply import deployments as deployments
from packhouse.serving.settings import ServingSettings as ServingSettings
from infra.settings import Settings as Settings
from packhouse.spec.model import Spec as Spec
