import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.metrics.ranks import effective_rank, numerical_rank


def test_identity_and_rank_one():
    assert effective_rank(jnp.eye(7)) == pytest.approx(7, rel=1e-5)
    assert numerical_rank(jnp.eye(7)) == 7
    outer = jnp.outer(jnp.arange(1.0, 6.0), jnp.arange(1.0, 9.0))
    assert effective_rank(outer) == pytest.approx(1, abs=1e-3)
    assert numerical_rank(outer) == 1


def test_diagonal_has_the_entropy_of_its_shares():
    # Shares 1/2, 1/4, 1/8, 1/8: entropy 7/4 ln 2, whatever the scale and the sign.
    matrix = 3.0 * jnp.diag(jnp.array([4.0, -2.0, 1.0, 1.0]))
    assert effective_rank(matrix) == pytest.approx(2**1.75, rel=1e-5)
    assert numerical_rank(matrix) == 4


def test_tolerance_is_relative_to_the_largest_value():
    matrix = jnp.diag(jnp.array([10.0, 1.0, 0.1]))
    assert numerical_rank(matrix, tolerance=0.05) == 2
    assert numerical_rank(1000 * matrix, tolerance=0.05) == 2


def test_zero_matrix_and_wide_batches():
    assert effective_rank(jnp.zeros((3, 5))) == 0
    assert numerical_rank(jnp.zeros((3, 5))) == 0
    batch = np.zeros((2, 3, 4, 6), np.float32)
    for i in range(2):
        for j in range(3):
            np.fill_diagonal(batch[i, j, : i + j + 1], 2.0)
    wanted = np.array([[1, 2, 3], [2, 3, 4]])
    np.testing.assert_allclose(jax.jit(effective_rank)(batch), wanted, rtol=1e-5)
    np.testing.assert_array_equal(numerical_rank(batch), wanted)
