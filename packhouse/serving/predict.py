"""`/predict`: plain JSON for those who have no client of the protocol. `inputs`: named tensors. `rows`: one entry a
sample, where the model has a batch axis. docs/serving.md shows both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from packhouse.formats.arrays import Array
from packhouse.serving.errors import RequestRefused
from packhouse.serving.io_signature import Contract
from packhouse.serving.protocol import Run
from packhouse.serving.responses import Answer, dump, parse, refuse_others
from packhouse.serving.tensors import from_json, to_json

_KEYS = frozenset({"inputs", "rows"})


def predict(contract: Contract, run: Run, body: bytes, max_json: int) -> Answer:
    """Raises RequestRefused."""
    document = parse(body, max_json)
    refuse_others(document, _KEYS)
    if len(document) != 1:
        raise RequestRefused("PH-0492 holds neither or both", want="inputs, or rows")
    inputs = _inputs(contract, document["inputs"]) if "inputs" in document else _rows(contract, document["rows"])
    found = run(contract.check(inputs))
    outputs = {wanted.name: to_json(found[wanted.name]) for wanted in contract.outputs}
    return Answer(dump({"model": contract.model, "release": contract.version, "outputs": outputs}))


def _inputs(contract: Contract, found: Any) -> dict[str, Array]:
    if not isinstance(found, dict):
        raise RequestRefused("PH-0491 is not an object of tensors by name", where="inputs")
    return {name: from_json(data, contract.input(name, "inputs").datatype, name) for name, data in found.items()}


def _rows(contract: Contract, rows: Any) -> dict[str, Array]:
    """Rows are lists (of the only input), or objects: by input, or by column where the release names columns."""
    if contract.batch is None:
        raise RequestRefused(
            "PH-0489 the model has no batch axis: rows can not be stacked", where="rows", next="send inputs"
        )
    if not isinstance(rows, list) or not rows:
        raise RequestRefused("PH-0490 is not a list of rows", where="rows")
    if not isinstance(rows[0], dict):
        return {_only(contract): from_json(rows, contract.inputs[0].datatype, "rows")}
    names = tuple(wanted.name for wanted in contract.inputs)
    by_column = bool(contract.columns) and not rows[0].keys() & set(names)
    values = [
        _values(row, contract.columns if by_column else names, f"rows[{place}]") for place, row in enumerate(rows)
    ]
    if by_column:
        return {names[0]: from_json(values, contract.inputs[0].datatype, "rows")}
    columns = zip(*values, strict=True)
    return {
        wanted.name: from_json(list(column), wanted.datatype, f"rows: {wanted.name}")
        for wanted, column in zip(contract.inputs, columns, strict=True)
    }


def _only(contract: Contract) -> str:
    if len(contract.inputs) != 1:
        want = ", ".join(wanted.name for wanted in contract.inputs)
        raise RequestRefused("PH-0488 rows of a model with several inputs are objects", where="rows[0]", want=want)
    return contract.inputs[0].name


def _values(row: Any, names: Sequence[str], where: str) -> list[Any]:
    if not isinstance(row, dict):
        raise RequestRefused("PH-0486 is not an object, as the first row is", where=where)
    refuse_others(row, frozenset(names), where)
    if missing := next((name for name in names if name not in row), None):
        raise RequestRefused("PH-0487 has no value", where=f"{where}: {missing}")
    return [row[name] for name in names]
