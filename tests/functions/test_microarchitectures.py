"""Our table and rules against archspec itself, from which they were taken."""

from __future__ import annotations

import pytest

from cib_flows.functions._shared.machine_check import planned_machine, require_machine
from cib_flows.functions._shared.microarchitectures import (
    FAMILIES,
    Processor,
    microarchitectures,
    newest_of,
    processor_of,
    runs,
    why_not,
)
from cib_flows.functions._shared.results import StepFailed
from cib_flows.functions._shared.run_versions import machine

KNOWN = sorted(microarchitectures())
RYZEN = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 7763 64-Core Processor
flags\t\t: {flags}

processor\t: 1
vendor_id\t: GenuineIntel
flags\t\t: fpu
"""


def zen3() -> Processor:
    flags = " ".join(microarchitectures()["zen3"].features)
    return processor_of(RYZEN.format(flags=flags), "x86_64")


def test_the_table_is_archspecs() -> None:
    cpu = pytest.importorskip("archspec.cpu", reason="archspec is one of the development tools")
    theirs = {n: t for n, t in cpu.TARGETS.items() if str(t.family) in FAMILIES}
    assert set(KNOWN) == set(theirs)
    for name, target in theirs.items():
        ours = microarchitectures()[name]
        assert ours.features == target.features, name
        assert set(ours.older) == {str(parent) for parent in target.ancestors}, name
        assert (ours.vendor, ours.generation) == (target.vendor, target.generation), name
        assert ours.family == str(target.family), name
        try:
            flags = target.optimization_flags("gcc", "99.0")
        except cpu.UnsupportedMicroarchitecture:
            continue
        assert ours.gcc_flags == flags, name


def test_this_very_node_is_what_archspec_says_it_is() -> None:
    cpu = pytest.importorskip("archspec.cpu", reason="archspec is one of the development tools")
    with open("/proc/cpuinfo", encoding="utf-8") as stream:
        processor = processor_of(stream.read(), machine())
    assert newest_of(processor) == str(cpu.host())


def test_a_processor_runs_what_is_older_of_its_own_kind_and_nothing_newer() -> None:
    processor = zen3()
    assert newest_of(processor) == "zen3"
    for name in ("x86_64", "x86_64_v3", "zen", "zen2", "zen3"):
        assert runs(processor, name), name
        assert why_not(processor, name) == ""
    for name in ("zen4", "x86_64_v4", "skylake", "neoverse_v1", "power9le"):
        assert not runs(processor, name), name


@pytest.mark.parametrize(
    ("name", "clause"),
    [
        ("neoverse_v1", "it is for aarch64, and this node is x86_64"),
        ("skylake", "it is for processors of GenuineIntel, and this node's is of AuthenticAMD"),
        ("x86_64_v4", "this node (zen3) has no avx512bw, avx512cd, avx512dq, avx512f, avx512vl"),
        ("zen4", "this node (zen3) has no avx512_bf16, avx512_bitalg, avx512_vbmi2"),
    ],
)  # fmt: skip
def test_why_not_is_said_in_one_clause(name: str, clause: str) -> None:
    assert clause in why_not(zen3(), name)


def test_other_families_are_told_by_their_own_words() -> None:
    power = processor_of("processor : 0\ncpu : POWER9, altivec supported\n", "ppc64le")
    assert newest_of(power) == "power9le"
    assert not runs(power, "power10le")
    graviton = " ".join(microarchitectures()["neoverse_n1"].features)
    arm = processor_of(f"CPU implementer : 0x41\nFeatures : {graviton}\n", "aarch64")
    assert runs(arm, "neoverse_n1")
    assert not runs(arm, "neoverse_v1")
    assert runs(arm, "aarch64")
    assert not runs(arm, "armv8.2a")


def test_a_node_that_is_too_old_refuses_the_image_in_one_sentence() -> None:
    family = machine()
    newest = {"x86_64": "sapphirerapids", "aarch64": "a64fx"}.get(family)
    foreign = "aarch64" if family == "x86_64" else "x86_64"
    with pytest.raises(StepFailed) as refused:
        require_machine({"microarchitecture": foreign}, "apptainer version 1.4.5")
    assert refused.value.code == "machine_mismatch"
    assert f"The image is for {foreign}, and this node is {family}" in refused.value.message
    if newest:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            able = runs(processor_of(stream.read(), family), newest)
        if not able:
            with pytest.raises(StepFailed, match=f"Programs for {newest} do not run here"):
                require_machine({"microarchitecture": newest}, "apptainer version 1.4.5")
    assert require_machine({"microarchitecture": family}, "x") in KNOWN
    assert require_machine({}, "unknown") in KNOWN


def test_another_engine_than_the_specs_is_refused() -> None:
    require_machine({"container_engine": "apptainer"}, "apptainer version 1.4.5")
    with pytest.raises(StepFailed, match="asks for singularity"):
        require_machine({"container_engine": "singularity"}, "apptainer version 1.4.5")


def test_the_machine_is_part_of_what_makes_an_image_the_same() -> None:
    assert planned_machine({}, "x86_64") == "x86_64"
    asked = {"microarchitecture": "zen3", "gpu": {"kind": "cuda", "version": "12.4"}}
    assert planned_machine(asked, "x86_64") == "x86_64; microarchitecture zen3; gpu cuda 12.4"
