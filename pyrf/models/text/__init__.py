"""Prompts to text rows."""
