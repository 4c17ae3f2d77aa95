"""The program of custom-image-builder's README, with three changes: the import, the executor line, and
the base (today's Globus Compute needs Python 3.10 or newer).

With the local Globus: eval "$(cib-flows local env)", then python prior_system_readme.py. With globus.org:
put your endpoint's id below, and set CIB_FLOWS_PROFILE=globus.
"""

import os

from globus_compute_sdk import Client

from cib_flows import Container, build_and_register_container


def transform():
    import pandas as pd

    data = {"Column1": [1, 2, 3], "Column2": [4, 5, 6]}

    df = pd.DataFrame(data)  # noqa: F841 - as the README has it

    return "Successfully created df"


def main():
    image_builder_endpoint = os.environ.get(
        "CIB_FLOWS_BUILD_ENDPOINT", "bc106b18-c8b2-45a3-aaf0-75eebc2bef80"
    )
    gcc_client = Client()

    container_id = build_and_register_container(
        gcc_client=gcc_client,
        endpoint_id=image_builder_endpoint,
        image_file_name="my-pandas-image",
        base_image_type="docker",
        base_image="python:3.11-slim",
        pip_packages=["pandas"],
    )

    print("The container id is", container_id)

    with Container.get(container_id).executor() as ex:
        fut = ex.submit(transform)

    print(fut.result())


if __name__ == "__main__":
    main()
