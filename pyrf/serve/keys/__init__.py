"""API keys: named, revocable, with quotas. The server's token is one of them."""
