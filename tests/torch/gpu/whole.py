"""A whole model's loss and gradients: plain, compiled, and with its parameters sharded over a process group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from griffin_core.config import GriffinConfig
from griffin_core_torch.modules import GriffinForCausalLM

CONFIG = GriffinConfig(
    vocab_size=61,
    width=64,
    lru_width=96,
    mlp_width=80,
    num_layers=3,
    num_heads=2,
    head_dim=32,
    gate_blocks=3,
    attention_window=33,
    block_pattern=("recurrent", "recurrent", "attention"),
)
BATCH, TIME = 2, 150


def model(device: str, config: GriffinConfig = CONFIG) -> GriffinForCausalLM:
    """With the same weights on every device."""
    return GriffinForCausalLM.from_config(config, seed=3, device=device)


def text(device: str, time: int = TIME) -> tuple[Tensor, Tensor]:
    """Tokens, and positions of rows with a second document; the first row ends with padding."""
    tokens = torch.randint(CONFIG.vocab_size, (BATCH, time), generator=torch.Generator().manual_seed(5))
    positions = torch.arange(time, dtype=torch.int32).repeat(BATCH, 1)
    positions[1, time // 2 :] -= time // 2
    positions[0, -3:] = -1
    return tokens.to(device), positions.to(device)


def loss_of(module: nn.Module, kernel: str, device: str, time: int = TIME) -> Callable[[], Tensor]:
    """A function without arguments, to be compiled or called."""
    tokens, positions = text(device, time)

    def loss() -> Tensor:
        return module(tokens, positions, None, "right", kernel)[0].square().mean()

    return loss


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """By name, whole ones where parameters are sharded."""
    module.zero_grad()
    loss.backward()
    found = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {name: getattr(x, "full_tensor", lambda x=x: x)() for name, x in found.items()}  # type: ignore[misc]


def close(got: dict[str, Tensor], expected: dict[str, Tensor], near: float) -> None:
    """Every gradient within ``near`` of its largest element.

    Raises:
        AssertionError: one is not, or one is missing.
    """
    assert got.keys() == expected.keys()
    for name, want in expected.items():
        size = float(want.abs().max())
        assert size > 0, f"the gradient of {name} is 0, which proves nothing"
        torch.testing.assert_close(
            got[name], want, rtol=near, atol=near * size, msg=lambda text, n=name: f"{n}: {text}"
        )


@contextmanager
def alone(device: str, folder: Path) -> Iterator[None]:
    """A process group of this process."""
    from torch import distributed

    store = distributed.FileStore(str(folder / "store"), 1)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def shard(module: GriffinForCausalLM, device: str) -> None:
    """FSDP2 over the process group: each residual block is gathered by itself, then what is left."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (1,))
    for block in module.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
