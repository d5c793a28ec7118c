"""The data of accelerators, from the tables of their makers."""

from typing import NamedTuple

GIB = 2**30


class Chip(NamedTuple):
    """One accelerator chip.

    Attributes:
      name: the usual name.
      kinds: the names in JAX (`device_kind`), in every known spelling.
      hbm: bytes of device memory of the chip.
      usable: bytes that a program may use on one *device* of the chip.
      flops: peak bfloat16 FLOP/s of the chip, dense.
      hbm_bandwidth: bytes/s between the chip and its memory.
      link: bytes/s from a chip to one neighbour through the fast network of its slice.
      slice: largest number of chips that share the fast network.
      network: bytes/s of a chip's share of the network between slices (or nodes).
      devices: JAX devices on one chip.
    """

    name: str
    kinds: tuple[str, ...]
    hbm: int
    usable: int
    flops: float
    hbm_bandwidth: float
    link: float
    slice: int
    network: float
    devices: int = 1

    @property
    def peak(self) -> float:
        """Peak bfloat16 FLOP/s of one JAX device."""
        return self.flops / self.devices


# HBM, peak, HBM bandwidth, size of a pod and network between slices: Cloud TPU documentation, the
# table "key specifications" of the page of each version ("TPU v4", "TPU v5e", "TPU v5p", "TPU v6e",
# "TPU7x (Ironwood)"); the network between slices of v5e and v6e is their "data center network
# bandwidth per pod" over 256 chips, that of v4 is taken to be that of v5p. Links: "inter-chip
# interconnect bandwidth" of the same tables in one direction, over the chip's links (four in a 2D
# torus, six in a 3D torus); v4 from Jouppi et al. 2023 (arXiv 2304.01433, table 4: 6 x 50 GB/s).
# Usable: what libtpu 0.0.42 itself says when a program does not fit ("exceeds available HBM").
_TPUS = {
    "v4": Chip(
        "TPU v4", ("TPU v4",), 32 * GIB, int(30.75 * GIB), 275e12, 1.228e12, 50e9, 4096, 6.25e9
    ),
    "v5e": Chip(
        "TPU v5e",
        ("TPU v5 lite", "TPU v5e"),
        16 * GIB,
        int(15.75 * GIB),
        197e12,
        0.819e12,
        50e9,
        256,
        3.125e9,
    ),
    "v5p": Chip(
        "TPU v5p",
        ("TPU v5", "TPU v5p"),
        96 * GIB,  # the documentation says 95; the compiler has 95.74
        int(95.74 * GIB),
        459e12,
        2.765e12,
        100e9,
        8960,
        6.25e9,
    ),
    "v6e": Chip(
        "TPU v6e",
        ("TPU v6 lite", "TPU v6e"),
        32 * GIB,
        int(31.25 * GIB),
        918e12,
        1.638e12,
        100e9,
        256,
        12.5e9,
    ),
    "tpu7x": Chip(
        "TPU7x",
        ("TPU7x", "TPU v7x"),
        192 * GIB,
        int(94.75 * GIB),
        2307e12,
        7.38e12,
        100e9,
        9216,
        12.5e9,
        devices=2,
    ),
}

# NVIDIA's data sheets "H100 Tensor Core GPU" and "H200 Tensor Core GPU" (SXM): memory, its
# bandwidth, dense bfloat16 (half of the figure with sparsity), NVLink 900 GB/s in both directions
# together. Network: one 400 Gb/s adapter for each GPU ("DGX H100 / H200" data sheet). Usable: JAX
# takes three quarters of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
_GPUS = {
    "h100": Chip(
        "NVIDIA H100",
        ("NVIDIA H100 80GB HBM3",),
        80 * GIB,
        60 * GIB,
        989e12,
        3.35e12,
        450e9,
        8,
        50e9,
    ),
    "h200": Chip(
        "NVIDIA H200",
        ("NVIDIA H200",),
        141 * 10**9,
        int(0.75 * 141e9),
        989e12,
        4.8e12,
        450e9,
        8,
        50e9,
    ),
}

CHIPS: dict[str, Chip] = _TPUS | _GPUS
"""Chips by the first part of a topology, such as `v5e` in `v5e:4x4`."""


def chip_of(device_kind: str) -> Chip | None:
    """The chip with the JAX name `device_kind`; None if it is not in the table."""
    return next((chip for chip in CHIPS.values() if device_kind in chip.kinds), None)
