"""Flow definitions on the client: checked, explained and drawn, without any service."""
