"""Jobs for the sandbox's tests: what a broken model, a broken library or an attacker would do, and real exports."""

from __future__ import annotations

import ctypes
import importlib
import io
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from packhouse.errors import ParityRefused

ANSWER_FD = 3


def echo(**arguments):
    return arguments


def about_me():
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return {
        "pid": os.getpid(),
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "initial_environment": Path("/proc/self/environ").read_text().split("\0"),
        "handles": sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir()),
        "session": os.getsid(0),
        "threads": int(status["Threads"]),
        "capabilities": status["CapEff"],
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "hash": hash("packhouse"),
    }


def warmth():
    """What was there at the fork, before any code of the job's."""
    import torch

    return {
        "torch_threads": torch.get_num_threads(),
        "loaded": [
            name
            for name in ("torch", "onnx", "onnxruntime", "onnxscript", "packhouse.spec.model")
            if name in sys.modules
        ],
    }


def sleep(seconds=3600.0, started=None):
    if started:
        Path(started).write_text(str(os.getpid()))
    time.sleep(seconds)
    return {}


def hang_with_the_interpreter_held():
    ctypes.PyDLL(None).sleep(3600)
    return {}


def ignore_signals_and_hang():
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    time.sleep(3600)
    return {}


def allocate(gib=10):
    block = bytearray(gib * 2**30)
    return {"bytes": len(block)}


def allocate_tensor(gib=10):
    import torch

    return {"elements": torch.ones(gib * 2**28).numel()}


def allocate_and_abort(gib=10):
    """As a C++ library without a handler: std::bad_alloc ends in abort()."""
    print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr)
    os.abort()


def allocate_shared(mib=512):
    """Shared pages, which RLIMIT_DATA does not count."""
    block = mmap.mmap(-1, mib * 2**20)
    for start in range(0, len(block), 2**20):
        block[start : start + 2**20] = b"x" * 2**20
    time.sleep(3600)
    return {}


def hold(mib, seconds=0.4):
    block = bytearray(os.urandom(2**20)) * mib
    time.sleep(seconds)
    return {"bytes": len(block)}


def segfault():
    print("reading the weights", flush=True)
    ctypes.string_at(0)


def leave(status=3):
    os._exit(status)


def leave_by_exception():
    sys.exit("had enough")


def answer_size(size):
    return {"text": "x" * size}


def answer_with(what):
    return {"nan": {"loss": float("nan")}, "list": [1], "object": {"it": object()}}[what]


def forge(text, status=0):
    """Write the answer itself, past everything that checks it."""
    os.write(ANSWER_FD, text.encode())
    os._exit(status)


