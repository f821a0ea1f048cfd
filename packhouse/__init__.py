"""packhouse: from trained weights to a verified release.

`packhouse.stage` ends a training script; `packhouse.fetch` begins what uses a release, and `packhouse.open_session`
opens it. Importing this brings in neither torch nor an orchestrator.
"""

from packhouse.fetching import Fetched, fetch
from packhouse.sessions import open_session
from packhouse.staging import Staged, Standardise, stage

__all__ = ["Fetched", "Staged", "Standardise", "fetch", "open_session", "stage"]
__version__ = "0.1.0"
