"""pyrf in the forms of other programs."""
