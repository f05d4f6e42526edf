"""Train a small model on text of your own, and let it speak.

Run: python examples/03_train_on_my_text.py [--steps N] [FILE ...]     (without files: this folder's scripts)
The same from the shell: griffin train --preset griffin-tiny --text FILE --out runs/my-text --steps N
"""

import json
import sys
from pathlib import Path

import griffin_core as griffin
from griffin_core.text.tokenizer import ByteTokenizer
from griffin_core.training import run
from griffin_core.training.progress import ProgressReporter
from griffin_core.training.spec import TrainSpec, start_from_preset

words = sys.argv[1:]
steps = int(words.pop(words.index("--steps") + 1)) if "--steps" in words else 200
files = [word for word in words if word != "--steps"] or [str(p) for p in Path(__file__).parent.glob("*.py")]

# A run is one record: the architecture, the optimiser's settings, the data, the seed. It decides every bit.
tokenizer = ByteTokenizer()
spec = TrainSpec(
    **start_from_preset("griffin-tiny", tokenizer),
    options=griffin.TrainerOptions(steps=steps, warmup=min(20, steps)),
    text=tuple(files),
    batch=4,
    length=128,
    seed=0,
)

# Killed at any moment, run.resume("runs/my-text", ...) goes on to the same weights.
outcome = run.start("runs/my-text", spec, tokenizer, ProgressReporter(sys.stdout))
losses = [json.loads(line)["loss"] for line in (outcome.directory / "metrics.jsonl").read_text().splitlines()]
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f} nats per byte")
print(f"held-out text: {outcome.summary['heldout_bits_per_byte']:.3f} bits per byte")

model = griffin.load(outcome.directory / "checkpoint")
for piece in model.stream("import ", max_new_tokens=40, temperature=0.5, seed=1):
    print(piece, end="", flush=True)
print()
