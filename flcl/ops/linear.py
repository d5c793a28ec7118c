"""Products with a trained matrix; the gradient of the matrix is summed in float32.

It is a sum over all images and tokens. JAX's own derivative of a product in bfloat16 is rounded to
bfloat16, and XLA's CPU product adds it up in bfloat16: measured on 131,072 rows, it was wrong by
1 % and took ten times as long.
"""

import jax
import jax.numpy as jnp
from jax import lax


def linear(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """x [..., Cin] times a matrix [Cin, Cout], in the type of x; reverse mode only."""
    # In one type, such as float32, JAX's own derivative is right.
    return x @ matrix if x.dtype == matrix.dtype else product(x, matrix)


@jax.custom_vjp
def product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """`linear`, with a gradient of the matrix that is faster on a CPU also in float32."""
    return lax.dot_general(x, matrix.astype(x.dtype), (((x.ndim - 1,), (0,)), ((), ())))


def _product_forward(x, matrix):
    return product(x, matrix), (x, matrix)


def _product_backward(saved, grad):
    x, matrix = saved
    same = matrix.astype(grad.dtype)
    grad_x = lax.dot_general(grad, same, (((grad.ndim - 1,), (1,)), ((), ())))
    return grad_x, matrix_gradient(x, grad).astype(matrix.dtype)


product.defvjp(_product_forward, _product_backward)


def matrix_gradient(x: jax.Array, grad: jax.Array) -> jax.Array:
    """Gradient float32 [Cin, Cout] of the matrix, from x [..., Cin] and grad [..., Cout]."""
    axes = tuple(range(x.ndim - 1))
    wide = jnp.promote_types(x.dtype, jnp.float32)

    def of(x, grad):
        return lax.dot_general(x, grad, ((axes, axes), ((), ())), preferred_element_type=wide)

    def apart(x, grad):
        return of(*lax.optimization_barrier((x, grad)))

    # XLA's CPU product copies its first factor column by column. The barrier keeps the computation
    # of that factor out of the copy, where it would be several times slower.
    return lax.platform_dependent(x, grad, cpu=apart, default=of)
