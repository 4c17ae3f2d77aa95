"""The registered Globus Compute functions: one file each, named after its entry function."""
