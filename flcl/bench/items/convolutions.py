"""The class-modulated convolution against the plain one, forward and backward."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from flcl.adapters import functional
from flcl.adapters.functions import FAMILIES
from flcl.adapters.modulate import Modulation, modulated_conv, plain_conv
from flcl.bench.figures import Figure, timed
from flcl.bench.programs import dtype_of, rates
from flcl.bench.rounds import interleave
from flcl.bench.sizes import Size
from flcl.cost import meter

_STRATEGIES = ("loop", "vmap", "taps")  # `map` concerns the whole network: see phase1_step
FAMILY, FUNCTIONS, SIGMA = "cosine_learnable", 10, 0.3


def modulated_convolution(size: Size, rounds: int) -> Iterator[Figure]:
    """A class-modulated convolution and its gradients against the plain convolution."""
    for side, channels, batch in size.convolutions:
        for groups in size.groups:
            arguments = inputs(side, channels, batch, groups, dtype_of(size))
            plain = jax.jit(gradients(None)).lower(*arguments)
            # With a single class, every strategy uses the plain convolution.
            strategies = _STRATEGIES if groups > 1 else ("auto",)
            bare = _call(plain.compile(), arguments)
            for strategy in strategies:
                compiled = jax.jit(gradients(strategy)).lower(*arguments).compile()
                # In pairs, because a short call is timed badly beside a very long one.
                pair = {"modulated": _call(compiled, arguments), "plain": bare}
                seconds = interleave(pair, rounds)
                name = f"modulated_conv/{side}x{side}x{channels}/G={groups}/{strategy}"
                more = rates(batch, meter.written_flops(plain), seconds["modulated"])
                yield timed(name, seconds["modulated"], seconds["plain"], **more)


def inputs(side: int, channels: int, batch: int, groups: int, dtype: str) -> tuple:
    """(x, W0, factors, cotangent) of a 3 x 3 convolution that keeps the number of channels."""
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (batch, side, side, channels)
    layers = {"layer": (channels, channels)}
    rows = functional.init_rows(keys[2], layers, FAMILY, jnp.arange(groups), FUNCTIONS, SIGMA)
    return (
        jax.random.normal(keys[0], shape, dtype),
        jax.random.normal(keys[1], (3, 3, channels, channels)) / (9 * channels) ** 0.5,
        rows["layer"],
        jax.random.normal(keys[3], shape, dtype),
    )


def gradients(strategy: str | None):
    """(x, W0, factors, cotangent) -> value and gradients; None = of the plain convolution."""

    def plain(x, kernel, cotangent):
        out = plain_conv(x, kernel.astype(x.dtype))
        return jnp.vdot(out.astype(jnp.float32), cotangent.astype(jnp.float32))

    def modulated(x, kernel, factors, cotangent):
        modulation = Modulation(functional.lift(factors, FAMILIES[FAMILY]))
        out = modulated_conv(x, kernel, modulation, strategy=strategy)
        return jnp.vdot(out.astype(jnp.float32), cotangent.astype(jnp.float32))

    if strategy is None:
        grad = jax.value_and_grad(plain, argnums=(0, 1))
        return lambda x, kernel, factors, cotangent: grad(x, kernel, cotangent)
    return jax.value_and_grad(modulated, argnums=(0, 1, 2))


def _call(compiled, arguments):
    return lambda: compiled(*arguments)
