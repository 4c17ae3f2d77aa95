"""Build a container and run a function in it, with the Python API."""

from cib_flows import ContainerBuilder


def mean(values):
    import numpy

    return float(numpy.mean(values))


builder = ContainerBuilder()  # the local Globus; ContainerBuilder("globus") is globus.org
run = builder.build({"name": "numbers", "base": {"image": "python:3.11-slim"}, "pip": ["numpy"]})
print("started", run.run_id)
for event in run.watch():
    print(f"{event.elapsed_s:6.1f} s  {event.step_title}")
container = run.result()  # raises RunFailedError with one sentence if there is none
print("registered", container.container_id, "at", container.path)
with container.executor() as executor:
    print("mean:", executor.submit(mean, [1, 2, 3, 6]).result())
