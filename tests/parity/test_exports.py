"""Checkpoints that we convert are loaded by the public programs themselves, where they are installed.

The golden weights are converted to the format that a peer reads; what the peer computes from there must be its golden
output, which it computed from weights that it was handed (mlx-lm: from float32 in one file, as it only reads files).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import golden_files as files
import numpy as np
import pytest
from golden_cases import CONFIG
from golden_peers import PEERS

from griffin_core.checkpoints import native
from griffin_core.checkpoints.convert import convert
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


def export(peer: str, path: Path, dtype: str = "float32", shard: int | None = None) -> Path:
    """Convert the golden weights, which bfloat16 holds exactly, to the format that a peer reads; what it loads."""
    native.save(path.with_name("native"), CONFIG, files.weights())
    reads = PEERS[peer].reads
    convert(
        path.with_name("native"), path, to=reads, dtype=dtype, max_shard_size=shard if reads == "huggingface" else None
    )
    return path / "model.pt" if reads == "recurrentgemma-torch" else path


def _same(peer: str, output: str, path: Path) -> None:
    case = files.case(output)
    live = PEERS[peer].run(path, CONFIG, case)
    assert live.dtype == np.float32
    assert live.shape == files.read(peer)[output].shape
    assert files.distance(live, files.read(peer)[output], case.positions >= 0) <= files.REPEATS


@pytest.mark.parametrize(("peer", "output"), OUTPUTS)
def test_the_peer_computes_its_golden_logits(need: Need, tmp_path: Path, peer: str, output: str) -> None:
    need(peer)
    _same(peer, output, export(peer, tmp_path / "export"))


@pytest.mark.parametrize("peer", PEERS)
def test_the_peer_reads_bfloat16_in_several_files(need: Need, tmp_path: Path, peer: str) -> None:
    need(peer)
    path = export(peer, tmp_path / "export", "bfloat16", SHARD)
    if PEERS[peer].reads == "huggingface":
        assert (path / INDEX_FILE).exists()
        assert (path / MANIFEST_FILE).exists()
    _same(peer, "full", path)
