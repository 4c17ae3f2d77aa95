"""Microarchitectures: their names, what each can do, and which of them a node can run.

The table is archspec's (version 0.2.7, the library that Spack and EESSI name machines with), brought into one
line each: name, parents, vendor, POWER generation, what GCC is told, and the features that it has beyond its
parents' (``-feature``: one of theirs that it has not). The rules of compatibility are archspec's too.
Archspec is, at the reader's choice, under the Apache License 2.0 or this one, which covers the table:

    MIT License. Copyright 2019-2020 Lawrence Livermore National Security, LLC and other Archspec Project
    Developers.

    Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
    documentation files (the "Software"), to deal in the Software without restriction, including without
    limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the
    Software, and to permit persons to whom the Software is furnished to do so, subject to the following
    conditions: The above copyright notice and this permission notice shall be included in all copies or
    substantial portions of the Software.

    THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED
    TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL
    THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
    CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
    DEALINGS IN THE SOFTWARE.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

FAMILIES = ("x86_64", "aarch64", "ppc64le", "riscv64")
CPUINFO = "/proc/cpuinfo"
ARM_VENDORS = {
    "0x41": "ARM",
    "0x43": "Cavium",
    "0x46": "Fujitsu",
    "0x4e": "Nvidia",
    "0x61": "Apple",
    "0xc0": "Ampere",
}
MICROARCHITECTURE_TABLE = """
x86_64||generic||-march=x86-64 -mtune=generic|
x86_64_v2|x86_64|generic||-march=x86-64-v2 -mtune=generic|cx16 lahf_lm mmx sse sse2 ssse3 sse4_1 sse4_2 popcnt
x86_64_v3|x86_64_v2|generic||-march=x86-64-v3 -mtune=generic|avx avx2 bmi1 bmi2 f16c fma abm movbe xsave
x86_64_v4|x86_64_v3|generic||-march=x86-64-v4 -mtune=generic|avx512f avx512bw avx512cd avx512dq avx512vl
nocona|x86_64|GenuineIntel||-march=nocona -mtune=nocona|mmx sse sse2 sse3
core2|nocona|GenuineIntel||-march=core2 -mtune=core2|ssse3 -sse3
nehalem|core2 x86_64_v2|GenuineIntel||-march=nehalem -mtune=nehalem|
westmere|nehalem|GenuineIntel||-march=westmere -mtune=westmere|aes pclmulqdq
sandybridge|westmere|GenuineIntel||-march=sandybridge -mtune=sandybridge|avx
ivybridge|sandybridge|GenuineIntel||-march=ivybridge -mtune=ivybridge|rdrand f16c
haswell|ivybridge x86_64_v3|GenuineIntel||-march=haswell -mtune=haswell|
broadwell|haswell|GenuineIntel||-march=broadwell -mtune=broadwell|rdseed adx
skylake|broadwell|GenuineIntel||-march=skylake -mtune=skylake|clflushopt xsavec xsaveopt
mic_knl|broadwell|GenuineIntel||-march=knl -mtune=knl|avx512f avx512pf avx512er avx512cd
skylake_avx512|skylake x86_64_v4|GenuineIntel||-march=skylake-avx512 -mtune=skylake-avx512|clwb
cannonlake|skylake x86_64_v4|GenuineIntel||-march=cannonlake -mtune=cannonlake|avx512vbmi avx512ifma sha_ni
cascadelake|skylake_avx512|GenuineIntel||-march=cascadelake -mtune=cascadelake|avx512_vnni
icelake|cascadelake cannonlake|GenuineIntel||-march=icelake-client -mtune=icelake-client|rdpid gfni avx512_vbmi2 avx512_vpopcntdq avx512_bitalg vpclmulqdq vaes
sapphirerapids|icelake|GenuineIntel||-march=sapphirerapids -mtune=sapphirerapids|avx512_bf16 cldemote movdir64b movdiri serialize waitpkg amx_bf16 amx_tile amx_int8
alderlake|skylake|GenuineIntel||-march=alderlake -mtune=alderlake|avx_vnni sha_ni clwb rdpid gfni vaes vpclmulqdq movdiri movdir64b serialize waitpkg
arrowlake|alderlake|GenuineIntel||-march=arrowlake -mtune=arrowlake|avx_ifma avx_ne_convert avx_vnni_int8 cmpccxadd
arrowlake_s|arrowlake|GenuineIntel||-march=arrowlake-s -mtune=arrowlake-s|avx_vnni_int16 sha512 sm3 sm4
k10|x86_64|AuthenticAMD||-march=amdfam10 -mtune=amdfam10|mmx sse sse2 sse4a abm cx16 3dnow 3dnowext
bulldozer|x86_64_v2|AuthenticAMD||-march=bdver1 -mtune=bdver1|sse4a xsave abm avx xop fma4 aes pclmulqdq
piledriver|bulldozer|AuthenticAMD||-march=bdver2 -mtune=bdver2|bmi1 f16c fma tbm
steamroller|piledriver|AuthenticAMD||-march=bdver3 -mtune=bdver3|fsgsbase
excavator|steamroller x86_64_v3|AuthenticAMD||-march=bdver4 -mtune=bdver4|
zen|x86_64_v3|AuthenticAMD||-march=znver1 -mtune=znver1|fsgsbase rdseed clzero aes pclmulqdq sse4a xsavec xsaveopt clflushopt
zen2|zen|AuthenticAMD||-march=znver2 -mtune=znver2|clwb
zen3|zen2|AuthenticAMD||-march=znver3 -mtune=znver3|vaes vpclmulqdq pku
zen4|zen3 x86_64_v4|AuthenticAMD||-march=znver4 -mtune=znver4|gfni flush_l1d avx512ifma avx512_bf16 avx512vbmi avx512_vbmi2 avx512_vnni avx512_bitalg avx512_vpopcntdq
zen5|zen4|AuthenticAMD||-march=znver5 -mtune=znver5|avx512_vp2intersect avx_vnni movdir64b movdiri tsc_adjust
zen6|zen5|AuthenticAMD||-march=znver6 -mtune=znver6|avx512_fp16
ppc64le||generic||-mcpu=powerpc64le -mtune=powerpc64le|
power8le|ppc64le|IBM|8|-mcpu=power8 -mtune=power8|
power9le|power8le|IBM|9|-mcpu=power9 -mtune=power9|
power10le|power9le|IBM|10|-mcpu=power10 -mtune=power10|
aarch64||generic||-march=armv8-a -mtune=generic|
armv8.1a|aarch64|generic||-march=armv8.1-a -mtune=generic|
armv8.2a|armv8.1a|generic||-march=armv8.2-a -mtune=generic|
armv8.3a|armv8.2a|generic||-march=armv8.3-a -mtune=generic|
armv8.4a|armv8.3a|generic||-march=armv8.4-a -mtune=generic|
armv8.5a|armv8.4a|generic||-march=armv8.5-a -mtune=generic|
armv8.6a|armv8.5a|generic||-march=armv8.6-a -mtune=generic|
armv9.0a|armv8.5a|generic||-march=armv9-a -mtune=generic|
armv9.2a|armv9.0a armv8.6a|generic||-march=armv9.2-a -mtune=generic|
thunderx2|armv8.1a|Cavium||-mcpu=thunderx2t99|fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics cpuid asimdrdm
a64fx|armv8.2a|Fujitsu||-mcpu=a64fx -msve-vector-bits=512|fp asimd evtstrm sha1 sha2 crc32 atomics cpuid asimdrdm fphp asimdhp fcma dcpop sve
cortex_a72|aarch64|ARM||-mcpu=cortex-a72|fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
neoverse_n1|cortex_a72 armv8.2a|ARM||-mcpu=neoverse-n1|atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp
neoverse_v1|neoverse_n1 armv8.4a|ARM||-mcpu=neoverse-v1|jscvt fcma sha3 sha512 sve asimdfhm dit uscat ilrcpc flagm dcpodp svei8mm svebf16 i8mm bf16 dgh rng
neoverse_v2|neoverse_n1 armv9.0a|ARM||-mcpu=neoverse-v2|jscvt fcma sha3 sha512 sve asimdfhm uscat ilrcpc flagm sb dcpodp sve2 flagm2 frint svei8mm svebf16 i8mm bf16
neoverse_n2|neoverse_n1 armv9.0a|ARM||-mcpu=neoverse-n2|jscvt fcma sha3 sha512 sve asimdfhm uscat ilrcpc flagm sb dcpodp sve2 flagm2 frint svei8mm svebf16 i8mm bf16
ampere1|neoverse_n1 armv8.6a|Ampere||-mcpu=ampere1|jscvt fcma sha3 sha512 asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg dcpodp flagm2 frint i8mm bf16 rng bti ecv
ampere1a|ampere1|Ampere||-mcpu=ampere1a|sm3 sm4
neoverse_v3ae|neoverse_v2 armv9.2a|ARM||-mcpu=neoverse-v3ae|afp bti dgh dit ecv paca pacg sm3 sm4 sveaes svebitperm svepmull svesha3 svesm4 wfxt
olympus|armv9.2a|Nvidia||-mcpu=olympus|fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svebf16 i8mm bf16 dgh rng bti ecv afp wfxt fpmr lut faminmax f8cvt f8fma f8dp4 f8dp2 f8e4m3 f8e5m2 ls64
m1|armv8.4a|Apple||-march=armv8.4-a -mtune=generic|fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 asimddp sha512 asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg dcpodp flagm2 frint
m2|m1 armv8.5a|Apple||-march=armv8.6-a -mtune=generic|ecv bf16 i8mm bti
m3|m2 armv8.6a|Apple||-march=armv8.6-a -mtune=generic|
m4|m3 armv8.6a|Apple||-march=armv9.2-a+sme2 -fno-tree-vectorize -fno-tree-slp-vectorize -mtune=generic|sme sme2
riscv64||generic||-march=rv64gc|
u74mc|riscv64|SiFive||-march=rv64gc -mtune=sifive-7-series|
x60|riscv64|SpacemiT||-march=rv64imafdcv_zicbom_zicboz_zicntr_zicond_zicsr_zifencei_zihintpause_zihpm_zfh_zfhmin_zca_zcd_zba_zbb_zbc_zbs_zkt_zve32f_zve32x_zve64d_zve64f_zve64x_zvfh_zvfhmin_zvkt_sscofpmf_sstc_svinval_svnapot_svpbmt|
"""


class Microarchitecture(NamedTuple):
    """One kind of processor; ``older`` are all that its programs go back to, nearest first."""

    name: str
    older: tuple[str, ...]
    vendor: str
    generation: int
    gcc_flags: str
    features: frozenset[str]

    @property
    def family(self) -> str:
        return next(name for name in (self.name, *self.older) if name in FAMILIES)


class Processor(NamedTuple):
    """What a node says of its own processor."""

    family: str
    vendor: str
    generation: int
    features: frozenset[str]


@lru_cache(maxsize=1)
def microarchitectures() -> dict[str, Microarchitecture]:
    """All that are known, by name."""
    known: dict[str, Microarchitecture] = {}
    for line in MICROARCHITECTURE_TABLE.strip().splitlines():
        name, parents, vendor, generation, flags, features = line.split("|")
        older: list[str] = []
        has: set[str] = set()
        for parent in parents.split():
            older += [n for n in (parent, *known[parent].older) if n not in older]
            has |= known[parent].features
        for feature in features.split():
            if feature.startswith("-"):
                has.discard(feature[1:])
            else:
                has.add(feature)
        known[name] = Microarchitecture(
            name, tuple(older), vendor, int(generation or 0), flags, _with_sse3(has)
        )
    return known


def is_microarchitecture(name: str) -> bool:
    return name in microarchitectures()


def processor_of(cpuinfo: str, family: str) -> Processor:
    """The processor that ``/proc/cpuinfo`` describes; ``family`` is what ``uname -m`` says."""
    lines: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if not colon and lines:
            break  # one processor is enough
        lines[key.strip()] = value.strip()
    if family == "aarch64":
        vendor = ARM_VENDORS.get(lines.get("CPU implementer", ""), "generic")
        return Processor(family, vendor, 0, frozenset(lines.get("Features", "").split()))
    power = re.search(r"POWER(\d+)", lines.get("cpu", ""))
    return Processor(
        family,
        lines.get("vendor_id", "generic"),
        int(power[1]) if power else 0,
        _with_sse3(set(lines.get("flags", "").split())),
    )


def _with_sse3(features: set[str]) -> frozenset[str]:
    """Linux does not name sse3, which ssse3 implies."""
    return frozenset(features | {"sse3"} if "ssse3" in features else features)


def runs(processor: Processor, name: str) -> bool:
    """Whether programs for ``name`` run on the processor."""
    target = microarchitectures()[name]
    if target.family != processor.family:
        return False
    if processor.family == "ppc64le":
        return target.generation <= processor.generation
    if processor.family == "riscv64":
        return target.vendor == "generic"
    if processor.family == "aarch64" and target.vendor == "generic" and target.older:
        return False  # nothing in /proc/cpuinfo says which version of the architecture it is
    return target.vendor in (processor.vendor, "generic") and target.features <= processor.features


def newest_of(processor: Processor) -> str:
    """The newest that the processor is known to run, as archspec would call it."""
    known = microarchitectures()
    fitting = [known[name] for name in known if runs(processor, name)]
    if not fitting:
        return processor.family

    def rank(found: Microarchitecture) -> tuple[int, int]:
        return len(found.older), len(found.features)

    generic = max((f for f in fitting if f.vendor == "generic"), key=rank, default=fitting[0])
    closer = [found for found in fitting if generic.name in found.older]
    return max(closer, key=rank, default=generic).name


def why_not(processor: Processor, name: str) -> str:
    """One clause that says why programs for ``name`` do not run on the processor; empty when they do."""
    if runs(processor, name):
        return ""
    target = microarchitectures()[name]
    if target.family != processor.family:
        return f"it is for {target.family}, and this node is {processor.family}"
    if target.vendor not in (processor.vendor, "generic"):
        return f"it is for processors of {target.vendor}, and this node's is of {processor.vendor}"
    missing = sorted(target.features - processor.features)
    if missing:
        named = ", ".join(missing[:6]) + (" and more" if len(missing) > 6 else "")
        return f"this node ({newest_of(processor)}) has no {named}"
    return f"this node is {newest_of(processor)}"
