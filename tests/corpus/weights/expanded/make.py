from tests.corpus.builders import files, state_dict, storage, tensor, with_pickle

EXPECTED = {"w": {"dtype": "F32", "shape": [4, 4]}}
ONE = tensor(storage(count=1), shape=(2**20, 2**20), stride=(0, 0))
VARIANTS = files("weights.pt", {"4 TiB": with_pickle(state_dict(("w", ONE)), {"0": bytes(4)})})
