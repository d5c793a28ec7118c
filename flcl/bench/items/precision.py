"""bfloat16 against float32: the time of a step, and the loss after some steps of both."""

from collections.abc import Iterator

from flcl.bench.figures import Figure, counted, timed
from flcl.bench.items.loops import Loops
from flcl.bench.programs import Training
from flcl.bench.rounds import interleave
from flcl.bench.sizes import Size

TYPES = ("bfloat16", "float32")


def bfloat16(size: Size, rounds: int) -> Iterator[Figure]:
    """The train step of the first task in bfloat16 against float32, and the losses of both."""
    runs = {dtype: size.generator_run(model__dtype=dtype) for dtype in TYPES}
    trainings = {dtype: Training(run, 1) for dtype, run in runs.items()}
    half, whole = interleave(trainings, rounds).values()
    yield timed("bfloat16", half, whole, **trainings["bfloat16"].rates(half))
    later = {
        dtype: Training(size.classifier_run("fmlora", model__dtype=dtype), 2) for dtype in TYPES
    }
    half, whole = interleave(later, rounds).values()
    note = "FM-LoRA in a later task; the frozen trunk is stored as its default says"
    yield timed("bfloat16/vit", half, whole, note=note, **later["bfloat16"].rates(half))
    # The same images, noise and first values.
    losses = {dtype: Loops(run, size.loss_steps).last_loss() for dtype, run in runs.items()}
    note = (
        f"mean loss of the last tenth of {size.loss_steps} steps from the same start: bfloat16 "
        f"{losses['bfloat16']:.4f}, float32 {losses['float32']:.4f}"
    )
    yield counted("bfloat16/loss", losses["bfloat16"], losses["float32"], note)
