"""`packhouse doctor`: what the store keeps of its promises."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from packhouse.cli.options import (
    StoreOption,
    the_store,
)
from packhouse.store import guard, open_store, probe


def doctor(store: StoreOption = "") -> None:
    """Find out what the store keeps of its promises, and what packhouse therefore does."""
    place = open_store(the_store(store).url)
    found = probe(place)
    table = Table("promise", "kept", title=place.url)
    for name, kept in vars(found).items():
        table.add_row(name.replace("_", " "), "yes" if kept else "no")
    Console().print(table)
    guard(place, found)
