from tests.corpus.weights.wrong import WRONG, as_torch

# An empty dict is no state dict to torch.save's format: see checkpoints.
VARIANTS = {name: as_torch(tensors) for name, tensors in WRONG.items() if tensors}
