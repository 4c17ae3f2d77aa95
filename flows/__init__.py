"""Flow definitions, input schemas and their metadata: data only."""
