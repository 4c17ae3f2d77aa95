"""A small AMQP 0-9-1 broker, for the result queues of the Compute SDK."""
