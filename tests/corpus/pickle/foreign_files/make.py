import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from tests.corpus.builders import Payload, files, healthy, pickled, safetensors, saved, zipped

PICKLE = pickled({"a": [1, 2, 3]}, 4)


def _saved_by(save, name: str):
    def make(folder: Path) -> Path:
        save(folder / name)
        return folder / name

    return make


def _joblib(compress, name: str = "model.joblib"):
    scaler = StandardScaler().fit(np.arange(12.0).reshape(6, 2))
    return _saved_by(lambda path: joblib.dump(scaler, path, compress=compress), name)


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weights=np.array([{"a": 1}], dtype=object))
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    return buffer.getvalue()


def _npy_payload(folder: Path) -> Path:
    np.save(folder / "weights.npy", np.array([Payload(folder)], dtype=object), allow_pickle=True)
    return (folder / "weights.npy").rename(folder / "weights.bin")


VARIANTS = {
    "joblib": _joblib(0),
    "joblib zlib": _joblib(("zlib", 3)),
    "joblib gzip": _joblib(("gzip", 3), "model.pt"),
    "joblib lzma": _joblib(("lzma", 3), "model.bin"),
    "joblib xz": _joblib(("xz", 3)),
    "joblib bz2": _joblib(("bz2", 3)),
    "npy payload": _npy_payload,
    **files(
        "weights.pt",
        {
            "cloudpickle": cloudpickle.dumps(lambda x: x + 1),
            "torch legacy": saved(healthy(), _use_new_zipfile_serialization=False),
            "torch legacy module": saved(torch.nn.Linear(2, 2), _use_new_zipfile_serialization=False),
            "npy": _npy(),
            "npz": _npz(),
            "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(600),
            "Keras": zipped([("config.json", b"{}"), ("model.weights.h5", b"\x89HDF")]),
            "ONNX": b"\x08\x0a\x12\x07pytorch\x1a\x062.13.0" + bytes(100),
            "GGUF": b"GGUF\x03\x00\x00\x00" + bytes(100),
            "gzip": gzip.compress(bytes(1000)),
            "gzip of a pickle": gzip.compress(PICKLE),
            "gzip broken": b"\x1f\x8b\x08" + bytes(100),
            "gzip bomb": gzip.compress(bytes(200_000_000)),
            "zlib": zlib.compress(PICKLE),
            "bz2": bz2.compress(PICKLE),
            "xz": lzma.compress(PICKLE),
            "zstd": b"\x28\xb5\x2f\xfd" + bytes(100),
            "lz4": b"\x04\x22\x4d\x18" + bytes(100),
            "7z": b"7z\xbc\xaf\x27\x1c" + bytes(100),
            "tar": _tar(),
            "MAR": zipped([("MAR-INF/MANIFEST.json", b"{}"), ("model.pt", b"x")]),
            "zip": zipped([("readme.txt", b"hello")]),
            "zip in a zip": zipped([("weights.pt", saved(healthy()))], zipfile.ZIP_DEFLATED),
            "TorchScript": zipped(
                [("m/data.pkl", b"\x80\x02N."), ("m/code/m.py", b""), ("m/constants.pkl", b"\x80\x02).")]
            ),
            "exported program": zipped([("m/models/model.json", b"{}"), ("m/data/weights/0", b"")]),
            "empty": b"",
            "a text": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
            "safetensors": safetensors({}),
        },
    ),
    **files("weights.safetensors", {"zip as safetensors": saved(healthy())}),
    **files("weights.txt", {"another extension": saved(healthy())}),
    **files("weights", {"no extension": saved(healthy())}),
    **files("weights.PT", {"upper-case extension": saved(healthy())}),
    **files("weights.pt.safetensors", {"double extension": pickled({"a": 1}, 2)}),
}
