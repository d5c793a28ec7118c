"""What `model.keep_lower` keeps for each image, and which keys it cannot be combined with."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flcl.settings.classification import ClassifierRun


def blocks(run: "ClassifierRun") -> int:
    """The number of first blocks whose output is kept; 0 = none is.

    They end below the first block with an adapter, and where the features begin to be read.
    """
    if not run.model.keep_lower:
        return 0
    most = run.model.sizes.depth - run.model.feature_blocks + 1
    _, adapted = _adapters(run)
    return min((most, *adapted))


def check(run: "ClassifierRun") -> None:
    """Raises `ValueError`, with the keys to change, where nothing could be kept."""
    if not run.model.keep_lower:
        return
    changes = []
    if getattr(run.data, "flip", False):
        changes.append("data.flip=False")
    if getattr(run.train, "min_crop", 1.0) < 1:
        changes.append("train.min_crop=1")
    # A prompt passes through every block, and it trains.
    if getattr(run, "prompt", None) and run.prompt.tokens:
        changes.append("prompt.tokens=0")
    if run.model.has_sizes:  # checked again when the file is read
        name, adapted = _adapters(run)
        depth = run.model.sizes.depth
        if 0 in adapted:
            changes.append(f"{name}.blocks={depth // 2}-{depth - 1}, without block 0")
    if changes:
        raise ValueError(
            "model.keep_lower=True: an image needs the same output of the first blocks in every "
            f"step; set {', '.join(changes)}; or set model.keep_lower=False"
        )


def _adapters(run: "ClassifierRun") -> tuple[str, tuple[int, ...]]:
    """The section of the adapters, and the blocks that have one; ("", ()) = nothing is adapted."""
    depth = run.model.sizes.depth
    for name in ("lora", "bottleneck"):
        if section := getattr(run, name, None):
            return name, section.of_depth(depth)
    return "", ()
