"""Fine-tune the packaged checkpoint with Keras: fit, LoRA, samples on the way, and a run that survives being killed.

Run: KERAS_BACKEND=jax python examples/05_keras_finetune.py [--epochs N] [FILE ...]     (or torch, or tensorflow)
Kill it at any moment and run it again: it goes on with the epoch that was cut off, on the same batches.
"""

# %% A model from a checkpoint. Importing griffin_core_keras settles the engine, so it comes before Keras.
import sys
from pathlib import Path

import keras

import griffin_core as griffin
import griffin_core_keras as gk
from griffin_core.text.corpus import load_corpus
from griffin_core.training.data import Batches
from griffin_core.training.examples import tokenise

words = sys.argv[1:]
epochs = int(words.pop(words.index("--epochs") + 1)) if "--epochs" in words else 4
files = [word for word in words if word != "--epochs"] or [str(p) for p in Path(__file__).parent.glob("*.py")]

keras.utils.set_random_seed(0)
model = gk.GriffinCausalLM.from_checkpoint(griffin.packaged_checkpoint(), dtype="float32")
model.summary()

# %% The library's data: packed rows of documents, in an order that is a function of the seed alone.
documents, _ = load_corpus(tuple(files)).split()
feed = gk.FitBatches(Batches(tokenise(documents, model.tokenizer), batch=4, length=128, seed=0))

# %% Adapters of rank 8 beside every dense layer are all that is trained.
model.enable_lora(8)
model.compile(gk.AdamW(gk.WarmupCosine(3e-3, steps=20 * epochs, warmup=5), weight_decay=0.0))

# %% An epoch is a window of 20 steps. What it ends with is saved whole; a sample shows what was learned.
saving = gk.SaveAndResume("runs/keras-finetune", feed)
sampling = gk.SampleText("import ", max_new_tokens=40, temperature=0.5, seed=1)
begin = saving.restore(model)
print(f"epoch {begin + 1} of {epochs}" if begin < epochs else "this run is finished; remove runs/keras-finetune")
history = model.fit(
    feed.stream(),
    steps_per_epoch=20,
    initial_epoch=begin,
    epochs=epochs,
    shuffle=False,
    callbacks=[saving, sampling],
    verbose=2,
)

# %% Files hold the adapters merged: a .keras file for Keras, a native checkpoint for every framework.
model.save("runs/keras-finetune.keras")
model.save_checkpoint("runs/keras-finetune-checkpoint", overwrite=True)
again = keras.models.load_model("runs/keras-finetune.keras")
print(again.generate("import ", max_new_tokens=40, temperature=0.5, seed=1))
print("generate from it anywhere: griffin generate --checkpoint runs/keras-finetune-checkpoint --prompt 'import '")
