"""One stream on several ranks: processes that share its work, each with a GPU of its own, or on a CPU."""
