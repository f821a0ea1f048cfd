"""Text in front of an ONNX graph that reads codes: ONNX has an operator for it, torch has no text.

`ai.onnx.ml` LabelEncoder is in every build of ONNX Runtime.
Source: https://onnx.ai/onnx/operators/onnx_aionnxml_LabelEncoder.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx

from packhouse.formats.runtime import Vocabularies
from packhouse.spec.steps import UNKNOWN

ML = "ai.onnx.ml"
ML_OPSET = 2
"""The first with text to integers; the standard guarantees it to every later runtime."""


def take_text(model: onnx.ModelProto, text: Vocabularies, taken: Iterable[str] = ()) -> None:
    """Makes, in place, text of the inputs named: an encoder gives the graph the code that it read before. taken: names
    of values that are not in the graph yet."""
    made = []
    names = {*taken, *_values(model.graph)}
    for entry in model.graph.input:
        if entry.name in text:
            code = f"{entry.name}.code"
            while code in names:
                code += "."
            entry.type.tensor_type.elem_type = onnx.TensorProto.STRING
            _rename(model.graph, entry.name, code)
            made.append(_encoder(entry.name, code, text[entry.name]))
    if not made:
        return
    nodes = [*made, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    if all(entry.domain != ML for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(ML, ML_OPSET))


def _values(graph: onnx.GraphProto) -> Iterator[str]:
    """All that has a name in it, below the branches too."""
    yield from (value.name for group in (graph.initializer, graph.input, graph.output) for value in group)
    for node in graph.node:
        yield from node.output
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _values(inner)


def _encoder(name: str, code: str, values: Sequence[str]) -> onnx.NodeProto:
    node = onnx.helper.make_node("LabelEncoder", [name], [code], name=f"{name}.encoder", domain=ML)
    node.attribute.extend(
        (
            onnx.helper.make_attribute("default_int64", UNKNOWN),
            onnx.helper.make_attribute("keys_strings", list(values)),
            onnx.helper.make_attribute("values_int64s", list(range(len(values)))),
        )
    )
    return node


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Of what nodes read, those in subgraphs included. An output that is the input itself stays."""
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == old:
                node.input[position] = new
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, old, new)
