"""Trains in forked children that are killed with SIGKILL, again and again, until one comes through.

Run by ``test_kill.py`` in a process of its own, whose only work before the first fork is importing: every child
is then a real process that starts as cheaply as a fork.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import grain.experimental  # noqa: F401 (imported once, not in every child)

from griffin_core import registry
from griffin_core.text.tokenizer import ByteTokenizer
from griffin_core.training import plots
from griffin_core.training import run as runs
from griffin_core.training.rundir import RunDirectory
from griffin_core.training.spec import spec_from_dict


class Silent:
    def begin(self, *_):
        pass

    step = note = begin

    def end(self):
        pass


def child(out, spec):
    plots.available = lambda: False
    if RunDirectory(out).run_file.exists():
        runs.resume(out, Silent())
    else:
        runs.start(out, spec, ByteTokenizer(), Silent())


def spawn(out, spec):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child(out, spec)
            code = 0
        finally:
            os._exit(code)
    return pid


def steps_on_disk(out):
    path = RunDirectory(out).metrics_file
    return path.read_bytes().count(b"\n") if path.exists() else 0


def strike(pid, out, rng, in_write):
    """Kill the child a little after it has made a step, or in the middle of writing a state; None if it ended.

    It makes two steps at most, however fast it is, so that the steps of a run last for all kills.
    """
    start, wait = steps_on_disk(out), rng.random() * 0.15
    began = None
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if status:
                raise SystemExit(f"a child failed by itself: status {status}")
            return None
        time.sleep(0.0005)
        writing = any(place.is_dir() and any(place.glob("*.part")) for place in (out.parent, out, out / "checkpoints"))
        made = steps_on_disk(out) - start
        if began is None and made > 0:
            began = time.monotonic()
        if (in_write and writing) or (began is not None and (made > 1 or time.monotonic() - began > wait)):
            if in_write and writing:
                time.sleep(rng.random() * 0.01)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return writing


def prepare(spec, programs):
    """Import what a child needs; a child of JAX takes its programs from a directory instead of compiling them."""
    _ = registry.load_backend(spec.backend).Trainer
    if spec.backend == "jax":
        import jax

        jax.config.update("jax_compilation_cache_dir", str(programs))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def main():
    out, spec_file, kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    spec = spec_from_dict(json.loads(spec_file.read_text()))
    prepare(spec, out.parent / "programs")
    rng = random.Random(seed)
    counts = {"kills": 0, "while_writing": 0}
    while True:
        pid = spawn(out, spec)
        if counts["kills"] == kills:
            _, status = os.waitpid(pid, 0)
            if status:
                raise SystemExit(f"the last child failed: status {status}")
            break
        writing = strike(pid, out, rng, in_write=counts["kills"] % 2 == 1)
        if writing is None:
            break
        counts["kills"] += 1
        counts["while_writing"] += writing
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