def fork_and_leave(folder):
    """A grandchild, in a session of its own, whose parents are gone: it still belongs to this job."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            Path(folder, "grandchild").write_text(str(os.getpid()))
            time.sleep(3600)
        os._exit(0)
    while not ((note := Path(folder, "grandchild")).exists() and note.read_text()):
        time.sleep(0.01)
    return {"grandchild": int(note.read_text())}


def attempt(what, target=""):
    """Try something forbidden; the answer says whether it worked."""
    try:
        return {"worked": True, "got": str(ATTEMPTS[what](target))}
    except OSError as error:
        return {"worked": False, "error": type(error).__name__}


def _connect(target):
    host, port = target.rsplit(":", 1)
    socket.create_connection((host, int(port)), timeout=5).close()


def _raw_connect_unix(target):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(target)


def _fork(_):
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _libc(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


ATTEMPTS = {
    "read": lambda target: Path(target).read_bytes(),
    "list": os.listdir,
    "write": lambda target: Path(target).write_text("x"),
    "append": lambda target: Path(target).open("a").close(),
    "delete": os.unlink,
    "chmod": lambda target: Path(target).chmod(0o777),
    "touch": lambda target: os.utime(target, (0, 0)),
    "symlink": lambda target: Path("link").symlink_to(target),
    "hardlink": lambda target: os.link(target, "link"),
    "fifo": lambda _: os.mkfifo("fifo"),
    "connect": _connect,
    "unix": _raw_connect_unix,
    "exec": lambda target: os.execv(target, [target]),
    "program": lambda target: subprocess.run([target], check=True),
    "fork": _fork,
    "kill": lambda target: os.kill(int(target), 0),
    "unshare": lambda _: _libc("unshare", 0x10000000),
    "ptrace": lambda target: _libc("ptrace", 16, int(target), 0, 0),
    "outlive": lambda _: _libc("prctl", 1, 0, 0, 0, 0),
}


def print_noise(lines):
    for number in range(lines):
        print(f"noise {number}")
    os.write(2, b"from C\n")
    return {}


def fill_the_log(mib):
    os.write(1, b"odd")
    for _ in range(mib):
        os.write(1, b"y" * 2**20)
    return {}


def write_file(mib):
    with Path("large").open("wb") as file:
        for _ in range(mib):
            file.write(bytes(2**20))
    return {}


def refuse():
    raise ParityRefused("outputs differ", where="model.onnx", got="0.5", want="1e-05", next="look at the report")


def fail():
    raise ValueError("the first line\nthe second line")


def threads_work():
    """Threads are not processes: what refuses fork must let them be."""
    done = []
    thread = threading.Thread(target=lambda: done.append(1))
    thread.start()
    thread.join()
    return {"done": len(done)}


def export_onnx(kind="linear"):
    """A real export by torch.onnx, saved, and loaded by ONNX Runtime, which must compute the same."""
    import onnxruntime
    import torch

    if kind == "lstm":
        model, example, shapes = torch.nn.LSTM(4, 8, batch_first=True).eval(), torch.zeros(2, 5, 4), None
    else:
        layers = (torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
        model, example = torch.nn.Sequential(*layers).eval(), torch.ones(2, 16)
        shapes = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(model, (example,), "model.onnx", dynamo=True, dynamic_shapes=shapes, verbose=False)
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: example.numpy()})[0]
    want = model(example)
    want = want[0] if kind == "lstm" else want
    return {"size": Path("model.onnx").stat().st_size, "difference": float(abs(got - want.detach().numpy()).max())}


def script():
    import torch

    class Branch(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if bool(x.sum() > 0) else x

    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Branch()), buffer)
    Path("model.ts").write_bytes(buffer.getvalue())
    loaded = torch.jit.load("model.ts")
    return {"two": float(loaded(torch.ones(1)))}


def quantise():
    import numpy
    import onnxruntime
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.Linear(256, 8)).eval()
    example = torch.ones(2, 256)
    torch.onnx.export(model, (example,), "model.onnx", dynamo=True, verbose=False, external_data=False)
    quantize_dynamic("model.onnx", "model.int8.onnx", weight_type=QuantType.QInt8)
    session = onnxruntime.InferenceSession("model.int8.onnx", providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: example.numpy()})[0]
    return {
        "smaller": Path("model.int8.onnx").stat().st_size < Path("model.onnx").stat().st_size,
        "near": bool(numpy.allclose(got, model(example).detach().numpy(), atol=0.1)),
    }


def save_program():
    import torch
    from safetensors.torch import load_file, save_file

    program = torch.export.export(torch.nn.Linear(4, 2).eval(), (torch.ones(2, 4),))
    torch.export.save(program, "model.pt2")
    save_file(dict(program.state_dict), "weights.safetensors")
    return {"names": sorted(load_file("weights.safetensors")), "loads": bool(torch.export.load("model.pt2"))}


def use_two_threads():
    import torch

    torch.ones(512, 512) @ torch.ones(512, 512)
    return {"threads": torch.get_num_threads()}


def json_depth(depth):
    forge(json.dumps({"lockdown": []}) + "\n" + '{"answer": ' + "[" * depth + "]" * depth + "}")


def is_imported(*, name: str) -> dict[str, bool]:
    return {"is": name in sys.modules}


def imports(*, name: str) -> dict[str, str]:
    return {"file": str(importlib.import_module(name).__file__)}
