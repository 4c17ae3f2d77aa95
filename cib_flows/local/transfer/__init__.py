"""Globus Transfer on loopback, over folders declared as collections."""
