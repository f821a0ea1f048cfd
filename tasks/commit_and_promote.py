"""Commit and promote: the release becomes visible, the channel moves to it, and what follows the channel follows.

All that promote come here: runs, approvals, and the command if it finds nothing else to do. A run that was killed in
between does it again. No step is done twice in one run: only the run that has moved a channel may sign it.
"""

from __future__ import annotations

from infra.worker.context import worker_context
from packhouse.release.manifest import ChannelName, Record
from packhouse.spec.model import Spec
from tasks._support.pipeline_task import patient, pipeline_task
from tasks._support.states import Proven, Released
from tasks.commit import approve, commit, promote
from tasks.images.attach_referrers import attached, modelpack
from tasks.images.restore_image import restored
from tasks.images.tag_image import tag_image
from tasks.signing.sign import sign
from tasks.signing.sign_channel import sign_channel

NAME = "commit and promote"


@pipeline_task(NAME, retries=0)
def commit_and_promote(proven: Proven, channel: ChannelName, source: str) -> Released:
    """Of a release that this run has made. Raises what the steps raise."""
    record = patient(commit)(proven)
    return _promoted(record, proven.published.packed.planned.spec, channel, source, again=False)


@pipeline_task(NAME, retries=0)
def promote_again(record: Record, spec: Spec, channel: ChannelName, source: str) -> Released:
    """Of a release that stands already; its registry may have lost its image since. Raises what the steps raise."""
    if record.image:
        patient(restored)(record)
    return _promoted(record, spec, channel, source, again=True)


@pipeline_task("promote", retries=0)
def promote_approved(model: str, release: str, channel: ChannelName, source: str, by: str) -> Released:
    """Of a release that a person has approved. Raises what the steps raise."""
    return _followed(patient(approve)(model, release, channel, source, by=by))


def _promoted(record: Record, spec: Spec, channel: ChannelName, source: str, *, again: bool) -> Released:
    if worker_context().settings.signs:
        patient(sign)(record)
    if record.image:
        patient(attached)(record)
    if record.image and spec.image and spec.image.modelpack:
        patient(modelpack)(record, spec)
    return _followed(patient(promote)(record, channel, source=source, again=again, approve=spec.gates.approve))


def _followed(released: Released) -> Released:
    """The channel's signature, and its image's tag."""
    if released.moved and worker_context().settings.signs:
        patient(sign_channel)(released)
    if released.image:
        patient(tag_image)(released)
    return released
