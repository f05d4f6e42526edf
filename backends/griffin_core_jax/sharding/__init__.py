"""One model over many devices: the axes data, fsdp, sequence and tensor of a mesh.

    from griffin_core_jax import sharding

    mesh = sharding.make_mesh(fsdp=4, tensor=2)
    params = sharding.shard_params(config, mesh, params)
    logits, _ = sharding.forward(config, mesh, params, tokens)

``table`` says how every array is split, ``mesh`` refuses what cannot be, ``local`` is the program of one device, and
``pods`` shows what a pod would do, compiled without one.
"""

from griffin_core_jax.sharding.forward import forward
from griffin_core_jax.sharding.mesh import (
    check_batch,
    check_mesh,
    legal_tensor_sizes,
    make_mesh,
    shard_batch,
    shard_params,
    shard_state,
)
from griffin_core_jax.sharding.operations import recurrent_middle
from griffin_core_jax.sharding.table import batch_spec, param_shardings, param_specs, state_specs
from griffin_core_jax.sharding.training import (
    gradients,
    init_optimizer,
    loss,
    make_train_step,
    optimizer_shardings,
)

__all__ = [
    "batch_spec",
    "check_batch",
    "check_mesh",
    "forward",
    "gradients",
    "init_optimizer",
    "legal_tensor_sizes",
    "loss",
    "make_mesh",
    "make_train_step",
    "optimizer_shardings",
    "param_shardings",
    "param_specs",
    "recurrent_middle",
    "shard_batch",
    "shard_params",
    "shard_state",
    "state_specs",
]
