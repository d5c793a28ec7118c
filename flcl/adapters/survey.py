"""What the images of a task tell before it trains: gradients of maps, and the inputs of maps.

The gradient G [in, out] of a map is that of the mean loss by its kernel, W + A C B'. Where the
bases cannot follow it, the task cannot change the map. The second moment of the inputs x, as the
map sees them through A, is A' E[x x'] A [r, r]; with it a core's change of the outputs is known.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from flcl.adapters.factorized import Shapes, map_sites


def kernel_gradients(loss: Callable, trunk: dict, shapes: Shapes) -> tuple[dict, dict]:
    """The gradient float32 [in, out] by the kernel of each map in `shapes`, and what `loss` adds.

    loss: a function of the trunk that returns a number, and a tree that is passed on.
    """

    def of_kernels(kernels):
        changed = {
            block: {site: {**trunk[block][site], "kernel": k} for site, k in sites.items()}
            for block, sites in kernels.items()
        }
        return loss(trunk | {block: trunk[block] | sites for block, sites in changed.items()})

    # In float32, whatever the type of the trunk is.
    kernels = {
        block: {site: trunk[block][site]["kernel"].astype(jnp.float32) for site in sites}
        for block, sites in shapes.items()
    }
    return jax.grad(of_kernels, has_aux=True)(kernels)


def gradient_bases(gradient: dict, rank: int, columns: int | None = None) -> dict:
    """A and B of each map from the `rank` largest singular vectors of its gradient (ours).

    Returns `{"a": [in, rank], "b": [out, rank]}`. The columns of A have the length that they have
    in the usual start of a LoRA, 1 / sqrt(3), and those of B the length sqrt(out). So a step on an
    entry of the core changes the update as much as, in the usual start, a step on a column of B.
    columns: with more columns than `rank`, the others are zero.
    """

    def site_bases(g):
        # On the host in float64: it is done once in a run.
        left, _, right = np.linalg.svd(np.asarray(g, np.float64), full_matrices=False)
        free = ((0, 0), (0, (columns or rank) - rank))
        a, b = left[:, :rank] * 3**-0.5, right[:rank].T * g.shape[1] ** 0.5
        return {"a": jnp.float32(np.pad(a, free)), "b": jnp.float32(np.pad(b, free))}

    return map_sites(site_bases, gradient)


def coverage(bases: dict, gradient: dict) -> float:
    """rho = |A' G B|^2 / |G|^2, summed over the maps, for bases of any length (ours).

    It is the share of the gradient's energy that the shared subspace can follow: 1 = all of it.
    A gradient of zero is covered.
    """
    held = total = 0.0
    for block, sites in gradient.items():
        for site, g in sites.items():
            g = np.asarray(g, np.float64)
            a, b = (_span(bases[block][site][name]) for name in ("a", "b"))
            held += np.sum((a.T @ g @ b) ** 2)
            total += np.sum(g**2)
    return float(held / total) if total else 1.0


def grown(bases: dict, gradient: dict, share: float) -> dict:
    """Bases with more columns, until they hold `share` of the gradient or no column is free (ours).

    bases: orthonormal columns, then columns of zero, which are free. The new columns are the
    largest singular vectors of what the bases do not hold, G - A A' G B B', made orthonormal to the
    others; all maps get the same number. A core of zero in the new rows and columns gives the
    same function as before.
    """
    used, free = _used(bases)
    residuals = map_sites(_residual_vectors, bases, gradient)
    for more in range(free + 1):
        wider = map_sites(lambda old, new, n=more: _wider(old, new, used, n), bases, residuals)
        if coverage(wider, gradient) >= share:
            break
    return map_sites(lambda entry: jax.tree.map(jnp.float32, entry), wider)


def used_columns(bases: dict) -> int:
    """Number of columns of A that are not zero, the most of any map."""
    return _used(bases)[0]


def _used(bases: dict) -> tuple[int, int]:
    """The numbers of used and of free columns."""
    counts = [
        np.any(np.asarray(entry["a"]) != 0, axis=0)
        for sites in bases.values()
        for entry in sites.values()
    ]
    used = int(np.any(counts, axis=0).sum())
    return used, len(counts[0]) - used


def _residual_vectors(entry: dict, gradient) -> dict:
    """The singular vectors of what A and B do not hold, largest first."""
    g, a, b = (np.asarray(v, np.float64) for v in (gradient, entry["a"], entry["b"]))
    left, _, right = np.linalg.svd(g - a @ (a.T @ g @ b) @ b.T, full_matrices=False)
    return {"a": left, "b": right.T}


def _wider(entry: dict, new: dict, used: int, more: int) -> dict:
    """A and B with `more` of the new vectors in the columns after the `used` ones."""
    wider = {}
    for name, columns in entry.items():
        wide = np.array(columns, np.float64)
        old = wide[:, :used]
        # Twice, because once leaves the rounding of a vector that is nearly inside the old span.
        rest = new[name][:, :more]
        for _ in range(2):
            rest = rest - old @ (old.T @ rest)
        wide[:, used : used + more] = _span(rest)
        wider[name] = wide
    return wider


def _span(columns) -> np.ndarray:
    """Orthonormal columns with the same span; columns of zero stay zero."""
    q, r = np.linalg.qr(np.asarray(columns, np.float64))
    return q * (np.abs(np.diag(r)) > 1e-9 * max(1.0, np.abs(r).max(initial=0.0)))


def projected_moments(adapters: dict, seen: dict, weights: jax.Array) -> dict:
    """Sums of A' x x' A over the tokens of all images, float32 [r, r] per map.

    adapters: the adapted maps. seen: x A [B, T, r] of each map, as the transformer gives it in its
    collection `seen`. weights: [B], 0 for an image that does not count.
    """

    def site_moments(_, entry):
        (projected,) = entry["projected"]
        rows = projected.astype(jnp.float32)
        return jnp.einsum("b,bti,btj->ij", weights, rows, rows, precision="highest")

    return map_sites(site_moments, adapters, seen)
