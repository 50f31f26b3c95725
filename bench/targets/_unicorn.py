"""Runs one compiled program on an emulated core and counts: the far side of :mod:`grit.bench.targets.emu`.

A program of its own (``python -m grit.bench.targets._unicorn``), since the emulator's licence is the GPL: a job comes
as JSON on standard input and the counts leave as JSON on standard output. It knows no model: it loads an ELF file,
calls its three functions on each text, and reads their answers back.

Counting: every block of straight code announces itself before it runs, and holds one instruction every four bytes on
A64; on Thumb an instruction is as long as its first half-word says. Data reads and writes feed the simulated cache.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import unicorn
from elftools.elf.elffile import ELFFile
from unicorn import arm64_const, arm_const

RAM, RAM_BYTES = 0x2000_0000, 1 << 24
STOP = 0x1000_0000  # where functions return to; M cores may execute below RAM only
PAGE = 1 << 12
STACK_TOP = RAM + RAM_BYTES - 64
TEXT_BYTES = 1 << 20
SH_ALLOC, SH_WRITE = 2, 1
PATTERN = b"\xa5"


class Program:
    """An ELF file in the memory of a core."""

    def __init__(self, elf: Path, wide: bool, model: str, *, counted: bool = True) -> None:
        """``counted``: instructions are; without, it runs ten times as fast."""
        self.wide = wide
        if wide:
            self._core = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
            self._core.ctl_set_cpu_model(getattr(arm64_const, f"UC_CPU_ARM64_{model}"))
            self._arguments = [arm64_const.UC_ARM64_REG_X0 + k for k in range(4)]
            self._sp, self._link = arm64_const.UC_ARM64_REG_SP, arm64_const.UC_ARM64_REG_X30
        else:
            self._core = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
            self._core.ctl_set_cpu_model(getattr(arm_const, f"UC_CPU_ARM_CORTEX_{model}"))
            self._arguments = [arm_const.UC_ARM_REG_R0 + k for k in range(4)]
            self._sp, self._link = arm_const.UC_ARM_REG_SP, arm_const.UC_ARM_REG_LR
        self.symbols: dict[str, int] = {}
        self.bytes: dict[str, int] = {}
        self._load(elf)
        self._core.mem_map(RAM, RAM_BYTES)
        self._core.mem_map(STOP, PAGE)
        # vectors and floats are off after reset
        if wide:
            self._core.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)
        else:
            self._core.reg_write(arm_const.UC_ARM_REG_FPEXC, 1 << 30)
        self.instructions = 0
        self.trace: list[tuple[int, int]] | None = (
            None  # address and size of each block that runs, where it is asked for
        )
        self._lengths: dict[tuple[int, int], int] = {}
        if counted:
            self._core.hook_add(unicorn.UC_HOOK_BLOCK, self._block)

    def _load(self, elf: Path) -> None:
        with elf.open("rb") as stream:
            file = ELFFile(stream)
            segments = [s for s in file.iter_segments() if s["p_type"] == "PT_LOAD" and s["p_memsz"]]
            pages = {page for s in segments for page in _pages(s["p_vaddr"], s["p_memsz"])}
            for page in sorted(pages):
                self._core.mem_map(page, PAGE)
            for segment in segments:
                self._core.mem_write(segment["p_vaddr"], segment.data())
            table = file.get_section_by_name(".symtab")
            self.symbols = {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}
            kept = [
                s
                for s in file.iter_sections()
                if s["sh_flags"] & SH_ALLOC and s.name not in (".eh_frame", ".eh_frame_hdr")
            ]
            self.bytes = {
                "code": sum(s["sh_size"] for s in kept if s.name.startswith(".text")),
                "flash": sum(s["sh_size"] for s in kept if s["sh_type"] != "SHT_NOBITS"),
                "static_ram": sum(s["sh_size"] for s in kept if s["sh_flags"] & SH_WRITE),
            }

    def _block(self, core: unicorn.Uc, address: int, size: int, _data: object) -> None:
        length = self._lengths.get((address, size))
        if length is None:
            length = size // 4 if self.wide else thumb_instructions(bytes(core.mem_read(address, size)))
            self._lengths[address, size] = length
        self.instructions += length
        if self.trace is not None:
            self.trace.append((address, size))

    def simulate(self, cache: Cache) -> None:
        """Data accesses go through ``cache``; to be said before the first call, which translates what it runs."""

        def access(_core: unicorn.Uc, _kind: int, address: int, size: int, _value: int, _data: object) -> None:
            cache.access(address, size)

        self._core.hook_add(unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE, access)

    def call(self, name: str, *arguments: int) -> int:
        """A function of up to four integers; its instructions are counted from 0."""
        for register, value in zip(self._arguments, arguments, strict=False):
            self._core.reg_write(register, value)
        self._core.reg_write(self._sp, STACK_TOP)
        self._core.reg_write(self._link, STOP | (not self.wide))
        self.instructions = 0
        self._core.emu_start(self.symbols[name] | (not self.wide), STOP)
        returned: int = self._core.reg_read(self._arguments[0])
        return returned & 0xFFFFFFFF

    def write(self, address: int, data: bytes) -> None:
        self._core.mem_write(address, data)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self._core.mem_read(address, size))

    def word(self, name: str) -> int:
        """A ``const uint32_t``."""
        return int.from_bytes(self.read(self.symbols[name], 4), "little")


class Cache:
    """Counts lines that were not there; a line that straddles counts once a line."""

    def __init__(self, size_bytes: int, ways: int, line_bytes: int) -> None:
        self._ways, self._line = ways, line_bytes
        self._sets: list[list[int]] = [[] for _ in range(size_bytes // (ways * line_bytes))]
        self.misses = 0
        self.accesses = 0

    def access(self, address: int, size: int) -> None:
        for line in range(address // self._line, (address + size - 1) // self._line + 1):
            self.accesses += 1
            here = self._sets[line % len(self._sets)]
            if line in here:
                here.remove(line)
            else:
                self.misses += 1
                if len(here) == self._ways:
                    here.pop(0)
            here.append(line)


def thumb_instructions(code: bytes) -> int:
    """How many instructions Thumb code holds: 0b11101, 0b11110 and 0b11111 begin one of four bytes."""
    count = at = 0
    while at < len(code):
        at += 4 if code[at + 1] >> 3 >= 0b11101 else 2
        count += 1
    return count


def _pages(start: int, size: int) -> Iterator[int]:
    yield from range(start // PAGE * PAGE, start + size, PAGE)


# --- the job ----------------------------------------------------------------------------------------


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """job: elf, wide, model, texts (hexadecimal), counted, traced, cache (size, ways, line) or None, cached_texts.

    For each text its raw logits (hexadecimal); for the first ``counted`` ones instructions of the whole and of the
    network alone; then memory; and for each number in ``traced`` the blocks that the network runs on so many tokens of
    the last counted text.
    """
    program = Program(Path(job["elf"]), job["wide"], job["model"])
    scratch_bytes, token_bytes, logit_bytes = (
        program.word(f"grit_{name}_bytes") for name in ("scratch", "token", "logits")
    )
    texts = [bytes.fromhex(text) for text in job["texts"]]
    # in RAM: text, tokens, logits, scratch; the stack comes down from the top
    text, tokens = RAM, RAM + TEXT_BYTES
    logits = tokens + _rounded(program.word("grit_tokens") * token_bytes)
    scratch = logits + _rounded(logit_bytes)
    bottom = scratch + _rounded(scratch_bytes)
    program.write(bottom, PATTERN * (STACK_TOP - bottom))
    answers, whole, neural, counts = [], [], [], []
    for raw in texts[: job["counted"]]:
        program.write(text, raw)
        program.call("model_text", text, len(raw), logits, scratch)
        whole.append(program.instructions)
        answers.append(program.read(logits, logit_bytes).hex())
        counts.append(program.call("model_read", text, len(raw), tokens))
        program.call("model_run", tokens, counts[-1], logits, scratch)
        neural.append(program.instructions)
        if program.read(logits, logit_bytes).hex() != answers[-1]:
            raise SystemExit("the network alone gave other logits than the whole program")
    used = program.read(bottom, STACK_TOP - bottom)
    found: dict[str, Any] = {
        "logits": answers,
        "instructions": whole,
        "neural_instructions": neural,
        "tokens": counts,
        "stack_bytes": len(used) - (len(used) - len(used.lstrip(PATTERN))),
        "scratch_bytes": scratch_bytes,
        **{f"{name}_bytes": size for name, size in program.bytes.items()},
        "emulator": f"unicorn {unicorn.__version__}",
    }
    if job["traced"]:
        found["traces"] = []
        for n in job["traced"]:
            program.trace = []
            program.call("model_run", tokens, min(n, counts[-1]), logits, scratch)
            found["traces"].append(program.trace)
    rest = texts[job["counted"] :]
    plain = Program(Path(job["elf"]), job["wide"], job["model"], counted=False) if rest else program
    for raw in rest:
        plain.write(text, raw)
        plain.call("model_text", text, len(raw), logits, scratch)
        answers.append(plain.read(logits, logit_bytes).hex())
    if job["cache"]:
        cache = Cache(*job["cache"])
        program = Program(Path(job["elf"]), job["wide"], job["model"])
        program.simulate(cache)
        misses = []
        for raw, n in list(zip(texts, counts, strict=False))[: job["cached_texts"]]:
            program.write(text, raw)
            program.call("model_read", text, len(raw), tokens)
            before = cache.misses
            program.call("model_run", tokens, n, logits, scratch)
            misses.append(cache.misses - before)
        found["neural_misses"] = misses
    return found


def _rounded(size: int) -> int:
    return -(-size // 64) * 64


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
