from pathlib import Path

from tests.corpus.builders import call, files, number, state_dict, with_pickle

NAMES = Path(__file__).with_name("names.txt").read_text().splitlines()

VARIANTS = files(
    "weights.pt",
    {name: with_pickle(state_dict(("0.weight", call(*name.rsplit(".", 1), number(1))))) for name in NAMES},
)
