from pathlib import Path

from tests.corpus.builders import call, canary, state_dict, text, with_pickle

NAMES = Path(__file__).with_name("names.txt").read_text().splitlines()


def _variant(name: str):
    def make(folder: Path) -> Path:
        path = folder / "weights.pt"
        # The first name of a module that is there would really be called, on the canary's path.
        module, _, function = name.rpartition(".")
        payload = call(module, function, text(f"touch {canary(folder)}"))
        path.write_bytes(with_pickle(state_dict(("0.weight", payload))))
        return path

    return make


VARIANTS = {name: _variant(name) for name in NAMES}
