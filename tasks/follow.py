"""Follow: what others see of a channel goes after it. Here the image's tags."""

from __future__ import annotations

from infra import images
from infra.registry.reference import parse
from infra.workshop import workshop
from packhouse.errors import Contention
from packhouse.manifest import Record
from packhouse.releases import find, read_channel
from tasks.stage import one_line, stage
from tasks.states import Released

ATTEMPTS = 8


@stage("tag image")
def tag_image(record: Record) -> None:
    """The release's own tag, so that no registry collects an image that a record names."""
    if record.image is None:
        return
    images.allowed(record.image.repository, record.model, workshop().settings)
    with one_line(record.model, "tag image") as line:
        images.builder(workshop().settings).tag(parse(record.image.reference), record.release)
        line.note(record.release)


@stage("follow")
def follow(released: Released) -> None:
    """The tag of the channel's name points at the image of the release that the channel points at, whoever moves it
    at the same time: who tags looks again afterwards, so the last one is right.

    Raises Contention: it moved each time. RegistryUnavailable, RegistryRefusal; trying again is right.
    """
    model, channel, store = released.model, released.channel, workshop().store
    if not released.image or released.waiting:
        return
    for _ in range(ATTEMPTS):
        pointed = read_channel(store, model, channel)
        record = find(store, f"{model}/{pointed.release}").record
        if record.image is None:
            return
        images.allowed(record.image.repository, record.model, workshop().settings)
        with one_line(model, f"tag {channel}") as line:
            moved = images.builder(workshop().settings).tag(parse(record.image.reference), channel)
            line.note(f"{record.image.digest[7:19]}, {'moved' if moved else 'stays'}")
        if read_channel(store, model, channel).serial == pointed.serial:
            return
    raise Contention("others keep moving this channel", where=f"{model}@{channel}", next="run it again")
