"""A forward pass on two backends: the framework's, and the float64 reference beside it.

Run: python examples/01_forward.py [BACKEND]
"""

import sys

import numpy as np

import griffin_core as griffin

backend = sys.argv[1] if len(sys.argv) > 1 else None
text = "A state of fixed size remembers what matters."

# Equal seeds give equal weights on every backend, so the two models are the same one.
model = griffin.init("griffin-tiny", seed=0, backend=backend)
reference = griffin.init("griffin-tiny", seed=0, backend="numpy")
tokens = model.tokenizer.encode(text)

logits, _ = model.forward([tokens])
expected, _ = reference.forward([tokens])
print(f"{model.backend}: logits {logits.shape} {logits.dtype}")
print(f"largest difference from the reference: {np.abs(logits - expected).max():.1e}")

# Any cut gives the same: read the first part, keep the state, read the rest from it.
state = model.init_state(batch=1)
first, state = model.forward([tokens[:17]], state=state)
rest, state = model.forward([tokens[17:]], state=state)
print(f"largest difference when cut in two: {np.abs(np.concatenate([first, rest], axis=1) - logits).max():.1e}")

# Two documents in one row: the second starts at position 0 and sees nothing of the first.
cut = 17
positions = [*range(cut), *range(len(tokens) - cut)]
packed, _ = model.forward([tokens], positions=[positions])
alone, _ = model.forward([tokens[cut:]])
print(f"largest difference of a packed document: {np.abs(packed[:, cut:] - alone).max():.1e}")
