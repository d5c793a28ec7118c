"""The low-rank update that a classifier gives to others: all of its change, or a reason."""

import jax
import numpy as np
import pytest


def with_update(trunk, update):
    """The trunk with a core b' added to its kernels, in float64."""
    blocks = {block: dict(sites) for block, sites in trunk.items() if isinstance(sites, dict)}
    for block, sites in update.items():
        for site, entry in sites.items():
            a, core, b = (np.asarray(entry[name], np.float64) for name in ("a", "core", "b"))
            kernel = trunk[block][site]["kernel"] + a @ core @ b.T
            blocks[block][site] = {**trunk[block][site], "kernel": np.float32(kernel)}
    return {**trunk, **blocks}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("fmlora", {"lora__combine": "sum", "lora__scale": 0.5}),
        ("fmlora", {"lora__combine": "scaled", "lora__sites": ("q", "fc1"), "lora__blocks": "1"}),
        ("fmlora", {"lora__combine": "last"}),
        ("lora_sequential", {"lora__scale": 2.0}),
        ("first_session", {}),
        ("sd_lora", {}),
        ("inflora", {}),
    ],
)
def test_the_trunk_with_the_update_has_the_features_of_the_method(
    build, images, moved, name, changes
):
    if name == "fmlora":
        changes = {**changes, "prompt__tokens": 0, "rank__selector": "full"}
    method = build(name, **changes)
    memory = method.init(jax.random.key(0))
    names = {"bases", "cores", "scales", "lora", "directions", "magnitudes"} & memory.keys()
    memory |= {each: moved(memory[each], spread=0.2) for each in names}
    update = method.low_rank(memory)
    sites, blocks = method.run.lora.sites, {"0-1": 2, "1": 1}[method.run.lora.blocks]
    assert len(update) == blocks and all(set(maps) == set(sites) for maps in update.values())
    pixels = method._normalised(images)
    given = method.encode(pixels, with_update(memory["trunk"], update))
    expected = method.features(memory, images)
    np.testing.assert_allclose(given, expected, atol=1e-5)
    assert np.abs(given - method.encode(pixels, memory["trunk"])).max() > 1e-2


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("fmlora", {"prompt__tokens": 3}, "prompt.tokens=3: a prompt adds tokens to every image"),
        ("fmlora", {"prompt__init": "gated"}, "prompt.tokens=2: a prompt adds tokens"),
        ("rsiat", {}, "method=rsiat: its bottleneck beside the MLP is not linear"),
        ("vit_finetune", {}, "method=vit_finetune: it changes all weights"),
        ("slca", {}, "method=slca: it changes all weights"),
        ("frozen", {}, "method=frozen: it leaves the weights as they are"),
        ("linear_probe", {}, "method=linear_probe: it leaves the weights as they are"),
    ],
)
def test_what_has_no_such_form_is_refused_with_the_reason(build, name, changes, why):
    method = build(name, **changes)
    with pytest.raises(ValueError, match=why):
        method.low_rank(method.init(jax.random.key(0)))
