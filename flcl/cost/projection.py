"""Weak scaling on paper: what exchanges cost on more chips, each with the batch it has now."""

from flcl.cost.chips import Chip
from flcl.cost.hlo import Collective

UTILISATION = 0.4
_MOST = 4096  # chips


def assumptions(chip: Chip, utilisation: float) -> list[str]:
    """What the projection takes for granted, in sentences."""
    return [
        "nothing of this is measured: FLOPs and bytes are those of the compiled program",
        f"work runs at {utilisation:.0%} of the {chip.peak / 1e12:.0f} TFLOP/s (bfloat16) of a "
        "device; the batch on each chip stays as it is",
        f"exchanges go around one ring in one direction at {chip.link / 1e9:.0f} GB/s among up to "
        f"{chip.slice} chips; between such slices each chip has {chip.network / 1e9:.4g} GB/s",
        "an all-reduce over n devices sends 2(n-1)/n of its bytes, a gather, scatter or all-to-all "
        "(n-1)/n; latency, input and stragglers cost nothing",
        "`hidden`: every exchange overlaps with work; `exposed`: none does",
    ]


def project(
    flops: float, found: list[Collective], fsdp: int, devices: int, chip: Chip, utilisation: float
) -> list[dict]:
    """Seconds and efficiency of a step on 1, 4, 16 ... chips.

    Args:
      flops: of one device and step.
      found: the exchanges of the program.
      fsdp: devices that share parameters: what they gather stays among them, all else grows with
        the machine.
      devices: of the compiled program.

    Returns:
      `{"chips", "slices", "work_seconds", "exchange_seconds", "hidden", "exposed"}` for each size;
      the last two are work / max(work, exchange) and work / (work + exchange).
    """

    def stays(each: Collective) -> bool:
        # Devices that share parameters gather them; gradients are summed over the whole machine.
        return each.group <= fsdp and each.kind != "all-reduce"

    rows, chips = [], 1
    work = flops / (chip.peak * utilisation)
    while chips <= _MOST:
        now = chips * chip.devices
        exchange = sum(
            _seconds(each, each.group if stays(each) else each.group * now / devices, chip)
            for each in found
        )
        rows.append(
            {
                "chips": chips,
                "slices": -(-chips // chip.slice),
                "work_seconds": work,
                "exchange_seconds": exchange,
                "hidden": work / max(work, exchange),
                "exposed": work / (work + exchange),
            }
        )
        chips *= 4
    return rows


def _seconds(each: Collective, group: float, chip: Chip) -> float:
    """Seconds of one exchange among `group` devices: inside the slices, then between them."""
    rounds = {"all-reduce": 2, "collective-permute": 0, "collective-broadcast": 1}.get(each.kind, 1)
    inside = min(group, chip.slice * chip.devices)
    slices = group / inside
    if group <= 1:
        return 0.0
    if not rounds:  # a permutation sends everything once, over the slowest link on its way
        return each.bytes * chip.devices / (chip.link if slices <= 1 else chip.network)
    fast = rounds * (inside - 1) / inside * each.bytes * chip.devices / chip.link
    # What is left for the network is the part of each device after the ring inside its slice.
    slow = rounds * (slices - 1) / slices * each.bytes / inside * chip.devices / chip.network
    return fast + max(0.0, slow)
