"""What the backends of exported graphs share."""
