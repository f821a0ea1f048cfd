from tests.corpus.builders import HOOKS, call, files, global_, items, number, state_dict, tensor, text, with_pickle

OK = tensor()
LAUGHS = b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60))

PICKLES = {
    "bytes after stop": state_dict(("0.weight", OK)) + b"cos\nsystem\n",
    "two pickles": state_dict(("0.weight", OK)) * 2,
    "no stop": state_dict(("0.weight", OK))[:-1],
    "cut in a text": state_dict(("0.weight", OK))[:12],
    "payload before a broken tail": b"\x80\x02" + call("os", "system", text("true")) + b"\xff\xff",
    "values left over": b"\x80\x02NN.",
    "empty": b"\x80\x02.",
    "protocol 0": b"(dp0\n.",
    "protocol 4": b"\x80\x04" + state_dict(("0.weight", OK))[2:],
    "protocol 6": b"\x80\x06N.",
    "second proto": b"\x80\x02\x80\x02N.",
    "text not UTF-8": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "text cut off": b"\x80\x02X\xff\xff\x00\x00x.",
    "text of 4 GiB": b"\x80\x02X\xff\xff\xff\xffx.",
    "memo never written": b"\x80\x02h\x07.",
    "memo rewritten to a function": b"\x80\x02" + text("x") + b"q\x00" + global_("os", "system") + b"q\x00h\x00.",
    "global without end": b"\x80\x02c" + b"a" * 400 + b".",
    "global with a newline game": b"\x80\x02ccollections\nOrderedDict\r\n.",
    "call of a text": b"\x80\x02" + text("os.system") + items(text("true")) + b"R.",
    "call of a dtype": b"\x80\x02" + call("torch", "float32", number(1)) + b".",
    "call of a storage type": b"\x80\x02" + call("torch", "FloatStorage", number(10**12)) + b".",
    "call with a list": b"\x80\x02" + global_("collections", "OrderedDict") + b"]R.",
    "dict of pairs that are none": b"\x80\x02" + call("collections", "OrderedDict", b"]Na") + b".",
    "build on a tensor": state_dict(("0.weight", OK + b"}b")),
    "build on a dict": b"\x80\x02}}b.",
    "build with a tuple": b"\x80\x02" + HOOKS + b")b.",
    "append to a dict": b"\x80\x02}Na.",
    "set on a list": b"\x80\x02]NNs.",
    "set on a tensor": state_dict(("0.weight", OK + text("x") + b"Ns")),
    "set with an odd count": b"\x80\x02}(Nu.",
    "dict key that is a list": b"\x80\x02}]Ns.",
    "one name twice": state_dict(("0.weight", OK), ("0.weight", OK)),
    "mark never set": b"\x80\x02t.",
    "marks without end": b"\x80\x02" + b"(" * 300_000 + b".",
    "stack without end": b"\x80\x02" + b"N" * 300_000 + b".",
    "opcodes without end": b"\x80\x02N" + b"q\x00" * 6_100_000 + b".",
    "size that is a text": b"\x80\x02" + call("torch", "Size", items(text("x"))) + b".",
    "persistent id naming code": b"\x80\x02"
    + items(text("module"), global_("torch", "FloatStorage"), text("x"))
    + b"Q.",
    "persistent id that is an integer": b"\x80\x02K\x01Q.",
}
PICKLES |= {"a billion laughs": LAUGHS + b".", "nothing": b"\x80\x02"}
STORAGES = {"0": bytes(24)}
VARIANTS = files(
    "weights.pt", {name: with_pickle(data, STORAGES if OK in data else {}) for name, data in PICKLES.items()}
)
