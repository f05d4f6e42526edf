"""Save a decode state to a file, resume it as another process would, and branch from it.

Run: python examples/04_save_and_resume_state.py [BACKEND]
"""

import sys
import tempfile
from pathlib import Path

import griffin_core as griffin
from griffin_core.generation import service, state_file

backend = sys.argv[1] if len(sys.argv) > 1 else None
checkpoint = griffin.packaged_checkpoint()
sampling = griffin.Sampling(temperature=0.7, seed=1)

# One session generates 32 tokens in one go.
model = griffin.load(checkpoint, backend=backend)
(whole,) = service.generate(model, "The import statement", max_new_tokens=32, sampling=sampling)

# Another one stops after 16 and writes its state.
(half,) = service.generate(model, "The import statement", max_new_tokens=16, sampling=sampling)
path = Path(tempfile.mkdtemp()) / "import.state"
size = state_file.save_state(path, half.session, sampling, model.digest)
print(f"state after {half.session.positions[0]} tokens: {size} bytes")

# A fresh model continues from the file. The generator is keyed by (seed, position), so the text is the same.
fresh = griffin.load(checkpoint, backend=backend)
saved = state_file.load_state(path)
session = saved.session(fresh.engine(), fresh.digest)
(rest,) = service.generate(fresh, None, session=session, max_new_tokens=16, sampling=saved.sampling)
print(f"continuation is the same: {half.text + rest.text == whole.text}")

# A state is a value: the same one can be continued in two ways.
for ending in (" of a module", " of a name"):
    (branch,) = service.generate(fresh, ending, session=session, max_new_tokens=12, sampling=sampling)
    print(f"...{ending}{branch.text!r}")
