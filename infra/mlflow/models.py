"""MLflow's model registry: one version for each release, found by its tag, and aliases that follow channels.

A version's tags are written with it, so a version that is there is whole; its files were up before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.mlflow.pyfunc.folder import Ids
from infra.mlflow.tracking import EXPERIMENTS, SOURCE, Tracking
from infra.settings import Settings
from packhouse.errors import SourceNotAllowed, SpecInvalid
from packhouse.spec.model import Spec

RELEASE, MODEL, MANIFEST, RECORD, IMAGE = (
    f"packhouse.{name}" for name in ("release", "model", "manifest", "record", "image")
)
"""Tags of a version. RELEASE is `model/id`, and stands on the training run too; MODEL on the registered model."""
EXPERIMENT = "packhouse"
"""Of models that come from no training run that MLflow knows."""


_RESERVED = re.compile(r"latest|v[0-9]+")


def alias_of(channel: str) -> str:
    """MLflow keeps `latest` for the version with the highest number, and `v1` for versions: no channel."""
    return f"channel-{channel}" if _RESERVED.fullmatch(channel) else channel


def check_asked(spec: Spec, settings: Settings) -> None:
    """Raises SpecInvalid: MLflow is asked for, and this worker knows none."""
    if (spec.mlflow or settings.mlflow_register) and not settings.mlflow_uri:
        asks = "the spec's [mlflow]" if spec.mlflow else "PACKHOUSE_MLFLOW_REGISTER"
        next = "set PACKHOUSE_MLFLOW_URI on the worker"
        raise SpecInvalid(
            f"PH-0587 {asks} asks for MLflow, and this worker knows none", where=spec.model.name, next=next
        )


@dataclass(frozen=True)
class Origin:
    """The training run that a release came from, where there is one. experiment: its id."""

    experiment: str
    run: str | None = None


class Models(Tracking):
    """Raises of all: Unavailable: MLflow does not answer, or not to us."""

    def versions_of(self, name: str, release: str) -> list[str]:
        """The versions with this tag, the first one first. Two runs that registered one release at once make two."""
        with self._errors(f"search the versions of {name}"):
            found = self._client.search_model_versions(f"name={_quoted(name)} and tags.`{RELEASE}`={_quoted(release)}")
            return sorted((str(each.version) for each in found), key=int)

    def keep(self, name: str, version: str, others: Sequence[str]) -> None:
        """Deletes the others, and their logged models; their aliases move to the version. Whoever else does it at the
        same time keeps the same one: what is made later has a higher number, and its maker looks again."""
        with self._errors(f"delete versions of {name}"):
            kept = self._client.get_model_version(name, version)
            for other in others:
                with self._absent():  # somebody else was faster
                    self._merge(name, str(kept.version), str(kept.source), self._client.get_model_version(name, other))

    def _merge(self, name: str, version: str, source: str, other: Any) -> None:
        for alias in other.aliases:
            self._client.set_registered_model_alias(name, alias, version)
        if other.source != source:
            with self._absent():
                self._client.delete_logged_model(str(other.source).removeprefix("models:/"))
        self._client.delete_model_version(name, str(other.version))

    def alias(self, name: str, alias: str) -> str:
        """The version that the alias points at; empty where there is none."""
        with self._errors(f"read the alias {alias} of {name}"), self._absent():
            return str(self._client.get_model_version_by_alias(name, alias).version)
        return ""

    def set_alias(self, name: str, alias: str, version: str) -> None:
        with self._errors(f"set the alias {alias} of {name}"):
            self._client.set_registered_model_alias(name, alias, version)

    def claim(self, name: str, model: str) -> None:
        """Makes the registered model where there is none. Raises SourceNotAllowed: it is another model's: a spec is
        foreign, and the aliases of others are not its."""
        from mlflow.exceptions import MlflowException

        with self._errors(f"make the registered model {name}"):
            try:
                owner = self._client.get_registered_model(name).tags.get(MODEL, "")
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                owner = self._made(name, model)
        if owner != model:
            got, next = owner or "no tag", f"set its tag {MODEL} to {model}, or name another one in [mlflow]"
            what = "PH-0399 this registered model of MLflow is not this model's"
            raise SourceNotAllowed(what, where=f"{name} for {model}", got=got, want=f"{MODEL}={model}", next=next)

    def _made(self, name: str, model: str) -> str:
        """Whose it is now: another run may have been faster."""
        with self._but_for("RESOURCE_ALREADY_EXISTS"):
            return str(self._client.create_registered_model(name, tags={MODEL: model}).tags.get(MODEL, ""))
        return str(self._client.get_registered_model(name).tags.get(MODEL, ""))

    def origin(self, release: str, matches: Callable[[str], bool], hint: str) -> Origin:
        """The run that is tagged with the release, or the last one whose source matches. hint: what stands in every
        such source's URL."""
        with self._errors("search its runs"):
            filters = [f"tags.`{RELEASE}` = {_quoted(release)}"]
            filters += [f"tags.`{SOURCE}` LIKE {_quoted(f'%{hint}%')}"] if hint else []
            for filter in filters:
                for run in self._last(filter):
                    if filter is filters[0] or matches(run.data.tags.get(SOURCE, "")):
                        return Origin(run.info.experiment_id, run.info.run_id)
            return Origin(self._experiment())

    def _experiment(self) -> str:
        if found := self._client.get_experiment_by_name(EXPERIMENT):
            return str(found.experiment_id)
        with self._but_for("RESOURCE_ALREADY_EXISTS"):
            return str(self._client.create_experiment(EXPERIMENT))
        return self._experiment()  # another run was faster

    def register(
        self,
        name: str,
        model: str,
        tags: Mapping[str, str],
        origin: Origin,
        folder: Callable[[Ids], Path],
    ) -> str:
        """The new version. folder: makes the model's folder, once its ids are known."""
        with self._errors(f"register {name}"):
            made = self._finished(origin, tags[RELEASE]) or self._logged(model, tags, origin, folder)
            source = f"models:/{made}"
            version = self._client.create_model_version(name, source, origin.run, tags=dict(tags), model_id=made)
            if origin.run:
                self._client.set_tag(origin.run, RELEASE, tags[RELEASE])
            return str(version.version)

    def _logged(self, model: str, tags: Mapping[str, str], origin: Origin, folder: Callable[[Ids], Path]) -> str:
        from mlflow.entities import LoggedModelOutput

        made = self._client.create_logged_model(origin.experiment, model, origin.run, tags=dict(tags))
        self._client.log_model_artifacts(
            made.model_id, str(folder(Ids(made.model_id, made.artifact_location, origin.run)))
        )
        self._client.finalize_logged_model(made.model_id, "READY")
        if origin.run:
            self._client.log_outputs(origin.run, [LoggedModelOutput(made.model_id, step=0)])
        return str(made.model_id)

    def _finished(self, origin: Origin, release: str) -> str:
        """A logged model whose files are up, of a run that was ended before it became a version."""
        filter = f"tags.`{RELEASE}` = {_quoted(release)}"
        found = self._client.search_logged_models([origin.experiment], filter)
        ready = [(each.creation_timestamp, str(each.model_id)) for each in found if str(each.status) == "READY"]
        return min(ready, default=(0, ""))[1]

    def _last(self, filter: str) -> list[Any]:
        """The runs of every experiment, the last that began first."""
        ids = sorted(dict(self._experiments(())))
        found: list[Any] = []
        for start in range(0, len(ids), EXPERIMENTS):
            order = ["attributes.start_time DESC"]
            found += self._client.search_runs(ids[start : start + EXPERIMENTS], filter, order_by=order)
        return sorted(found, key=lambda run: -(run.info.start_time or 0))

    def _absent(self) -> AbstractContextManager[None]:
        return self._but_for("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")

    @staticmethod
    @contextmanager
    def _but_for(*codes: str) -> Iterator[None]:
        """Goes on after MLflow's errors of these codes."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if error.error_code not in codes:
                raise


def _quoted(text: str) -> str:
    """For MLflow's filters. What holds both kinds of quotes can not be asked for, and matches nothing."""
    return f'"{text}"' if "'" in text and '"' not in text else f"'{text.replace(chr(39), '')}'"
