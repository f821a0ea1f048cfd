from tests.corpus.weights.wrong import WRONG, as_safetensors

VARIANTS = {name: as_safetensors(tensors) for name, tensors in WRONG.items()}
