"""Follow: what others see of a release and of its channel goes after them. Here the image's tags."""

from __future__ import annotations

from infra.images import builders
from infra.registry.reference import parse
from infra.worker.context import worker_context
from packhouse.digest import short
from packhouse.errors import Contention
from packhouse.release.lookup import find, read_channel
from tasks._support.pipeline_task import one_line
from tasks._support.states import Released

ATTEMPTS = 8


def tag_image(released: Released) -> None:
    """The release's image gets its id as a tag, so that no registry collects what a record names. Where the channel may
    move, the tag of its name points at the image of the release that the channel points at, whoever moves it at the
    same time: who tags looks again afterwards, so the last one is right.

    Raises Contention: it moved each time. RegistryUnavailable, RegistryRefusal; trying again is right.
    """
    _tag(released.image, released.model, released.release)
    if not released.waiting:
        tagged(released.model, released.channel)


def tagged(model: str, channel: str) -> tuple[str, ...]:
    """The tags that moved: of the channel, and of the release that it points at. Raises as `follow`."""
    store, moved = worker_context().store, list[str]()
    for _ in range(ATTEMPTS):
        pointed = read_channel(store, model, channel)
        image = find(store, f"{model}/{pointed.release}").record.image
        if image is None:
            return tuple(moved)
        moved += [f"tag {name}" for name in (pointed.release, channel) if _tag(image.reference, model, name)]
        if read_channel(store, model, channel).serial == pointed.serial:
            return tuple(moved)
    raise Contention("PH-0111 others keep moving this channel", where=f"{model}@{channel}", next="run it again")


def _tag(reference: str, model: str, name: str) -> bool:
    """Whether it moved. Raises SourceNotAllowed: the image is not where images of the model may be."""
    settings, image = worker_context().settings, parse(reference)
    builders.allowed(image.name, model, settings)
    with one_line(model, f"tag {name}") as line:
        moved = builders.builder(settings).tag(image, name)
        line.note(f"{short(image.digest)}, {'moved' if moved else 'stays'}")
    return moved
