"""The beamline example with its build and its analysis as Slurm jobs."""

from __future__ import annotations

import pytest

from tests.apptainer.beamline import Beamline

from .conftest import Cluster


@pytest.fixture(scope="module")
def beamline(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Beamline:
    return Beamline(cluster.globus, tmp_path_factory.mktemp("beamline"))


def test_frames_in_container_built_analysis_as_a_job_results_out(beamline: Beamline) -> None:
    first = beamline.ran()
    assert first["container_was_there"] is False
    image = beamline.globus.cli("containers", "show", "powder-reduction:v1", "--json")
    assert image.code == 0, image.output + image.errors
    container = image.document["container"]
    assert first["analysis"]["image"] == container["path"]
    assert first["analysis"]["job"], "the analysis is a Slurm job"
    assert first["analysis"]["frames"] == 6
    assert "created the flow" in first["told"]

    beamline.frames("/scan2", 3)
    second = beamline.ran(scan="/scan2/")
    assert second["container_was_there"] is True
    assert second["container_id"] == first["container_id"]
    assert second["analysis"]["frames"] == 3
    assert "created the flow" not in second["told"]
    assert "registered the analysis" not in second["told"]
    assert "BuildBuildImage" not in second["told"]
    assert second["results"] != first["results"]
    assert beamline.globus.leftovers() == []
