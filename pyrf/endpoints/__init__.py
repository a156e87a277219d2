"""Language models and moderation that others serve over HTTP."""
