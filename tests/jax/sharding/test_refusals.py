"""What cannot be split is refused on the host, and the message says what would do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from griffin_core import presets
from griffin_core.config import GriffinConfig
from griffin_core.errors import ConfigError, InputError
from griffin_core_jax import sharding


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("recurrentgemma-2b", (1, 2, 5, 10)),
        ("recurrentgemma-9b", (1, 2, 4, 8, 16)),
        ("griffin-14b", (1, 2, 4, 8)),
        ("hawk-3b", (1, 2, 4, 8, 16)),
        ("mqa-1b", (1, 2, 4, 8, 16)),
    ],
)
def test_legal_tensor_sizes_are_common_divisors(name: str, legal: tuple[int, ...]) -> None:
    assert sharding.legal_tensor_sizes(presets.preset(name).config) == legal


def test_refuses_a_tensor_size_and_names_the_legal_ones() -> None:
    config = presets.preset("recurrentgemma-2b").config
    mesh = sharding.make_mesh(tensor=4)
    with pytest.raises(ConfigError, match=r"tensor=4 does not divide num_heads=10 and gate_blocks=10;.* 1, 2, 5, 10$"):
        sharding.check_mesh(config, mesh)


def test_refuses_fsdp_that_does_not_divide_the_width(config: GriffinConfig) -> None:
    mesh = sharding.make_mesh(fsdp=8)
    with pytest.raises(ConfigError, match=r"fsdp=8 does not divide width=20; legal sizes are 1, 2, 4$"):
        sharding.check_mesh(config.replace(width=20), mesh)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 2, "tensor": 2}, r"data=2 x fsdp=1 x sequence=1 x tensor=2 for 8 devices; .* is 8"),
        ({"tensor": 3}, r"fsdp=1 x sequence=1 x tensor=3 for 8 devices; .* divides 8"),
        ({"fsdp": 0}, r"fsdp=0; expected a positive integer"),
        ({"sequence": True}, r"sequence=True; expected a positive integer"),
    ],
)
def test_refuses_meshes_that_do_not_use_the_devices(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sharding.make_mesh(**sizes)


@pytest.mark.parametrize(
    ("sizes", "shape", "message"),
    [
        ({"data": 4, "fsdp": 2}, (6, 8), r"batch of 6 rows .* data x fsdp = 8 devices; use a multiple of 8"),
        ({"sequence": 8}, (2, 12), r"12 tokens a row cannot be split over sequence=8; use a multiple of 8"),
        ({"sequence": 8}, (2, 16), r"are 2 a device, but the convolution looks 3 back; use at least 24 tokens"),
        ({"data": 8}, (8,), r"tokens have shape \(8,\); expected \[batch, time\]"),
    ],
)
def test_refuses_batches_that_cannot_be_split(
    config: GriffinConfig, sizes: dict[str, int], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        sharding.check_batch(config, sharding.make_mesh(**sizes), shape)


def test_refuses_values_before_anything_is_traced(config: GriffinConfig, params: Any) -> None:
    mesh = sharding.make_mesh()
    tokens = np.zeros((8, 4), np.int32)
    with pytest.raises(InputError, match=r"token id 40 at row 0, column 0"):
        sharding.forward(config, mesh, params, tokens + 40)
    positions = np.tile(np.arange(4, dtype=np.int32), (8, 1))
    positions[1] = (-1, 0, 1, 2)
    with pytest.raises(InputError, match=r"row 1 has padding before its last token"):
        sharding.forward(config, mesh, params, tokens, positions)


def test_refuses_states_where_time_is_split(config: GriffinConfig) -> None:
    from griffin_core_jax import init_state

    with pytest.raises(ConfigError, match=r"a decode state needs sequence=1, the mesh has 2"):
        sharding.shard_state(config, sharding.make_mesh(sequence=2), init_state(config, 8))


def test_refuses_a_mesh_with_other_axes(config: GriffinConfig) -> None:
    import jax

    with pytest.raises(ConfigError, match=r"mesh has the axes \('x',\); expected"):
        sharding.check_mesh(config, jax.make_mesh((8,), ("x",)))
