"""What the backward pass keeps and computes again, read off the program; the gradient stays what it was."""

import jax
import numpy as np
import pytest

import griffin_core_jax as backend
from griffin_core.errors import ConfigError
from griffin_core_jax import remat, step


def program(config, options, policy):
    def gradients(params, batch):
        how = {"wrap": remat.wrap_layers(policy), "constrain": remat.named()}
        return step.gradients(config, options, params, batch, **how)

    return jax.jit(gradients)


def products(jaxpr):
    """Matrix products in a program, those of its parts included."""
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name == "dot_general"
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            count += products(inner) if hasattr(inner, "eqns") else 0
    return count


def test_outputs_of_row_parallel_products_are_not_computed_again(config, options, batch_of, lively):
    params, batch = backend.load_params(config, lively(config), "float32"), batch_of()
    counts = {
        policy: products(jax.make_jaxpr(program(config, options, policy))(params, batch).jaxpr)
        for policy in remat.POLICIES
    }
    assert counts["none"] < counts["outputs"] < counts["block"]
    # linear_out or o_proj of each layer of the period; down_proj is needed again by nobody.
    assert counts["block"] - counts["outputs"] == len(config.block_pattern)


@pytest.mark.prove
@pytest.mark.parametrize("policy", ["block", "outputs"])
def test_the_gradient_stays_what_it_was(config, options, batch_of, lively, gradients, policy):
    params, batch = backend.load_params(config, lively(config), "float32"), batch_of()
    loss, grads = gradients(params, batch)
    again, others = program(config, options, policy)(params, batch)
    assert float(again) == pytest.approx(float(loss), rel=4 * 2.0**-24)
    for one, two in zip(jax.tree.leaves(grads), jax.tree.leaves(others), strict=True):
        # The same sums, but other fusions: a few roundings of the largest terms.
        np.testing.assert_allclose(one, two, rtol=0, atol=64 * 2.0**-24 * max(1e-3, np.abs(one).max()))


def test_names_are_on_the_activations_after_the_hook():
    seen = []

    def hook(name, x):
        seen.append(name)
        return x + 1.0

    named = remat.named(hook)
    assert named("mlp_out", np.float32(1.0)) == 2.0
    assert named("heads", np.float32(1.0)) == 2.0
    assert seen == ["mlp_out", "heads"]
    text = str(jax.make_jaxpr(lambda x: named("temporal_out", x))(1.0))
    assert text.index(" add ") < text.index("name=temporal_out")


def test_unknown_policies_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'outputs'"):
        remat.wrap_layers("output")
    assert remat.wrap_layers("none") is None
