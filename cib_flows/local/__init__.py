"""The embedded Globus: Flows, Compute, Transfer and Auth on loopback, spoken to over HTTP only."""
