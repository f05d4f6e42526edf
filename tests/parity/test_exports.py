"""Checkpoints that we write are loaded by the public programs themselves, where they are installed.

The golden weights go to disk in the format a peer reads; what the peer computes from there must be its golden
output, which it computed from weights that it was handed (mlx-lm: from float32 in one file, as it only reads files).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import golden_files as files
import golden_official
import numpy as np
import pytest
from golden_cases import CONFIG
from golden_peers import PEERS

from griffin_core.checkpoints import native
from griffin_core.checkpoints.manifest import MANIFEST_FILE
from griffin_core.checkpoints.shards import INDEX_FILE

pytestmark = [
    pytest.mark.peers,
    # Peers warn about their own dependencies; that is theirs to mend.
    pytest.mark.filterwarnings("ignore"),
]
Need = Callable[[str], None]
OUTPUTS = [(peer, output) for peer in PEERS for output in ("full", "beyond", "decode") if output in files.read(peer)]
SHARD = 20_000
"""Bytes per file: six files of these weights in bfloat16."""


def export(format: str, path: Path, dtype: str = "float32", shard: int | None = None) -> Path:
    """Write the golden weights, which bfloat16 holds exactly, as ``format`` and return where they are."""
    if format == "huggingface":
        native.save(path, CONFIG, files.weights(), dtype=dtype, max_shard_size=shard)
    elif format == "recurrentgemma-torch":
        import torch

        named = golden_official.torch_weights(files.weights())
        torch.save({name: torch.from_numpy(value).to(getattr(torch, dtype)) for name, value in named.items()}, path)
    else:
        import jax
        import orbax.checkpoint as ocp

        tree = golden_official.flax_weights(files.weights())
        ocp.PyTreeCheckpointer().save(path, {"params": jax.tree.map(lambda leaf: leaf.astype(dtype), tree)})
    return path


def _same(peer: str, output: str, path: Path) -> None:
    case = files.case(output)
    live = PEERS[peer].run(path, CONFIG, case)
    assert live.dtype == np.float32
    assert live.shape == files.read(peer)[output].shape
    assert files.distance(live, files.read(peer)[output], case.positions >= 0) <= files.REPEATS


@pytest.mark.parametrize(("peer", "output"), OUTPUTS)
def test_the_peer_computes_its_golden_logits(need: Need, tmp_path: Path, peer: str, output: str) -> None:
    need(peer)
    _same(peer, output, export(PEERS[peer].reads, tmp_path / "export"))


@pytest.mark.parametrize("peer", PEERS)
def test_the_peer_reads_bfloat16_in_several_files(need: Need, tmp_path: Path, peer: str) -> None:
    need(peer)
    path = export(PEERS[peer].reads, tmp_path / "export", "bfloat16", SHARD)
    if PEERS[peer].reads == "huggingface":
        assert (path / INDEX_FILE).exists()
        assert (path / MANIFEST_FILE).exists()
    _same(peer, "full", path)
