"""ARM cores: what their code is compiled for, what emulates them, and the geometry of their first data cache."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cache:
    """A set-associative cache that forgets the line least recently used."""

    size_bytes: int
    ways: int
    line_bytes: int


@dataclass(frozen=True)
class Core:
    """One core; ``model`` is unicorn's, and where that is not the core itself a record says so."""

    name: str
    triple: str  # of the cross compiler
    cpu: str  # likewise
    model: str  # without its prefix UC_CPU_ARM64_ or UC_CPU_ARM_CORTEX_
    features: tuple[str, ...]
    cache: Cache | None = None  # None: it has none
    exact: bool = True  # unicorn has this very core

    @property
    def wide(self) -> bool:
        """Whether it runs A64; the others run Thumb."""
        return self.triple.startswith("aarch64")

    @property
    def label(self) -> str:
        """What ran on what."""
        return self.name if self.exact else f"{self.name} code, generic core"


_A64 = "aarch64-freestanding-none"
CORES = {
    core.name: core
    for core in (
        # Cortex-A53 TRM: 8 to 64 KB, 4 ways, 64-byte lines; 32 KB is what boards have
        Core("cortex-a53", _A64, "cortex_a53", "A53", ("neon",), Cache(32 << 10, 4, 64)),
        # Cortex-A72 TRM: 32 KB, 2 ways
        Core("cortex-a72", _A64, "cortex_a72", "A72", ("neon",), Cache(32 << 10, 2, 64)),
        # Cortex-A76 TRM: 64 KB, 4 ways
        Core("cortex-a76", _A64, "cortex_a76", "MAX", ("neon", "sdot"), Cache(64 << 10, 4, 64), exact=False),
        Core("cortex-m0", "thumb-freestanding-eabi", "cortex_m0", "M0", ()),
        Core("cortex-m4", "thumb-freestanding-eabihf", "cortex_m4+vfp4d16sp", "M4", ("dsp", "fpv4-sp")),
        # Cortex-M7 TRM: 4 ways, 32-byte lines; the size is the maker's choice, 16 KB the usual one
        Core(
            "cortex-m7",
            "thumb-freestanding-eabihf",
            "cortex_m7+fp_armv8d16sp",
            "M7",
            ("dsp", "fpv5-sp"),
            Cache(16 << 10, 4, 32),
        ),
    )
}
