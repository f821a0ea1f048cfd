"""Counts how often torch is asked for a GPU in this process and in those that it was forked from."""

import torch

ASKED = []


def _counted(name):
    true = getattr(torch.cuda, name)

    def ask(*arguments):
        ASKED.append(name)
        return true(*arguments)

    setattr(torch.cuda, name, ask)


for _name in ("is_available", "device_count", "_lazy_init"):
    _counted(_name)


def count():
    return {"asked": sorted(set(ASKED))}
