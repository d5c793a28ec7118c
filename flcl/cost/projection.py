"""Computed weak scaling: the cost of exchanges on more chips, with the same batch per chip."""

from flcl.cost.chips import Chip
from flcl.cost.hlo import Collective

UTILISATION = 0.4
_MOST = 4096  # chips
# How often the bytes of an exchange go around the ring; 0 = directly to one device.
_ROUNDS = {"all-reduce": 2, "collective-permute": 0}


def assumptions(chip: Chip, utilisation: float) -> list[str]:
    """The assumptions of the projection, in sentences."""
    return [
        "nothing of this is measured: bytes are those of the compiled program, and so are FLOPs, "
        "but on a GPU they are those of the program as written, divided by the devices",
        f"work runs at {utilisation:.0%} of the {chip.peak / 1e12:.0f} TFLOP/s (bfloat16) of a "
        "device; the batch on each chip stays as it is",
        f"exchanges go around one ring in one direction at {chip.link / 1e9:.0f} GB/s among up to "
        f"{chip.slice} chips; between such slices each chip has {chip.network / 1e9:.4g} GB/s",
        "an all-reduce over n devices sends 2(n-1)/n of its bytes, a gather, scatter or all-to-all "
        "(n-1)/n; latency, input and stragglers cost nothing",
        "`hidden`: every exchange overlaps with work; `exposed`: none does",
    ]


def project(
    flops: float,
    exchanges: list[Collective],
    fsdp: int,
    devices: int,
    chip: Chip,
    utilisation: float,
) -> list[dict]:
    """Seconds and efficiency of a step on 1, 4, 16 ... chips.

    Args:
      flops: FLOPs of one device in one step.
      exchanges: exchanges of the program.
      fsdp: number of devices that share parameters. Their gathers stay among them; all other
        exchanges grow with the machine.
      devices: number of devices of the compiled program.

    Returns:
      `{"chips", "slices", "work_seconds", "exchange_seconds", "hidden", "exposed"}` for each size;
      the last two are work / max(work, exchange) and work / (work + exchange).
    """

    def group(exchange: Collective, now: int) -> float:
        # Devices that share parameters gather them; gradients are summed over the whole machine.
        stays = exchange.group <= fsdp and exchange.kind != "all-reduce"
        return exchange.group if stays else exchange.group * now / devices

    rows, chips = [], 1
    work = flops / (chip.peak * utilisation)
    while chips <= _MOST:
        now = chips * chip.devices
        exchange = sum(_seconds(entry, group(entry, now), chip) for entry in exchanges)
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


def _seconds(exchange: Collective, group: float, chip: Chip) -> float:
    """Seconds of one exchange among `group` devices: inside the slices, then between them."""
    rounds = _ROUNDS.get(exchange.kind, 1)
    inside = min(group, chip.slice * chip.devices)
    slices = group / inside
    if group <= 1:
        return 0.0
    if not rounds:  # a permutation sends everything once, over the slowest link on its way
        return exchange.bytes * chip.devices / (chip.link if slices <= 1 else chip.network)
    fast = rounds * (inside - 1) / inside * exchange.bytes * chip.devices / chip.link
    # Between slices, each device sends its part after the ring inside its slice.
    share = rounds * (slices - 1) / slices * exchange.bytes / inside
    slow = share * chip.devices / chip.network
    return fast + max(0.0, slow)
