from tests.corpus.builders import entry, files, safetensors

EXPECTED = {"mask": {"dtype": "bool", "shape": [3]}}
VARIANTS = files("weights.safetensors", {"a two": safetensors({"mask": entry([3], 0, 3, "BOOL")}, bytes((0, 1, 2)))})
