"""Batch jobs of a real scheduler: Slurm."""
