"""DMP: one prompt P [m, d] that all tasks share and update (FM-LoRA, Yu et al. 2025).

No copy per task and no pool. The paper says that P is prepended once to the input sequence; length
and start are not known and are ours (M7).
"""

import jax

from flcl import settings


def init_prompt(key: jax.Array, prompt: settings.Prompt, width: int) -> jax.Array:
    """P [m, width] from a normal truncated at two of its standard deviations `prompt.sigma`."""
    shape = (prompt.tokens, width)
    return prompt.sigma * jax.random.truncated_normal(key, -2.0, 2.0, shape)
