"""What a viewer sees: endless streams whose prompts change."""
