"""`model.keep_lower`: how many blocks are kept, and which keys it refuses."""

import pytest
from edited import with_value

from flcl.settings import bridge


def run_of(method, **changes):
    """A run on a ViT of 12 blocks that keeps outputs."""
    values = {"model.variant": "S/4", "model.keep_lower": True, "train.min_crop": 1.0}
    values |= {name.replace("__", "."): value for name, value in changes.items()}
    known = dict(bridge.keys(bridge.run_class(method)))
    config = bridge.defaults(method)
    config.update_from_flattened_dict({k: v for k, v in values.items() if k in known})
    return bridge.freeze(config)


@pytest.mark.parametrize(
    ("method", "changes", "kept"),
    [
        ("fmlora", {"lora__blocks": "8-11"}, 8),
        ("lora_sequential", {"lora__blocks": "3,11"}, 3),
        ("inflora", {"lora__blocks": "10", "model__features": "layers:4"}, 9),
        ("rsiat", {"bottleneck__blocks": "6-11"}, 6),
        ("first_session", {"lora__blocks": "11"}, 11),
        ("frozen", {}, 12),
        ("linear_probe", {"model__features": "cls+mean"}, 12),
        ("class_mean", {"model__features": "layers:3"}, 10),
        ("fmlora", {"model__keep_lower": False}, 0),
        ("vit_finetune", {}, 0),
    ],
)
def test_blocks_below_all_that_trains_and_is_read(method, changes, kept):
    assert run_of(method, **changes).kept_blocks == kept


@pytest.mark.parametrize(
    ("method", "changes", "advice"),
    [
        ("fmlora", {"lora__blocks": "8-11", "data__flip": True}, "set data.flip=False; or"),
        (
            "lora_sequential",
            {"lora__blocks": "8-11", "train__min_crop": 0.8},
            "set train.min_crop=1;",
        ),
        ("fmlora", {"lora__blocks": "8-11", "prompt__tokens": 2}, "set prompt.tokens=0; or"),
        ("sd_lora", {}, "set lora.blocks=6-11, without block 0; or"),
        (
            "rsiat",
            {"data__flip": True},
            "data.flip=False, bottleneck.blocks=6-11, without",
        ),
    ],
)
def test_what_would_change_the_outputs_is_refused_with_the_keys_to_change(method, changes, advice):
    with pytest.raises(ValueError, match="^model.keep_lower=True: ") as caught:
        run_of(method, **changes)
    line = str(caught.value)
    assert advice in line and line.endswith("or set model.keep_lower=False") and "\n" not in line


@pytest.mark.parametrize("method", ["vit_finetune", "slca"])
def test_methods_that_train_every_block_do_not_know_the_key(method):
    values = with_value("model.keep_lower", True, method)
    with pytest.raises(
        ValueError, match=f"'model.keep_lower' is read by no part of method '{method}'"
    ):
        bridge.from_dict(values)
