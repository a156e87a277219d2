"""One moving shape on a soft background."""
