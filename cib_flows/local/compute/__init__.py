"""Globus Compute on loopback: its REST surface, its engines, its action provider."""
