"""How an exporter is told of a forward's arguments."""

from __future__ import annotations

import pytest
import torch

from tasks.jobs.model import as_forward_takes


class Plain(torch.nn.Module):
    def forward(self, x, y):
        return x + y


class Rest(torch.nn.Module):
    def forward(self, *inputs):
        return inputs[0] + inputs[1]


class OneAndRest(torch.nn.Module):
    def forward(self, x, *more):
        return x + more[0]


@pytest.mark.parametrize(
    ("module", "want"), [(Plain(), ("a", "b")), (Rest(), (("a", "b"),)), (OneAndRest(), ("a", ("b",)))]
)
def test_what_goes_into_the_rest_of_the_inputs_is_one_argument(module, want):
    assert as_forward_takes(module, ("a", "b")) == want


def test_torch_exports_such_a_forward():
    batch = torch.export.Dim.DYNAMIC(min=1, max=8)
    shapes = as_forward_takes(OneAndRest(), ({0: batch}, {0: batch}))
    program = torch.export.export(OneAndRest(), (torch.ones(2, 3), torch.ones(2, 3)), dynamic_shapes=shapes)
    assert program.module()(torch.ones(5, 3), torch.ones(5, 3)).shape == (5, 3)
