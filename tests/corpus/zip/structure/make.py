import struct
import warnings
import zipfile
from collections.abc import Callable

from tests.corpus.builders import files, healthy, records, saved, state_dict, tensor, with_pickle, zipped

TORCH = saved(healthy())
PLAIN = zipped(records().items())
LOCAL, CENTRAL, END, END64, LOCATOR = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
Edit = Callable[[bytearray], None]


def edited(data: bytes, at: bytes, offset: int, form: str, value: int, *, last: bool = False) -> bytes:
    """The archive with one field of one header changed."""
    changed = bytearray(data)
    place = (changed.rfind if last else changed.find)(at) + offset
    struct.pack_into(form, changed, place, value)
    return bytes(changed)


def both(data: bytes, local: int, central: int, form: str, value: int) -> bytes:
    return edited(edited(data, LOCAL, local, form, value), CENTRAL, central, form, value)


def with_comment(data: bytes) -> bytes:
    return edited(data, END, 20, "<H", 3) + b"abc"


def flipped() -> bytes:
    """One bit of a tensor: torch loads it without a word."""
    changed = bytearray(PLAIN)
    changed[changed.find(b"archive/data/0") + len("archive/data/0") + 5] ^= 1
    return bytes(changed)


def between() -> bytes:
    """Junk between the entries and the directory, with the offset put right: most readers never see it."""
    start = PLAIN.find(CENTRAL)
    moved = PLAIN[:start] + b"JUNK" * 4 + PLAIN[start:]
    return edited(moved, END, 16, "<L", start + 16)


def two(first: str, second: str) -> bytes:
    entries = list(records().items())
    return zipped([*entries, (f"archive/{first}", entries[0][1]), (f"archive/{second}", b"x")])


def overlapping() -> bytes:
    """Two directory entries for one local header, as a zip bomb has them."""
    start, end = PLAIN.find(CENTRAL), PLAIN.find(CENTRAL, PLAIN.find(CENTRAL) + 4)
    entry = PLAIN[start:end].replace(b"data.pkl", b"data.pkm")
    grown = PLAIN[: PLAIN.find(END)] + entry + PLAIN[PLAIN.find(END) :]
    count = struct.unpack_from("<H", PLAIN, PLAIN.find(END) + 10)[0] + 1
    size = struct.unpack_from("<L", PLAIN, PLAIN.find(END) + 12)[0] + len(entry)
    for offset, form, value in ((8, "<H", count), (10, "<H", count), (12, "<L", size)):
        grown = edited(grown, END, offset, form, value)
    return grown


def named(name: str) -> bytes:
    return zipped([*records().items(), (name, b"x")])


def without(record: str) -> bytes:
    return zipped((name, data) for name, data in records().items() if name != f"archive/{record}")


def replaced(record: str, data: bytes) -> bytes:
    return zipped((records() | {f"archive/{record}": data}).items())


def twice() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zipped([*records().items(), ("archive/data.pkl", b"\x80\x02N.")])


VARIANTS = files(
    "weights.pt",
    {
        "cut in half": TORCH[: len(TORCH) // 2],
        "last byte missing": TORCH[:-1],
        "bytes behind": TORCH + b"\0",
        "comment": with_comment(PLAIN),
        "two end records": TORCH + TORCH[-22:],
        "junk before the directory": between(),
        "directory starts elsewhere": edited(PLAIN, END, 16, "<L", 30),
        "count too high": edited(edited(PLAIN, END, 10, "<H", 99), END, 8, "<H", 99),
        "two counts": edited(PLAIN, END, 8, "<H", 3),
        "several disks": edited(PLAIN, END, 4, "<H", 1),
        "zip64 locator points elsewhere": edited(TORCH, LOCATOR, 8, "<Q", 10),
        "zip64 end record with an extension": edited(TORCH, END64, 4, "<Q", 60),
        "zip and zip64 counts differ": edited(edited(TORCH, END, 10, "<H", 2), END, 8, "<H", 2),
        "deflated": zipped(records().items(), zipfile.ZIP_DEFLATED),
        "bzip2": zipped(records().items(), zipfile.ZIP_BZIP2),
        "encryption flag in both": both(PLAIN, 6, 8, "<H", 1),
        "encryption flag in the directory only": edited(PLAIN, CENTRAL, 8, "<H", 1),
        "flag bits of picklescan's advisory": both(PLAIN, 6, 8, "<H", 0x20),
        "local flags differ": edited(PLAIN, LOCAL, 6, "<H", 0x800),
        "local method differs": edited(PLAIN, LOCAL, 8, "<H", 8),
        "local name differs": PLAIN.replace(b"archive/data.pkl", b"archive/data.txt", 1),
        "local size differs": edited(PLAIN, LOCAL, 22, "<L", 7),
        "local checksum differs": edited(PLAIN, LOCAL, 14, "<L", 7),
        "checksum wrong in both": both(PLAIN, 14, 16, "<L", 7),
        "one bit of a tensor": flipped(),
        "two sizes in the directory": edited(PLAIN, CENTRAL, 20, "<L", 7),
        "size past the end": both(both(PLAIN, 18, 20, "<L", 2**31), 22, 24, "<L", 2**31),
        "data descriptor lies": edited(TORCH, b"PK\x07\x08", 4, "<L", 7),
        "extra field of another kind": both(PLAIN, 28, 30, "<H", 4),
        "symlink": edited(PLAIN, CENTRAL, 38, "<L", 0o120777 << 16),
        "folder attributes": edited(PLAIN, CENTRAL, 38, "<L", 0o040755 << 16),
        "overlapping entries": overlapping(),
        "entry of another disk": edited(PLAIN, CENTRAL, 34, "<H", 1),
        "data.pkl twice": twice,
        "data.pkl in upper case too": two("DATA.PKL", "x"),
        "two top folders": named("other/data/0"),
        "a file at the top": named("data.pkl"),
        "path upwards": named("archive/../data.pkl"),
        "absolute path": named("/archive/data/9"),
        "backslash": zipped(records().items()).replace(b"archive/version", b"archive\\version"),
        "control character": named("archive/data/\x1b[2J"),
        "right-to-left override": named("archive/data/\u202e9"),
        "folder entry": named("archive/empty/"),
        "constants.pkl": named("archive/constants.pkl"),
        "code": named("archive/code/__torch__.py"),
        "another pickle": named("archive/extra.pkl"),
        "storage with a leading zero": named("archive/data/00"),
        "no data.pkl": without("data.pkl"),
        "storage missing": without("data/0"),
        "storage extra": named("archive/data/99"),
        "version 0": replaced("version", b"0\n"),
        "version huge": replaced("version", b"9" * 4000),
        "byteorder big": replaced("byteorder", b"big"),
        "byteorder wrong": replaced("byteorder", b"middle"),
        "alignment zero": replaced(".storage_alignment", b"0"),
        "serialization id odd": replaced(".data/serialization_id", b"../../x"),
        "data.pkl too large": with_pickle(state_dict(("a", tensor())) + bytes(25 << 20), {"0": bytes(24)}),
    },
)


VARIANTS |= files(
    "weights.pt", {"self-extracting": b"MZ" + bytes(200) + PLAIN, "PNG before": b"\x89PNG\r\n\x1a\n" + PLAIN}
)
