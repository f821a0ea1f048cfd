from tests.corpus.builders import (
    HOOKS,
    call,
    files,
    global_,
    items,
    number,
    state_dict,
    storage,
    tensor,
    text,
    with_pickle,
)

DATA = {"0": bytes(24)}
UNTYPED = storage("UntypedStorage", count=24, module="torch.storage")
FLOATS = global_("torch", "FloatStorage")
VIEW = (storage(), number(0), items(b"\x88"), items(number(1)), b"\x89", HOOKS)
REBUILT_BOOL = call("torch._utils", "_rebuild_tensor_v2", *VIEW)


def of(value: bytes, storages: dict[str, bytes] = DATA) -> bytes:
    return with_pickle(state_dict(("0.weight", value)), storages)


VARIANTS = files(
    "weights.pt",
    {
        "more items than bytes": of(tensor(storage(count=7), shape=(7,))),
        "fewer items than bytes": of(tensor(storage(count=5), shape=(5,))),
        "count negative": of(tensor(storage(count=-6))),
        "count overflows": of(tensor(storage(count=2**62 + 6))),
        "storage missing": of(tensor(storage(key="1"))),
        "storage key is a path": of(tensor(storage(key="../version"))),
        "storage unused": of(tensor(), {**DATA, "1": bytes(8)}),
        "offset past the end": of(tensor(offset=1)),
        "offset negative": of(tensor(offset=-1)),
        "offset huge": of(tensor(offset=2**63)),
        "shape past the end": of(tensor(shape=(7,))),
        "stride past the end": of(tensor(shape=(2, 3), stride=(4, 1))),
        "stride negative": of(tensor(shape=(6,), stride=(-1,))),
        "stride huge": of(tensor(shape=(2,), stride=(2**62,))),
        "shape negative": of(tensor(shape=(-6,))),
        "shape overflows": of(tensor(shape=(2**31, 2**31, 4), stride=(0, 0, 0))),
        "shape is a bool": of(REBUILT_BOOL),
        "rank 65": of(tensor(shape=(1,) * 65, stride=(1,) * 65)),
        "rank of shape and stride differ": of(tensor(shape=(2, 3), stride=(1,))),
        "two dtypes": with_pickle(state_dict(("a", tensor()), ("b", tensor(storage("IntStorage")))), DATA),
        "device meta": of(tensor(storage(location="meta"))),
        "device is a path": of(tensor(storage(location="/dev/mem"))),
        "storage type is a dtype": of(tensor(storage("float32"))),
        "storage type is a function": of(tensor(storage("_rebuild_tensor_v2", module="torch._utils"))),
        "untyped storage without a dtype": of(tensor(UNTYPED)),
        "dtype is a storage type": of(tensor(UNTYPED, function="_rebuild_tensor_v3", extra=FLOATS)),
        "hooks": of(tensor(hooks=call("collections", "OrderedDict", b"](" + items(text("h"), b"N") + b"e"))),
        "conjugate flag": of(tensor(extra=b"}" + text("conj") + b"\x88s")),
        "tensor without a storage": of(tensor(stored=text("0"))),
        "parameter of a text": of(call("torch._utils", "_rebuild_parameter", text("x"), b"\x88", HOOKS)),
    },
)
